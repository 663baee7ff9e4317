"""Writes report-v1.schema.json, the shape of report.json. Run in this folder: python3 make.py"""

import json


def of(kind, **rest):
    return {"type": kind, **rest}


NUMBER, TEXT = of("number"), of("string")
COUNT = of("integer", minimum=0)
SHARE = of("number", minimum=0, maximum=1)
VERDICTS = ["PASS", "FAIL", "INCONCLUSIVE"]


def ref(name):
    return {"$ref": "#/$defs/" + name}


def array(items):
    return of("array", items=items)


def fixed(*items):
    return {"type": "array", "prefixItems": list(items), "minItems": len(items), "maxItems": len(items)}


def optional(schema):
    return {"anyOf": [schema, {"type": "null"}]}


def record(description, required, maybe=None):
    """Keys that may be null may be missing too; keys that aren't named are allowed."""
    maybe = {key: optional(value) for key, value in (maybe or {}).items()}
    out = {"type": "object", "required": list(required), "properties": {**required, **maybe}}
    return {"description": description, **out} if description else out


def default(kind, required, added):
    """`added` came later within the version: older reports lack them."""
    out = record(kind, required[0], required[1])
    out["properties"].update(added)
    return out


kinds = "rows changed labelled both_right negative positive lateral same_wrong".split()
rates = "churn nfr pfr lateral accuracy_old accuracy_new".split()
ratios = "nfi pfi relative_nfr win_loss btc bec".split()
defs = {
    "interval": record("", {"low": NUMBER, "high": NUMBER, "confidence": SHARE}),
    "rate": record(
        "A share with its counts and its exact binomial (Clopper-Pearson) interval.",
        {"value": SHARE, "count": COUNT, "of": of("integer", minimum=1), "interval": ref("interval")},
    ),
    "estimate": record("A number with its interval.", {"value": NUMBER, "interval": ref("interval")}),
    "mean": record("Mean and standard error over seeds.", {"value": NUMBER}, {"standard_error": NUMBER}),
    "mcnemar": record("Two-sided p-values.", {"exact": SHARE, "mid": SHARE}),
    "flips": record(
        "Counts of rows: `changed` of all rows, the kinds after it of labelled ones.",
        {kind: COUNT for kind in kinds},
    ),
    "measured": record(
        "One set of rows, measured; null where a number isn't defined.",
        {"flips": ref("flips")},
        {
            **{name: ref("rate") for name in rates},
            "accuracy_gain": ref("estimate"),
            **{name: NUMBER for name in ratios},
            "mcnemar": ref("mcnemar"),
        },
    ),
    "crossing": record("", {"label": TEXT, "threshold": NUMBER, "up": COUNT, "down": COUNT}),
    "calibration": record(
        "Confidence in equal bins: rows, sum of confidence, rows that are right.",
        {"rows": COUNT, "ece": NUMBER, "brier": NUMBER, "bins": array(fixed(COUNT, NUMBER, COUNT))},
    ),
    "soft": default(
        "How scores moved; KL in nats; `shift` counts rows in equal bins from -1 to 1.",
        (
            {
                "rows": COUNT,
                "total_variation": NUMBER,
                "kl_old_new": NUMBER,
                "crossings": array(ref("crossing")),
                "shift": array(COUNT),
            },
            {"calibration_old": ref("calibration"), "calibration_new": ref("calibration")},
        ),
        {"kl_floored": COUNT},
    ),
    "class": record(
        "Rows of one true class.",
        {"label": TEXT, "flips": ref("flips")},
        {"recall_old": SHARE, "recall_new": SHARE, "nfr": ref("rate")},
    ),
    "worst_classes": record(
        "The highest NFR of a class, and the mean of the k lowest recalls of each model, where at least 2k classes have rows.",
        {},
        {"nfr": fixed(TEXT, SHARE), "k": of("integer", minimum=1), "mean_recall_old": SHARE, "mean_recall_new": SHARE},
    ),
    "slice": record("", {"name": TEXT, "kind": TEXT, "measured": ref("measured")}, {"p_corrected": SHARE}),
    "since": record(
        "What changed from one release to a later one; `old` and `new` are places in `releases`.",
        {"old": COUNT, "new": COUNT, "flips": ref("flips")},
        {"churn": ref("rate"), "nfr": ref("rate")},
    ),
    "flip_flop": record(
        "A row whose answer changed at two steps or more; `said` is each release's answer.",
        {"id": TEXT, "said": array(TEXT), "changes": COUNT},
        {"text": TEXT, "gold": TEXT},
    ),
    "history": record(
        "Releases on the same rows from the oldest to the newest, and rows that changed more than once: `n_back` of them have the "
        "oldest answer again.",
        {
            "releases": array(record("", {"name": TEXT}, {"accuracy": ref("rate")})),
            "since": array(ref("since")),
            "flip_flops": array(ref("flip_flop")),
            "n_flip_flops": COUNT,
            "n_back": COUNT,
            "rows": COUNT,
        },
    ),
    "from_to": record("", {"from": TEXT, "to": TEXT, "rows": COUNT, "negative": COUNT, "positive": COUNT}),
    "label": record(
        "One label of a multi-label task by itself, over all rows.",
        {"label": TEXT, "flips": ref("flips")},
        {"churn": ref("rate"), "nfr": ref("rate"), "f1_old": SHARE, "f1_new": SHARE},
    ),
    "answers": record(
        "Where an answer isn't one class a row: sets of labels, which are right as a whole, or numbers, which are right within the "
        "tolerance.",
        {"kind": {"enum": ["sets", "values"]}},
        {
            "labels": array(ref("label")),
            **{f"{kind}_f1_{side}": SHARE for kind in ("micro", "macro") for side in ("old", "new")},
            "tolerance": NUMBER,
            **{
                f"{kind}_{side}": NUMBER
                for kind in ("pearson", "spearman", "squared_error")
                for side in ("old", "new")
            },
        },
    ),
    "comparison": default(
        "",
        (
            {
                "all": ref("measured"),
                "classes": array(ref("class")),
                "slices": array(ref("slice")),
                "from_to": array(ref("from_to")),
                "n_only_old": COUNT,
                "n_only_new": COUNT,
            },
            {
                "old_rows": ref("measured"),
                "new_rows": ref("measured"),
                "soft": ref("soft"),
                "worst_class_old": fixed(TEXT, SHARE),
                "worst_class_new": fixed(TEXT, SHARE),
                "worst_classes": ref("worst_classes"),
                "slice_correction": TEXT,
                "churn_ratio": NUMBER,
                "seed_floor": ref("rate"),
            },
        ),
        {"n_small_slices": COUNT, "column_slices": array(fixed(TEXT, ref("flips"))), "answers": ref("answers")},
    ),
    "check": record(
        "One limit, judged by one-sided exact bounds.",
        {
            "name": TEXT,
            "sense": {"enum": ["at_most", "at_least"]},
            "limit": NUMBER,
            "observed": NUMBER,
            "count": COUNT,
            "of": COUNT,
            "low": NUMBER,
            "high": NUMBER,
            "confidence": SHARE,
            "fail_confidence": SHARE,
            "verdict": {"enum": VERDICTS},
            "said": TEXT,
        },
        {"rows_needed": COUNT},
    ),
    "step": record(
        "A candidate on the way from safest to boldest.",
        {"name": TEXT, "calibration_churn": SHARE, "is_chosen": of("boolean")},
        {"calibration_accuracy": SHARE, "certified": {"enum": VERDICTS}},
    ),
    "certificate": default(
        "",
        (
            {
                "verdict": {"enum": VERDICTS},
                "checks": array(ref("check")),
                "confidence": SHARE,
                "correction": TEXT,
                "walked": array(ref("step")),
            },
            {},
        ),
        {"notes": array(TEXT), "limits": ref("limits")},
    ),
    "limits": record(
        "What was asked for, without the ids of golden rows.",
        {"golden": array(TEXT), "confidence": SHARE},
        {
            "max_churn": SHARE,
            "max_nfr": SHARE,
            "max_slice_nfr": SHARE,
            "max_class_nfr": SHARE,
            "min_accuracy_gain": NUMBER,
        },
    ),
    "side": record("", {"name": TEXT, "labels": array(TEXT)}, {"sha256": TEXT}),
    "neighbour": record("", {"id": TEXT, "text": TEXT, "similarity": NUMBER}, {"label": TEXT}),
    "flip": record(
        "A row whose prediction changed.",
        {
            "id": TEXT,
            "old": TEXT,
            "new": TEXT,
            "kind": {"enum": ["negative", "lateral", "positive", "unlabelled"]},
            "nearest": array(ref("neighbour")),
        },
        {"text": TEXT, "gold": TEXT, "old_score": NUMBER, "new_score": NUMBER},
    ),
    "point": default(
        "One setting over its seeds.",
        (
            {
                "method": TEXT,
                "init": TEXT,
                "setting": TEXT,
                "seeds": array(COUNT),
                "accuracy": ref("mean"),
                "churn": ref("mean"),
                "nfr": ref("mean"),
                "is_on_frontier": of("boolean"),
            },
            {},
        ),
        {"missing_seeds": array(COUNT)},
    ),
}
line = {"slope": NUMBER, "intercept": NUMBER}
fit = {"rows": COUNT, "from": NUMBER, "to": NUMBER, "mean_deviation": NUMBER}
defs["line"] = record("A straight line by least squares, with an interval of its slope.", line, {"interval": ref("interval")})
defs["fit"] = record(
    "Rows of a range of the teacher's confidence: student on teacher, in log-odds of the teacher's prediction.",
    fit,
    {"line": ref("line"), "mean_interval": ref("interval")},
)
defs["class_gaps"] = record(
    "How right the teacher's scores of each class are: normalised calibration errors beside those by chance, and for each the "
    "probability that any class would be as far above by chance.",
    {"classes": array(ref("class_gap")), "worst": TEXT, "said": TEXT},
)
defs["class_gap"] = record(
    "", {"label": TEXT, "rows": COUNT, "mean_score": NUMBER}, {"gap": NUMBER, "by_chance": NUMBER, "p": NUMBER}
)
defs["part"] = record(
    "How a student deviates from its teacher on one set of rows; `points` are a sample of (teacher, student).",
    {
        "rows_of": {"enum": ["test", "train"]},
        "data": TEXT,
        "rows": COUNT,
        **{name: ref("fit") for name in ("all", "low", "high")},
        "quarters": array(ref("fit")),
        "finding": {"enum": ["exaggerates", "softens", "alike", "undecided", "no_slope"]},
        "said": TEXT,
        "points": array(fixed(NUMBER, NUMBER)),
    },
    {
        **{name: ref("rate") for name in ("teacher_accuracy", "student_accuracy", "agreement")},
        "accuracy_p": NUMBER,
        "crossing": NUMBER,
        "spearman": NUMBER,
        "class_gaps": ref("class_gaps"),
    },
)
defs["layer"] = record(
    "How far the weights that read a layer's inputs went along the inputs' eigenvectors, by checkpoint and direction.",
    {
        "name": TEXT,
        "eigenvalues": array(NUMBER),
        "teacher": array(array(NUMBER)),
        "student": array(array(NUMBER)),
        "ratios": array(optional(NUMBER)),
    },
    {"ratio": NUMBER},
)
defs["directions"] = record(
    "", {"teacher_steps": array(COUNT), "student_steps": array(COUNT), "layers": array(ref("layer")), "said": TEXT}
)
defs["part_noise"] = record(
    "Gradients of a part of the model: a of the labels' loss, b the teacher's part; lambda_hat makes E|a - lambda b|^2 least.",
    {"name": TEXT, "numbers": COUNT, "variance": NUMBER, "square": NUMBER},
    {name: NUMBER for name in ("lambda_hat", "lambda_hat_centred", "rho2_centred", "left", "left_at_best")},
)
defs["gradients"] = record(
    "How noisy the student's gradients are, batch by batch; `parts` begins with the whole.",
    {
        "rows_of": {"enum": ["test", "train"]},
        "data": TEXT,
        "batches": COUNT,
        "rows": COUNT,
        "lambda": SHARE,
        "parts": array(ref("part_noise")),
        "own_batches": COUNT,
        "cosines": array(NUMBER),
        "label_cosines": array(NUMBER),
        "said": array(TEXT),
    },
    {"own": ref("part_noise")},
)
defs["switch"] = record(
    "A loss that was switched in the middle of the run: the teacher's weight before and after, and all test rows by the last checkpoint "
    "of before.",
    {"at": TEXT, "before": SHARE, "after": SHARE, "said": TEXT},
    {"kept": fixed(COUNT, ref("fit"))},
)
defs["diagnosis"] = record(
    "Old is the teacher, new the student.",
    {"quantile": SHARE, "parts": array(ref("part")), "advice": TEXT},
    {"directions": ref("directions"), "gradients": ref("gradients"), "switch": ref("switch")},
)
root = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:lowchurn:report:v1",
    "title": "lowchurn report, version 1",
    **record(
        "What two models say about the same rows, and whether the new one keeps its budget. Shares lie between 0 and 1. "
        "Keys may be added within a version; none is renamed or removed.",
        {
            "schema": {"const": "lowchurn.report.v1"},
            "title": TEXT,
            "old": ref("side"),
            "new": ref("side"),
            "data": TEXT,
            "rows": COUNT,
            "labels": array(TEXT),
            "alignment": array(TEXT),
            "comparison": ref("comparison"),
            "flips": array(ref("flip")),
            "n_flips": COUNT,
            "frontier": array(ref("point")),
            "provenance": array(fixed(TEXT, TEXT)),
        },
        {
            "data_sha256": TEXT,
            "certificate": ref("certificate"),
            "rows_chose": TEXT,
            "diagnosis": ref("diagnosis"),
            "history": ref("history"),
        },
    ),
    "$defs": defs,
}
with open("report-v1.schema.json", "w", encoding="utf-8") as file:
    file.write(json.dumps(root, indent=1) + "\n")

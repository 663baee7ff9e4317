"""The page of the worst-class experiment, from its lines."""

from statistics import mean

from cells import commands, is_small, missing  # noqa: F401 (for tables.made_by)
from class_claims import RULE, SETS, Runs, accuracy, claims, encoder_of, fields, summary, worst
from evidence import numbered, told
from tables import Axis, Series, in_short, mean_sd, plot, table

ENCODERS = ["tiny", "minilm-l6"]
OBJECTIVES = ["standard", "balanced", "robust"]
CONTRASTS = ["group-dro", "teacher-steered", "ada-margin", "ada-alpha", "post-shift-balanced", "post-shift-robust", "ratio-10", "ratio-100", "as-shipped"]


def cell(found):
    lines = list(found.values())
    of_seeds = f" ({len(lines)})" if lines else ""
    return f"{mean_sd([worst(x) for x in lines], 100, 1)} / {mean_sd([accuracy(x) for x in lines], 100, 1)}{of_seeds}"


def grouped(lines):
    """Of groups by a column: set, encoder → teacher, objective → seed → shares of right rows by group."""
    found = {}
    for line in lines:
        f = fields(line)
        if "groups" in f:
            shares = {name: right / n for name, (right, n) in line["groups"].items()}
            found.setdefault((f["groups"], encoder_of(line)), {}).setdefault((f["teacher"], f["student"]), {})[f["seed"]] = shares
    return found


def groups(found):
    rows = []
    for (name, encoder), cells in sorted(found.items()):
        for (teacher, student), by_seed in cells.items():
            lowest, middle = (mean_sd([of(shares.values()) for shares in by_seed.values()], 100, 1) for of in (min, mean))
            rows.append([name, encoder, "labels" if teacher == "none" else f"{teacher} teacher", student, f"{lowest} / {middle}"])
    return [
        "\n## Groups by a column\n",
        "The accuracy of the worst group / of all groups' mean, in percent; airlines of tweets, and whom a sentence of HateCheck is about.\n",
        table(["groups", "model", "from", "objective", "worst / mean"], rows),
    ]


def updates(lines):
    """Under a budget of churn: what the deployed model's worst class was and is, and what was paid for it."""
    if not lines:
        return []
    found = {}
    for line in lines:
        f = fields(line)
        encoder = f", {encoder_of(line)}" * (encoder_of(line) != "tiny")
        found.setdefault((f"{SETS[f['set']]}, ratio {f['ratio']}{encoder}", f["objective"], f["budget"]), []).append(line)
    recall = lambda line, at: min(counts[at] / counts[0] for counts in line["classes"].values())
    of_all = lambda line, at: sum(counts[at] for counts in line["classes"].values()) / sum(counts[0] for counts in line["classes"].values())
    rows = []
    for (name, objective, budget), same in found.items():
        cells = [mean_sd([value(line) for line in same], 100, 1) for value in (
            lambda line: line["churn"],
            lambda line: of_all(line, 3),
            lambda line: max(counts[3] / counts[0] for counts in line["classes"].values()),
            lambda line: of_all(line, 1),
            lambda line: of_all(line, 2),
            lambda line: recall(line, 1),
            lambda line: recall(line, 2),
        )]
        rows.append([name, objective, budget, len(same), *cells])
    head = ["set", "objective", "budget", "seeds", "churn", "negative flips", "of the class with most"]
    head += ["accuracy before", "after", "worst recall before", "after"]
    return [
        "\n## An update under a churn budget\n",
        "The deployed model is of one half of the rows, the other half is new; `update --max-churn`, with the program's own settings of the robust\n"
        "objective. No paper joins the two. All in percent, on the rows to test on.\n",
        table(head, rows),
    ]


def encoders(lines):
    if not any(encoder_of(line) == "tiny" for line in lines):
        return ""
    return (
        ("All runs are of `tiny`, the encoder that ships" if all(encoder_of(line) == "tiny" for line in lines) else "`tiny` is the encoder that ships")
        + ". It was distilled on unlabelled texts (`models/tiny/README.md`), among them the\n"
        "training rows of Banking77 and CLINC and most tweets to airlines, also ones that are judged on here; both arms of every comparison share\n"
        "that.\n"
    )


def updates_of(lines):
    return [line for line in lines if "objective" in fields(line)]


def judgement(lines):
    """Claims are judged within an encoder: with lines of two a set would be two witnesses, or one of mixed seeds."""
    parts, encoders = [], [encoder for encoder in ENCODERS if any(encoder_of(line) == encoder for line in lines)]
    for encoder in encoders:
        own = [line for line in lines if encoder_of(line) == encoder]
        found = claims(Runs(own), grouped(own), updates_of(own))
        title = "The claims" if len(encoders) == 1 else f"The claims, {encoder}"
        parts += [f"## {title}\n", numbered(RULE, found), *told(found)]
    return parts


def page(lines, folder):
    runs, by_group = Runs(lines), grouped(lines)
    parts = [
        "# The worst class: robust distillation\n",
        "After Wang et al. 2022 (2206.06479), on text; sets, sizes and settings are ours. Objectives for the teacher (trained on labels) and\n"
        "for the student (trained on the teacher's scores alone, λ 1, of the same size and start). Half of the rows that nothing is trained\n"
        "on steer the robust objective and fit the post-shift; the other half is what is measured here, 250 rows of a class at most, so\n"
        "that accuracy is nearly the mean over classes. The worst class is judged by its recall, with ten classes and more by the mean recall of\n"
        "the five worst. The robust objective is the paper's, whose weights may differ by any factor (`ratio=inf`); arms `ratio-…` bound the\n"
        "factor, which is ours, and `as-shipped` are the program's own settings, with that bound and of smaller steps.\n",
        encoders(lines),
        in_short(*summary(lines)),
        *judgement(lines),
    ]
    if by_group:
        parts += groups(by_group)
    parts += updates(updates_of(lines))
    if runs.sets():
        parts += ["\n## All objectives\n", "Cells are *recall of the worst class / accuracy* in percent, mean ± standard deviation over seeds (so many)."]
    curves = []
    for which in runs.sets():
        head = ["teacher", *(f"{student} student" for student in OBJECTIVES)]
        rows = []
        for teacher in ["none", *OBJECTIVES]:
            rows.append([{"none": "none, labels"}.get(teacher, teacher), *(cell(runs.of(which, teacher, s)) for s in OBJECTIVES)])
        parts += [f"\n### {runs.title(which)}\n", table(head, rows)]
        named = [(name, runs.of(which, "standard", name)) for name in CONTRASTS]
        if any(found for _, found in named):
            parts.append(table(["of the standard teacher", "worst / accuracy"], [[name, cell(found)] for name, found in named if found]))
        points = []
        for weight in ["0", "0.25", "0.5", "0.75", "1"]:
            # Weight 0 is the balanced student.
            found = runs.of(which, "standard", "balanced") if weight == "0" else runs.of(which, "standard", "robust", weight)
            if found:
                points.append((100 * mean(map(accuracy, found.values())), 100 * mean(map(worst, found.values()))))
        curves.append(Series(runs.title(which), points))
    if any(len(curve.points) > 1 for curve in curves):
        plot(folder / "trade-off.svg", "From the mean over classes to the worst one", Axis("accuracy %"), Axis("worst recall %"), curves)
        parts += [
            "\n## The trade-off\n",
            "Students of the standard teacher, `--worst-class-weight` 0 (balanced), 0.25, 0.5, 0.75, 1.\n",
            "![worst recall against accuracy](trade-off.svg)",
        ]
    return "\n".join(parts)

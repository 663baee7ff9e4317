"""Kinds of tasks: a row a task, and go_emotions beside PyTorch."""

from statistics import mean

import tables

# Whose number it is, by the name of the metric in the line.
JUDGED_BY = {
    "mrpc": ("pairs", "f1", "F1"),
    "trec": ("6 classes", "accuracy", "accuracy"),
    "stsb": ("a number", "pearson", "Pearson"),
    "banking77": ("77 classes", "accuracy", "accuracy"),
    "clinc_oos": ("151 classes", "accuracy", "accuracy"),
    "go_emotions": ("sets of 28 labels", "f1", "micro F1"),
}

# What run.sh makes; the small size has one seed and no PyTorch.
SMALL = ["mrpc", "trec", "stsb", "banking77", "clinc_oos", "go_emotions, seed 42"]
FULL = SMALL[:-1] + [f"{what}, seed {seed}" for seed in (42, 43, 44) for what in ("go_emotions", "go_emotions in PyTorch")]


def commands(lines: list[dict]) -> list[str]:
    return tables.exactly("just experiment kinds", FULL, lines)


def missing(lines: list[dict]) -> list[str]:
    there = {line["key"] for line in lines}
    return [key for key in FULL if key not in there]


def is_small(line: dict) -> bool:
    return line["key"] in SMALL


def page(lines: list[dict], folder) -> str:
    by_key = {line["key"]: line for line in lines}
    rows = []
    for task, (what, metric, name) in JUDGED_BY.items():
        line = by_key.get(task) or by_key.get(f"{task}, seed 42")
        if line:
            found = line["metrics"]
            others = [f"{other} {value:.3f}" for other, value in found.items() if other not in (metric, "rows") and value is not None]
            rows.append([task, what, name, f"{found[metric]:.3f}", found["rows"], ", ".join(others)])
    text = "# Kinds of tasks\n\nMiniLM (all-MiniLM-L6-v2), seed 42, products in bf16.\n\n"
    text += tables.table(["task", "what it asks for", "judged by", "found", "rows", "besides"], rows)
    ours = [line for line in lines if line["key"].startswith("go_emotions, ")]
    theirs = [line for line in lines if line["key"].startswith("go_emotions in PyTorch")]
    both = {line["seed"] for line in ours} & {line["seed"] for line in theirs}
    ours, theirs = [[line for line in side if line["seed"] in both] for side in (ours, theirs)]
    if both:
        pairs = [("micro F1", "f1", "micro_f1", 3), ("macro F1", "macro_f1", "macro_f1", 3), ("loss", "loss", "loss", 4)]
        beside = [
            [name, tables.mean_sd([line["metrics"][own] for line in ours], 1, digits), tables.mean_sd([line[other] for line in theirs], 1, digits)]
            for name, own, other, digits in pairs
        ]
        apart = abs(mean(line["metrics"]["f1"] for line in ours) - mean(line["micro_f1"] for line in theirs))
        verdict = "within one point" if apart <= 0.01 else "more than one point apart"
        text += (
            f"\n## go_emotions beside PyTorch\n\nThe same rows, checkpoint and settings in {theirs[0]['by']}, there in f32; labels from"
            f" {theirs[0]['threshold']} on; the {len(both)} seeds that both have. Micro F1 in the mean: {verdict} ({100 * apart:.1f} points).\n\n"
        )
        text += tables.table(["", "lowchurn", "PyTorch"], beside)
    return text

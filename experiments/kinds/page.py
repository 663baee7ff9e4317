"""Kinds of tasks: a row a task, and go_emotions beside PyTorch."""

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


def page(lines: list[dict], folder) -> str:
    by_key = {line["key"]: line for line in lines}
    rows = []
    for task, (what, metric, name) in JUDGED_BY.items():
        line = by_key.get(task)
        if line:
            found = line["metrics"]
            others = [f"{other} {value:.3f}" for other, value in found.items() if other not in (metric, "rows") and value is not None]
            rows.append([task, what, name, f"{found[metric]:.3f}", found["rows"], ", ".join(others)])
    text = "# Kinds of tasks\n\nMiniLM (all-MiniLM-L6-v2), one seed, products in bf16.\n\n"
    text += tables.table(["task", "what it asks for", "judged by", "found", "rows", "besides"], rows)
    ours, theirs = by_key.get("go_emotions"), by_key.get("go_emotions in PyTorch")
    if ours and theirs:
        pairs = [("micro F1", "f1", "micro_f1"), ("macro F1", "macro_f1", "macro_f1"), ("loss", "loss", "loss")]
        beside = [[name, f"{ours['metrics'][own]:.3f}", f"{theirs[other]:.3f}"] for name, own, other in pairs]
        apart = abs(ours["metrics"]["f1"] - theirs["micro_f1"])
        verdict = "within one point" if apart <= 0.01 else "more than one point apart"
        text += (
            f"\n## go_emotions beside PyTorch\n\nThe same rows, checkpoint and settings in {theirs['by']}, in f32; labels from"
            f" {theirs['threshold']} on. Micro F1: {verdict} ({100 * apart:.1f} points).\n\n"
        )
        text += tables.table(["", "lowchurn", "PyTorch"], beside)
    return text

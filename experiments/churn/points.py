"""One part of a seed's points as one line of JSON: points.py SWEEP PART KEY=VALUE...

Accuracy, churn and negative flips are of the 2,000 rows to judge by; `validation` has accuracy and churn on the 100 others. Of parts
`ensembles` and `seven` only the ensembles count, their members being other seeds of the retrain.
"""

import json
import sys
from pathlib import Path

Said = dict[str, tuple[str, str]]


def said(path: Path) -> Said:
    """Label and true label by row."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["id"]: (row["label"], row["gold"]) for row in rows}


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


def measured(old: Said, new: Said, is_validation: bool) -> dict[str, float]:
    rows = [row for row in new if ("validation-" in row) == is_validation]
    triples = [(old[row][0], *new[row]) for row in rows]
    return {
        "accuracy": share([now == gold for _, now, gold in triples]),
        "churn": share([before != now for before, now, _ in triples]),
        "nfr": share([before == gold != now for before, now, gold in triples]),
    }


def main(folder: str, part: str, *pairs: str) -> None:
    about: dict[str, object] = dict(pair.split("=", 1) for pair in pairs)
    about["seed"] = int(about["seed"])
    paths = sorted(Path(folder).glob("points/*/*/point.json"))
    files = [(path.parent, json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    first = min(file["point"]["seed"] for _, file in files)
    old = said(Path(folder) / "old" / f"seed-{first}.jsonl")
    deployed = {key: measured(old, old, key == "validation")["accuracy"] for key in ("test", "validation")}
    points = []
    for place, file in files:
        point = file["point"]
        if point["seed"] != first or (point["method"] == "ensemble") != (part in ("ensembles", "seven")):
            continue
        new = said(place / "predictions.jsonl")
        validation = measured(old, new, True)
        points.append(
            {key: point[key] for key in ("method", "init", "setting")}
            | measured(old, new, False)
            | {"validation": [validation["accuracy"], validation["churn"]], "seconds": round(file["train_seconds"], 1)}
        )
    print(json.dumps(about | {"part": part, "old_accuracy": deployed["test"], "points": points}, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])

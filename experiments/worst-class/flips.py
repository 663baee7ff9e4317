"""Two models' predictions of the same rows with their labels: flips.py OLD.jsonl NEW.jsonl, as one line of JSON."""

import json
import sys
from pathlib import Path


def rows(path: str) -> dict[str, dict]:
    return {row["id"]: row for row in map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())}


def main(old: str, new: str) -> None:
    before, after = rows(old), rows(new)
    pairs = [(row["gold"], row["label"], after[key]["label"]) for key, row in before.items()]
    counts = {name: [0, 0, 0, 0] for name in sorted({gold for gold, _, _ in pairs})}  # rows, right before, right after, negative flips
    for gold, a, b in pairs:
        count = counts[gold]
        for at, is_so in enumerate((True, a == gold, b == gold, a == gold != b)):
            count[at] += is_so
    print(json.dumps({"churn": sum(a != b for _, a, b in pairs) / len(pairs), "classes": counts}, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Right rows of each group: group_scores.py PREDICTIONS.jsonl ROWS.jsonl, as one line of JSON."""

import json
import sys
from pathlib import Path


def lines(path: str) -> dict[str, dict]:
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row for row in rows}


def main(predictions: str, rows: str) -> None:
    said, groups = lines(predictions), {}
    for key, row in lines(rows).items():
        right, n = groups.get(row["group"], (0, 0))
        groups[row["group"]] = (right + (said[key]["label"] == row["label"]), n + 1)
    print(json.dumps({"groups": groups}, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])

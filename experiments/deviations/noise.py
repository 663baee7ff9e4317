"""Tickets with some labels drawn anew: python3 noise.py ROWS SHARE SEED. The same lines for the same arguments."""

import json
import random
import sys
from pathlib import Path

rows, share, seed = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
folder = Path(__file__).resolve().parents[2] / "datasets/tickets"
lines = [json.loads(line) for n in range(1, 4) for line in (folder / f"month-{n}.jsonl").read_text(encoding="utf-8").splitlines()]
labels = sorted({line["label"] for line in lines})
draw = random.Random(seed)
for line in lines[:rows]:
    if draw.random() < share:
        line["label"] = draw.choice([label for label in labels if label != line["label"]])
    print(json.dumps({"id": line["id"], "text": line["text"], "label": line["label"]}))

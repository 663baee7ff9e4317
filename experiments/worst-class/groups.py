"""Rows with a group: python3 groups.py SET FOLDER; needs pyarrow. HF_ENDPOINT names the hub.

Writes train, validation and test.jsonl (id, text, label, group). Which rows are where follows from the hash of their text alone, so every
seed and every machine has the same ones; a text is there once, rows without a group not at all.
"""

import hashlib
import io
import json
import os
import sys
import urllib.request
from pathlib import Path

import pyarrow.parquet as parquet

# Repository, file, text, label, group, rows to train on and to steer by.
SETS = {
    "airline": ("osanseviero/twitter-airline-sentiment", "data/train-00000-of-00001.parquet", "text", "airline_sentiment", "airline", 2000, 1200),
    "hatecheck": ("Paul/hatecheck", "data/test-00000-of-00001.parquet", "test_case", "label_gold", "target_ident", 1500, 800),
}


def main(name: str, folder: Path) -> None:
    repository, file, text, label, group, n_train, n_validation = SETS[name]
    end = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    with urllib.request.urlopen(f"{end}/datasets/{repository}/resolve/main/{file}") as answer:
        found = parquet.read_table(io.BytesIO(answer.read()), columns=[text, label, group])
    rows = {}
    for said, of_class, of_group in zip(*(found[column].to_pylist() for column in (text, label, group))):
        if of_group is not None:
            rows.setdefault(said.strip(), (of_class, of_group))
    texts = sorted(rows, key=lambda said: hashlib.sha256(said.encode()).hexdigest())
    parts = {"train": texts[:n_train], "validation": texts[n_train : n_train + n_validation], "test": texts[n_train + n_validation :][:3000]}
    folder.mkdir(parents=True, exist_ok=True)
    for part, kept in parts.items():
        lines = [
            json.dumps({"id": f"{part}-{at}", "text": said, "label": rows[said][0], "group": rows[said][1]}, ensure_ascii=False)
            for at, said in enumerate(kept)
        ]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""Random rows of a data set of the hub as files of JSON lines, {"id", "text", "label"}: each row in one of them at most.

    python3 experiments/draw.py stanfordnlp/sst2 data/train-00000-of-00001.parquet OUT --text sentence --names negative,positive old=1000 new=1000

The seed alone decides which rows. Files of another shard or split are drawn from by calling it again. HF_ENDPOINT names another hub.
"""

import argparse
import json
import os
import random
import shutil
import urllib.request
from pathlib import Path

import pyarrow.parquet as parquet


def fetched(repository: str, file: str, folder: Path) -> Path:
    path = folder / repository.replace("/", "--") / file
    if not path.exists():
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(f"{endpoint}/datasets/{repository}/resolve/main/{file}") as body:
            with path.with_suffix(".partial").open("wb") as out:
                shutil.copyfileobj(body, out)
        path.with_suffix(".partial").rename(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("repository", "file", "out"):
        parser.add_argument(name)
    parser.add_argument("parts", nargs="+", help="NAME=ROWS")
    parser.add_argument("--text", default="text")
    parser.add_argument("--label", default="label")
    parser.add_argument("--names", required=True, help="of the labels, with commas")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--kept", default="runs/experiments/parquet", help="folder of files that were fetched")
    args = parser.parse_args()
    rows = parquet.read_table(fetched(args.repository, args.file, Path(args.kept)), columns=[args.text, args.label])
    texts, labels = rows[args.text].to_pylist(), rows[args.label].to_pylist()
    names = args.names.split(",")
    order = random.Random(args.seed).sample(range(len(texts)), len(texts))
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    start = 0
    for part in args.parts:
        name, _, n = part.partition("=")
        which = order[start : start + int(n)]
        if len(which) < int(n):
            raise SystemExit(f"{part}: {args.file} has {len(texts)} rows, and {start} of them are given away")
        start += int(n)
        lines = [json.dumps({"id": f"{name}-{row}", "text": texts[row], "label": names[labels[row]]}) for row in which]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

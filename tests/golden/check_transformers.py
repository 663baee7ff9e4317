"""Hold a finished run against transformers: it must load without a warning and give the same logits.

Needs torch, transformers; pyarrow for parquet input (made with torch 2.15.0, transformers 5.23.0, pyarrow 26.0.1). Run:

    lowchurn predict --model runs/sst2 --data rows.jsonl --logits --output predictions.jsonl
    python tests/golden/check_transformers.py runs/sst2 predictions.jsonl rows.jsonl --text sentence --max-length 128

The input's rows are in the order of the predictions. Exit code 1: a warning, a key that doesn't fit, other labels, or a logit
that differs by more than the tolerance.
"""

import argparse
import csv
import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging


class Collect(logging.Handler):
    """Keeps what transformers says at level warning or above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.name}: {record.getMessage()}")


def main() -> int:
    args = arguments()
    problems = Collect()
    transformers_logging.set_verbosity_warning()
    transformers_logging.get_logger("transformers").addHandler(problems)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tokenizer = AutoTokenizer.from_pretrained(args.model)
        model, loading = AutoModelForSequenceClassification.from_pretrained(args.model, output_loading_info=True)
        rows = read_rows(args.input)
        predictions = read_rows(args.predictions)
        failures = compare(args, tokenizer, model.eval(), rows, predictions)
    failures += [f"{what}: {sorted(map(str, keys))}" for what, keys in loading.items() if keys]
    failures += [f"logged: {message}" for message in problems.messages]
    failures += [f"warned: {warning.message}" for warning in caught]
    for failure in failures:
        print(failure)
    print("failed" if failures else "ok")
    return int(bool(failures))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="a run's directory in the hub's layout")
    parser.add_argument("predictions", type=Path, help="JSON lines of lowchurn predict --logits")
    parser.add_argument("input", type=Path, help="the rows predicted: .jsonl, .csv, .tsv or .parquet")
    parser.add_argument("--text", default="text", help="column of the text")
    parser.add_argument("--pair", help="column of the second text")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    return parser.parse_args()


def compare(args: argparse.Namespace, tokenizer, model, rows: list[dict], predictions: list[dict]) -> list[str]:
    if len(rows) != len(predictions):
        return [f"{args.predictions} has {len(predictions)} rows, {args.input} has {len(rows)}"]
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    differences: list[torch.Tensor] = []
    wrong_labels = 0
    for start in range(0, len(rows), args.batch_size):
        batch = rows[start : start + args.batch_size]
        ours = predictions[start : start + args.batch_size]
        pairs = [row[args.pair] for row in batch] if args.pair else None
        texts = [row[args.text] for row in batch]
        inputs = tokenizer(texts, pairs, padding=True, truncation=True, max_length=args.max_length, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits
        if any(list(row["scores"]) != names for row in ours):
            return [f"the labels in {args.predictions} are not those of the model: {names}"]
        difference = (logits - torch.tensor([row["logits"] for row in ours])).abs()
        differences.append(difference.amax(dim=-1))
        wrong_labels += sum(row["label"] != names[index] for row, index in zip(ours, logits.argmax(dim=-1).tolist()))
    if not differences:
        return [f"{args.input} has no rows"]
    # For torch, what is not a number is the largest: it can't slip through.
    largest, where = (value.item() for value in torch.cat(differences).max(dim=0))
    print(f"rows {len(rows)}, largest difference of a logit {largest:.3g} (row {where}), other labels {wrong_labels}")
    failures = []
    if not largest <= args.tolerance:
        failures.append(f"largest difference {largest:.3g} is above {args.tolerance:g}")
    if wrong_labels:
        failures.append(f"{wrong_labels} labels differ")
    return failures


def read_rows(path: Path) -> list[dict]:
    match path.suffix:
        case ".jsonl" | ".json":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        case ".csv" | ".tsv":
            with path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
        case ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path).to_pylist()
        case other:
            raise SystemExit(f"{path}: {other!r} is not one of .jsonl, .csv, .tsv, .parquet")


if __name__ == "__main__":
    sys.exit(main())

"""Hold a published model against transformers: by its id, from a clean cache, through AutoModelForSequenceClassification and
pipeline("text-classification"), with the labels and scores that lowchurn predict gives.

Needs torch, transformers; pyarrow for parquet input (made with torch 2.15.0, transformers 5.23.0, pyarrow 26.0.1). Run:

    lowchurn publish runs/sst2 --to me/sst2
    lowchurn predict --model me/sst2 --data sst2:validation --logits --output predictions.jsonl
    python tests/golden/check_published.py me/sst2 predictions.jsonl validation.parquet --text sentence

HF_ENDPOINT and HF_TOKEN are as for the program. The cache is a folder that is made for this run. Exit code 1: a warning of
transformers, another label, or a logit or score that differs by more than the tolerance. One line of JSON is printed.
"""

import argparse
import json
import logging
import os
import sys
import tempfile

CACHE = tempfile.TemporaryDirectory(prefix="clean-cache-")
os.environ["HF_HOME"] = CACHE.name  # before transformers is imported

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from transformers.utils import logging as transformers_logging


class Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("id", help="owner/name")
    parser.add_argument("predictions", help="JSON lines of lowchurn predict --logits")
    parser.add_argument("rows", help="the same rows: parquet or JSON lines")
    parser.add_argument("--text", default="text")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    said = Collect()
    transformers_logging.get_logger("transformers").addHandler(said)
    transformers_logging.set_verbosity_warning()
    with open(args.predictions, encoding="utf-8") as file:
        ours = [json.loads(line) for line in file]
    texts = read_texts(args.rows, args.text)
    assert len(ours) == len(texts), (len(ours), len(texts))
    tokenizer = AutoTokenizer.from_pretrained(args.id)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        args.id, output_loading_info=True, dtype=torch.float32
    )
    model.eval()
    names = [model.config.id2label[n] for n in range(len(model.config.id2label))]
    worst_logit, other_labels = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(texts), 32):
            batch = tokenizer(
                texts[start : start + 32],
                truncation=True,
                max_length=args.max_length,
                padding=True,
                return_tensors="pt",
            )
            for row, logits in zip(ours[start : start + 32], model(**batch).logits):
                gaps = [abs(a - b) for a, b in zip(logits.tolist(), row["logits"], strict=True)]
                worst_logit = max(worst_logit, *gaps)
                other_labels += names[int(logits.argmax())] != row["label"]
    classify = pipeline("text-classification", model=args.id, dtype=torch.float32, top_k=None)
    worst_score, other_of_pipeline = 0.0, 0
    # Rows of one length apart would be quicker; one at a time leaves no padding to differ by.
    found = classify(texts, truncation=True, max_length=args.max_length, batch_size=1)
    for row, scores in zip(ours, found, strict=True):
        scores = {entry["label"]: entry["score"] for entry in scores}
        worst_score = max(worst_score, *(abs(scores[name] - row["scores"][name]) for name in names))
        other_of_pipeline += max(scores, key=scores.get) != row["label"]
    odd = {what: sorted(map(str, keys)) for what, keys in loading.items() if keys}
    is_ok = (
        not (said.messages or odd or other_labels or other_of_pipeline)
        and max(worst_logit, worst_score) <= args.tolerance
    )
    print(
        json.dumps(
            {
                "id": args.id,
                "rows": len(texts),
                "largest_logit_difference": float(f"{worst_logit:.2e}"),
                "largest_score_difference": float(f"{worst_score:.2e}"),
                "other_labels": other_labels,
                "other_labels_of_pipeline": other_of_pipeline,
                "warnings": said.messages,
                "odd_keys": odd,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "verdict": "ok" if is_ok else "failed",
            }
        )
    )
    return int(not is_ok)


def read_texts(path: str, column: str) -> list[str]:
    if path.endswith(".parquet"):
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path, columns=[column])[column].to_pylist()
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)[column] for line in file]


if __name__ == "__main__":
    sys.exit(main())

"""Scoring in PyTorch: a fine-tuned classifier in eval mode over one split, the other side of `lowchurn eval`.

Prints one line of JSON: accuracy, seconds of the forward passes with their padding (as `lowchurn eval` counts them), of
tokenisation, peak resident memory.

    python benches/peer/score.py --model DIR --data DIR --split validation --order length --bf16
"""

import argparse
import contextlib
import json
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import datasets
import torch
import transformers


def main() -> None:
    args = arguments()
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        rows = datasets.load_dataset(str(args.data), args.config, split=args.split, cache_dir=scratch)
        texts, gold = list(rows[args.text]), list(rows[args.label])
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(args.model).eval()
    begun = time.perf_counter()
    tokens = tokenizer(texts, truncation=True, max_length=args.max_length)["input_ids"]
    tokenised = time.perf_counter()
    said = classes(model, tokenizer, tokens, args)
    scored = time.perf_counter()
    # Labels are numbers where the data names its classes, else the names themselves.
    names = [said_one if isinstance(gold[0], int) else model.config.id2label[said_one] for said_one in said]
    result = {
        "event": "finished",
        "rows": len(gold),
        "accuracy": sum(a == b for a, b in zip(names, gold)) / len(gold),
        "tokenise_seconds": round(tokenised - begun, 3),
        "eval_seconds": round(scored - tokenised, 3),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,  # KiB on Linux
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the classifier")
    parser.add_argument("--data", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--config", help="the dataset's configuration")
    parser.add_argument("--split", default="validation", help="such as train[:4096]")
    parser.add_argument("--text", default="sentence", help="column of the text")
    parser.add_argument("--label", default="label", help="column of the class")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--order", choices=["file", "length"], default="file", help="as they come, or longest first")
    parser.add_argument("--threads", type=int, help="of torch, else its own choice")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    return parser.parse_args()


def classes(model, tokenizer, tokens: list[list[int]], args: argparse.Namespace) -> list[int]:
    """The likeliest class of each row, in the rows' own order."""
    order = list(range(len(tokens)))
    if args.order == "length":
        order.sort(key=lambda row: -len(tokens[row]))
    said = [0] * len(tokens)
    autocast = torch.autocast("cpu", torch.bfloat16) if args.bf16 else contextlib.nullcontext()
    with torch.inference_mode(), autocast:
        for start in range(0, len(order), args.batch_size):
            rows = order[start : start + args.batch_size]
            batch = tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt")
            for row, best in zip(rows, model(**batch).logits.argmax(dim=-1).tolist()):
                said[row] = best
    return said


if __name__ == "__main__":
    main()

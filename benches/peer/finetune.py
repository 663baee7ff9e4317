"""The main job in PyTorch with transformers' Trainer, to measure both programs on one machine in one run.

Prints one line of JSON: accuracy on the validation split, seconds of set-up, training and evaluation, peak resident memory.
Needs torch, transformers, accelerate, datasets (made with torch 2.15.0, transformers 5.23.0, accelerate 1.15.0, datasets 5.2.0).

    python benches/peer/finetune.py --model DIR --data DIR --rows 5000 --epochs 1 --group-by-length

`--data` is a dataset's folder in the hub's layout. AdamW, linear decay, no warm-up, weight decay 0, clipping at 1.0: the
Trainer's own defaults.
"""

import argparse
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
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
        parts = datasets.load_dataset(str(args.data), args.config, cache_dir=f"{scratch}/cache")
        train = encoded(parts["train"].select(range(args.rows)) if args.rows else parts["train"], tokenizer, args)
        held_out = encoded(parts["validation"], tokenizer, args)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            args.model, num_labels=train.features["labels"].num_classes
        )
        trainer = transformers.Trainer(
            model=model,
            args=training_arguments(args, scratch),
            train_dataset=train,
            eval_dataset=held_out,
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            compute_metrics=accuracy,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        ready = time.perf_counter()
        steps = trainer.train().global_step
        trained = time.perf_counter()
        metrics = trainer.evaluate()
        evaluated = time.perf_counter()
    result = {
        "rows": len(train),
        "steps": steps,
        "accuracy": metrics["eval_accuracy"],
        "setup_seconds": round(ready - started, 3),
        "train_seconds": round(trained - ready, 3),
        "eval_seconds": round(evaluated - trained, 3),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,  # KiB on Linux
        "threads": torch.get_num_threads(),
        "device": str(trainer.args.device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the base checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--config", help="the dataset's configuration")
    parser.add_argument("--text", default="sentence", help="column of the text")
    parser.add_argument("--label", default="label", help="column of the class")
    parser.add_argument("--rows", type=int, help="the first so many training rows, else all")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, help="of torch, else its own choice")
    parser.add_argument("--group-by-length", action="store_true", help="batches of rows of like length, so that padding is small")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--cpu", action="store_true", help="not on the accelerator, even where there is one")
    return parser.parse_args()


def encoded(rows: datasets.Dataset, tokenizer, args: argparse.Namespace) -> datasets.Dataset:
    def tokenize(batch: dict) -> dict:
        return tokenizer(batch[args.text], truncation=True, max_length=args.max_length)

    surplus = [column for column in rows.column_names if column != args.label]
    return rows.map(tokenize, batched=True, remove_columns=surplus).rename_column(args.label, "labels")


def training_arguments(args: argparse.Namespace, scratch: str) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=scratch,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=64,
        learning_rate=args.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        seed=args.seed,
        train_sampling_strategy="group_by_length" if args.group_by_length else "random",
        bf16=args.bf16,
        use_cpu=args.cpu,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


def accuracy(predicted: transformers.EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(axis=-1) == predicted.label_ids).mean())}


if __name__ == "__main__":
    main()

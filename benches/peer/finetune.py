"""The main job in PyTorch with transformers' Trainer: the other side of pair.py, and of use alone.

Prints JSON lines, named as `lowchurn finetune --json` names them: "ready" before the first step, "step" after each, and
last "finished" with accuracy, seconds of set-up (imports included), tokenisation, training and evaluation, peak memory.
Needs torch, transformers, accelerate and datasets, in the versions that pair.py pins.

    python benches/peer/finetune.py --model DIR --data DIR --train-split 'train[:5000]' --group-by-length

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

started = time.perf_counter()  # Before the imports, which are part of what its user waits for

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
        tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
        train, held_out = read(args, scratch)
        read_at = time.perf_counter()
        train = encoded(train, tokenizer, args)
        tokenised = time.perf_counter()
        held_out = encoded(held_out, tokenizer, args) if held_out else None
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
            callbacks=[Steps()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        ready = time.perf_counter()
        say("ready")
        steps = trainer.train().global_step
        trained = time.perf_counter()
        metrics = trainer.evaluate() if held_out else {}
        evaluated = time.perf_counter()
    say(
        "finished",
        rows=len(train),
        steps=steps,
        accuracy=metrics.get("eval_accuracy"),
        setup_seconds=round(ready - started, 3),
        tokenise_seconds=round(tokenised - read_at, 3),
        train_seconds=round(trained - ready, 3),
        eval_seconds=round(evaluated - trained, 3),
        peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,  # KiB on Linux
        threads=torch.get_num_threads(),
        device=str(trainer.args.device),
        torch=torch.__version__,
        transformers=transformers.__version__,
    )


class Steps(transformers.TrainerCallback):
    """Says each step as it ends, so that whoever reads can take the time."""

    def on_step_end(self, args, state, control, **rest) -> None:
        say("step", step=state.global_step, total=state.max_steps)


def say(event: str, **what) -> None:
    print(json.dumps({"event": event, **what}), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the base checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--config", help="the dataset's configuration")
    parser.add_argument("--text", default="sentence", help="column of the text")
    parser.add_argument("--label", default="label", help="column of the class")
    parser.add_argument("--train-split", default="train", help="such as train[:5000]")
    parser.add_argument("--eval-split", default="validation", help="none for no evaluation")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-steps", type=int, default=-1, help="stop after so many updates")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, help="of torch, else its own choice")
    parser.add_argument("--group-by-length", action="store_true", help="rows of like length together, for little padding")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--cpu", action="store_true", help="not on the accelerator, even where there is one")
    return parser.parse_args()


def read(args: argparse.Namespace, scratch: str) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Both splits, from a cache of their own: each run reads and tokenises anew."""

    def split(name: str) -> datasets.Dataset:
        rows = datasets.load_dataset(str(args.data), args.config, split=name, cache_dir=f"{scratch}/cache")
        has_names = isinstance(rows.features[args.label], datasets.ClassLabel)
        return rows if has_names else rows.class_encode_column(args.label)

    return split(args.train_split), None if args.eval_split == "none" else split(args.eval_split)


def encoded(rows: datasets.Dataset, tokenizer, args: argparse.Namespace) -> datasets.Dataset:
    def tokenize(batch: dict) -> dict:
        return tokenizer(batch[args.text], truncation=True, max_length=args.max_length)

    surplus = [column for column in rows.column_names if column != args.label]
    return rows.map(tokenize, batched=True, remove_columns=surplus).rename_column(args.label, "labels")


def training_arguments(args: argparse.Namespace, scratch: str) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=scratch,
        num_train_epochs=args.epochs,
        max_steps=args.max_steps,
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

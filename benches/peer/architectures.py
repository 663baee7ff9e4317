"""A training step of each architecture, ours and transformers' eager form in turn: one JSON line a run.

    python benches/peer/architectures.py                                            # all, three repeats
    python benches/peer/architectures.py --architectures deberta-v2,bert --shapes 16x64,4x512

All models have six layers, 384 wide, six heads, random weights and dropout where the original has it; the batches have rows
of one length, so that neither side pads. A step is forward, backward, clipping and AdamW; the median of the gaps between the
lines that say a step's end is its time, without the first two. Peak memory is that of the whole process.
Needs torch, transformers and safetensors in the Python that runs this, and target/release/lowchurn.
"""

import argparse
import json
import os
import random
import sys
from pathlib import Path
from statistics import median

from measure import processor, run, versions

ROOT = Path(__file__).resolve().parents[2]
OURS = Path("target/release/lowchurn")
WORK = Path("target/peer/architectures")
VOCABULARY = 30522
MARKS = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZE = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
# What differs from the usual names and sizes.
ARCHITECTURES = {
    "bert": SIZE,
    "distilbert": {"n_layers": 6, "dim": 384, "n_heads": 6, "hidden_dim": 1536},
    "roberta": SIZE | {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1},
    "electra": SIZE | {"embedding_size": 128},
    "mpnet": SIZE | {"max_position_embeddings": 514, "pad_token_id": 1},
    "albert": SIZE | {"embedding_size": 128},
    "deberta-v2": SIZE
    | {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "max_relative_positions": -1,
        "type_vocab_size": 0,
    },
    "modernbert": SIZE | {"intermediate_size": 576, "pad_token_id": 0},
}


def main() -> int:
    args = arguments()
    if args.peer:
        peer(args)
        return 0
    os.chdir(ROOT)
    WORK.mkdir(parents=True, exist_ok=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    n_failed = 0
    with open(args.output, "a", encoding="utf-8") as lines:
        write(lines, {"kind": "machine", "processor": processor(), "threads": args.threads, "peer": peer_versions()})
        for repeat in range(args.repeats):
            for name in args.architectures:
                model = checkpoint(name)
                for shape in args.shapes:
                    sides = args.sides if repeat % 2 == 0 else args.sides[::-1]
                    for side in sides:
                        line = {"architecture": name, "shape": shape, "side": side, "repeat": repeat}
                        line |= measured(command(side, model, shape, args), args.threads)
                        n_failed += line["kind"] == "failed"
                        write(lines, line)
                        print(told(line), flush=True)
    return 1 if n_failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    split = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--architectures", type=split, default=list(ARCHITECTURES), help="with commas between [all]")
    parser.add_argument("--shapes", type=split, default=["16x64", "16x128"], help="rows x tokens [16x64,16x128]")
    parser.add_argument("--sides", type=split, default=["ours", "peer"], help="[ours,peer]")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="the first two aren't counted [12]")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of both programs [all]")
    parser.add_argument("--bf16", action="store_true", help="ours with --bf16, the other side under autocast")
    parser.add_argument("--output", type=Path, default=ROOT / WORK / "results.jsonl", help="lines are added to it")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)  # the other side's own process
    args = parser.parse_args()
    unknown = set(args.architectures) - set(ARCHITECTURES)
    if unknown:
        parser.error(f"no such architecture: {', '.join(sorted(unknown))}")
    return args


# What is made beforehand


def checkpoint(name: str) -> Path:
    """A folder in the hub's layout: random weights, and a tokenizer that has a word for each id."""
    folder = WORK / name
    if (folder / "tokenizer.json").exists():
        return folder
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, vocab_size=VOCABULARY, **ARCHITECTURES[name])
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    pad = config.pad_token_id
    marks = MARKS[:pad] + ["[PAD]"] + MARKS[pad:]
    vocabulary = {word: id for id, word in enumerate(marks + [f"w{id}" for id in range(len(marks), VOCABULARY)])}
    template = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template.append({"SpecialToken": {"id": "[SEP]", "type_id": 0}})
    special = {mark: {"id": mark, "ids": [vocabulary[mark]], "tokens": [mark]} for mark in ["[CLS]", "[SEP]"]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": mark} | flags for id, mark in enumerate(marks)],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {"type": "TemplateProcessing", "single": template, "pair": template, "special_tokens": special},
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | names))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def rows_of(length: int, n_rows: int) -> Path:
    """Rows of `length` tokens each, the two marks around them counted."""
    chance = random.Random(length)
    folder = WORK / f"rows-{length}-{n_rows}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "train.jsonl", "w", encoding="utf-8") as rows:
        for row in range(n_rows):
            text = " ".join(f"w{chance.randrange(10, VOCABULARY)}" for _ in range(length - 2))
            rows.write(json.dumps({"text": text, "label": "even" if row % 2 == 0 else "odd"}) + "\n")
    return folder


# The measurement


def command(side: str, model: Path, shape: str, args: argparse.Namespace) -> list[str]:
    n_rows, length = (int(number) for number in shape.split("x"))
    bf16 = ["--bf16"] if args.bf16 else []
    if side == "peer":
        settings = ["--shapes", shape, "--steps", str(args.steps), "--threads", str(args.threads)]
        return [sys.executable, __file__, "--peer", str(model), *settings, *bf16]
    data = rows_of(length, n_rows * args.steps)
    return [
        *[str(OURS), "finetune", str(data), "--model", str(model), "--json", "--device", "cpu", "--fresh", "--fresh-head"],
        *["--train-split", "train", "--eval-split", "none", "--epochs", "1", "--batch-size", str(n_rows)],
        *["--max-length", str(length), "--text-column", "text", "--label-column", "label"],
        *["--output", str(WORK / "run"), *bf16],
    ]


def measured(command: list[str], threads: int) -> dict:
    ran = run(command, threads)
    said = {key: ran[key] for key in ["wall_seconds", "cpu_seconds", "others_cores", "peak_rss_mib"]}
    if ran["exit_code"] != 0:
        return {"kind": "failed", "exit_code": ran["exit_code"], "stderr": ran["stderr"][-2000:]} | said
    steps = [at for at, event in ran["events"] if event["event"] == "step"]
    gaps = [later - earlier for earlier, later in zip(steps[1:], steps[2:])]
    return {"kind": "run", "step_seconds": round(median(gaps), 5), "steps": len(steps)} | said


def peer(args: argparse.Namespace) -> None:
    """Steps in PyTorch, as the Trainer makes them."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(args.peer, attn_implementation="eager")
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
    n_rows, length = (int(number) for number in args.shapes[0].split("x"))
    labels = torch.arange(n_rows) % 2
    mask = torch.ones(n_rows, length, dtype=torch.int64)
    for step in range(args.steps):
        ids = torch.randint(10, VOCABULARY, (n_rows, length))
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"event": "step", "step": step + 1, "loss": loss.item()}), flush=True)


# What is told of it


def peer_versions() -> dict[str, str]:
    return versions(Path(sys.executable), ["torch", "transformers"])


def told(line: dict) -> str:
    name = f"{line['architecture']:11} {line['shape']:7} {line['side']:4}"
    if line["kind"] == "failed":
        return f"{name} FAILED ({line['exit_code']}): {line['stderr'][-300:]}"
    others = f"  others used {line['others_cores']} cores" if (line["others_cores"] or 0.0) > 0.3 else ""
    return f"{name} step {1e3 * line['step_seconds']:7.1f} ms  peak {line['peak_rss_mib']:6.0f} MiB{others}"


def write(lines, line: dict) -> None:
    lines.write(json.dumps(line) + "\n")
    lines.flush()


if __name__ == "__main__":
    sys.exit(main())

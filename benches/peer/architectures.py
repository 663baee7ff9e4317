"""A training step of each architecture, ours in f32 and bf16 and transformers' eager form in f32, in turn: one JSON line a run.

    python benches/peer/architectures.py                                       # at usual small sizes, one repeat: 12 minutes
    python benches/peer/architectures.py --sizes same --architectures deberta-v2,bert --shapes 16x64,4x512 --repeats 3

Usual: the smallest size that is published and much used, the vocabulary aside, which is 30,522 words for all. Same: six layers, 384
wide, six heads. Random weights, and dropout where the original has it; the batches have rows of one length, so that neither side
pads. A step is forward, backward, clipping and AdamW; the median of the gaps between the lines that say a step's end is its
time, without the first two. Peak memory is that of the whole process. A run during which others used more than 0.3 cores is made
again, once. The page is page.py's.
Needs torch, transformers and safetensors in the Python that runs this, and target/release/lowchurn.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
from pathlib import Path
from statistics import median

from measure import ROOT, is_disturbed, least_disturbed, machine, run, shown, versions

OURS = Path("target/release/lowchurn")
WORK = Path("target/peer/architectures")
VOCABULARY = 30522
MARKS = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SAME = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
BASE = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
HALF = BASE | {"num_hidden_layers": 6}
# What each is known by at its usual small size, that size, and what differs from the usual settings at any size.
ARCHITECTURES = {
    "bert": ("bert-small", BASE | {"num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}, {}),
    "distilbert": ("distilbert-base", HALF, {}),
    "roberta": ("distilroberta-base", HALF, {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}),
    "electra": (
        "electra-small",
        {"num_hidden_layers": 12, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
        {"embedding_size": 128},
    ),
    "mpnet": ("mpnet-base", BASE, {"max_position_embeddings": 514, "pad_token_id": 1}),
    "albert": ("albert-base", BASE, {"embedding_size": 128}),
    "deberta-v2": (
        "deberta-v3-small",
        HALF,
        {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
            "max_relative_positions": -1,
            "type_vocab_size": 0,
        },
    ),
    "modernbert": (
        "modernbert-base",
        BASE | {"num_hidden_layers": 22, "intermediate_size": 1152},
        {"pad_token_id": 0},
    ),
}
# Their gated feed-forward layers have three matrices, so this is as many parameters as the others'.
SAME_MODERN = SAME | {"intermediate_size": 576}
# Whose, and in which precision.
SIDES = ["ours-f32", "ours-bf16", "peer-f32", "peer-bf16"]


def main() -> int:
    args = arguments()
    os.chdir(ROOT)
    if args.peer:
        peer(args)
        return 0
    if args.make:
        make(args.make, args.sizes)
        return 0
    WORK.mkdir(parents=True, exist_ok=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    n_failed = 0
    with open(args.output, "a", encoding="utf-8") as lines:
        first = machine(OURS, args.threads, shown(["just", "bench-architectures", *sys.argv[1:]]), peer_versions())
        write(lines, first | {"has_bf16": True, "sizes": args.sizes, "steps": args.steps})
        for repeat in range(args.repeats):
            for name in args.architectures:
                model = checkpoint(name, args.sizes)
                for shape in args.shapes:
                    sides = args.sides[repeat % len(args.sides) :] + args.sides[: repeat % len(args.sides)]
                    for side in sides:
                        said = described(name, args.sizes, shape, side) | {"repeat": repeat}
                        line = command(side, model, shape, args)
                        for found in least_disturbed(lambda line=line: measured(line, args.threads), args.again):
                            n_failed += found["kind"] == "failed"
                            write(lines, said | found)
                            print(told(said | found), flush=True)
    return 1 if n_failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    split = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--architectures", type=split, default=list(ARCHITECTURES), help="with commas between [all]")
    parser.add_argument("--sizes", choices=["usual", "same"], default="usual", help="[usual]")
    parser.add_argument("--shapes", type=split, default=["8x128"], help="rows x tokens [8x128]")
    parser.add_argument("--sides", type=split, default=SIDES[:3], help=f"[{','.join(SIDES[:3])}]; also {SIDES[3]}")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8, help="the first two aren't counted [8]")
    parser.add_argument("--again", type=int, default=1, help="how often a disturbed run is made again [1]")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of both programs [all]")
    parser.add_argument("--output", type=Path, default=ROOT / WORK / "results.jsonl", help="lines are added to it")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)  # the other side's own process
    parser.add_argument("--make", help=argparse.SUPPRESS)  # a checkpoint, likewise
    args = parser.parse_args()
    for what, asked, known in [("architecture", args.architectures, ARCHITECTURES), ("side", args.sides, SIDES)]:
        unknown = set(asked) - set(known)
        if unknown:
            parser.error(f"no such {what}: {', '.join(sorted(unknown))}")
    if args.steps < 4:
        parser.error(f"--steps {args.steps}: at least 4, of which the first two aren't counted")
    return args


# What is made beforehand


def size_of(name: str, sizes: str) -> dict:
    if sizes == "usual":
        return ARCHITECTURES[name][1]
    return SAME_MODERN if name == "modernbert" else SAME


def described(name: str, sizes: str, shape: str, side: str) -> dict:
    size = size_of(name, sizes)
    whose, precision = side.split("-")
    return {
        "case": "architectures",
        "architecture": name,
        "known_by": ARCHITECTURES[name][0] if sizes == "usual" else name,
        "layers": size["num_hidden_layers"],
        "width": size["hidden_size"],
        "shape": shape,
        "side": whose,
        "setting": precision,
    }


def checkpoint(name: str, sizes: str) -> Path:
    """Made by a process of its own: Linux counts what this one has held as the peak of every process that it starts."""
    folder = WORK / f"{name}-{sizes}"
    if not (folder / "tokenizer.json").exists():
        subprocess.run([sys.executable, __file__, "--make", name, "--sizes", sizes], check=True, capture_output=True)
    return folder


def make(name: str, sizes: str) -> None:
    """A folder in the hub's layout: random weights, and a tokenizer that has a word for each id."""
    folder = WORK / f"{name}-{sizes}"
    import torch
    import transformers

    torch.manual_seed(0)
    settings = size_of(name, sizes) | ARCHITECTURES[name][2]
    config = transformers.AutoConfig.for_model(name, vocab_size=VOCABULARY, **settings)
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
    whose, precision = side.split("-")
    if whose == "peer":
        settings = ["--sides", side, "--shapes", shape, "--steps", str(args.steps), "--threads", str(args.threads)]
        return [sys.executable, __file__, "--peer", str(model), *settings]
    bf16 = ["--bf16"] if precision == "bf16" else []
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
    said["command"] = shown(command)
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
        with torch.autocast("cpu", torch.bfloat16, enabled=args.sides == ["peer-bf16"]):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"event": "step", "step": step + 1, "loss": loss.item()}), flush=True)


# What is told of it


def peer_versions() -> dict[str, str]:
    return versions(Path(sys.executable), ["torch", "transformers"]) | {"python": platform.python_version()}


def told(line: dict) -> str:
    name = f"{line['known_by']:18} {line['shape']:7} {line['side']:4} {line['setting']:4}"
    if line["kind"] == "failed":
        return f"{name} FAILED ({line['exit_code']}): {line['stderr'][-300:]}"
    others = f"  others used {line['others_cores']} cores" if is_disturbed(line) else ""
    others += ", so it is made again or was" if line["kind"] == "disturbed" else ""
    return f"{name} step {1e3 * line['step_seconds']:7.1f} ms  peak {line['peak_rss_mib']:6.0f} MiB{others}"


def write(lines, line: dict) -> None:
    lines.write(json.dumps(line) + "\n")
    lines.flush()


if __name__ == "__main__":
    sys.exit(main())

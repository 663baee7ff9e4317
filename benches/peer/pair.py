"""Lowchurn and PyTorch do the same jobs on one machine, in turn: times, memory and accuracy, one JSON line a run.

    just bench-peer                              # every case, five repeats
    just bench-peer --cases sst2 --rows 3200     # the short form of the main case
    just bench-peer --smoke                      # what ships, in seconds; without PyTorch only ours
    just bench-page FILE...                      # BENCHMARKS.md from the lines

Each program starts cold for each run, with the same rows, batch size, epochs, learning rate, maximal length, seed and
threads; the one that goes first changes from repeat to repeat. Repeat r has the seed 42 + r. A run during which others used
more than 0.3 cores is made again, twice at most, whichever side it is; the least disturbed one counts, and the others' lines
stay in the file. The cases:

    products    matrix products by themselves, beside what the processor can do at most
    sst2        training on the first rows of SST-2, one epoch; accuracy on its validation rows; peak memory
    setup       from the start of the process to the first step on all rows; tokenisation of them
    scoring     a fine-tuned model in eval mode over the validation rows, and over 4,096 training rows
    scaling     ours alone: step time by number of tokens, on one thread and on all
    bert-base   training in BERT-base's size, random weights
    imdb        training on rows of 512 tokens
    epoch       ours alone, not among the defaults: one epoch of all rows

With five repeats on two cores where the Trainer's f32 step takes half a second, that is about 105 minutes: products 5, sst2 41
(17 with --rows 3200, the short form), setup 2, scoring 8, scaling 10, bert-base 15, imdb 25.
PyTorch and transformers are taken from the Python that runs this, if it has the versions below, else installed into
target/peer/venv. Needs nothing but the standard library itself.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from measure import is_disturbed, least_disturbed, machine, run, scored, shown, trained, versions

ROOT = Path(__file__).resolve().parents[2]
OURS = Path("target/release/lowchurn")
HERE = Path("benches/peer")
WORK = Path("target/peer")
PINS = {"torch": "2.15.0", "transformers": "5.23.0", "accelerate": "1.15.0", "datasets": "5.2.0"}
CASES = ["products", "sst2", "setup", "scoring", "scaling", "bert-base", "imdb"]
# What is measured if no flag says otherwise, and in a smoke test.
SIZES = {
    "cases": (",".join(CASES), "products,sst2,setup,scoring,scaling"),
    "repeats": (5, 1),
    "rows": (9600, 64),
    "long_rows": (256, 32),
    "score_rows": (4096, 64),
    "scaling_steps": (7, 3),
}
BENCH = ["cargo", "bench", "-p", "lowchurn-kernels", "--bench", "products", "--"]
# A disturbed run is made again at most this often.
AGAIN = 2


@dataclass(frozen=True)
class Data:
    """Rows that both programs can read."""

    folder: Path
    text: str
    train: str
    held_out: str = "none"
    max_length: int = 128


@dataclass(frozen=True)
class Job:
    """One process to measure."""

    case: str
    side: str  # ours or peer
    setting: str  # f32, bf16, with the order of the rows where there are several
    kind: str  # train, score, multiply or sum
    command: list[str]
    threads: int
    seed: int = 0
    tokens: int | None = None  # of a step, where every step has as many
    length: int | None = None
    # A second process that scores what the first has trained.
    then: list[str] | None = None


@dataclass(frozen=True)
class Sides:
    """Who takes part: the Python with PyTorch, or none; whether ours can use bf16."""

    python: Path | None
    has_bf16: bool
    threads: int


def main() -> int:
    args = arguments()
    args.output = args.output.absolute()
    os.chdir(ROOT)
    WORK.mkdir(parents=True, exist_ok=True)
    sides = Sides(peer_python(may_install=not args.smoke), can_bf16(), args.threads)
    if sides.python is None:
        print("note: no PyTorch with transformers here, so only ours is measured")
    if not sides.has_bf16:
        print("note: lowchurn has no --bf16 here, so only its f32 is measured")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    n_failed = 0
    with open(args.output, "w", encoding="utf-8") as lines:
        write(lines, machine_of(args, sides))
        for repeat in range(args.repeats):
            for case in args.cases:
                jobs = jobs_of(case, args, sides, 42 + repeat)
                for turn, job in enumerate(jobs if repeat % 2 == 0 else reversed(jobs)):
                    for line in least_disturbed(lambda job=job: measured(job), 0 if args.smoke else AGAIN):
                        line |= {"repeat": repeat, "turn": turn}
                        n_failed += line["kind"] == "failed"
                        write(lines, line)
                        print(told(line), flush=True)
    print(f"{args.output}: the page is made by {HERE}/page.py")
    return 1 if n_failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("LOCAL_HUB_CACHE", Path.home() / ".cache/local-hub"))
    hub = Path(os.environ.get("LOWCHURN_HUB_DIR", ROOT / "../shared/hub")) / "datasets/stanfordnlp"
    parser.add_argument("--cases", help=f"with commas between, of {','.join([*CASES, 'epoch'])} [all but epoch]")
    parser.add_argument("--repeats", type=int, help="how often each pair is run; medians are reported [5]")
    parser.add_argument("--rows", type=int, help="training rows of sst2 [9600]; 3200 is the short form")
    parser.add_argument("--long-rows", type=int, help="training rows of bert-base and imdb [256]")
    parser.add_argument("--score-rows", type=int, help="training rows that are scored besides the validation rows [4096]")
    parser.add_argument("--scaling-steps", type=int, help="steps of each length [7, the first two not counted]")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of both programs [all]")
    minilm = cache / "models/sentence-transformers/all-MiniLM-L6-v2"
    parser.add_argument("--model", type=Path, default=minilm, help="folder of MiniLM")
    parser.add_argument("--sst2", type=Path, default=hub / "sst2", help="folder of SST-2")
    parser.add_argument("--imdb", type=Path, default=hub / "imdb", help="folder of IMDb")
    parser.add_argument("--output", type=Path, help="where the lines go [target/peer/results.jsonl]")
    parser.add_argument("--smoke", action="store_true", help="models/tiny on datasets/tickets, seconds long")
    args = parser.parse_args()
    for name, (usual, small) in SIZES.items():
        if getattr(args, name) is None:
            setattr(args, name, small if args.smoke else usual)
    args.cases = args.cases.split(",")
    unknown = set(args.cases) - {*CASES, "epoch"}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if args.output is None:
        args.output = ROOT / WORK / ("smoke.jsonl" if args.smoke else "results.jsonl")
    if args.smoke:
        args.model, args.sst2 = ROOT / "models/tiny", tickets()
    for folder in [args.model, args.sst2, *([args.imdb] if "imdb" in args.cases else [])]:
        if not folder.is_dir():
            parser.error(f"{folder} is not there; --model, --sst2 and --imdb choose others, --smoke takes what ships")
    return args


# Who takes part


def peer_python(may_install: bool) -> Path | None:
    """This Python if it has the pinned versions, else that of target/peer/venv, which is made if it may be."""
    ours = WORK / "venv/bin/python"
    for python in [Path(sys.executable), ours.absolute()]:
        if python.exists() and has_the_pins(python):
            return python
    if not may_install:
        return None
    subprocess.run([sys.executable, "-m", "venv", str(WORK / "venv")], check=True)
    pins = [f"{name}=={version}" for name, version in PINS.items()]
    subprocess.run([str(ours), "-m", "pip", "install", *pins], check=True)
    return ours.absolute()


def has_the_pins(python: Path) -> bool:
    # A wheel for a card is 2.15.0+cu132, one for the processor alone 2.15.0+cpu.
    return {name: found.split("+")[0] for name, found in versions(python, list(PINS)).items()} == PINS


def can_bf16() -> bool:
    helped = subprocess.run([str(OURS), "finetune", "--help"], capture_output=True, text=True, check=True)
    return "--bf16" in helped.stdout


# What is run


def jobs_of(case: str, args: argparse.Namespace, sides: Sides, seed: int) -> list[Job]:
    """One repeat of a case, ours first."""
    text = "text" if args.smoke else "sentence"
    sst2 = Data(args.sst2, text, f"train[:{args.rows}]", "validation")
    every_row = replace(sst2, train="train", held_out="none")
    match case:
        case "products":
            return products(args, sides)
        case "sst2":
            return trainings(case, args.model, sst2, sides, seed, ["random", "grouped"])
        case "setup":
            jobs = trainings(case, args.model, every_row, sides, seed, ["random"], ["--max-steps", "1"])
            return [job for job in jobs if "f32" in job.setting]
        case "scoring":
            model = fine_tuned(args.model, sst2)
            splits = ["validation", f"train[:{args.score_rows}]"]
            return [job for split in splits for job in scorings(model, sst2, split, sides)]
        case "scaling":
            return scalings(args, sides)
        case "bert-base":
            if sides.python is None:
                print("note: bert-base is left out, its weights are made by transformers")
                return []
            data = replace(every_row, train=f"train[:{args.long_rows}]")
            return trainings(case, bert_base(args.model, sides), data, sides, seed, ["random", "grouped"])
        case "imdb":
            # Its rows are sorted by label; those in the middle have both.
            middle = f"train[{12500 - args.long_rows // 2}:{12500 + args.long_rows // 2}]"
            data = Data(args.imdb, "text", middle, max_length=512)
            return trainings(case, args.model, data, sides, seed, ["random", "grouped"])
        case _:  # epoch
            jobs = trainings(case, args.model, replace(sst2, train="train"), sides, seed, [])
            return [job for job in jobs if job.side == "ours"]


def trainings(
    case: str, model: Path, data: Data, sides: Sides, seed: int, orders: list[str], more: list[str] = []
) -> list[Job]:
    """Ours and the Trainer's in each of the orders, in f32 and then in bf16."""
    jobs = []
    for precision, flags in [("f32", []), ("bf16", ["--bf16"])]:
        if precision == "f32" or sides.has_bf16:
            then = None
            if data.held_out != "none":
                then = our_scoring(WORK / "run", data, data.held_out) + flags
            command = our_training(model, data, seed) + more + flags
            jobs.append(Job(case, "ours", precision, "train", command, sides.threads, seed, then=then))
        for order in orders if sides.python else []:
            grouped = ["--group-by-length"] if order == "grouped" else []
            command = peer_training(model, data, seed, sides) + more + flags + grouped
            jobs.append(Job(case, "peer", f"{precision} {order}", "train", command, sides.threads, seed))
    return jobs


def our_training(model: Path, data: Data, seed: int, batch_size: int = 32, output: Path = WORK / "run") -> list[str]:
    # Nothing is evaluated while training is timed; what is saved at the end is part of the program's own train_seconds.
    return [
        *[str(OURS), "finetune", str(data.folder), "--model", str(model), "--json", "--device", "cpu", "--fresh"],
        *["--train-split", data.train, "--eval-split", "none", "--epochs", "1", "--batch-size", str(batch_size)],
        *["--learning-rate", "5e-5", "--warmup-steps", "0", "--weight-decay", "0", "--max-length", str(data.max_length)],
        *["--text-column", data.text, "--label-column", "label", "--fresh-head", "--seed", str(seed)],
        *["--output", str(output)],
    ]


def our_scoring(model: Path, data: Data, split: str) -> list[str]:
    return [
        *[str(OURS), "eval", "--model", str(model), "--data", str(data.folder), "--split", split, "--json"],
        *["--device", "cpu", "--batch-size", "64", "--max-length", str(data.max_length)],
        *["--text-column", data.text, "--label-column", "label"],
    ]


def peer_training(model: Path, data: Data, seed: int, sides: Sides) -> list[str]:
    return [
        *[str(sides.python), str(HERE / "finetune.py"), "--model", str(model), "--data", str(data.folder), "--cpu"],
        *["--train-split", data.train, "--eval-split", data.held_out, "--epochs", "1", "--batch-size", "32"],
        *["--learning-rate", "5e-5", "--max-length", str(data.max_length), "--text", data.text],
        *["--seed", str(seed), "--threads", str(sides.threads)],
    ]


def scorings(model: Path, data: Data, split: str, sides: Sides) -> list[Job]:
    case = "scoring validation" if split == "validation" else "scoring train"
    jobs = []
    for precision, flags in [("f32", []), ("bf16", ["--bf16"])]:
        if precision == "f32" or sides.has_bf16:
            jobs.append(Job(case, "ours", precision, "score", our_scoring(model, data, split) + flags, sides.threads))
        for order in ["file", "length"] if sides.python else []:
            command = [str(sides.python), str(HERE / "score.py"), "--model", str(model), "--data", str(data.folder)]
            command += ["--split", split, "--text", data.text, "--order", order, "--threads", str(sides.threads)]
            jobs.append(Job(case, "peer", f"{precision} {order}", "score", command + flags, sides.threads))
    return jobs


def products(args: argparse.Namespace, sides: Sides) -> list[Job]:
    """Matrix products by themselves: rates of each in f32 and bf16, and of ours the machine's limits."""
    jobs = []
    for threads in dict.fromkeys([1, sides.threads]):
        flags = ["--threads", str(threads)] + ["--smoke"] * args.smoke
        jobs.append(Job("products", "ours", "all", "multiply", [*BENCH, "--json", *flags], threads))
        if sides.python:
            jobs.append(Job("products", "peer", "all", "multiply", [str(sides.python), str(HERE / "products.py"), *flags], threads))
    return jobs


def scalings(args: argparse.Namespace, sides: Sides) -> list[Job]:
    """Made-up rows of one length: as many tokens in each step, then as many rows. Beside each, what more threads are worth there."""
    lengths = [16, 32] if args.smoke else [16, 32, 64, 128, 256]
    precisions = [("f32", [])] + [("bf16", ["--bf16"])] * sides.has_bf16
    jobs = []
    for length in lengths:
        for batch_size in dict.fromkeys([2048 // length, 32]):
            is_equal_tokens = batch_size * length == 2048
            data = Data(made_up(args.model, length, batch_size * args.scaling_steps), "text", "train", max_length=length)
            command = our_training(args.model, data, 42, batch_size)
            shape = {"tokens": batch_size * length, "length": length}
            for precision, flags in precisions:
                for threads in dict.fromkeys([1, sides.threads] if is_equal_tokens else [sides.threads]):
                    jobs.append(Job("scaling", "ours", precision, "train", command + flags, threads, 42, **shape))
            if is_equal_tokens and sides.threads > 1:
                sums = [*BENCH, "--sums", "--threads", str(sides.threads), *["--smoke"] * args.smoke]
                jobs.append(Job("scaling", "ours", "sums", "sum", sums, sides.threads, **shape))
    return jobs


# What is made beforehand


def tickets() -> Path:
    """The first rows of two months of what ships, in a layout that both read."""
    folder = ROOT / WORK / "tickets"
    folder.mkdir(parents=True, exist_ok=True)
    for split, month in [("train", 1), ("validation", 2)]:
        rows = (ROOT / f"datasets/tickets/month-{month}.jsonl").read_text(encoding="utf-8").splitlines()[:100]
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def made_up(model: Path, length: int, n_rows: int) -> Path:
    """Rows of `length` tokens each: words that the vocabulary has whole, and the two marks around them."""
    vocabulary = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = [word for word in vocabulary if len(word) > 2 and word.isascii() and word.isalpha() and word.islower()]
    chance = random.Random(length)
    folder = WORK / f"made-up-{length}-{n_rows}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "train.jsonl", "w", encoding="utf-8") as rows:
        for row in range(n_rows):
            text = " ".join(chance.choices(words, k=length - 2))
            rows.write(json.dumps({"text": text, "label": "even" if row % 2 == 0 else "odd"}) + "\n")
    return folder


def fine_tuned(model: Path, data: Data) -> Path:
    """A classifier for both to score with; what it has learnt doesn't matter for the time."""
    output = WORK / f"classifier-{model.name}-{data.folder.name}"
    if not (output / "model.safetensors").exists():
        command = our_training(model, replace(data, train="train[:64]"), 42, output=output)
        subprocess.run(command, check=True, capture_output=True)
    return output


def bert_base(model: Path, sides: Sides) -> Path:
    output = WORK / "bert-base-random"
    if not (output / "tokenizer.json").exists():
        subprocess.run([str(sides.python), str(HERE / "bert_base.py"), str(model), str(output)], check=True)
    return output


# The measurement


def measured(job: Job) -> dict:
    said = {"case": job.case, "side": job.side, "setting": job.setting, "threads": job.threads, "seed": job.seed}
    said |= {"tokens": job.tokens, "length": job.length, "command": shown(job.command)}
    said |= {"load_average": round(os.getloadavg()[0], 2)}
    ran = run(job.command, job.threads)
    said |= {key: ran[key] for key in ["wall_seconds", "cpu_seconds", "others_cores", "peak_rss_mib"]}
    if ran["exit_code"] != 0:
        return said | {"kind": "failed", "exit_code": ran["exit_code"], "stderr": ran["stderr"][-2000:]}
    match job.kind:
        case "train":
            said |= trained(ran["events"], job.side)
        case "score":
            said |= scored(ran["events"])
        case "sum":
            said |= {"gains": ran["events"][-1][1]}
        case _:
            said |= {"products": [event for _, event in ran["events"]]}
    if job.then:
        after = run(job.then, job.threads)
        if after["exit_code"] != 0:
            return said | {"kind": "failed", "exit_code": after["exit_code"], "stderr": after["stderr"][-2000:]}
        said["accuracy"] = scored(after["events"])["accuracy"]
    return said | {"kind": "run"}


# What is told of it


def machine_of(args: argparse.Namespace, sides: Sides) -> dict:
    peer = versions(sides.python, list(PINS)) | {"python": platform.python_version()} if sides.python else None
    return machine(OURS, sides.threads, shown(["just", "bench-peer", *sys.argv[1:]]), peer) | {
        "has_bf16": sides.has_bf16,
        "is_smoke": args.smoke,
        "sizes": {name: getattr(args, name) for name in SIZES},
    }


def told(line: dict) -> str:
    name = f"{line['case']:18} {line['side']:4} {line['setting']:12} {line['threads']} threads"
    if line["kind"] == "failed":
        return f"{name} FAILED ({line['exit_code']}): {line['stderr'][-300:]}"
    times = ["setup_seconds", "steps_seconds", "train_seconds", "step_seconds", "eval_seconds"]
    numbers = {key: line[key] for key in [*times, "accuracy", "peak_rss_mib"] if line.get(key) is not None}
    values = [f"{key.replace('_seconds', '')} {value:.4g}" for key, value in numbers.items()]
    warning = f"  WARNING: others used {line['others_cores']} cores meanwhile" if is_disturbed(line) else ""
    warning += ", so it is made again or was" if line["kind"] == "disturbed" else ""
    tokens = f" {line['tokens']} tokens of {line['length']}" if line["tokens"] else ""
    return f"{name}{tokens}: {'  '.join(values)}{warning}"


def write(lines, line: dict) -> None:
    lines.write(json.dumps(line) + "\n")
    lines.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Hold students that the program cuts out of every architecture against transformers, and write the verdicts to students.md.

A random checkpoint of each architecture of make_architectures.py, of three or four layers and with 60 words beside single
characters in its tokenizer, is cut four ways by `lowchurn student`: all layers, which must say what the teacher says; layers 0 and
2; fewer word pieces; another size, whose weights `lowchurn distil` makes and trains for a few updates. Each is read by
`AutoModelForSequenceClassification` and `AutoTokenizer`: without a warning, without a key too many or too few, and with the
program's logits. Run after `cargo build --release`, from the root:

    python tests/golden/check_students.py [--program target/release/lowchurn]

Needs torch and transformers (made with torch 2.15.0, transformers 5.23.0). Exit code 1: a verdict that isn't "ok".
"""

import argparse
import collections
import copy
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import make_architectures
import transformers
from check_architectures import MAX_LENGTH, ROOT, ROWS, check, texts

HERE = Path(__file__).parent
WORDS = 60
LAYERS = 4  # ModernBERT keeps its three: its pattern is a list
SIZE = "--width 16 --heads 2 --layers 3 --intermediate 24 --positions 36"
TRAIN = f"--train-split train[:64] --eval-split none --max-steps 4 --max-length {MAX_LENGTH} --batch-size 16"
HEAD = """# What transformers says of the students that the program makes

By `check_students.py`, transformers {version}: students cut by `lowchurn student` out of a random checkpoint of each architecture, read
by `AutoModelForSequenceClassification` and `AutoTokenizer`. The first number is the largest difference between the logits of the
student with all layers and its teacher's, both the program's; the others are the largest difference between the program's and
transformers' logits over {rows} rows, for all layers, layers 0 and 2, fewer word pieces, and another size after a few updates of
`lowchurn distil`. "ok" means that nothing was warned of, no key was missing or unexpected, and no label differed.

| checkpoint | teacher's | all layers | layers 0, 2 | word pieces | another size | verdict |
|---|---|---|---|---|---|---|
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/lowchurn")
    parser.add_argument("names", nargs="*", help="of make_architectures.py; all, and then students.md is written")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in texts()))
        names = args.names or sorted(make_architectures.ARCHITECTURES)
        verdicts = [verdict(args.program.resolve(), name, rows) for name in names]
    if not args.names:
        head = HEAD.format(version=transformers.__version__, rows=ROWS)
        (HERE / "students.md").write_text(head + "".join(line for line, _ in verdicts))
    return int(not all(is_good for _, is_good in verdicts))


def verdict(program: Path, name: str, rows: Path) -> tuple[str, bool]:
    """A row of the table, and whether all is well."""
    folder, problems = rows.parent / name, []
    teacher = checkpoint(name, folder / "teacher", rows)

    def lowchurn(line: str) -> bool:
        said = subprocess.run([program, *line.split()], cwd=ROOT, capture_output=True, text=True)
        if said.returncode != 0:
            problems.append(said.stderr.strip().splitlines()[-1])
        return said.returncode == 0

    def predicted(model: Path) -> Path:
        to = model.with_name(f"{model.name}.jsonl")
        lowchurn(f"predict --model {model} --data {rows} --text-column text --logits --max-length {MAX_LENGTH} --output {to}")
        return to

    def held(model: Path) -> str:
        """The largest difference of a logit, and what else there is to say."""
        said = check([model, predicted(model), rows, "--max-length", MAX_LENGTH])
        found = re.search(r"largest difference of a logit (\S+)", said)
        problems.extend(
            f"{model.name}: {line}" for line in said.splitlines() if line not in ("ok", "failed") and not line.startswith("rows ")
        )
        return found.group(1) if found else "none"

    depth = teacher_layers(teacher)
    cuts = {
        "all": "--init-layers " + ",".join(map(str, range(depth))),
        "layers": "--init-layers 0,2",
        "words": f"--vocabulary 120 --data {rows}",
    }
    cells = []
    for cut, flags in cuts.items():
        if not lowchurn(f"student {teacher} {flags} --output {folder / cut}"):
            cells.append("none")
            continue
        cells.append(held(folder / cut))
        if cut == "all":
            cells.insert(0, f"{distance(predicted(teacher), predicted(folder / cut)):.3g}")
    small = f"distil tickets --teacher {folder / 'taught'} --student {folder / 'start'} {TRAIN} --tables {folder / 'tables'}"
    is_made = (
        lowchurn(f"finetune tickets --model {teacher} --fresh-head {TRAIN} --output {folder / 'taught'}")
        and lowchurn(f"student {teacher} {SIZE} --output {folder / 'start'}")
        and lowchurn(f"{small} --output {folder / 'size'}")
    )
    cells.append(held(folder / "size") if is_made else "none")
    line = f"| {name} | {' | '.join(cells)} | {'; '.join(problems) or 'ok'} |\n"
    print(line, end="", flush=True)
    return line, not problems


def checkpoint(name: str, folder: Path, rows: Path) -> Path:
    """Random weights, and a tokenizer with words of the rows behind its characters."""
    config, tokens = copy.deepcopy(make_architectures.ARCHITECTURES[name])
    if config.model_type != "modernbert":
        config.num_hidden_layers = LAYERS
    tokenizer = make_architectures.tokenizer(config.pad_token_id, tokens)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    stored = json.loads(path.read_text())
    vocabulary = stored["model"]["vocab"]
    counts = collections.Counter(re.findall(r"[a-z]{3,}", rows.read_text().lower()))
    for word in [word for word, _ in counts.most_common() if word not in vocabulary][:WORDS]:
        vocabulary[word] = len(vocabulary)
    path.write_text(json.dumps(stored))
    config.vocab_size = len(vocabulary)
    make_architectures.random_model(make_architectures.finished(config)).save_pretrained(folder)
    return folder


def teacher_layers(folder: Path) -> int:
    config = json.loads((folder / "config.json").read_text())
    return config.get("num_hidden_layers") or config["n_layers"]


def distance(a: Path, b: Path) -> float:
    logits = [[json.loads(line)["logits"] for line in path.read_text().splitlines()] for path in (a, b)]
    return max(abs(x - y) for one, other in zip(*logits, strict=True) for x, y in zip(one, other, strict=True))


if __name__ == "__main__":
    sys.exit(main())

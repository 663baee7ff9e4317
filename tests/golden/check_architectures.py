"""Hold what the program saves of every architecture against transformers, and write the verdicts to architectures.md.

Each checkpoint of architectures/ that has a tokenizer is fine-tuned for a few updates by the program, saved, and read by
`AutoModelForSequenceClassification`: without a warning, without a key too many or too few, and with the program's logits on
single texts and on pairs, tokenised by either side on its own. Run after `cargo build --release`, from the root:

    python tests/golden/check_architectures.py [--program target/release/lowchurn]

Needs torch and transformers (made with torch 2.15.0, transformers 5.23.0). Exit code 1: a verdict that isn't "ok".
"""

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import check_transformers
import transformers

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ROWS = 96
MAX_LENGTH = "32"
HEAD = """# What transformers says of the models that the program saves

By `check_architectures.py`, transformers {version}: each tiny checkpoint of `architectures/` after four updates of `lowchurn
finetune`, read by `AutoModelForSequenceClassification` and `AutoTokenizer`. The numbers are the largest difference of a logit
over {rows} rows; "ok" means that nothing was warned of, no key was missing or unexpected, and no label differed.

| checkpoint | model_type | single texts | pairs | verdict |
|---|---|---|---|---|
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/lowchurn")
    program = parser.parse_args().program.resolve()
    models = sorted(path.parent for path in (HERE / "architectures").glob("*/tokenizer.json"))
    with tempfile.TemporaryDirectory() as folder:
        verdicts = [verdict(program, model, Path(folder)) for model in models]
    head = HEAD.format(version=transformers.__version__, rows=ROWS)
    (HERE / "architectures.md").write_text(head + "".join(line for line, _ in verdicts))
    return int(not all(is_good for _, is_good in verdicts))


def verdict(program: Path, model: Path, folder: Path) -> tuple[str, bool]:
    """A row of the table, and whether all is well."""
    run, rows = folder / model.name, folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in texts()))
    finetune = [program, "finetune", "tickets", "--model", model, "--fresh-head", "--output", run]
    limits = ["--train-split", "train[:64]", "--eval-split", "train[64:96]", "--max-steps", "4", "--max-length", MAX_LENGTH]
    said = subprocess.run([*finetune, *limits], cwd=ROOT, capture_output=True, text=True)
    cells, problems = [], [] if said.returncode == 0 else [said.stderr.strip()]
    for columns in ["--text-column text", "--text-column text --pair-column second"] if not problems else []:
        predictions = folder / "predictions.jsonl"
        predict = [program, "predict", "--model", run, "--data", rows, "--logits", "--output", predictions]
        limit = ["--max-length", MAX_LENGTH]
        said = subprocess.run([*predict, *columns.split(), *limit], cwd=ROOT, capture_output=True, text=True)
        if said.returncode != 0:
            problems.append(said.stderr.strip())
            continue
        said = check([run, predictions, rows, *limit, *columns.replace("-column", "").split()])
        found = re.search(r"largest difference of a logit (\S+)", said)
        cells.append(found.group(1) if found else "none")
        problems += [line for line in said.splitlines() if line not in ("ok", "failed") and not line.startswith("rows ")]
    model_type = json.loads((model / "config.json").read_text())["model_type"]
    single, pairs = (cells + ["none", "none"])[:2]
    line = f"| {model.name} | {model_type} | {single} | {pairs} | {'; '.join(problems) or 'ok'} |\n"
    print(line, end="", flush=True)
    return line, not problems


def check(arguments: list) -> str:
    """What check_transformers.py prints; in this process, for its imports take longer than all else."""
    said = io.StringIO()
    sys.argv = ["check_transformers.py", *map(str, arguments)]
    with contextlib.redirect_stdout(said):
        check_transformers.main()
    return said.getvalue()


def texts() -> list[dict]:
    """Tickets, each with another one as second text."""
    lines = (ROOT / "datasets/tickets/month-4.jsonl").read_text().splitlines()[: ROWS + 1]
    read = [json.loads(line)["text"] for line in lines]
    return [{"text": text, "second": second} for text, second in zip(read, read[1:])]


if __name__ == "__main__":
    sys.exit(main())

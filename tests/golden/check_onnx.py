"""Hold the ONNX files that the program writes against PyTorch and the program, by onnxruntime, and write the verdicts to onnx.md.

Each checkpoint of architectures/ (and bert_tiny, modernbert_*) is exported, checked by `onnx.checker` with its shapes, and run by
onnxruntime: on its golden batch against PyTorch's logits, and, where it has a tokenizer, on 96 texts against the program's logits,
a batch at a time and a text at a time, tokenised by transformers. With --model and --rows the same of a real model on real rows.
Run after `cargo build --release`, from the root:

    python tests/golden/check_onnx.py [--program target/release/lowchurn] [--model DIR --rows FILE.jsonl --text COLUMN]

Needs onnx, onnxruntime, transformers, safetensors (made with onnx 1.23.2, onnxruntime 1.31.1, transformers 5.23.0). Exit code 1: a
verdict that isn't "ok".
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import onnx
import onnxruntime
import transformers
from safetensors.numpy import load_file
from transformers import AutoTokenizer

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TOLERANCE = 1e-4
BATCH = 32
HEAD = """# What onnxruntime says of the files that the program exports

By `check_onnx.py`, onnx {onnx}, onnxruntime {onnxruntime}, transformers {transformers}. The numbers are the largest difference of a
logit: on the golden batch against PyTorch's, on texts against `lowchurn predict`, batches of {batch} and one text at a time. "ok"
means that every difference is below {tolerance}, that `onnx.checker` with shape inference has no complaint, that onnxruntime
warned of nothing, and that `lowchurn compare` of both sides' predictions finds no row changed.

| checkpoint | model_type | rows | golden batch | texts | one text at a time | changed rows | verdict |
|---|---|---|---|---|---|---|---|
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/lowchurn")
    parser.add_argument("--model", type=Path, help="a real model besides")
    parser.add_argument("--rows", type=Path, help="its rows, JSON lines")
    parser.add_argument("--text", default="text", help="their column of texts")
    parser.add_argument("--name", default="", help="what the real model is called in the table")
    args = parser.parse_args()
    tiny = [HERE / "bert_tiny", HERE / "modernbert_cls", HERE / "modernbert_mean"]
    models = tiny + sorted(path.parent for path in (HERE / "architectures").glob("*/config.json"))
    lines = (ROOT / "datasets/tickets/month-4.jsonl").read_text().splitlines()[:96]
    texts = [json.loads(line)["text"] for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        verdicts = [verdict(args.program, model, model.name, texts, 32, Path(folder)) for model in models]
        if args.model:
            lines = args.rows.read_text().splitlines()
            texts = [json.loads(line)[args.text] for line in lines]
            verdicts.append(verdict(args.program, args.model, args.name or args.model.name, texts, 128, Path(folder)))
    head = HEAD.format(
        onnx=onnx.__version__, onnxruntime=onnxruntime.__version__, transformers=transformers.__version__, batch=BATCH, tolerance=TOLERANCE
    )
    (HERE / "onnx.md").write_text(head + "".join(line for line, _ in verdicts))
    return int(not all(is_good for _, is_good in verdicts))


def verdict(program: Path, model: Path, name: str, texts: list[str], length: int, folder: Path) -> tuple[str, bool]:
    """A row of the table, and whether all is well."""
    file = folder / "model.onnx"
    run(program, "export", model, "--onnx", file)
    problems = []
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except Exception as error:  # the checker's errors have no common class
        problems.append(f"onnx.checker: {error}".replace("\n", " "))
    session, warnings = opened(file)
    problems += warnings
    cells, rows = ["", "", "", ""], 0
    batch = model.with_name(model.name + ".safetensors")
    if batch.exists():
        cells[0] = against_pytorch(session, load_file(batch))
    if (model / "tokenizer.json").exists():
        rows = len(texts)
        cells[1:] = against_program(program, session, model, texts, length, folder)
        if cells[3] != 0:
            problems.append(f"{cells[3]} rows changed")
    problems += [f"difference {cell:.2g}" for cell in cells[:3] if cell != "" and not cell < TOLERANCE]
    shown = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells]
    model_type = json.loads((model / "config.json").read_text())["model_type"]
    line = f"| {name} | {model_type} | {rows or ''} | {' | '.join(shown)} | {'; '.join(problems) or 'ok'} |\n"
    print(line, end="", flush=True)
    return line, not problems


def opened(file: Path) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """A session on one thread; what onnxruntime writes while it opens the file is a problem."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    said = subprocess.run(
        [sys.executable, "-c", "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])", file], capture_output=True, text=True
    ).stderr
    return onnxruntime.InferenceSession(file, options), [line for line in said.splitlines() if file.name in line or "[W:" in line]


def against_pytorch(session: onnxruntime.InferenceSession, golden: dict) -> float:
    """Largest difference on the golden batch, and on the one with a padding token inside a text."""
    worst = 0.0
    for prefix in ["", "within."]:
        if prefix + "input_ids" in golden:
            asked = {port.name: golden[port.name] for port in session.get_inputs()}
            asked["input_ids"] = golden[prefix + "input_ids"]
            worst = max(worst, float(numpy.abs(session.run(["logits"], asked)[0] - golden[prefix + "logits"]).max()))
    return worst


def against_program(program: Path, session: onnxruntime.InferenceSession, model: Path, texts: list[str], length: int, folder: Path) -> list:
    """Largest differences, in batches and alone, and how many rows `compare` finds changed."""
    rows, ours, theirs = folder / "rows.jsonl", folder / "lowchurn.jsonl", folder / "onnxruntime.jsonl"
    rows.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)))
    run(program, "predict", "--model", model, "--data", rows, "--logits", "--output", ours, "--max-length", str(length))
    lines = [json.loads(line) for line in ours.read_text().splitlines()]
    labels, expected = list(lines[0]["scores"]), numpy.array([line["logits"] for line in lines])
    tokenizer = AutoTokenizer.from_pretrained(model)

    def logits(part: list[str]) -> numpy.ndarray:
        tokens = tokenizer(part, padding=True, truncation=True, max_length=length, return_tensors="np")
        return session.run(["logits"], {port.name: tokens[port.name].astype(numpy.int64) for port in session.get_inputs()})[0]

    batches = numpy.concatenate([logits(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)])
    alone = numpy.concatenate([logits([text]) for text in texts])
    theirs.write_text(
        "".join(json.dumps({"id": line["id"], "label": labels[row.argmax()]}) + "\n" for line, row in zip(lines, batches))
    )
    run(program, "compare", ours, theirs, "--output", folder / "compare", "--score-column", "none")
    changed = json.loads((folder / "compare/report.json").read_text())["n_flips"]
    return [float(numpy.abs(found - expected).max()) for found in (batches, alone)] + [changed]


def run(*command) -> None:
    said = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    if said.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {said.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())

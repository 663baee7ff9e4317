"""One line of JSON on a student: accuracy, churn and negative flips against its teacher on SST-2's validation rows, size, speed.

python3 experiments/compression/line.py NAME STUDENT HOW TEACHER SETTINGS; see sst2.sh. Speed is the best of three turns, student and
teacher one after the other, so that what else the machine does weighs on both.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

name, student, how, teacher, settings = sys.argv[1:]
DATA = "sst2:validation"


def predicted(model: str) -> tuple[list, float]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "rows.jsonl"
        started = time.monotonic()
        command = ["target/release/lowchurn", "predict", "--bf16", "--model", model, "--data", DATA, "--output", output]
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.monotonic() - started
        return [json.loads(line) for line in output.read_text().splitlines()], seconds


def gold() -> list:
    command = ["target/release/lowchurn", "eval", "--json", "--bf16", "--model", student, "--data", DATA]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def parameters(model: str) -> int:
    data = Path(model, "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    sizes = [entry["data_offsets"] for key, entry in header.items() if key != "__metadata__"]
    return sum(end - start for start, end in sizes) // 4


ours, theirs, turns = [], [], []
for _ in range(3):
    ours, fast = predicted(student)
    theirs, slow = predicted(teacher)
    turns.append((fast, slow))
accuracy = next(event["metrics"]["accuracy"] for event in gold() if event.get("metrics"))
changed = sum(a["label"] != b["label"] for a, b in zip(ours, theirs, strict=True))
config = json.loads(Path(student, "config.json").read_text())
print(
    json.dumps(
        {
            "name": name,
            "how": how,
            "settings": settings,
            "layers": config["num_hidden_layers"],
            "width": config["hidden_size"],
            "parameters": parameters(student),
            "accuracy": accuracy,
            "rows": len(ours),
            "changed": changed,
            "churn": changed / len(ours),
            "speed_up": min(slow for _, slow in turns) / min(fast for fast, _ in turns),
        }
    )
)

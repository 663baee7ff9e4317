"""One line of JSON on a student: accuracy, churn and negative flips against its teacher on SST-2's validation rows, size, speed.

python3 experiments/compression/measure.py PROGRAM STUDENT TEACHER ROWS. Speed is of scoring 10,000 training rows, the best of three
turns, student and teacher one after the other, so that what else the machine does weighs on both.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

program, student, teacher, rows = sys.argv[1:]


def said(*command: str) -> list[dict]:
    found = subprocess.run([program, *command, "--json", "--bf16"], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in found.stdout.splitlines()]


def scored(model: str, data: str) -> dict:
    return next(event for event in said("eval", "--model", model, "--data", data) if "metrics" in event)


def parameters(model: str) -> int:
    data = Path(model, "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    sizes = [entry["data_offsets"] for key, entry in header.items() if key != "__metadata__"]
    return sum(end - start for start, end in sizes) // 4


with tempfile.TemporaryDirectory() as folder:
    said("compare", teacher, student, "--data", "sst2:validation", "--nearest", "0", "--output", folder)
    counts = json.loads(Path(folder, "report.json").read_text())["comparison"]["all"]["flips"]
turns = []
for _ in range(3):
    turns.append([scored(model, "sst2:train[:10000]")["eval_seconds"] for model in (student, teacher)])
config = json.loads(Path(student, "config.json").read_text())
print(
    json.dumps(
        {
            "rows": rows,
            "layers": config["num_hidden_layers"],
            "width": config["hidden_size"],
            "parameters": parameters(student),
            "bytes": Path(student, "model.safetensors").stat().st_size,
            "flips": counts,
            "speed_up": min(slow for _, slow in turns) / min(fast for fast, _ in turns),
            "seed": 42,
        }
    )
)

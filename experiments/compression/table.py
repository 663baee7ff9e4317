"""RESULTS.md from sst2.jsonl: python3 experiments/compression/table.py"""

import json
from pathlib import Path

HERE = Path(__file__).parent
lines = [json.loads(line) for line in (HERE / "sst2.jsonl").read_text().splitlines()]
teacher = lines[0]
page = [
    "# Compression",
    "",
    f"MiniLM fine-tuned on SST-2 ({teacher['settings']}, bf16, seed 42) into smaller students on the same rows, judged on the",
    f"{teacher['rows']} validation rows. Made by `sst2.sh` and `table.py`. Speed-up is of whole `predict` commands, so that it counts reading",
    "and starting; one seed, and one row is 0.11 points.",
    "",
    "| | follows | layers × width | parameters | accuracy | of the teacher's | churn | speed-up |",
    "|---|---|---|---|---|---|---|---|",
]
for line in lines:
    kept = 100 * line["accuracy"] / teacher["accuracy"]
    page.append(
        f"| {line['name']} | {line['how']} | {line['layers']} × {line['width']} | {line['parameters'] / 1e6:.1f} M "
        f"| {100 * line['accuracy']:.1f} % | {kept:.1f} % | {100 * line['churn']:.1f} % | {line['speed_up']:.1f} |"
    )
(HERE / "RESULTS.md").write_text("\n".join(page) + "\n")

"""Make relative.csv: which row of its table each distance reads, by transformers' own functions.

A line a setting: its architecture and numbers, then the rows for the distances key − query from −600 to 600.

Needs torch and transformers (made with torch 2.15.0, transformers 5.23.0). Run: python tests/golden/make_relative.py
"""

from pathlib import Path

import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

HERE = Path(__file__).parent
MOST = 600
# position_buckets and max_relative_positions of DeBERTa; without buckets the table spans all positions.
DEBERTA = [(256, 512), (32, 128), (8, 16), (6, 40), (256, 300)]


def main() -> None:
    torch.set_num_threads(1)
    lines = ["architecture,span or rows,farthest or -1:rows"]
    distances = torch.arange(-MOST, MOST + 1)
    rows = MPNetEncoder.relative_position_bucket(distances, num_buckets=32)
    lines.append(f"mpnet,32,128:{join(rows)}")
    for buckets, farthest in DEBERTA:
        lines.append(f"deberta,{buckets},{farthest}:{join(deberta(buckets, farthest, span=buckets))}")
    lines.append(f"deberta,512,-1:{join(deberta(-1, 512, span=512))}")
    (HERE / "relative.csv").write_text("\n".join(lines) + "\n")


def deberta(buckets: int, farthest: int, span: int) -> torch.Tensor:
    """Of a query in the middle to each key."""
    tokens = torch.empty(1, 2 * MOST + 1, 1)
    relative = build_relative_position(tokens, tokens, bucket_size=buckets, max_position=farthest)
    return torch.clamp(relative[0, MOST] + span, 0, 2 * span - 1)


def join(rows: torch.Tensor) -> str:
    return ",".join(str(row) for row in rows.tolist())


if __name__ == "__main__":
    main()

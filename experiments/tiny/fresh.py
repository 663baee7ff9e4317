"""The shipped encoder with fresh weights: tables and matrices N(0, 0.02²), biases 0, norms 1, as BERT starts; the rest as it is.

    python3 experiments/tiny/fresh.py models/tiny SEED FOLDER

The standard library is enough.
"""

import json
import random
import shutil
import struct
import sys
from array import array
from pathlib import Path


def fresh(name: str, count: int, chance: random.Random) -> array:
    if name.endswith("LayerNorm.weight"):
        return array("f", [1.0] * count)
    if name.endswith(".bias"):
        return array("f", [0.0] * count)
    return array("f", (chance.gauss(0.0, 0.02) for _ in range(count)))


def main(source: Path, seed: int, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]:
        shutil.copyfile(source / name, to / name)
    stored = (source / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", stored[:8])[0]
    header = json.loads(stored[8 : 8 + size])
    chance, tensors = random.Random(seed), bytearray(len(stored) - 8 - size)
    for name, tensor in sorted(header.items()):
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        values = fresh(name, (end - begin) // 4, chance)
        if sys.byteorder == "big":
            values.byteswap()
        tensors[begin:end] = values.tobytes()
    (to / "model.safetensors").write_bytes(stored[: 8 + size] + tensors)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

"""Matrix products of PyTorch at the shapes of crates/kernels/benches/products.rs: one JSON line a product.

    python benches/peer/products.py --threads 2

GFLOP/s of the fastest of 31 calls, as there. In bf16 both operands are bf16 before the call; what the library rounds or lays out
inside it counts.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

TOKENS = 430
# Name, I, O of y (N, O) = x (N, I) · wᵀ.
LAYERS = [
    ("MiniLM attention", 384, 384),
    ("MiniLM up", 384, 1536),
    ("MiniLM down", 1536, 384),
    ("BERT-base attention", 768, 768),
    ("BERT-base up", 768, 3072),
    ("BERT-base down", 3072, 768),
]
SQUARE = 2048


def seconds(call: Callable[[], torch.Tensor], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def measured(layer: str, product: str, a: torch.Tensor, b: torch.Tensor, repeats: int) -> dict:
    gflop = 2e-9 * a.shape[0] * a.shape[1] * b.shape[1]
    half_a, half_b = a.bfloat16(), b.bfloat16()  # they keep their strides
    f32 = gflop / seconds(lambda: torch.mm(a, b), repeats)
    bf16 = gflop / seconds(lambda: torch.mm(half_a, half_b), repeats)
    return {"layer": layer, "product": product, "f32": round(f32, 1), "bf16_with_packs": round(bf16, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = []
    for layer, i, o in LAYERS:
        x, w, dy = torch.rand(TOKENS, i) - 0.5, torch.rand(o, i) - 0.5, torch.rand(TOKENS, o) - 0.5
        for product, a, b in [("forward", x, w.t()), ("dx", dy, w), ("dw", dy.t(), x)]:
            lines.append(measured(layer, product, a, b, 31))
    square = torch.rand(SQUARE, SQUARE) - 0.5
    lines.append(measured(f"{SQUARE} x {SQUARE}", "forward", square, square.t(), 7))
    for line in lines:
        print(json.dumps({"threads": args.threads} | line))


if __name__ == "__main__":
    main()

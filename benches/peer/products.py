"""Matrix products of PyTorch at the shapes of crates/kernels/benches/products.rs: one JSON line a product.

    python benches/peer/products.py --threads 2

GFLOP/s of the fastest of 32 calls, as there, into a result that is there before. In bf16 both operands are rounded within the call, as
ours are; the result stays bf16 here and is f32 there.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--smoke", action="store_true", help="one small shape, once")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokens, calls = (32, 2) if args.smoke else (430, 32)
    lines = []
    for layer, i, o in LAYERS[:1] if args.smoke else LAYERS:
        x, w, dy = torch.rand(tokens, i) - 0.5, torch.rand(o, i) - 0.5, torch.rand(tokens, o) - 0.5
        for product, a, b in [("forward", x, w.t()), ("dx", dy, w), ("dw", dy.t(), x)]:
            lines.append(measured(layer, product, a, b, calls))
    if not args.smoke:
        square = torch.rand(SQUARE, SQUARE) - 0.5
        lines.append(measured(f"square of {SQUARE}", "forward", square, square.t(), 8))
    for line in lines:
        print(json.dumps({"threads": args.threads} | line))


def measured(layer: str, product: str, a: torch.Tensor, b: torch.Tensor, calls: int) -> dict:
    gflop = 2e-9 * a.shape[0] * a.shape[1] * b.shape[1]
    y = torch.empty(a.shape[0], b.shape[1])
    y_bf16 = y.bfloat16()
    f32 = gflop / seconds(lambda: torch.mm(a, b, out=y), calls)
    bf16 = gflop / seconds(lambda: torch.mm(a.bfloat16(), b.bfloat16(), out=y_bf16), calls)
    return {"layer": layer, "product": product, "f32": round(f32, 1), "bf16_with_packs": round(bf16, 1)}


def seconds(call: Callable[[], torch.Tensor], calls: int) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()

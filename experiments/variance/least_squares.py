"""The exact law of least squares (derived here, not in the paper): at stationarity E‖x − x*‖² = (1 − λ)²·V + λ²·D².

Five weights, twelve rows, batches of one row drawn at random, a constant step; the error is averaged over a long path, for teachers at three
distances. V is that of the plain path with the same draws. Prints one line of JSON.
"""

import json
import random

ROWS, WIDTH, STEP, WARM, LONG = 12, 5, 0.02, 4_000, 60_000
LAMBDAS = [n / 10 for n in range(11)]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b))


def solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gauss with pivots."""
    rows = [row[:] + [value] for row, value in zip(matrix, right)]
    for at in range(len(rows)):
        pivot = max(range(at, len(rows)), key=lambda row: abs(rows[row][at]))
        rows[at], rows[pivot] = rows[pivot], rows[at]
        for row in range(len(rows)):
            if row != at:
                factor = rows[row][at] / rows[at][at]
                rows[row] = [x - factor * y for x, y in zip(rows[row], rows[at])]
    return [row[-1] / row[at] for at, row in enumerate(rows)]


def floor(a, y, start, theta, full, lam, order, best) -> float:
    """Mean of ‖x − x*‖² after the warm-up; the step is g(x) − λ·g(θ) + λ·full."""
    x, total = start[:], 0.0
    for n, row in enumerate(order):
        at = dot(a[row], x) - y[row] - lam * (dot(a[row], theta) - y[row])
        x = [w - STEP * (at * f + lam * c) for w, f, c in zip(x, a[row], full)]
        if n >= WARM:
            total += sum((w - b) ** 2 for w, b in zip(x, best))
    return total / (len(order) - WARM)


def main() -> None:
    rng = random.Random(4)
    a = [[rng.gauss(0, 1) for _ in range(WIDTH)] for _ in range(ROWS)]
    truth = [rng.gauss(0, 1) for _ in range(WIDTH)]
    y = [dot(row, truth) + 0.7 * rng.gauss(0, 1) for row in a]
    gram = [[sum(row[i] * row[j] for row in a) for j in range(WIDTH)] for i in range(WIDTH)]
    best = solved(gram, [sum(row[i] * value for row, value in zip(a, y)) for i in range(WIDTH)])
    order = [rng.randrange(ROWS) for _ in range(WARM + LONG)]
    zero = [0.0] * WIDTH
    v = floor(a, y, best, best, zero, 0.0, order, best)
    away = [rng.gauss(0, 1) for _ in range(WIDTH)]
    length = dot(away, away) ** 0.5
    teachers = []
    for times in (0.0, 0.5, 2.0):
        d2 = times**2 * v
        theta = [b + d2**0.5 * u / length for b, u in zip(best, away)]
        residuals = [dot(row, theta) - value for row, value in zip(a, y)]
        full = [sum(r * row[i] for r, row in zip(residuals, a)) / ROWS for i in range(WIDTH)]
        biased = [floor(a, y, best, theta, zero, lam, order, best) for lam in LAMBDAS]
        unbiased = [floor(a, y, best, theta, full, lam, order, best) for lam in LAMBDAS]
        teachers.append({"d2": d2, "times": times, "biased": biased, "unbiased": unbiased})
    print(json.dumps({"experiment": "least squares", "updates": LONG, "v": v, "lambdas": LAMBDAS, "teachers": teachers}))


if __name__ == "__main__":
    main()

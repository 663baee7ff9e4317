"""Small-sample intervals for the pages, by the standard library alone."""

import math
from dataclasses import dataclass
from functools import cache
from statistics import correlation, mean, stdev, variance

CONFIDENCE = 0.95


@dataclass
class Interval:
    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} [{self.low:.2f}, {self.high:.2f}]"


def interval(values: list[float]) -> Interval:
    """Of the mean, by Student's t; needs two values."""
    at = mean(values)
    half = student(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(at, at - half, at + half)


def ratio_of_variances(a: list[float], b: list[float]) -> Interval:
    """var(a)/var(b) of pairs that are normal together; needs three. By Pitman and Morgan: at a true ratio θ the sums a + √θ·b and the
    differences a - √θ·b are uncorrelated, and the interval has the θ where their correlation isn't told from none."""
    if not (variance(a) and variance(b)):
        return Interval(variance(a) / variance(b) if variance(b) else math.inf, 0.0, math.inf)
    middle, n = variance(a) / variance(b), len(a) - 2
    k = 1.0 + 2.0 * (1.0 - correlation(a, b) ** 2) * student(n) ** 2 / n
    apart = math.sqrt(k * k - 1.0)
    return Interval(middle, middle * (k - apart), middle * (k + apart))


def mcnemar(lost: int, won: int) -> float:
    """How likely counts as far apart are where losing and winning a row are alike: exact, both sides."""
    n = lost + won
    tail = sum(math.comb(n, k) for k in range(min(lost, won) + 1)) / 2**n
    return min(1.0, 2.0 * tail)


def slope(points: list[tuple[float, float]]) -> float:
    """Of the least-squares line."""
    x, y = (mean(point[axis] for point in points) for axis in (0, 1))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def student(n: int) -> float:
    """The quantile of |t| with n degrees of freedom: t² is F with 1 and n."""
    return math.sqrt(f_quantile(CONFIDENCE, 1, n))


@cache
def f_quantile(share: float, n: int, m: int) -> float:
    """The quantile of F with n and m degrees of freedom: x = n·F/(n·F + m) is a beta of n/2 and m/2, whose share is found by halving."""
    low, high = 0.0, 1.0
    for _ in range(80):
        x = (low + high) / 2.0
        low, high = (x, high) if beta_below(x, n / 2.0, m / 2.0) < share else (low, x)
    return m * low / (n * (1.0 - low)) if low < 1.0 else math.inf


def beta_below(x: float, a: float, b: float) -> float:
    """P(X ≤ x) of a beta, by Simpson's rule over the angle t with x = sin² t, where the density has no poles for a, b ≥ ½."""
    end, steps = math.asin(math.sqrt(x)), 400
    of = lambda t: math.sin(t) ** (2 * a - 1) * math.cos(t) ** (2 * b - 1)
    total = sum((1 if k in (0, steps) else 4 if k % 2 else 2) * of(k * end / steps) for k in range(steps + 1))
    scale = 2.0 * math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
    return scale * total * end / steps / 3.0

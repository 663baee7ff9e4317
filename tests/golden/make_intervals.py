"""Exact binomial bounds, McNemar p-values and score intervals of paired differences from scipy, for crates/churn. Writes intervals.json beside itself.

    python tests/golden/make_intervals.py        # needs scipy
"""

import json
import pathlib

import numpy
import scipy
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import beta, binom, binomtest, norm


def upper(count, of, confidence):
    return 1.0 if count == of else float(beta.isf(1 - confidence, count + 1, of - count))


def lower(count, of, confidence):
    return 0.0 if count == 0 else float(beta.ppf(1 - confidence, count, of - count + 1))


counts = [
    (0, 1), (1, 1), (0, 2), (1, 2), (0, 10), (3, 10), (10, 10), (0, 299), (1, 500), (17, 872), (10, 872), (500, 872),
    (872, 872), (26, 1821), (83, 5000), (176, 10000), (5000, 10000), (9999, 10000), (463, 25000), (15000, 30000),
    (0, 1000000), (1, 1000000), (20000, 1000000), (500000, 1000000), (999999, 1000000), (1000000, 1000000),
]
bounds = [
    {"count": k, "of": n, "confidence": c, "lower": lower(k, n, c), "upper": upper(k, n, c)}
    for k, n in counts
    for c in (0.8, 0.95, 0.975, 0.999)
]
pairs = [(2, 9), (0, 0), (0, 1), (1, 1), (0, 5), (3, 4), (10, 30), (150, 250), (5000, 5200), (400000, 401000)]
tests = []
for a, b in pairs:
    n, k = a + b, min(a, b)
    exact = 1.0 if n == 0 else float(binomtest(k, n, 0.5).pvalue)
    mid = 1.0 if a == b else float(2 * binom.cdf(k, n, 0.5) - binom.pmf(k, n, 0.5))
    tests.append({"negative": a, "positive": b, "exact": exact, "mid": mid})


def score(negative, positive, of, delta):
    """The difference less its expectation at delta, by its standard error there, with the likeliest share of negative flips."""
    others = of - negative - positive

    def unlikely(q):
        parts = [(positive, q + delta), (negative, q), (others, 1 - 2 * q - delta)]
        return -sum(count * numpy.log(p) for count, p in parts if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = minimize_scalar(unlikely, bounds=(low + 1e-13, high - 1e-13), method="bounded", options={"xatol": 1e-14}).x
    return (positive - negative - of * delta) / numpy.sqrt(of * (2 * q + delta - delta**2))


gains = []
for negative, positive, of in [(1, 0, 20), (0, 3, 20), (2, 5, 40), (1, 1, 100), (0, 1, 500), (3, 16, 334), (30, 100, 1000), (7, 41, 500), (200, 150, 5000), (30000, 50000, 1000000)]:
    for confidence in (0.8, 0.95, 0.99):
        z, middle = norm.ppf((1 + confidence) / 2), (positive - negative) / of
        at = lambda delta, sign: score(negative, positive, of, delta) - sign * z
        low = brentq(at, -0.999, middle, args=(1,), xtol=1e-14)
        high = brentq(at, middle, 0.999, args=(-1,), xtol=1e-14)
        gains.append({"negative": negative, "positive": positive, "of": of, "confidence": confidence, "low": float(low), "high": float(high)})
made = {"scipy": scipy.__version__, "bounds": bounds, "mcnemar": tests, "gains": gains}
path = pathlib.Path(__file__).with_name("intervals.json")
path.write_text(json.dumps(made, indent=1) + "\n")

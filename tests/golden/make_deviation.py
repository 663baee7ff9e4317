"""Slopes with HC3 intervals, t quantiles, Spearman's rho for crates/churn, and eigenvectors for crates/distill, from numpy and
scipy. Writes deviation.json beside itself.

    python tests/golden/make_deviation.py        # needs numpy, scipy
"""

import json
import pathlib

import numpy
import scipy
from scipy.stats import spearmanr, t


def line(x, y):
    """By matrices, (X'X)^-1 X' diag(e^2/(1-h)^2) X (X'X)^-1 and tr(G)^2/tr(G^2), where the program has sums."""
    design = numpy.stack([numpy.ones_like(x), x], axis=1)
    inverse = numpy.linalg.inv(design.T @ design)
    intercept, slope = inverse @ design.T @ y
    left = y - design @ numpy.array([intercept, slope])
    leverage = numpy.einsum("ni,ij,nj->n", design, inverse, design)
    meat = design.T @ numpy.diag((left / (1 - leverage)) ** 2) @ design
    maker = numpy.eye(len(x)) - design @ inverse @ design.T
    share = (maker * (design @ inverse)[:, 1] / numpy.sqrt(1 - leverage)).T
    gram = share @ share.T
    degrees = numpy.trace(gram) ** 2 / numpy.trace(gram @ gram)
    half = t.ppf(0.975, min(max(int(degrees + 1e-6), 1), max(len(x) - 2, 1))) * numpy.sqrt((inverse @ meat @ inverse)[1, 1])
    moved = y - x
    error = t.ppf(0.975, len(x) - 1) * moved.std(ddof=1) / numpy.sqrt(len(x))
    return {
        "x": x.tolist(),
        "y": y.tolist(),
        "slope": slope,
        "intercept": intercept,
        "degrees": degrees,
        "low": slope - half,
        "high": slope + half,
        "mean_deviation": moved.mean(),
        "mean_low": moved.mean() - error,
        "mean_high": moved.mean() + error,
        "spearman": spearmanr(x, y).statistic,
    }


def eigen(rng, rows, width):
    """Rows of uneven scatter; values of rows'rows/N, largest first."""
    features = rng.standard_normal((rows, width)) * 0.7 ** numpy.arange(width) + 0.3
    features = features.astype(numpy.float32).astype(float).round(4)
    values, vectors = numpy.linalg.eigh(features.T @ features / rows)
    weight = rng.standard_normal((3, width)).round(4)
    order = numpy.argsort(-values)
    along = numpy.linalg.norm(weight @ vectors[:, order], axis=0)
    return {
        "width": width,
        "features": features.flatten().tolist(),
        "values": values[order].tolist(),
        "weight": weight.flatten().tolist(),
        "along": along.tolist(),
    }


rng = numpy.random.default_rng(20230128)
lines = []
for n in (3, 5, 8, 30, 60):
    x = rng.exponential(2.0, n).round(4)
    y = (-0.4 + 1.3 * x + rng.standard_normal(n) * (0.2 + 0.5 * x)).round(4)
    lines.append(line(x, y))
lines.append(line(numpy.array([0.5, 0.5, 1.0, 1.0, 2.0, 2.0]), numpy.array([0.1, 0.2, 0.7, 0.7, 3.0, 2.5])))
quantiles = [
    {"degrees": d, "confidence": c, "t": t.ppf((1 + c) / 2, d)}
    for d in (1, 2, 3, 4, 5, 10, 31, 100, 999, 10000)
    for c in (0.8, 0.95, 0.999)
]
made = {
    "numpy": numpy.__version__,
    "scipy": scipy.__version__,
    "student_t": quantiles,
    "lines": lines,
    "eigen": [eigen(rng, 12, 5), eigen(rng, 4, 6), eigen(rng, 20, 8)],
}
path = pathlib.Path(__file__).with_name("deviation.json")
path.write_text(json.dumps(made, indent=1) + "\n")

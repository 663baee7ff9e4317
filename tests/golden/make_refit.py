"""Make refit.json: temperatures and biases fitted on held-out logits, by scipy's optimizers on the same objective.

The objective is sum of losses + ((s - 1)^2 + |b|^2)/200 with z' = s z + b, s = 1/T; the logits are numbers of f32.

Needs numpy, scipy (made with numpy 2.4.6, scipy 1.17.1, Python 3.11). Run: python tests/golden/make_refit.py
"""

import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

HERE = Path(__file__).parent


def main() -> None:
    cases = {}
    for name, seed, n, k, sharpness in [("sure", 0, 40, 3, 4.0), ("shy", 1, 60, 2, 0.3), ("many", 2, 50, 6, 2.5)]:
        rng = np.random.default_rng(seed)
        base = rng.normal(size=(n, k))
        labels = np.array([rng.choice(k, p=softmax(row)) for row in 1.2 * base])
        logits = (sharpness * base + rng.normal(size=k)).astype(np.float32)
        old = softmax(0.8 * base + 0.5 * rng.normal(size=(n, k)), axis=1)
        one_hot = np.eye(k)[labels]
        cases[name] = {
            "classes": k,
            "logits": logits.astype(float).ravel().tolist(),
            "labels": labels.tolist(),
            "old": old.ravel().tolist(),
            "loss": loss(logits, one_hot, 1.0, np.zeros(k)),
            "temperature": temperature(logits, one_hot),
            "temperature_to_old": temperature(logits, old),
            "with_bias": with_bias(logits, one_hot),
            "with_bias_to_old": with_bias(logits, old),
        }
    # No row of the last class, and every row right: without the prior there would be no minimum.
    logits = np.array([[2, 0, 0], [0, 1, 0], [3, 1, -1]], dtype=np.float32)
    one_hot = np.eye(3)[[0, 1, 0]]
    cases["all_right"] = {
        "classes": 3,
        "logits": logits.astype(float).ravel().tolist(),
        "labels": [0, 1, 0],
        "old": one_hot.ravel().tolist(),
        "loss": loss(logits, one_hot, 1.0, np.zeros(3)),
        "temperature": temperature(logits, one_hot),
        "temperature_to_old": temperature(logits, one_hot),
        "with_bias": with_bias(logits, one_hot),
        "with_bias_to_old": with_bias(logits, one_hot),
    }
    (HERE / "refit.json").write_text(json.dumps(cases) + "\n")


def loss(logits: np.ndarray, targets: np.ndarray, scale: float, bias: np.ndarray) -> float:
    log_p = log_softmax(scale * logits.astype(float) + bias, axis=1)
    return float(-(targets * log_p).sum() / len(logits))


def objective(logits: np.ndarray, targets: np.ndarray, scale: float, bias: np.ndarray) -> float:
    return len(logits) * loss(logits, targets, scale, bias) + ((scale - 1) ** 2 + (bias**2).sum()) / 200


def temperature(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    none = np.zeros(logits.shape[1])
    found = minimize_scalar(lambda s: objective(logits, targets, s, none), bracket=(0.5, 1.5), tol=1e-12)
    return {"temperature": 1 / found.x, "loss": loss(logits, targets, found.x, none)}


def with_bias(logits: np.ndarray, targets: np.ndarray) -> dict:
    k = logits.shape[1]

    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        p = softmax(theta[0] * logits.astype(float) + theta[1:], axis=1)
        error = p - targets
        gradient = np.concatenate([[(error * logits).sum()], error.sum(0)])
        gradient += (theta - np.eye(1 + k)[0]) / 100
        return objective(logits, targets, theta[0], theta[1:]), gradient

    start = np.eye(1 + k)[0]
    found = minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 10_000})
    scale, bias = found.x[0], found.x[1:]
    return {"temperature": 1 / scale, "bias": bias.tolist(), "loss": loss(logits, targets, scale, bias)}


if __name__ == "__main__":
    main()

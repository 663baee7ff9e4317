"""Make neighbours.json: labels smoothed by those of the nearest rows, by scikit-learn's brute-force neighbours.

Logits are numbers of f32; a row without label has neighbours and is nobody's. `shares` is beta/K + (1 - beta) * histogram / k (N, K).

Needs numpy, scikit-learn (made with numpy 2.4.6, scikit-learn 1.9.1, Python 3.11). Run: python tests/golden/make_neighbours.py
"""

import json
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors

HERE = Path(__file__).parent


def main() -> None:
    cases = []
    for seed, n, classes, k, beta in [(0, 24, 3, 5, 0.3), (1, 16, 2, 1, 0.0), (2, 20, 4, 9, 0.9)]:
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(n, classes)).round(3).astype(np.float32).astype(np.float64)
        labels = [None if rng.random() < 0.2 else int(label) for label in rng.integers(classes, size=n)]
        labelled = [row for row in range(n) if labels[row] is not None]
        found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(logits[labelled])
        _, near = found.kneighbors(logits)
        shares = [
            [beta / classes + (1 - beta) * sum(labels[labelled[at]] == c for at in row) / k for c in range(classes)]
            for row in near
        ]
        cases.append(
            {"k": k, "beta": beta, "classes": classes, "logits": logits.ravel().tolist(), "labels": labels, "shares": shares}
        )
    text = json.dumps(cases)
    (HERE / "neighbours.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

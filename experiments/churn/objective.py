"""How a model's loss varies over rows under labels and under a deployed model's scores, as one line of JSON:
objective.py DEPLOYED.jsonl MODEL.jsonl KEY=VALUE...

Both files are of `lowchurn predict --logits` on rows that neither model was trained on. The loss is cross-entropy with the target
(1 - λ)·label + λ·scores of the deployed model; by λ its mean and its variance over rows.
"""

import json
import math
import sys
from pathlib import Path
from statistics import mean, variance

LAMBDAS = (0.0, 0.5, 1.0)


def rows(path: str) -> dict[str, dict]:
    return {row["id"]: row for row in map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())}


def log_softmax(logits: list[float]) -> list[float]:
    highest = max(logits)
    total = highest + math.log(sum(math.exp(z - highest) for z in logits))
    return [z - total for z in logits]


def losses(deployed: dict, model: dict) -> tuple[float, ...]:
    """Of one row, by λ."""
    log_scores = dict(zip(model["scores"], log_softmax(model["logits"])))
    told = dict(zip(deployed["scores"], map(math.exp, log_softmax(deployed["logits"]))))
    by_label = -log_scores[model["gold"]]
    by_scores = -sum(p * log_scores[name] for name, p in told.items())
    return tuple((1.0 - share) * by_label + share * by_scores for share in LAMBDAS)


def main(deployed: str, model: str, *pairs: str) -> None:
    about: dict[str, object] = dict(pair.split("=", 1) for pair in pairs)
    about["seed"] = int(about["seed"])
    one, other = rows(deployed), rows(model)
    found = list(zip(*(losses(one[row], other[row]) for row in other)))
    by_share = [{"lambda": share, "mean": round(mean(of), 6), "variance": round(variance(of), 6)} for share, of in zip(LAMBDAS, found)]
    print(json.dumps(about | {"part": "objective", "rows": len(other), "objective": by_share, "points": []}))


if __name__ == "__main__":
    main(*sys.argv[1:])

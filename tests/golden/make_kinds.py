"""kinds.json: losses, gradients and metrics of multi-label and regression tasks, by PyTorch in f64, scikit-learn and scipy.

The label's term is what transformers' models compute for `problem_type`: BCEWithLogitsLoss and MSELoss, means over a batch. The
teacher's terms are written out in PyTorch's own operations."""

import json
from pathlib import Path

import numpy
import torch
from scipy import stats
from sklearn import metrics
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, mse_loss

HERE = Path(__file__).parent
LOGITS = [[1.5, -0.25, 0.75], [-2.0, 3.0, 0.125], [0.0, -40.0, 25.0], [0.5, 0.5, -1.0]]
TEACHER = [[0.5, 1.25, -0.75], [-3.0, 2.0, 1.5], [8.0, -60.0, -2.0], [0.5, 0.5, -1.0]]
SETS = [[0, 2], [], [1], [0, 1, 2]]
VALUES = [[0.5], [-1.25], [3.0], [2.5]]
TEACHER_VALUES = [[0.75], [-1.0], [1.0], [2.5]]
GOLD_VALUES = [1.0, -2.0, 3.0, 0.0]


def main() -> None:
    torch.set_num_threads(1)
    found = {
        "losses": losses(),
        "multi_label_metrics": multi_label_metrics(),
        "regression_metrics": regression_metrics(),
        "thresholds": thresholds(),
    }
    (HERE / "kinds.json").write_text(json.dumps(found, indent=1) + "\n")


def tensor(rows: list) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def indicator(sets: list[list[int]], labels: int) -> torch.Tensor:
    return tensor([[1.0 if label in row else 0.0 for label in range(labels)] for row in sets])


def binary_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · mean over labels of KL(Bernoulli(σ(t/T)) ‖ Bernoulli(σ(s/T))), a row."""
    s, t = student / temperature, teacher / temperature
    q = t.sigmoid()
    each = q * (logsigmoid(t) - logsigmoid(s)) + (1 - q) * (logsigmoid(-t) - logsigmoid(-s))
    return temperature**2 * each.mean(-1)


def losses() -> list[dict]:
    cases = []

    def add(name: str, logits: list, rows, **settings) -> None:
        values = tensor(logits).requires_grad_()
        found = rows(values)
        found.sum().backward()
        cases.append(
            {
                "name": name,
                "logits": logits,
                **settings,
                "rows": found.tolist(),
                "gradient": values.grad.tolist(),
            }
        )

    gold = indicator(SETS, 3)
    teacher = tensor(TEACHER)

    def label(z: torch.Tensor, weights: list[float] | None = None) -> torch.Tensor:
        weights = None if weights is None else tensor(weights)
        return binary_cross_entropy_with_logits(z, gold, reduction="none", pos_weight=weights).mean(-1)

    sets = {"kind": "multi_label_classification", "sets": SETS}
    add("label", LOGITS, label, **sets, method="retrain")
    weights = [2.0, 0.5, 1.0]
    add("weighted label", LOGITS, lambda z: label(z, weights), **sets, method="retrain", weights=weights)
    for temperature in (1.0, 2.5):
        add(
            f"binary KL at {temperature}",
            LOGITS,
            lambda z, t=temperature: 0.4 * label(z) + 0.6 * binary_kl(z, teacher, t),
            **sets,
            method=f"distil:lambda=0.6,temperature={temperature}",
            teacher=TEACHER,
        )
    add(
        "mixed labels",
        LOGITS,
        lambda z: binary_cross_entropy_with_logits(
            z, 0.4 * gold + 0.6 * teacher.sigmoid(), reduction="none"
        ).mean(-1),
        **sets,
        method="distil:lambda=0.6,divergence=mixed-label",
        teacher=TEACHER,
    )
    add(
        "logits",
        LOGITS,
        lambda z: 0.4 * label(z) + 0.6 * 0.5 * (z - teacher).square().sum(-1),
        **sets,
        method="distil:lambda=0.6,divergence=logit-mse",
        teacher=TEACHER,
    )
    values = tensor(GOLD_VALUES)
    said = tensor(TEACHER_VALUES).squeeze(-1)
    numbers = {"kind": "regression", "values": GOLD_VALUES}
    add("number", VALUES, lambda z: mse_loss(z.squeeze(-1), values, reduction="none"), **numbers, method="retrain")
    add(
        "number and teacher",
        VALUES,
        lambda z: 0.4 * mse_loss(z.squeeze(-1), values, reduction="none")
        + 0.6 * mse_loss(z.squeeze(-1), said, reduction="none"),
        **numbers,
        method="distil:lambda=0.6",
        teacher=TEACHER_VALUES,
    )
    return cases


def multi_label_metrics() -> list[dict]:
    generator = numpy.random.default_rng(5)
    cases = []
    for labels, rows, share in [(3, 40, 0.4), (6, 50, 0.1), (4, 10, 0.0), (2, 7, 0.9)]:
        gold = generator.random((rows, labels)) < share
        predicted = gold ^ (generator.random((rows, labels)) < 0.2)
        names = lambda table: [[int(at) for at in numpy.flatnonzero(row)] for row in table]
        cases.append(
            {
                "labels": labels,
                "gold": names(gold),
                "predicted": names(predicted),
                "micro_f1": float(metrics.f1_score(gold, predicted, average="micro", zero_division=0.0)),
                "macro_f1": float(metrics.f1_score(gold, predicted, average="macro", zero_division=0.0)),
                "subset_accuracy": float(metrics.accuracy_score(gold, predicted)),
            }
        )
    return cases


def regression_metrics() -> list[dict]:
    generator = numpy.random.default_rng(6)
    gold = generator.normal(size=25)
    rows = [
        (gold + 0.5 * generator.normal(size=25), gold),
        (numpy.round(gold), numpy.round(2 * gold)),
        (numpy.array([2.0, 1.0, 0.0]), numpy.array([0.0, 1.0, 2.0])),
        (1e6 + gold[:9], 1e6 + gold[:9] ** 3),
    ]
    return [
        {
            "predicted": predicted.tolist(),
            "gold": gold.tolist(),
            "pearson": float(stats.pearsonr(predicted, gold).statistic),
            "spearman": float(stats.spearmanr(predicted, gold).statistic),
            "mse": float(metrics.mean_squared_error(gold, predicted)),
        }
        for predicted, gold in rows
    ]


def thresholds() -> list[dict]:
    """The greatest F1 that any threshold on one label's probabilities has."""
    generator = numpy.random.default_rng(7)
    cases = []
    for rows, share in [(30, 0.3), (12, 0.5), (8, 0.0)]:
        gold = generator.random(rows) < share
        probability = numpy.round(0.5 * gold * generator.random(rows) + 0.5 * generator.random(rows), 2)
        precision, recall, _ = metrics.precision_recall_curve(gold, probability) if gold.any() else ([0], [0], None)
        precision, recall = numpy.asarray(precision), numpy.asarray(recall)
        f1 = 2 * precision * recall / numpy.maximum(precision + recall, 1e-12)
        cases.append(
            {
                "gold": [bool(one) for one in gold],
                "probability": probability.tolist(),
                "best_f1": float(f1.max()),
            }
        )
    return cases


if __name__ == "__main__":
    main()

"""Make the golden numbers that the Rust tests are held to.

Writes, next to this file: bert_tiny/ (a random checkpoint), bert_tiny.safetensors and bert_tiny.json (a batch, logits,
gradients, ten training steps), losses.json, schedule.json and metrics.json. See README.md for what each holds.

Needs torch, transformers, safetensors, scikit-learn, scipy (made with torch 2.15.0, transformers 5.23.0,
safetensors 0.8.0, scikit-learn 1.9.1, scipy 1.17.1, Python 3.11). Run: python tests/golden/make.py
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scipy import stats
from sklearn import metrics
from transformers import BertConfig, BertForSequenceClassification, get_scheduler

HERE = Path(__file__).parent
LENGTHS = [12, 3, 7, 9, 5]
LABELS = [0, 2, 1, 1, 2]
STEPS = 10
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
MAX_NORM = 1.0


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = random_bert()
    model.save_pretrained(HERE / "bert_tiny")
    write_bert(model, random_batch())
    write_json("losses.json", losses())
    write_json("schedule.json", schedules())
    write_json("metrics.json", {"classification": classification_metrics(), "regression": regression_metrics()})


def random_bert() -> BertForSequenceClassification:
    """Weights of standard deviation 0.2 (not BERT's 0.02) so that no gradient is tiny; norms and biases are not trivial."""
    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label={0: "red", 1: "green", 2: "blue"},
        label2id={"red": 0, "green": 1, "blue": 2},
        problem_type="single_label_classification",
    )
    config._attn_implementation = "eager"
    model = BertForSequenceClassification(config).eval()
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def random_batch() -> dict[str, torch.Tensor]:
    """Rows of different lengths, padded on the right with id 0; the second half of rows 0, 2 and 3 is a second text."""
    generator = torch.Generator().manual_seed(18)
    shape = (len(LENGTHS), max(LENGTHS))
    input_ids = torch.zeros(shape, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    token_type_ids = torch.zeros(shape, dtype=torch.int64)
    for row, length in enumerate(LENGTHS):
        input_ids[row, :length] = torch.randint(1, 100, (length,), generator=generator)
        attention_mask[row, :length] = 1
        if row in (0, 2, 3):
            token_type_ids[row, length // 2 : length] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}


def write_bert(model: BertForSequenceClassification, batch: dict[str, torch.Tensor]) -> None:
    labels = torch.tensor(LABELS)
    logits = model(**batch).logits
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    tensors = {**batch, "labels": labels, "logits": logits.detach(), "logits_gelu_new": logits_gelu_new(batch)}
    for name, parameter in model.named_parameters():
        tensors[f"grad.{name}"] = parameter.grad.clone()
    steps = train(model, batch, labels)
    for name, parameter in model.named_parameters():
        tensors[f"final.{name}"] = parameter.detach().clone()
    save_file(tensors, HERE / "bert_tiny.safetensors")
    summary = {
        "loss": loss.item(),
        "labels": LABELS,
        "optimizer": {
            "learning_rate": LEARNING_RATE,
            "betas": [0.9, 0.999],
            "eps": 1e-8,
            "weight_decay": WEIGHT_DECAY,
            "max_norm": MAX_NORM,
            "schedule": "linear",
            "warmup_steps": 0,
            "steps": STEPS,
        },
        "steps": steps,
        "loss_after": F.cross_entropy(model(**batch).logits, labels).item(),
    }
    write_json("bert_tiny.json", summary)


def logits_gelu_new(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    model = BertForSequenceClassification.from_pretrained(
        HERE / "bert_tiny", hidden_act="gelu_new", attn_implementation="eager"
    )
    return model.eval()(**batch).logits.detach()


def train(model: BertForSequenceClassification, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> list[dict]:
    """The order of transformers' Trainer: backward, clip, optimizer step, schedule step. No decay on rank-1 tensors."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        betas=(0.9, 0.999),
        eps=1e-8,
        foreach=False,
    )
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=STEPS)
    steps = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(**batch).logits, labels)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        steps.append({"loss": loss.item(), "gradient_norm": norm.item(), "learning_rate": scheduler.get_last_lr()[0]})
        optimizer.step()
        scheduler.step()
    return steps


def losses() -> list[dict]:
    """Losses of a few rows of logits in f64: a value per row, and the gradient of their mean with respect to the logits."""
    rows = {
        "plain": ([[0.5, -1.25, 2.0], [0.0, 0.0, 0.0], [-3.0, 1.5, 0.25]], [2, 0, 0]),
        "two_classes": ([[4.0, -4.0], [-0.125, 0.125]], [1, 1]),
        "large": ([[1000.0, -1000.0, 0.0], [1000.0, -1000.0, 0.0], [88.75, 88.75, -100.0]], [0, 1, 2]),
        "six_classes": ([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.5, 0.5, 0.5, -7.0, 8.0, 0.0]], [0, 4]),
    }
    teacher = [[1.0, 0.0, -1.0], [2.0, -2.0, 0.5], [0.0, 0.0, 0.0]]
    cases = []
    for name, (logits, labels) in rows.items():
        for smoothing in (0.0, 0.1, 0.5):
            x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
            values = F.cross_entropy(x, torch.tensor(labels), reduction="none", label_smoothing=smoothing)
            settings = {"labels": labels, "label_smoothing": smoothing}
            cases.append(loss_case(f"cross_entropy/{name}", "cross_entropy", settings, x, values))
    for temperature in (1.0, 2.0, 8.0):
        x = torch.tensor(rows["plain"][0], dtype=torch.float64, requires_grad=True)
        target = F.softmax(torch.tensor(teacher, dtype=torch.float64) / temperature, dim=-1)
        values = temperature**2 * F.kl_div(F.log_softmax(x / temperature, dim=-1), target, reduction="none").sum(-1)
        settings = {"teacher_logits": teacher, "temperature": temperature}
        cases.append(loss_case(f"kl/T={temperature:g}", "kl", settings, x, values))
    targets = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    for name in ("plain", "large"):
        x = torch.tensor(rows[name][0], dtype=torch.float64, requires_grad=True)
        values = F.binary_cross_entropy_with_logits(x, torch.tensor(targets, dtype=torch.float64), reduction="none").mean(-1)
        cases.append(loss_case(f"binary_cross_entropy/{name}", "binary_cross_entropy", {"targets": targets}, x, values))
    return cases


def loss_case(name: str, kind: str, settings: dict, logits: torch.Tensor, values: torch.Tensor) -> dict:
    values.mean().backward()
    return {
        "name": name,
        "loss": kind,
        **settings,
        "logits": logits.tolist(),
        "rows": values.tolist(),
        "mean_gradient": logits.grad.tolist(),
    }


def schedules() -> list[dict]:
    """The learning rate that each step is taken with, from step 0 to steps-1, and the one left afterwards."""
    settings = [
        ("linear", 0, 10, 5e-5),
        ("linear", 3, 10, 5e-5),
        ("linear", 10, 10, 1e-3),
        ("linear", 0, 1, 1e-3),
        ("cosine", 0, 10, 5e-5),
        ("cosine", 3, 12, 2e-5),
        ("cosine", 1, 2, 1.0),
        ("constant", 0, 5, 3e-4),
        ("constant_with_warmup", 4, 8, 3e-4),
    ]
    return [schedule_case(*setting) for setting in settings]


def schedule_case(kind: str, warmup: int, steps: int, learning_rate: float) -> dict:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    return {
        "schedule": kind,
        "warmup_steps": warmup,
        "steps": steps,
        "learning_rate": learning_rate,
        "rates": rates[:-1],
        "rate_after": rates[-1],
    }


def classification_metrics() -> list[dict]:
    """f1_binary takes class 1 as positive and is given for two classes only; f1_macro is over all `classes`."""
    rows = [
        ("mixed", 2, [0, 1, 1, 0, 1, 0, 1, 1], [0, 1, 0, 0, 1, 1, 1, 0]),
        ("perfect", 2, [0, 1, 1], [0, 1, 1]),
        ("inverted", 2, [0, 1, 1], [1, 0, 0]),
        ("one_prediction", 2, [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]),
        ("one_label", 2, [1, 1, 1], [1, 0, 1]),
        ("single_row", 2, [1], [1]),
        ("three_classes", 3, [0, 1, 2, 2, 1, 0, 2, 1, 1], [0, 2, 2, 1, 1, 0, 2, 1, 0]),
        ("class_never_predicted", 3, [0, 1, 2, 2, 1], [0, 1, 1, 0, 1]),
        ("class_absent", 4, [0, 1, 1, 2], [0, 1, 2, 2]),
    ]
    cases = []
    for name, classes, labels, predictions in rows:
        case = {
            "name": name,
            "classes": classes,
            "labels": labels,
            "predictions": predictions,
            "accuracy": metrics.accuracy_score(labels, predictions),
            "f1_macro": metrics.f1_score(
                labels, predictions, labels=range(classes), average="macro", zero_division=0.0
            ),
            "matthews": metrics.matthews_corrcoef(labels, predictions),
        }
        if classes == 2:
            case["f1_binary"] = metrics.f1_score(labels, predictions, pos_label=1, zero_division=0.0)
        cases.append({key: float(value) if hasattr(value, "dtype") else value for key, value in case.items()})
    return cases


def regression_metrics() -> list[dict]:
    rows = [
        ("close", [0.0, 1.5, 2.25, 4.0, 5.0], [0.5, 1.25, 2.5, 3.0, 4.5]),
        ("ties", [1.0, 1.0, 2.0, 3.0], [0.5, 0.75, 0.75, 3.0]),
        ("opposite", [0.0, 1.0, 2.0], [2.0, 1.0, 0.0]),
    ]
    return [
        {
            "name": name,
            "labels": labels,
            "predictions": predictions,
            "pearson": float(stats.pearsonr(labels, predictions).statistic),
            "spearman": float(stats.spearmanr(labels, predictions).statistic),
        }
        for name, labels, predictions in rows
    ]


def write_json(name: str, value: object) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Losses on what a teacher shows besides its logits, from PyTorch.

states.json, in f64: hidden states, attention scores, relations and vectors of two texts of 3 and 5 tokens, a student 8 wide
and a teacher 12 wide. Every loss is one number a text; `gradients` are those of their sum, weighted 1 and 2.

bert_student/, states.safetensors, states_steps.json, after make.py: a student of one layer, 16 wide, that follows bert_tiny on
its batch by all terms at once and by the labels, for five steps of AdamW; hidden states, queries, keys and values of bert_tiny.
In `kinds`, the same where each of its outputs is a label by itself (`sets`), and where the first of them is a number (`values`),
with the teacher's outputs followed as well: (1 - λ)·label + λ·teacher.

Needs torch, transformers (made with 2.15.0, 5.23.0). Run: python tests/golden/make_states.py
"""

import copy
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

HERE = Path(__file__).parent

LENGTHS = [3, 5]
STUDENT, TEACHER, HEADS = 8, 12, 4
WEIGHTS = torch.tensor([1.0, 2.0], dtype=torch.float64)


def relation(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """MiniLMv2, equation 4: KL between softmax(A·Aᵀ/√d) of teacher and student, mean over heads and positions."""

    def of(x: torch.Tensor) -> torch.Tensor:
        heads = x.reshape(len(x), HEADS, -1).transpose(0, 1)
        return torch.log_softmax(heads @ heads.transpose(1, 2) / heads.shape[-1] ** 0.5, -1)

    s, t = of(student), of(teacher)
    return (t.exp() * (t - s)).sum(-1).mean()


def scores(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    q, k = (x.reshape(len(x), HEADS, -1).transpose(0, 1) for x in (queries, keys))
    return q @ k.transpose(1, 2) / q.shape[-1] ** 0.5


def attention(student: tuple, teacher: tuple) -> torch.Tensor:
    """TinyBERT, equation 7: mean square over heads and pairs of tokens, before softmax."""
    return torch.nn.functional.mse_loss(scores(*student), scores(*teacher))


def main() -> None:
    torch.manual_seed(9)
    n = sum(LENGTHS)

    def draw(width: int, rows: int = n) -> torch.Tensor:
        # Rounded, so that f32 reads the very same numbers.
        return torch.randn(rows, width, dtype=torch.float64).float().double()

    def texts(x: torch.Tensor):
        return x.split(LENGTHS)

    cases = []

    def case(name: str, students: list, teachers: list, of) -> None:
        students = [x.requires_grad_() for x in students]
        rows = torch.stack([of([x[i] for x in map(texts, students)], [x[i] for x in map(texts, teachers)]) for i in range(len(LENGTHS))])
        add(name, students, teachers, rows)

    def add(name: str, students: list, teachers: list, rows: torch.Tensor) -> None:
        gradients = torch.autograd.grad((rows * WEIGHTS).sum(), students)
        cases.append(
            {
                "loss": name,
                "students": [x.tolist() for x in students],
                "teachers": [x.tolist() for x in teachers],
                "rows": rows.tolist(),
                "gradients": [x.tolist() for x in gradients],
            }
        )

    case("relation", [draw(STUDENT)], [draw(TEACHER)], lambda s, t: relation(s[0], t[0]))
    case("attention", [draw(STUDENT), draw(STUDENT)], [draw(TEACHER), draw(TEACHER)], attention)
    case("hidden", [draw(STUDENT)], [draw(STUDENT)], lambda s, t: torch.nn.functional.mse_loss(s[0], t[0]))
    a, b = draw(STUDENT, 2).requires_grad_(), draw(STUDENT, 2)
    add("cosine", [a], [b], 1 - torch.nn.functional.cosine_similarity(a, b))
    a, b = draw(STUDENT, 2).requires_grad_(), draw(STUDENT, 2)
    add("mse", [a], [b], (a - b).square().mean(-1))
    content = {"lengths": LENGTHS, "heads": HEADS, "weights": WEIGHTS.tolist(), "cases": cases}
    (HERE / "states.json").write_text(json.dumps(content, indent=None) + "\n", encoding="utf-8")
    whole_models()


TERMS = {"hidden": 0.8, "attention": 0.5, "relation": 2.0, "vector": 1.5}
SETTINGS = {"learning_rate": 1e-3, "weight_decay": 0.01, "max_norm": 1.0, "steps": 5, "total": 10}


def shown(model: BertForSequenceClassification, batch: dict) -> dict:
    """Hidden states, and queries, keys and values of every layer, by hooks."""
    found = {}

    def keep(name: str):
        def hook(_module, _inputs, output):
            found[name] = output

        return hook

    layers = model.bert.encoder.layer
    handles = [
        getattr(layer.attention.self, part).register_forward_hook(keep(f"{part}.{n}"))
        for n, layer in enumerate(layers)
        for part in ("query", "key", "value")
    ]
    handles.append(model.bert.pooler.register_forward_hook(keep("pooled")))
    output = model(**batch, output_hidden_states=True)
    for handle in handles:
        handle.remove()
    found |= {f"hidden.{n}": x for n, x in enumerate(output.hidden_states)}
    return found | {"logits": output.logits}


def terms(student: dict, teacher: dict, lengths: list[int], projections: dict) -> torch.Tensor:
    """One number a text: all terms, weighted."""
    linear = torch.nn.functional.linear
    rows = []
    for row, n in enumerate(lengths):
        ours = {name: x[row, :n] for name, x in student.items() if x.dim() == 3}
        theirs = {name: x[row, :n] for name, x in teacher.items() if x.dim() == 3}
        sum = 0
        for own, other in [("hidden.0", "hidden.0"), ("hidden.1", "hidden.2")]:
            led = linear(ours[own], projections["hidden.weight"], projections["hidden.bias"])
            sum = sum + TERMS["hidden"] * torch.nn.functional.mse_loss(led, theirs[other])
        of = attention((ours["query.0"], ours["key.0"]), (theirs["query.1"], theirs["key.1"]))
        sum = sum + TERMS["attention"] * of
        for part in ("query", "key", "value"):
            sum = sum + TERMS["relation"] / 3 * relation(ours[f"{part}.0"], theirs[f"{part}.1"])
        led = linear(student["pooled"][row], projections["vector.weight"], projections["vector.bias"])
        mean = theirs["hidden.2"].mean(0)
        sum = sum + TERMS["vector"] * (1 - torch.nn.functional.cosine_similarity(led, mean, 0))
        rows.append(sum)
    return torch.stack(rows)


LAMBDA, TEMPERATURE = 0.5, 2.0


def of_sets(labels: torch.Tensor, teacher: torch.Tensor):
    """(B, K) → (B,): row r has label k where k differs from its class; binary cross-entropy and T²·KL of two coins, means over k."""
    targets = 1 - F.one_hot(labels, teacher.shape[1]).float()
    q = torch.sigmoid(teacher / TEMPERATURE)

    def loss(z: torch.Tensor) -> torch.Tensor:
        of_labels = F.binary_cross_entropy_with_logits(z, targets, reduction="none").mean(1)
        p = torch.sigmoid(z / TEMPERATURE)
        coins = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
        return (1 - LAMBDA) * of_labels + LAMBDA * TEMPERATURE**2 * coins.mean(1)

    return loss


def of_values(labels: torch.Tensor, teacher: torch.Tensor):
    """(B, K) → (B,) of the first output: squared errors against 0.5 + the class, and against the teacher's first output."""
    targets = labels.float() + 0.5
    return lambda z: (1 - LAMBDA) * (z[:, 0] - targets) ** 2 + LAMBDA * (z[:, 0] - teacher[:, 0]) ** 2


def train(student: BertForSequenceClassification, projections: dict, follow: tuple, of_rows) -> list[dict]:
    """Loss and gradient norm of each step; `follow` is the batch, what the teacher shows of it, and its lengths."""
    batch, theirs, lengths = follow
    for x in projections.values():
        x.requires_grad_()
    decay = SETTINGS["weight_decay"]

    def optimizer(parameters: list) -> torch.optim.AdamW:
        groups = [
            {"params": [x for x in parameters if x.dim() >= 2], "weight_decay": decay},
            {"params": [x for x in parameters if x.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=SETTINGS["learning_rate"], eps=1e-8)

    # Clipped and moved apart, as a run does it: the projections are none of the student's.
    parts = [list(student.parameters()), list(projections.values())]
    optimizers = [optimizer(part) for part in parts]
    steps = []
    for step in range(SETTINGS["steps"]):
        ours = shown(student, batch)
        loss = (of_rows(ours["logits"]) + terms(ours, theirs, lengths, projections)).mean()
        loss.backward()
        norms = [torch.nn.utils.clip_grad_norm_(part, SETTINGS["max_norm"]).item() for part in parts]
        rate = SETTINGS["learning_rate"] * (1 - step / SETTINGS["total"])
        for each in optimizers:
            for group in each.param_groups:
                group["lr"] = rate
            each.step()
            each.zero_grad()
        steps.append({"loss": loss.item(), "norm": norms[0]})
    return steps


def whole_models() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(10)
    teacher = BertForSequenceClassification.from_pretrained(HERE / "bert_tiny", attn_implementation="eager").eval()
    golden = load_file(HERE / "bert_tiny.safetensors")
    batch = {name: golden[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    lengths = batch["attention_mask"].sum(1).tolist()
    config = BertConfig(
        vocab_size=100, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
        id2label={0: "red", 1: "green", 2: "blue"}, label2id={"red": 0, "green": 1, "blue": 2},
        attn_implementation="eager",
    )  # fmt: skip
    student = BertForSequenceClassification(config)
    # PyTorch gives the row of padding no gradient, and starts it at zero; here it is a row as any other.
    student.save_pretrained(HERE / "bert_student")
    student.train()
    projections = {
        "hidden.bias": torch.zeros(32), "hidden.weight": torch.randn(32, 16) / 4,
        "vector.bias": torch.zeros(32), "vector.weight": torch.randn(32, 16) / 4,
    }  # fmt: skip
    kept = {f"projection.{name}": x.clone() for name, x in projections.items()}
    with torch.no_grad():
        theirs = shown(teacher, batch)
    kept |= {f"teacher.{name}": x.clone().contiguous() for name, x in theirs.items()}
    labels = golden["labels"]
    start = copy.deepcopy((student, projections))
    follow = (batch, theirs, lengths)
    steps = train(student, projections, follow, lambda z: F.cross_entropy(z, labels, reduction="none"))
    kept |= {f"final.{name}": x.detach().clone() for name, x in student.named_parameters()}
    kept |= {f"final.{name}": x.detach().clone() for name, x in projections.items()}
    save_file(kept, HERE / "states.safetensors")
    kinds = {}
    for kind, of_rows in [("sets", of_sets(labels, theirs["logits"])), ("values", of_values(labels, theirs["logits"]))]:
        kinds[kind] = train(*copy.deepcopy(start), follow, of_rows)
    content = {"terms": TERMS, "settings": SETTINGS, "steps": steps, "lambda": LAMBDA, "temperature": TEMPERATURE, "kinds": kinds}
    (HERE / "states_steps.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

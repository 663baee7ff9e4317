"""Make trained.safetensors: ten updates of parts of bert_tiny, with its batch and the settings of make.py's ten steps.

`lora.`: low-rank adapters on queries and values, rank 2, alpha 6, written out in plain PyTorch as W + alpha/rank·B·A; pooler and
classifier are trained whole, everything else stands still. `decay.`: everything is trained, each layer at 0.8 of the rate of the
one above it, the head at the full rate. `biases.`: all biases, and pooler and classifier whole. `frozen.`: all but embeddings and
the lowest layer.

Needs torch, transformers, safetensors (made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, Python 3.11).
Run after make.py: python tests/golden/make_trained.py
"""

import math
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from make import LEARNING_RATE, MAX_NORM, STEPS, WEIGHT_DECAY
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, get_scheduler

HERE = Path(__file__).parent
RANK, ALPHA, DECAY = 2, 6, 0.8
KEPT = [
    "bert.embeddings.LayerNorm.weight",
    "bert.encoder.layer.0.attention.self.query.weight",
    "bert.encoder.layer.0.output.dense.bias",
    "bert.encoder.layer.1.attention.self.value.weight",
    "bert.encoder.layer.1.attention.output.LayerNorm.bias",
    "bert.pooler.dense.bias",
    "classifier.weight",
]


class Adapted(torch.nn.Module):
    def __init__(self, linear: torch.nn.Linear, generator: torch.Generator) -> None:
        super().__init__()
        (o, i), self.linear = linear.weight.shape, linear
        bound = 1 / math.sqrt(i)  # Kaiming's uniform with a = sqrt(5)
        self.a = torch.nn.Parameter((2 * torch.rand(RANK, i, generator=generator) - 1) * bound)
        self.b = torch.nn.Parameter(torch.zeros(o, RANK))

    def weight(self) -> torch.Tensor:
        return self.linear.weight + ALPHA / RANK * self.b @ self.a

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight(), self.linear.bias)


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tensors = {**lora(), **decayed(), **parts("biases", is_bias_or_head), **parts("frozen", is_above_the_lowest)}
    save_file({name: tensor.detach().clone() for name, tensor in tensors.items()}, HERE / "trained.safetensors")


def tiny() -> BertForSequenceClassification:
    return BertForSequenceClassification.from_pretrained(HERE / "bert_tiny", attn_implementation="eager").eval()


def is_head(name: str) -> bool:
    return name.startswith(("classifier.", "bert.pooler."))


def is_bias_or_head(name: str) -> bool:
    return name.endswith(".bias") or is_head(name)


def is_above_the_lowest(name: str) -> bool:
    return not name.startswith(("bert.embeddings.", "bert.encoder.layer.0."))


def lora() -> dict[str, torch.Tensor]:
    model, tensors, adapted = tiny(), {}, {}
    generator = torch.Generator().manual_seed(21)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for n, layer in enumerate(model.bert.encoder.layer):
        attention = layer.attention.self
        for part in ("query", "value"):
            module = Adapted(getattr(attention, part), generator)
            setattr(attention, part, module)
            adapted[f"bert.encoder.layer.{n}.attention.self.{part}"] = module
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_head(name) or name.endswith((".a", ".b")))
    for name, module in adapted.items():
        tensors[f"lora.start.{name}.lora_A.weight"] = module.a.detach().clone()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    tensors |= {f"lora.{name}": values for name, values in steps(model, trained, lambda _: 1.0).items()}
    for name, module in adapted.items():
        tensors[f"lora.final.{name}.lora_A.weight"] = module.a
        tensors[f"lora.final.{name}.lora_B.weight"] = module.b
        tensors[f"lora.final.{name}.weight"] = module.weight()
    for name, parameter in model.named_parameters():
        if is_head(name):
            tensors[f"lora.final.{name}"] = parameter
    return tensors


def decayed() -> dict[str, torch.Tensor]:
    model = tiny()
    top = model.config.num_hidden_layers

    def rate(name: str) -> float:
        layer = re.search(r"\.layer\.(\d+)\.", name)
        below = top - int(layer[1]) if layer else top + 1 if ".embeddings." in name else 0
        return DECAY**below

    found = steps(model, list(model.named_parameters()), rate)
    tensors = {f"decay.{name}": values for name, values in found.items()}
    return tensors | {f"decay.final.{name}": model.get_parameter(name) for name in KEPT}


def parts(what: str, is_trained) -> dict[str, torch.Tensor]:
    model = tiny()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name))
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    tensors = {f"{what}.{name}": values for name, values in steps(model, trained, lambda _: 1.0).items()}
    return tensors | {f"{what}.final.{name}": model.get_parameter(name) for name in KEPT}


def steps(model, trained, rate) -> dict[str, torch.Tensor]:
    """As make.py's, with a rate of its own for each parameter."""
    batch = load_file(HERE / "bert_tiny.safetensors")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    groups = [
        {"params": [p], "lr": LEARNING_RATE * rate(name), "weight_decay": WEIGHT_DECAY if p.dim() >= 2 else 0.0}
        for name, p in trained
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, foreach=False)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=STEPS)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(**inputs).logits, batch["labels"])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in trained], MAX_NORM).item())
        losses.append(loss.item())
        optimizer.step()
        scheduler.step()
    return {"losses": torch.tensor(losses, dtype=torch.float64), "norms": torch.tensor(norms, dtype=torch.float64)}


if __name__ == "__main__":
    main()

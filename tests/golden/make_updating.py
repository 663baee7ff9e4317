"""Make updating.safetensors: what updating a model needs of the network, for bert_tiny and its batch.

Holds mixup of the embedding layer's output (logits and gradients), the pooled vectors, and the diagonal of the empirical
Fisher information at predicted labels.

Needs torch, transformers, safetensors (made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, Python 3.11).
Run after make.py: python tests/golden/make_updating.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

HERE = Path(__file__).parent
PARTNERS = [1, 2, 4, 0, 2]
SHARES = [0.75, 0.25, 0.5, 1.0, 0.0]
GRADIENTS = [
    "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.LayerNorm.weight",
    "bert.encoder.layer.0.attention.self.query.weight",
    "classifier.weight",
]


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = BertForSequenceClassification.from_pretrained(HERE / "bert_tiny", attn_implementation="eager").eval()
    batch = load_file(HERE / "bert_tiny.safetensors")
    tensors = {"mix.partner": torch.tensor(PARTNERS), "mix.share": torch.tensor(SHARES)}

    logits = mixed_logits(model, batch)
    F.cross_entropy(logits, batch["labels"]).backward()
    tensors["mix.logits"] = logits.detach()
    for name in GRADIENTS:
        tensors[f"mix.grad.{name}"] = model.get_parameter(name).grad.clone()

    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        tensors["pooled"] = model.bert(**inputs).pooler_output

    information = fisher(model, batch)
    for name in GRADIENTS:
        tensors[f"fisher.{name}"] = information[name]
    save_file(tensors, HERE / "updating.safetensors")


def mixed_logits(model: BertForSequenceClassification, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Rows are zero beyond their own length; the mixed row is as long as the longer of those with a share in it."""
    own = batch["attention_mask"].float()
    share = torch.tensor(SHARES)[:, None]
    x = model.bert.embeddings(batch["input_ids"], batch["token_type_ids"]) * own[:, :, None]
    mixed = share[:, :, None] * x + (1 - share[:, :, None]) * x[PARTNERS]
    mask = torch.maximum(own * (share > 0), own[PARTNERS] * (share < 1))
    additive = (1 - mask)[:, None, None, :] * torch.finfo(torch.float32).min
    hidden = model.bert.encoder(mixed, attention_mask=additive).last_hidden_state
    return model.classifier(model.bert.pooler(hidden))


def fisher(model: BertForSequenceClassification, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One row at a time without its padding, summed in f64, divided by the mean over all elements."""
    sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        model.zero_grad()
        ids, types = (batch[name][row : row + 1, :length] for name in ("input_ids", "token_type_ids"))
        logits = model(input_ids=ids, token_type_ids=types).logits
        F.cross_entropy(logits, logits.argmax(1)).backward()
        for name, p in model.named_parameters():
            sums[name] += p.grad.double() ** 2
    mean = sum(s.sum() for s in sums.values()) / sum(s.numel() for s in sums.values())
    return {name: (s / mean).float() for name, s in sums.items()}


if __name__ == "__main__":
    main()

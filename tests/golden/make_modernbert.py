"""Make the golden numbers of ModernBERT: for each of two tiny random checkpoints a folder, and beside it a batch with logits, the
gradient of every parameter, and the losses of ten AdamW steps, all with eager attention and without dropout.

modernbert_cls: pooling on the first token, the keys of transformers 4 (`global_attn_every_n_layers`, `global_rope_theta`, …).
modernbert_mean: pooling by the mean, the keys of transformers 5 (`layer_types`, `rope_parameters`), a bias in the head.
Texts are longer than the window, one longer than the block that the kernels cut queries into. modernbert_tokenizer.json is a
byte-level BPE with what is added around texts as ModernBERT's has it; modernbert_tokenizer_cases.json, what it makes of some.

Needs torch, transformers, tokenizers, safetensors (made with torch 2.15.0, transformers 5.23.0). Run: python tests/golden/make_modernbert.py
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ModernBertConfig, ModernBertForSequenceClassification

HERE = Path(__file__).parent
LENGTHS = [75, 3, 17, 9]
LABELS = [0, 2, 1, 1]
STEPS = 10
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01

SHARED = dict(
    vocab_size=50,
    hidden_size=16,
    num_attention_heads=4,
    intermediate_size=12,
    max_position_embeddings=96,
    local_attention=8,
    pad_token_id=0,
    bos_token_id=1,
    cls_token_id=1,
    eos_token_id=2,
    sep_token_id=2,
    id2label={0: "red", 1: "green", 2: "blue"},
    label2id={"red": 0, "green": 1, "blue": 2},
    problem_type="single_label_classification",
)
OLD = dict(global_attn_every_n_layers=3, global_rope_theta=500.0, local_rope_theta=50.0)
FORMS = {
    "modernbert_cls": dict(num_hidden_layers=4, classifier_pooling="cls", **OLD),
    "modernbert_mean": dict(
        num_hidden_layers=3,
        classifier_pooling="mean",
        classifier_bias=True,
        norm_eps=1e-3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 2000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    ),
}


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, form in FORMS.items():
        save_random(name, form)
        model = ModernBertForSequenceClassification.from_pretrained(HERE / name, attn_implementation="eager").eval()
        write(name, model)
    write_tokenizer()


def save_random(name: str, form: dict) -> None:
    """Weights of standard deviation 0.3, so that no gradient is tiny; norms and biases are not trivial."""
    model = ModernBertForSequenceClassification(ModernBertConfig(**SHARED, **form))
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            centre = 1.0 if parameter_name.endswith("norm.weight") else 0.0
            parameter.copy_(centre + 0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(HERE / name)
    if name == "modernbert_cls":
        # As the published checkpoints have it, which were saved by transformers 4.
        path = HERE / name / "config.json"
        config = json.loads(path.read_text())
        for key in ("layer_types", "rope_parameters"):
            del config[key]
        path.write_text(json.dumps({**config, **OLD}, indent=2, sort_keys=True) + "\n")


def random_batch() -> dict[str, torch.Tensor]:
    """Rows of different lengths, padded on the right with id 0."""
    generator = torch.Generator().manual_seed(18)
    shape = (len(LENGTHS), max(LENGTHS))
    input_ids = torch.zeros(shape, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    for row, length in enumerate(LENGTHS):
        input_ids[row, :length] = torch.randint(1, 50, (length,), generator=generator)
        attention_mask[row, :length] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def write(name: str, model: ModernBertForSequenceClassification) -> None:
    batch, labels = random_batch(), torch.tensor(LABELS)
    logits = model(**batch).logits
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    tensors = {**batch, "labels": labels, "logits": logits.detach()}
    for parameter_name, parameter in model.named_parameters():
        tensors[f"grad.{parameter_name}"] = parameter.grad.clone()
    save_file(tensors, HERE / f"{name}.safetensors")
    write_json(f"{name}.json", {"losses": train(model, batch, labels)})


def train(model: ModernBertForSequenceClassification, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> list[float]:
    """Losses before each of ten steps, at a constant learning rate. No decay on rank-1 tensors."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        foreach=False,
    )
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(**batch).logits, labels)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return losses


TEXTS = [
    ("the weather is fine today", None),
    ("The WEATHER is\tfine,  today!", None),
    ("naïve café, 東京 and 🙂", None),
    ("is it fine", "it is not"),
    ("", None),
]


def write_tokenizer() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text for pair in TEXTS for text in pair if text] * 4, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in special}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    (HERE / "modernbert_tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n")
    cases = [
        {"text": text, "pair": pair, "ids": (tokenizer.encode(text, pair) if pair else tokenizer.encode(text)).ids}
        for text, pair in TEXTS
    ]
    write_json("modernbert_tokenizer_cases.json", {"vocabulary": tokenizer.get_vocab_size(), "cases": cases})


def write_json(name: str, content: object) -> None:
    (HERE / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

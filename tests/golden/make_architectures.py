"""Make the golden numbers of the architectures beside BERT: a tiny random checkpoint each, with logits, gradients and losses.

Writes to architectures/, for each NAME of ARCHITECTURES below: NAME/, the checkpoint as transformers saves it, with a tokenizer
of single characters; NAME.safetensors, a batch of rows of different lengths, its logits, and the gradient of each parameter;
NAME.json, ten training steps. See README.md.

Needs torch, transformers, safetensors (made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, Python 3.11). Run:
python tests/golden/make_architectures.py [NAME ...]
"""

import json
import string
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from make import LABELS, LEARNING_RATE, LENGTHS, MAX_NORM, STEPS, WEIGHT_DECAY, train
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

HERE = Path(__file__).parent / "architectures"

VOCABULARY = 100
POSITIONS = 40
LABEL_NAMES = ["red", "green", "blue"]

# Small enough that a checkpoint takes less than 100 kB.
SIZES = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
# For names that are the same network as another.
SMALLER = SIZES | {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24}
# Where positions begin behind the padding token's, the table has two rows more, and there is one type.
BEHIND = {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1}

# Ids of the special tokens, which are the first of the vocabulary.
BERT_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
MODERN_TOKENS = dict(BERT_TOKENS)  # without types
ROBERTA_TOKENS = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}

# Layer 0 attends to all, the others within a window of five tokens.
MODERN = {key: SIZES[key] for key in ["vocab_size", "max_position_embeddings", "hidden_size", "num_attention_heads"]} | {
    "num_hidden_layers": 3,
    "intermediate_size": 24,
    "local_attention": 4,
    "global_attn_every_n_layers": 3,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "cls_token_id": 2,
    "eos_token_id": 3,
    "sep_token_id": 3,
}

# NAME: the config, and the special tokens in the order of their ids.
ARCHITECTURES = {
    "distilbert": (
        DistilBertConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=POSITIONS,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=48,
            dropout=0.0,
            attention_dropout=0.0,
            seq_classif_dropout=0.0,
        ),
        BERT_TOKENS,
    ),
    "roberta": (RobertaConfig(**SIZES | BEHIND), ROBERTA_TOKENS),
    "xlm_roberta": (XLMRobertaConfig(**SMALLER | BEHIND), ROBERTA_TOKENS),
    "camembert": (CamembertConfig(**SMALLER | BEHIND), ROBERTA_TOKENS),
    "electra": (ElectraConfig(**SIZES, embedding_size=20), BERT_TOKENS),
    "mpnet": (MPNetConfig(**SIZES | {"max_position_embeddings": POSITIONS + 2}), ROBERTA_TOKENS),
    # Two blocks that are applied twice each, in two ways.
    "albert": (AlbertConfig(**SIZES, embedding_size=20, inner_group_num=2, classifier_dropout_prob=0.0), BERT_TOKENS),
    "albert_groups": (
        AlbertConfig(**SIZES | {"num_hidden_layers": 3}, embedding_size=20, num_hidden_groups=2, classifier_dropout_prob=0.0),
        BERT_TOKENS,
    ),
    # As v3: one table of logarithmic buckets with a norm, projected by the layers' own queries and keys.
    "deberta_v3": (
        DebertaV2Config(
            **SIZES,
            relative_attention=True,
            position_buckets=8,
            max_relative_positions=-1,
            pos_att_type="p2c|c2p",
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            position_biased_input=False,
            type_vocab_size=0,
        ),
        BERT_TOKENS,
    ),
    # As v2 may be: distances up to six each with its row, projections of their own, narrow tables of positions and types too.
    "deberta_v2": (
        DebertaV2Config(
            **SIZES | {"intermediate_size": 32},
            relative_attention=True,
            max_relative_positions=6,
            pos_att_type=["c2p", "p2c"],
            type_vocab_size=2,
            embedding_size=20,
        ),
        BERT_TOKENS,
    ),
    # One term alone, by projections of its own.
    "deberta_p2c": (
        DebertaV2Config(
            **SIZES | {"num_hidden_layers": 1}, relative_attention=True, position_buckets=6, pos_att_type=["p2c"]
        ),
        BERT_TOKENS,
    ),
    # The other term alone, by the layers' own keys: nothing feels their bias then.
    "deberta_c2p": (
        DebertaV2Config(
            **SIZES | {"num_hidden_layers": 1},
            relative_attention=True,
            position_buckets=6,
            pos_att_type=["c2p"],
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            position_biased_input=False,
            type_vocab_size=0,
        ),
        BERT_TOKENS,
    ),
    # No term, but positions that are added to the words.
    "deberta_none": (DebertaV2Config(**SMALLER, relative_attention=False, type_vocab_size=2), BERT_TOKENS),
    "modernbert": (ModernBertConfig(**MODERN), MODERN_TOKENS),
    "modernbert_mean": (
        ModernBertConfig(**MODERN | {"hidden_size": 16}, classifier_pooling="mean", classifier_bias=True),
        MODERN_TOKENS,
    ),
}


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in sys.argv[1:] or ARCHITECTURES:
        config, tokens = ARCHITECTURES[name]
        (HERE / name).mkdir(parents=True, exist_ok=True)
        model = random_model(finished(config))
        model.save_pretrained(HERE / name)
        tokenizer(config.pad_token_id, tokens).save_pretrained(HERE / name)
        write(name, model, random_batch(model.config))


def finished(config):
    """What all have in common."""
    config.id2label = dict(enumerate(LABEL_NAMES))
    config.label2id = {label: index for index, label in enumerate(LABEL_NAMES)}
    config.problem_type = "single_label_classification"
    return config


def random_model(config) -> torch.nn.Module:
    """Weights of standard deviation 0.2 so that no gradient is tiny; norms and biases are not trivial."""
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(27)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.lower().endswith("norm.weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def tokenizer(pad_id: int, tokens: dict[str, str]) -> PreTrainedTokenizerFast:
    """Characters as WordPiece: letters and digits at the beginning of a word and within it, and some punctuation."""
    characters = string.ascii_lowercase + string.digits
    vocabulary = [*tokens.values(), *characters, *(f"##{c}" for c in characters), *".,:;!?'\"-/()#&%"]
    ids = {token: index for index, token in enumerate(vocabulary)}
    assert len(ids) <= VOCABULARY and ids[tokens["pad_token"]] == pad_id
    fast = Tokenizer(models.WordPiece(ids, unk_token=tokens["unk_token"]))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = ((tokens[key], ids[tokens[key]]) for key in ("cls_token", "sep_token"))
    has_types = tokens is BERT_TOKENS
    fast.post_processor = (processors.BertProcessing if has_types else processors.RobertaProcessing)(sep, cls)
    names = ["input_ids", "token_type_ids", "attention_mask"] if has_types else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=fast, model_input_names=names, model_max_length=POSITIONS, **tokens)


def random_batch(config) -> dict[str, torch.Tensor]:
    """Rows of different lengths with the padding token behind them; the second half of three rows is a second text, where the
    model has types."""
    generator = torch.Generator().manual_seed(28)
    shape = (len(LENGTHS), max(LENGTHS))
    input_ids = torch.full(shape, config.pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    token_type_ids = torch.zeros(shape, dtype=torch.int64)
    for row, length in enumerate(LENGTHS):
        input_ids[row, :length] = torch.randint(5, VOCABULARY, (length,), generator=generator)
        attention_mask[row, :length] = 1
        if row in (0, 2, 3):
            token_type_ids[row, length // 2 : length] = 1
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    if getattr(config, "type_vocab_size", 0) > 1:
        batch["token_type_ids"] = token_type_ids
    return batch


def write(name: str, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    labels = torch.tensor(LABELS)
    logits = model(**batch).logits
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    tensors = {**batch, "labels": labels, "logits": logits.detach()}
    # A padding token within a text, which some count as no position. PyTorch gives its row no gradient, so the logits alone.
    within = batch["input_ids"].clone()
    within[0, 4] = model.config.pad_token_id
    tensors["within.input_ids"] = within
    tensors["within.logits"] = model(**batch | {"input_ids": within}).logits.detach()
    for parameter_name, parameter in model.named_parameters():
        # Tables of types for texts without them: PyTorch knows that nothing depends on them.
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        tensors[f"grad.{parameter_name}"] = gradient.clone()
    save_file(tensors, HERE / f"{name}.safetensors")
    summary = {
        "loss": loss.item(),
        "optimizer": {
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "max_norm": MAX_NORM,
            "steps": STEPS,
        },
        "steps": train(model, batch, labels),
        "loss_after": F.cross_entropy(model(**batch).logits, labels).item(),
    }
    (HERE / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""An encoder of a config and a vocabulary, without weights: scratch.py TEXTS.parquet OUT

As near to a Keras tutorial's transformer on IMDb (20,000 words, 200 tokens, width 32, one block of two heads, mean over tokens) as
an architecture of the program comes: ModernBERT in that size. The vocabulary is the words of the training file by their number,
lower-case, without punctuation and markup. Needs `tokenizers` and `pyarrow`.
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as parquet
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

WORDS = 20_000
CONFIG = {
    "architectures": ["ModernBertModel"],
    "model_type": "modernbert",
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 200,
    "hidden_activation": "relu",
    "classifier_activation": "relu",
    "classifier_pooling": "mean",
    "classifier_bias": True,
    "embedding_dropout": 0.1,
    "mlp_dropout": 0.1,
    "attention_dropout": 0.1,
    "classifier_dropout": 0.1,
    "global_attn_every_n_layers": 1,
    "norm_eps": 1e-6,
    "initializer_range": 0.1,
    "pad_token_id": 0,
}


def main(texts: str, out: str) -> None:
    rows = parquet.read_table(texts, columns=["text"])["text"].to_pylist()
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex("<[^>]*>"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}']+"), "removed")
    trainer = trainers.WordLevelTrainer(vocab_size=WORDS, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(rows, trainer)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

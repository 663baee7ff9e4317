"""Make the tiny encoder: a WordPiece vocabulary from the tickets and a BERT of 2 layers with random weights.

Needs torch, transformers (made with torch 2.15.0, transformers 5.23.0). Run: python models/tiny/make.py; it writes the same
bytes on every run, which the trainer of the tokenizers library does not: the vocabulary is counted here instead.
"""

import json
import re
import string
from collections import Counter
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

HERE = Path(__file__).parent
TICKETS = HERE.parent.parent / "datasets" / "tickets"
VOCABULARY = 3000
LONGEST_PIECE = 5
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SEED = 1


def main() -> None:
    pieces = vocabulary(ticket_texts())
    tokenizer = BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=True, model_max_length=128)
    tokenizer.save_pretrained(HERE)
    (HERE / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(HERE)


def vocabulary(texts: list[str]) -> list[str]:
    """Special tokens, ASCII characters, pairs of digits, words seen twice, then the commonest beginnings and endings of words.

    With letters and digits alone and as continuations, any ASCII text has its pieces."""
    words = Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))
    letters = [*string.digits, *string.ascii_lowercase]
    pairs = [f"{n:02}" for n in range(100)]
    pieces = [*SPECIAL, *letters, *string.punctuation, *(f"##{c}" for c in letters), *pairs, *(f"##{pair}" for pair in pairs)]
    pieces += [word for word, count in by_count(words) if count > 1 and len(word) > 1]
    affixes = Counter()
    for word in words:
        for length in range(2, min(LONGEST_PIECE, len(word) - 1) + 1):
            affixes[word[:length]] += 1
            affixes["##" + word[-length:]] += 1
    pieces += [affix for affix, _ in by_count(affixes)]
    return list(dict.fromkeys(pieces))[:VOCABULARY]


def by_count(counts: Counter) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def ticket_texts() -> list[str]:
    paths = sorted(TICKETS.glob("month-*.jsonl"))
    return [json.loads(line)["text"] for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()

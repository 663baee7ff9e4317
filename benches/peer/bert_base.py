"""A checkpoint of BERT-base's size with random weights, for measurements of time where none can be had.

    python benches/peer/bert_base.py MINILM_DIR OUTPUT_DIR

Twelve layers, 768 wide; tokenizer and everything else of the small checkpoint.
"""

import shutil
import sys
from pathlib import Path

import torch
import transformers

SIZE = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}


def main(small: Path, output: Path) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(small, **SIZE)
    transformers.BertModel(config).save_pretrained(output)
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]:
        if (small / name).exists():
            shutil.copyfile(small / name, output / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

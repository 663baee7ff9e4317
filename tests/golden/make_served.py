"""Write served.safetensors: logits of bert_tiny, on its golden batch, with weights and activations of 16 bits (`half()`), exact and
tanh GELU, by PyTorch on the CPU. Run after make.py, from the root:

    python tests/golden/make_served.py

Needs torch, transformers and safetensors (made with torch 2.15.0, transformers 5.23.0).
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

HERE = Path(__file__).parent
torch.set_num_threads(1)


def logits(activation: str) -> torch.Tensor:
    batch = load_file(HERE / "bert_tiny.safetensors")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    model = AutoModelForSequenceClassification.from_pretrained(HERE / "bert_tiny", attn_implementation="eager", hidden_act=activation)
    with torch.no_grad():
        return model.half().eval()(**inputs).logits.float()


save_file({"f16": logits("gelu"), "f16_tanh": logits("gelu_new")}, HERE / "served.safetensors")

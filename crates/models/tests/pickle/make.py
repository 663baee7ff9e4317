"""Makes the PyTorch checkpoint that tests/models/load.rs reads: one small BERT in the pickle format, and the same in safetensors.

Needs torch, transformers, safetensors. Run: python crates/models/tests/pickle/make.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

HERE = Path(__file__).parent

torch.manual_seed(3)
config = BertConfig(
    vocab_size=12,
    hidden_size=4,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=6,
    max_position_embeddings=5,
)
model = BertForSequenceClassification(config)
config.save_pretrained(HERE)
tensors = {name: torch.randn(tensor.shape) for name, tensor in model.named_parameters()}
# A column-major tensor, as checkpoints converted from TensorFlow have them.
name = "bert.encoder.layer.0.intermediate.dense.weight"
tensors[name] = tensors[name].t().contiguous().t()
torch.save(tensors, HERE / "pytorch_model.bin")
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, HERE / "same.safetensors", {"format": "pt"})

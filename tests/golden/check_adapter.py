"""Hold adapters against PEFT, both ways.

A run's adapter must load in PEFT on the base that it names, without a warning, and give the logits of the run's own merged
model. An adapter that PEFT writes on the same base must give PEFT's logits when the program reads its folder as a model.

Needs torch, transformers, peft (made with torch 2.15.0, transformers 5.23.0, peft 0.21.2, Python 3.11). Run, where the run was
trained, because a base that is a folder is named by its path:

    lowchurn finetune tickets --model tiny --lora-rank 8 --output runs/lora
    python tests/golden/check_adapter.py runs/lora target/release/lowchurn
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

TEXTS = ["the parcel never came", "I was charged twice, please give the money back", "how do I change my password?", "thanks"]
TOLERANCE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run that was trained with --lora-rank")
    parser.add_argument("program", type=Path, help="the lowchurn program")
    args = parser.parse_args()
    torch.manual_seed(3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        failures = check_ours(args.run) + check_theirs(args.run, args.program)
    # Not what the libraries tell each other about names that will change.
    told = [warning for warning in caught if not issubclass(warning.category, (FutureWarning, DeprecationWarning))]
    failures += [f"warned: {warning.message}" for warning in told]
    for failure in failures:
        print(failure)
    print("failed" if failures else "ok")
    return int(bool(failures))


def base_of(adapter: Path):
    """The base with a head of the right size, as somebody who uses PEFT would open it."""
    labels = json.loads((adapter / "config.json").read_text())["id2label"]
    said = PeftConfig.from_pretrained(adapter)
    return AutoModelForSequenceClassification.from_pretrained(
        said.base_model_name_or_path, revision=said.revision, num_labels=len(labels), attn_implementation="eager"
    ).eval()


def logits_of(model, tokenizer) -> torch.Tensor:
    with torch.no_grad():
        return model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits


def apart(what: str, a: torch.Tensor, b: torch.Tensor) -> list[str]:
    largest = (a - b).abs().max().item()
    print(f"{what}: largest difference of a logit {largest:.3g}")
    return [] if largest <= TOLERANCE else [f"{what}: {largest:.3g} is above {TOLERANCE:g}"]


def check_ours(run: Path) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(run)
    merged = AutoModelForSequenceClassification.from_pretrained(run, attn_implementation="eager").eval()
    expected = logits_of(merged, tokenizer)
    adapted = PeftModel.from_pretrained(base_of(run / "adapter"), run / "adapter").eval()
    failures = apart("our adapter in PEFT", logits_of(adapted, tokenizer), expected)
    return failures + apart("our adapter, merged by PEFT", logits_of(adapted.merge_and_unload(), tokenizer), expected)


def check_theirs(run: Path, program: Path) -> list[str]:
    """On the run's base with whatever it lacks made anew and written: PEFT saves the head, and no pooler."""
    tokenizer = AutoTokenizer.from_pretrained(run)
    with tempfile.TemporaryDirectory() as folder:
        base, adapter = Path(folder) / "base", Path(folder) / "adapter"
        base_of(run / "adapter").save_pretrained(base)
        tokenizer.save_pretrained(base)
        model = AutoModelForSequenceClassification.from_pretrained(base, attn_implementation="eager")
        targets = PeftConfig.from_pretrained(run / "adapter").target_modules
        model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=12, target_modules=targets)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.2)
        model.save_pretrained(adapter)
        rows, out = Path(folder) / "rows.jsonl", Path(folder) / "out.jsonl"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        line = [program, "predict", "--model", adapter, "--data", rows, "--logits", "--output", out]
        subprocess.run([str(word) for word in line], check=True)
        ours = torch.tensor([json.loads(line)["logits"] for line in out.read_text().splitlines()])
        return apart("PEFT's adapter in lowchurn", ours, logits_of(model, tokenizer))


if __name__ == "__main__":
    sys.exit(main())

"""go_emotions in PyTorch: the same rows, checkpoint, batches by length, schedule and loss as `lowchurn finetune go_emotions`, and a
head that starts at the labels' shares as there. Prints a line of JSON. The hub is HF_ENDPOINT's.

python3 peer.py --rows 12000 --epochs 1 --batch-size 16 --learning-rate 1e-4 --max-length 32 --seed 42
"""

import argparse
import json
import time

import pyarrow.parquet as parquet
import torch
from huggingface_hub import hf_hub_download
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer

CHECKPOINT, DATA = "sentence-transformers/all-MiniLM-L6-v2", "google-research-datasets/go_emotions"
LABELS, THRESHOLD = 28, 0.5


def rows(split: str, n: int | None = None) -> tuple[list[str], torch.Tensor]:
    path = hf_hub_download(DATA, f"simplified/{split}-00000-of-00001.parquet", repo_type="dataset")
    table = parquet.read_table(path, columns=["text", "labels"])[:n]
    targets = torch.zeros(len(table), LABELS)
    for at, labels in enumerate(table["labels"].to_pylist()):
        targets[at, labels] = 1.0
    return table["text"].to_pylist(), targets


def batches(encoded: list[list[int]], size: int, generator: torch.Generator) -> list[list[int]]:
    """Random batches of rows of like length, as `epoch_order` makes them."""
    order = torch.randperm(len(encoded), generator=generator).tolist()
    mega = 100 * size
    together = [sorted(order[at : at + mega], key=lambda row: len(encoded[row])) for at in range(0, len(order), mega)]
    cut = [part[at : at + size] for part in together for at in range(0, len(part), size)]
    return [cut[at] for at in torch.randperm(len(cut), generator=generator).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    model = AutoModelForSequenceClassification.from_pretrained(
        CHECKPOINT, num_labels=LABELS, problem_type="multi_label_classification"
    )
    texts, targets = rows("train", asked.rows)
    with torch.no_grad():
        counts = targets.sum(0) + 0.5
        model.classifier.bias.copy_(torch.log(counts / (len(targets) + 1 - counts)))
    encoded = tokenizer(texts, truncation=True, max_length=asked.max_length)["input_ids"]

    def logits(which: list[int], encoded: list[list[int]]) -> torch.Tensor:
        batch = tokenizer.pad({"input_ids": [encoded[row] for row in which]}, return_tensors="pt")
        return model(**batch).logits

    optimizer = torch.optim.AdamW(model.parameters(), lr=asked.learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(asked.seed)
    order = [batch for _ in range(asked.epochs) for batch in batches(encoded, asked.batch_size, generator)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(order))
    loss_of = torch.nn.BCEWithLogitsLoss()
    started = time.time()
    model.train()
    for which in order:
        loss = loss_of(logits(which, encoded), targets[which])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    seconds = time.time() - started
    model.eval()
    texts, gold = rows("validation")
    encoded = tokenizer(texts, truncation=True, max_length=asked.max_length)["input_ids"]
    with torch.no_grad():
        found = torch.cat([logits(list(range(at, min(at + 64, len(encoded)))), encoded) for at in range(0, len(encoded), 64)])
    predicted = torch.sigmoid(found) >= THRESHOLD
    said = {"by": f"torch {torch.__version__}", "rows": len(targets), "threshold": THRESHOLD, "seed": asked.seed, "loss": float(loss_of(found, gold))}
    for average in ("micro", "macro"):
        said[f"{average}_f1"] = float(f1_score(gold, predicted, average=average, zero_division=0.0))
    print(json.dumps({**said, "train_seconds": seconds}))


if __name__ == "__main__":
    main()

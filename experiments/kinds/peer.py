"""go_emotions in PyTorch with the settings of `run.sh`: the same rows, checkpoint, batches by length, schedule and loss. Prints a line
of JSON. python3 peer.py CHECKPOINT TRAIN.parquet VALIDATION.parquet ROWS EVAL_ROWS"""

import json
import sys
import time

import pyarrow.parquet as parquet
import torch
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer

LABELS, BATCH, RATE, LENGTH, SEED = 28, 16, 3e-4, 48, 42


def rows(path: str, n: int) -> tuple[list[str], torch.Tensor]:
    table = parquet.read_table(path, columns=["text", "labels"])[:n]
    targets = torch.zeros(len(table), LABELS)
    for at, labels in enumerate(table["labels"].to_pylist()):
        targets[at, labels] = 1.0
    return table["text"].to_pylist(), targets


def batches(encoded: list[list[int]], generator: torch.Generator) -> list[list[int]]:
    """Random batches of rows of like length, as `epoch_order` makes them."""
    order = torch.randperm(len(encoded), generator=generator).tolist()
    mega = 100 * BATCH
    together = [sorted(order[at : at + mega], key=lambda row: len(encoded[row])) for at in range(0, len(order), mega)]
    cut = [part[at : at + BATCH] for part in together for at in range(0, len(part), BATCH)]
    return [cut[at] for at in torch.randperm(len(cut), generator=generator).tolist()]


def main() -> None:
    checkpoint, train, validation, n, n_eval = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, num_labels=LABELS, problem_type="multi_label_classification"
    )
    texts, targets = rows(train, n)
    encoded = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]

    def logits(which: list[int], encoded: list[list[int]]) -> torch.Tensor:
        batch = tokenizer.pad({"input_ids": [encoded[row] for row in which]}, return_tensors="pt")
        return model(**batch).logits

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    order = batches(encoded, torch.Generator().manual_seed(SEED))
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
    texts, gold = rows(validation, n_eval)
    encoded = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
    with torch.no_grad():
        found = torch.cat([logits(list(range(at, min(at + 64, len(encoded)))), encoded) for at in range(0, len(encoded), 64)])
    said = {"task": "go_emotions", "by": f"torch {torch.__version__}", "rows": n, "loss": float(loss_of(found, gold))}
    for share in (0.5, 0.3, 0.2):
        predicted = torch.sigmoid(found) >= share
        said[f"micro_f1_at_{share}"] = float(f1_score(gold, predicted, average="micro", zero_division=0.0))
        said[f"macro_f1_at_{share}"] = float(f1_score(gold, predicted, average="macro", zero_division=0.0))
    print(json.dumps({**said, "train_seconds": seconds}))


if __name__ == "__main__":
    main()

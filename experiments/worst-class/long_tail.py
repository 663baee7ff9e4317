"""A data set with a long tail: python3 long_tail.py SET RATIO FOLDER; needs pyarrow. HF_ENDPOINT names the hub, AG_NEWS another
copy of AG News.

Writes train, validation and test.jsonl (id, text, label). Of the training rows class y keeps n_y = n_max * RATIO ** (-y / (m - 1)),
classes from the largest to the smallest, as far as they have so many; RATIO 1 keeps what the set has. What is not of the training
split is halved by class, 250 rows of each at most: one half steers and fits, the other one tests. Which rows stay follows from the hash of their
text alone, so every seed and every machine has the same ones.
"""

import hashlib
import io
import json
import os
import sys
import urllib.request
from pathlib import Path

import pyarrow.parquet as parquet

# Of each class, in each half.
MOST_HELD = 250
FILE = "{}-00000-of-00001.parquet"
# Repository, folder, text, label, most rows of a class to train on, and where there is no other split, the share that is held out.
SETS = {
    "ag_news": (os.environ.get("AG_NEWS", "local-subset/ag_news_20k"), "data", "text", "label", 1000, 0.2),
    "banking77": ("PolyAI/banking77", "data", "text", "label", 150, None),
    "clinc": ("clinc/clinc_oos", "imbalanced", "text", "intent", None, None),
    "hate_speech": ("tdavidson/hate_speech_offensive", "data", "tweet", "class", 2000, 0.4),
}


def read(repository, folder, split, text, label):
    end = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    with urllib.request.urlopen(f"{end}/datasets/{repository}/resolve/main/{folder}/{FILE.format(split)}") as answer:
        found = parquet.read_table(io.BytesIO(answer.read()), columns=[text, label])
    info = json.loads(found.schema.metadata.get(b"huggingface", b"{}"))
    names = info.get("info", {}).get("features", {}).get(label, {}).get("names")
    rows = {}
    for said, at in zip(found[text].to_pylist(), found[label].to_pylist()):
        name = names[at] if names else f"class {at}"
        rows.setdefault(said.strip(), name)  # a text once
    by_class = {}
    for said, name in rows.items():
        by_class.setdefault(name, []).append(said)
    for texts in by_class.values():
        texts.sort(key=lambda said: hashlib.sha256(said.encode()).hexdigest())
    return by_class


def tail(by_class, most, ratio):
    names = sorted(by_class, key=lambda name: (-len(by_class[name]), name))
    largest = min(most or len(by_class[names[0]]), len(by_class[names[0]]))
    kept = {}
    for at, name in enumerate(names):
        scale = ratio ** (-at / (len(names) - 1))
        # A set that is uneven by itself keeps its own shape, smaller.
        own = len(by_class[name]) * largest / len(by_class[names[0]])
        n = largest * scale if ratio > 1 else own
        kept[name] = by_class[name][: max(1, round(n))]
    return kept


def main(name, ratio, folder):
    repository, inside, text, label, most, share = SETS[name]
    train = read(repository, inside, "train", text, label)
    if share is None:
        rest = read(repository, inside, "test", text, label)
        seen = {said for texts in train.values() for said in texts}
        rest = {name: [said for said in texts if said not in seen] for name, texts in rest.items()}
    else:
        cut = {name: round(len(texts) * share) for name, texts in train.items()}
        rest = {name: texts[: cut[name]] for name, texts in train.items()}
        train = {name: texts[cut[name] :] for name, texts in train.items()}
    parts = {
        "train": tail(train, most, ratio),
        "validation": {name: texts[0::2][:MOST_HELD] for name, texts in rest.items()},
        "test": {name: texts[1::2][:MOST_HELD] for name, texts in rest.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for part, by_class in parts.items():
        rows = sorted((said, name) for name, texts in by_class.items() for said in texts)
        lines = [json.dumps({"id": f"{part}-{at}", "text": said, "label": name}, ensure_ascii=False) for at, (said, name) in enumerate(rows)]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))

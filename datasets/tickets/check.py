"""How far a linear model on words gets with the tickets: tf-idf of words and of word pairs, logistic regression.

Needs scikit-learn (made with 1.9.1). Run: python datasets/tickets/check.py; exits with 1 where the set is too easy.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline

HERE = Path(__file__).parent
TOO_EASY = 0.95


def main() -> int:
    months = [read(HERE / f"month-{month}.jsonl") for month in range(1, 7)]
    train = [row for month in months[:3] for row in month]
    later = [row for month in months[3:] for row in month]
    everything = train + later
    lengths = sorted(len(row["text"].split()) for row in everything)
    print(f"rows {len(everything)}, words a row {lengths[0]} to {lengths[-1]}, median {lengths[len(lengths) // 2]}")
    print("labels in train", dict(sorted(Counter(row["label"] for row in train).items())))
    print("labels in later", dict(sorted(Counter(row["label"] for row in later).items())))
    best = 0.0
    for longest in (1, 2, 3):
        within = cross_validated(train, longest)
        whole = cross_validated(everything, longest)
        model = linear(longest).fit(texts(train), labels(train))
        by_month = [model.score(texts(month), labels(month)) for month in months[3:]]
        shown = ", ".join(f"{accuracy:.3f}" for accuracy in by_month)
        print(f"words up to {longest}-grams: train, 5 folds {within:.3f}; all months, 5 folds {whole:.3f}; train on 1-3, months 4, 5, 6: {shown}")
        best = max(best, within, whole)
    print(f"best {best:.3f}, allowed {TOO_EASY}")
    return int(best > TOO_EASY)


def linear(longest: int) -> Pipeline:
    words = TfidfVectorizer(ngram_range=(1, longest), sublinear_tf=True)
    return make_pipeline(words, LogisticRegression(C=10.0, max_iter=2000))


def cross_validated(rows: list[dict], longest: int) -> float:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(cross_val_score(linear(longest), texts(rows), labels(rows), cv=folds).mean())


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts(rows: list[dict]) -> list[str]:
    return [row["text"] for row in rows]


def labels(rows: list[dict]) -> list[str]:
    return [row["label"] for row in rows]


if __name__ == "__main__":
    sys.exit(main())

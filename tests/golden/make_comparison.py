"""Two scikit-learn models' predictions as pandas writes them, and what scikit-learn and scipy say of them.

    python tests/golden/make_comparison.py

Needs numpy, pandas, pyarrow, scikit-learn, scipy. Writes predictions/ and comparison.json next to this file.
"""

import json
import pathlib

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss, recall_score
from sklearn.model_selection import train_test_split

HERE = pathlib.Path(__file__).parent
FOLDER = HERE / "predictions"
FOLDER.mkdir(exist_ok=True)

images, digits = load_digits(return_X_y=True)
keep = digits < 4
names = np.array(["zero", "one", "two", "three"])
images, gold = images[keep] + np.random.default_rng(0).normal(0, 12, images[keep].shape), names[digits[keep]]
train_x, test_x, train_y, test_y = train_test_split(images, gold, test_size=300, random_state=1)
old = LogisticRegression(max_iter=3000, C=1e-3).fit(train_x[:60], train_y[:60])
new = LogisticRegression(max_iter=3000, C=1e-3).fit(train_x, train_y)
ids = [f"row-{at}" for at in range(len(test_y))]


def frame(model, order):
    scores = model.predict_proba(test_x)
    columns = {"id": ids, "y_true": test_y, "y_pred": model.predict(test_x)}
    columns |= {f"proba_{model.classes_[at]}": scores[:, at] for at in order}
    return pd.DataFrame(columns)


first, second = frame(old, [0, 1, 2, 3]), frame(new, [2, 0, 3, 1]).sample(frac=1, random_state=2)
first.to_csv(FOLDER / "old.csv", index=False)
second.to_csv(FOLDER / "new.tsv", index=False, sep="\t")
second.to_parquet(FOLDER / "new.parquet", index=False)
records = [
    {"id": row.id, "target": row.y_true, "probabilities": {n: getattr(row, f"proba_{n}") for n in old.classes_}}
    for row in first.itertuples()
]
(FOLDER / "old.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

old_table = pd.DataFrame(records)
old_table.to_parquet(FOLDER / "old_objects.parquet", index=False)
lists = {"id": ids, "pred": [list(old.classes_).index(name) for name in old.predict(test_x)], "probs": list(old.predict_proba(test_x))}
pd.DataFrame(lists).to_parquet(FOLDER / "old_lists.parquet", index=False)


def calibration_error(scores, predicted):
    # f32 scores, as they are kept; bins open on the left.
    confidence = scores.astype(np.float32).max(1).astype(np.float64)
    right = predicted == test_y
    cell = np.ceil(confidence * 15).astype(int)
    return sum(abs(confidence[cell == b].sum() - right[cell == b].sum()) for b in range(1, 16)) / len(right)


def side(model):
    scores, predicted = model.predict_proba(test_x), model.predict(test_x)
    recalls = recall_score(test_y, predicted, average=None, labels=model.classes_)
    return {
        "accuracy": accuracy_score(test_y, predicted),
        "brier": brier_score_loss(test_y, scores, labels=model.classes_, scale_by_half=False),
        "ece": calibration_error(scores, predicted),
        "recall": dict(zip(model.classes_, recalls)),
    }


p, q, a, b = old.predict_proba(test_x), new.predict_proba(test_x), old.predict(test_x), new.predict(test_x)
tables = [[3, 1, 1, 3], [0, 10, 5, 5], [8, 2, 1, 5], [120, 880, 300, 3700], [1, 999, 0, 100000], [0, 7, 0, 9], [5000, 95000, 45000, 855000],
          [5200, 94800, 45000, 855000]]
expected = {
    "old": side(old),
    "new": side(new),
    "churn": float((a != b).mean()),
    "negative": int(((a == test_y) & (b != test_y)).sum()),
    "positive": int(((a != test_y) & (b == test_y)).sum()),
    "total_variation": float(0.5 * np.abs(p - q).sum(1).mean()),
    "kl_old_new": float((p * np.log(p / q)).sum(1).mean()),
    "from_to": pd.crosstab(pd.Series(a), pd.Series(b)).to_dict("index"),
    "fisher": [{"table": table, "p": float(fisher_exact([table[:2], table[2:]])[1])} for table in tables],
}
(HERE / "comparison.json").write_text(json.dumps(expected, indent=1, default=float) + "\n")

"""Cuts the parquet file of osanseviero/twitter-airline-sentiment by days into old.csv, new.csv and test.csv.

Usage: airline_days.py FILE.parquet FOLDER (needs pyarrow). The id is the row's number: tweet_id is not unique. Of rows
with the same text the first one stays, so that none is both trained on and judged on.
"""

import csv
import pathlib
import sys

import pyarrow.parquet as parquet

DAYS = {"old": ("2015-02-16", "2015-02-17"), "new": ("2015-02-22",), "test": ("2015-02-23", "2015-02-24")}

rows = parquet.read_table(sys.argv[1]).to_pylist()
for number, row in enumerate(rows):
    row["number"] = number
rows.sort(key=lambda row: row["tweet_created"])
folder = pathlib.Path(sys.argv[2])
seen = set()
for name, days in DAYS.items():
    n = 0
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as out:
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow(["id", "text", "label", "airline", "created"])
        for row in rows:
            if row["tweet_created"][:10] in days and row["text"] not in seen:
                seen.add(row["text"])
                columns = [row["number"], row["text"], row["airline_sentiment"], row["airline"], row["tweet_created"]]
                lines.writerow(columns)
                n += 1
    print(f"{name}: {n} rows of {', '.join(days)}")

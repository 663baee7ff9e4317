"""The slices of one column in a report.json as a table. Usage: slices.py report.json COLUMN"""

import json
import sys

report = json.load(open(sys.argv[1], encoding="utf-8"))
print(f"| {sys.argv[2]} | rows | accuracy old % | accuracy new % | churn % | negative flips % |")
print("|---|---:|---:|---:|---:|---:|")
for part in report["comparison"]["slices"]:
    if part["kind"] == sys.argv[2]:
        measured = part["measured"]
        percent = {key: f"{100 * measured[key]['value']:.1f}" for key in ("accuracy_old", "accuracy_new", "churn", "nfr")}
        low, high = (100 * measured["churn"]["interval"][end] for end in ("low", "high"))
        print(
            f"| {part['name'].split(' = ')[1]} | {measured['flips']['rows']} | {percent['accuracy_old']} | "
            f"{percent['accuracy_new']} | {percent['churn']} ({low:.1f} to {high:.1f}) | {percent['nfr']} |"
        )

"""The last line of `lowchurn diagnose --json` on stdin as one short object, with KEY=VALUE arguments before it."""

import json
import sys


def fit(fit):
    line = fit["line"] or {}
    interval = line.get("interval") or {}
    return {
        "slope": line.get("slope"),
        "low": interval.get("low"),
        "high": interval.get("high"),
        "mean": fit["mean_deviation"],
    }


def finding(fit):
    """By the interval alone, which the page counts; the program asks for a size too."""
    if fit["low"] is None:
        return "no_slope" if fit["slope"] is None else "undecided"
    return "exaggerates" if fit["low"] > 1 else "softens" if fit["high"] < 1 else "undecided"


def part(part):
    rate = lambda name: (part[name] or {}).get("value")
    return {
        "rows": part["rows"],
        "teacher": rate("teacher_accuracy"),
        "student": rate("student_accuracy"),
        "agreement": rate("agreement"),
        "finding": finding(fit(part["all"])),
        "all": fit(part["all"]),
        "lowest": fit(part["low"]),
        "highest": fit(part["high"]),
        "spearman": part["spearman"],
    }


def typed(value):
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


last = json.loads(sys.stdin.read().strip().splitlines()[-1])
line = {key: typed(value) for key, value in (arg.split("=", 1) for arg in sys.argv[1:])}
line |= {found["rows_of"]: part(found) for found in last["parts"]}
if last.get("directions"):
    line["ratios"] = {layer["name"]: layer["ratio"] for layer in last["directions"]["layers"]}
print(json.dumps(line))

"""Students of MiniLM on SST-2: what they keep, what they cost."""

import math

import tables
from statistic import mcnemar

STUDENTS = [f"{layers} layers, {by}" for layers in (3, 2) for by in ("labels alone", "labels and logits", "labels, logits and hidden states")]
SMALL = ["teacher", *STUDENTS, "tiny, labels and logits"]
FULL = [f"full {key}" for key in SMALL]

ABOUT = """# Compression

MiniLM fine-tuned on SST-2 into smaller students on the same rows, judged on the validation rows. One seed, so what another seed would give isn't
in any number here. Churn, lost and won rows are against the teacher: lost rows (negative flips) are those that it has right and the student wrong, won
the other way round; p is how likely counts as far apart are by chance (McNemar, exact). Speed is of scoring 10,000 texts, the best of three turns
each. Words are most of MiniLM's parameters, which is why fewer layers shrink the file less than the time. The last student starts from the
encoder that ships, which has seen SST-2's training texts without labels (`models/tiny/README.md`).
"""


def page(lines: list[dict], folder) -> str:
    parts = [ABOUT]
    for title, mark, keys in (("Small size", "", SMALL), ("Full size", "full ", FULL)):
        own = {line["key"].removeprefix(mark): line for line in lines if line["key"] in keys}
        if "teacher" in own:
            parts += one(title, own)
        else:
            parts.append(f"## {title}\n\nNot run.\n")
    return "\n".join(parts)


def one(title: str, own: dict[str, dict]) -> list[str]:
    teacher = own["teacher"]
    n = teacher["flips"]["rows"]
    rows = []
    for key, line in own.items():
        flips, is_teacher = line["flips"], key == "teacher"
        rows.append(
            [
                key,
                f"{line['layers']} × {line['width']}",
                f"{line['parameters'] / 1e6:.1f} M",
                f"{line['bytes'] / 2**20:.0f} MiB",
                "1.00" if is_teacher else f"{line['speed_up']:.2f}",
                f"{100 * right(line) / n:.1f}",
                f"{100 * right(line) / right(teacher):.1f}",
                f"{100 * flips['changed'] / n:.1f}",
                flips["negative"],
                flips["positive"],
                "–" if is_teacher else shown(mcnemar(flips["negative"], flips["positive"])),
            ]
        )
    head = ["", "layers × width", "parameters", "size", "times as fast", "accuracy %", "of the teacher's %", "churn %", "lost rows", "won", "p"]
    parts = [
        f"## {title}: `{teacher['rows']}`\n",
        f"{n} rows to judge by, so one row is {100 / n:.2f} points. The teacher timed against itself in the same way came to {teacher['speed_up']:.2f} where it"
        " should be\n1.00, so speeds are no surer than that.\n",
        tables.table(head, rows),
    ]
    told = [between(layers, own) for layers in (3, 2)]
    if any(told):
        parts.append(
            "On which rows two students differ wasn't kept. At most these are all rows that either of them changes against the teacher; chance is\n"
            "reckoned with so many.\n"
        )
        parts.append("\n".join(said for said in told if said) + "\n")
    return parts


def between(layers: int, own: dict[str, dict]) -> str:
    """What hidden states and logits bring over labels alone, and how much of it could be chance."""
    alone, best = (own.get(f"{layers} layers, {by}") for by in ("labels alone", "labels, logits and hidden states"))
    if not (alone and best):
        return ""
    limit = 1.96 * math.sqrt(alone["flips"]["changed"] + best["flips"]["changed"])
    gap = right(best) - right(alone)
    verdict = "so nothing is decided" if abs(gap) <= limit else "so it is more than chance"
    more = f"{abs(gap)} {'more' if gap >= 0 else 'fewer'}"
    return f"- {layers} layers: with logits and hidden states {more} rows are right than with labels alone; up to {limit:.0f} are within chance, {verdict}."


def right(line: dict) -> int:
    return line["flips"]["both_right"] + line["flips"]["positive"]


def shown(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def commands(lines: list[dict]) -> list[str]:
    full = tables.exactly("just experiment compression", FULL, lines)
    return tables.exactly("just experiment compression --small", SMALL, lines) + full


def missing(lines: list[dict]) -> list[str]:
    there = {line["key"] for line in lines}
    return [key.removeprefix("full ") for key in FULL if key not in there]


def is_small(line: dict) -> bool:
    return line["key"] in SMALL

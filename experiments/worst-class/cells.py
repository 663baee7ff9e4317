"""Which commands make the lines that are kept: cells of run.sh with all of its runs, or with those alone that claims are judged by."""

from itertools import product

from class_claims import fields

# What run.sh makes of a cell, after set, ratio and seed.
GRID = [f"teacher={teacher} student={student}" for teacher, student in product(["none", "standard", "balanced", "robust"], ["standard", "balanced", "robust"])]
BOUNDED = [f"teacher=standard student={student}" for student in ["ratio-10", "ratio-100", "as-shipped"]] + ["teacher=none student=ratio-100"]
OTHERS = ["group-dro", "teacher-steered", "ada-margin", "ada-alpha", "post-shift-balanced", "post-shift-robust"]
CONTRASTS = [f"teacher=standard student={student}" for student in OTHERS]
WEIGHTS = [f"teacher=standard student=robust weight={weight}" for weight in ["0.25", "0.5", "0.75"]]
ALL = GRID + WEIGHTS + CONTRASTS + BOUNDED
DECIDING = [
    *(f"teacher={teacher} student={student}" for teacher, student in product(["none", "standard"], ["standard", "robust"])),
    "teacher=standard student=balanced",
    "teacher=robust student=robust",
    "teacher=standard student=group-dro",
    "teacher=standard student=post-shift-robust",
    *BOUNDED,
]
GROUPS = [f"teacher={teacher} student={student}" for teacher, student in product(["none", "standard"], ["standard", "balanced", "robust"])]
UPDATES = [f"update objective={objective} budget={budget}" for objective, budget in product(["standard", "robust"], ["none", "15%"])]


def commands(lines: list[dict]) -> list[str]:
    """In the order of a shell that runs them one after the other; LEAVE_OUT names what a cell has no line of."""
    kept = {}
    for line in lines:
        f, key = fields(line), line["key"]
        size = "--small" if key.startswith("small ") else ""
        head, tail = key.split(f"seed={f['seed']} ", 1)
        kind = "groups" if "groups" in f else "update" if tail.startswith("update") else "set"
        cell = f"{f['groups']}:{f['seed']}" if kind == "groups" else f"{f['set']}:{f['ratio']}:{f['seed']}"
        kept.setdefault((size, kind, cell), set()).add(tail)
    by_command = {}
    for (size, kind, cell), tails in kept.items():
        whole = {"groups": GROUPS, "update": UPDATES, "set": ALL if tails - set(DECIDING) else DECIDING}[kind]
        missing = tuple(tail for tail in whole if tail not in tails)
        by_command.setdefault((size, kind, whole is DECIDING, missing), []).append(cell)
    return [command(*which, cells) for which, cells in sorted(by_command.items())]


def command(size: str, kind: str, is_deciding: bool, missing: tuple[str, ...], cells: list[str]) -> str:
    named = {"set": "CELLS", "groups": "GROUPS_OF", "update": "BUDGETS_OF"}
    said = [f'{variable}="{" ".join(sorted(cells))}"' if kind == which else f"{variable}=" for which, variable in named.items()]
    said += ["DECIDING=yes"] * is_deciding + [f'LEAVE_OUT="{",".join(missing)}"'] * bool(missing)
    return " ".join([*said, "just experiment worst-class", size]).rstrip()

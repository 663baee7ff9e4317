"""Which runs run.sh makes, which commands make those that are kept, and what of the full size isn't: cells of run.sh with all of its runs, or
with those alone that claims are judged by."""

from collections import Counter
from itertools import product

from class_claims import encoder_of, fields
from tables import counted

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


FULL_SEEDS = range(1, 6)
SETS = ["ag_news ratio=100", "ag_news ratio=10", "hate_speech ratio=1", "banking77 ratio=10", "banking77 ratio=100", "clinc ratio=1"]
OF_GROUPS, OF_UPDATES = ["airline", "hatecheck"], ["ag_news ratio=100", "hate_speech ratio=1", "banking77 ratio=10"]
SMALL_SETS, SMALL_UPDATES = ["ag_news ratio=100", "ag_news ratio=10", "hate_speech ratio=1", "banking77 ratio=100"], ["ag_news ratio=100"]


def keys(encoder: str, seed: int, sets: list[str], updates: list[str]) -> list[str]:
    heads = {"set": (sets, ALL), "groups": (OF_GROUPS, GROUPS), "update": (updates, UPDATES)}
    return [
        f"{encoder} {'groups' if kind == 'groups' else 'set'}={name} seed={seed} {tail}"
        for kind, (names, tails) in heads.items()
        for name in names
        for tail in tails
    ]


FULL = [key for encoder in ("tiny", "minilm-l6") for seed in FULL_SEEDS for key in keys(encoder, seed, SETS, OF_UPDATES)]
SMALL = set(keys("tiny", 1, SMALL_SETS, SMALL_UPDATES))


def is_small(line: dict) -> bool:
    return line["key"] in SMALL


def missing(lines: list[dict]) -> list[str]:
    """By encoder and kind of run."""
    there = {line["key"] for line in lines}
    left, of = (Counter(map(named, declared)) for declared in ([key for key in FULL if key not in there], FULL))
    return [f"{what}: {left[what]} of {counted(n, 'run')}" for what, n in of.items() if left[what]]


def named(key: str) -> str:
    """`tiny, updates`."""
    return f"{key.split()[0]}, {dict(set='cells', groups='groups by a column', update='updates under a budget')[kind_of(key)]}"


def kind_of(key: str) -> str:
    return "update" if " update " in key else "groups" if " groups=" in key else "set"


def commands(lines: list[dict]) -> list[str]:
    """In the order of a shell that runs them one after the other; LEAVE_OUT names what a cell has no line of."""
    kept = {}
    for line in lines:
        f, kind = fields(line), kind_of(line["key"])
        tail = line["key"].split(f"seed={f['seed']} ", 1)[1]
        cell = f"{f['groups']}:{f['seed']}" if kind == "groups" else f"{f['set']}:{f['ratio']}:{f['seed']}"
        kept.setdefault((encoder_of(line), kind, cell), set()).add(tail)
    by_command = {}
    for (encoder, kind, cell), tails in kept.items():
        whole = {"groups": GROUPS, "update": UPDATES, "set": ALL if tails - set(DECIDING) else DECIDING}[kind]
        missing = tuple(tail for tail in whole if tail not in tails)
        by_command.setdefault((encoder, kind, whole is DECIDING, missing), []).append(cell)
    return [command(*which, cells) for which, cells in sorted(by_command.items())]


def command(encoder: str, kind: str, is_deciding: bool, missing: tuple[str, ...], cells: list[str]) -> str:
    named = {"set": "CELLS", "groups": "GROUPS_OF", "update": "BUDGETS_OF"}
    said = [f'{variable}="{" ".join(sorted(cells))}"' if kind == which else f"{variable}=" for which, variable in named.items()]
    said += ["DECIDING=yes"] * is_deciding + [f'LEAVE_OUT="{",".join(missing)}"'] * bool(missing)
    return " ".join([f"ENCODERS={encoder}", *said, "just experiment worst-class"])

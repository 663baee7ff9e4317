"""Which runs there are, which commands make them, and how long they took."""

from collections import defaultdict
from statistics import median

from tables import counted, listed, table

# The sizes of run.sh.
PARTS = ["cold", "objective", "tuned", "warm", "neighbours", "ensembles", "seven"]
TASKS = ["sst2", "ag_news", "imdb", "sst2-5k"]
SEEDS = {"tiny": range(42, 62), "scratch": range(42, 62), "minilm-l6": range(42, 47)}
# Encoder, task, part, seed.
Run = tuple[str, str, str, int]
SMALL = {("tiny", task, part, seed) for task in ("sst2", "ag_news") for part in PARTS for seed in (42, 43) if part not in ("tuned", "seven")}
FULL = {
    (encoder, task, part, seed)
    for encoder, seeds in SEEDS.items()
    for task in TASKS
    for part in PARTS
    for seed in seeds
    if encoder != "scratch" or task == "imdb"
}


def run_of(line: dict) -> Run:
    return line["encoder"], line["data"], line["part"], line["seed"]


def products(runs: set[Run]) -> list[tuple[dict[str, list[int]], list[str], list[str]]]:
    """As few products as are easily found of encoders (each with its seeds), tasks and parts; together they are the runs, each once."""
    seeds: dict[tuple, list[int]] = defaultdict(list)
    for encoder, task, part, seed in sorted(runs):
        seeds[encoder, task, part].append(seed)
    parts: dict[tuple, list[str]] = defaultdict(list)
    for (encoder, task, part), own in sorted(seeds.items(), key=lambda one: PARTS.index(one[0][2])):
        parts[encoder, task, tuple(own)].append(part)
    tasks: dict[tuple, list[str]] = defaultdict(list)
    for (encoder, task, own), of in sorted(parts.items(), key=lambda one: TASKS.index(one[0][1])):
        tasks[encoder, own, tuple(of)].append(task)
    encoders: dict[tuple, dict[str, list[int]]] = defaultdict(dict)
    left = []
    for (encoder, own, of), among in sorted(tasks.items(), key=lambda one: list(SEEDS).index(one[0][0])):
        # An encoder has one list of seeds in a command.
        if encoder in encoders[tuple(among), of]:
            left.append(({encoder: list(own)}, among, list(of)))
        else:
            encoders[tuple(among), of][encoder] = list(own)
    return [(own, list(among), list(of)) for (among, of), own in encoders.items()] + left


def commands(lines: list[dict]) -> list[str]:
    said = []
    for encoders, tasks, parts in products({run_of(line) for line in lines}):
        own = " ".join(f"{encoder}:{in_shell(seeds)}" for encoder, seeds in encoders.items())
        said.append(f'TASKS="{" ".join(tasks)}" ENCODERS="{own}" PARTS="{" ".join(parts)}" just experiment churn')
    return said


def in_shell(seeds: list[int]) -> str:
    is_row = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"$(seq -s, {seeds[0]} {seeds[-1]})" if is_row else ",".join(map(str, seeds))


def missing(lines: list[dict]) -> list[str]:
    return [
        f"{encoder}, {' and '.join(tasks)}: {', '.join(parts)}, {counted(len(seeds), 'seed')} ({listed(seeds)})"
        for encoders, tasks, parts in products(FULL - {run_of(line) for line in lines})
        for encoder, seeds in encoders.items()
    ]


def is_small(line: dict) -> bool:
    return run_of(line) in SMALL


def times(lines: list[dict]) -> list[str]:
    """The median minutes of a line."""
    seconds: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        seconds[line["encoder"], line["data"]][line["part"]].append(line["seconds"])
    shown = [part for part in PARTS if any(part in own for own in seconds.values())]
    rows = [
        [encoder, task, *(f"{median(own[part]) / 60:.1f}" if part in own else "–" for part in shown), f"{sum(map(sum, own.values())) / 60:.0f}"]
        for (encoder, task), own in sorted(seconds.items())
    ]
    return [
        "## Minutes\n",
        "The median of a line, which is all trainings of a part with one seed, and the sum of all lines.\n",
        table(["encoder", "task", *shown, "sum"], rows),
    ]

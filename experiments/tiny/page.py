"""The encoder that ships beside the same one with fresh weights: a row a task, number of rows and number of epochs."""

from statistics import mean

import tables

TASKS = {"sst2": "SST-2, 872 validation rows", "tickets": "tickets, the last 300 of the 1,500 rows of months 1 to 3"}

# What run.sh makes.
SEEDS, SMALL_SEEDS = (42, 43, 44, 45, 46), (42, 43)


def keys(seed: int, is_small: bool) -> list[str]:
    sets = [("sst2", (250, 500, 1000)), ("tickets", (250, 500, 1000, 1200))]
    settings = [f"{task}, {rows} rows, {epochs} epochs" for epochs in (4, 8) for task, sizes in sets for rows in sizes]
    settings += [] if is_small else ["sst2, 67349 rows, 1 epochs"]
    return [f"{setting}, {start}, seed {seed}" for setting in settings for start in ("trained", "fresh")]


def commands(lines: list[dict]) -> list[str]:
    there = {line["key"] for line in lines}
    whole = [seed for seed in SEEDS if there.issuperset(keys(seed, False))]
    said = [f'SEEDS="{" ".join(map(str, whole))}" just experiment tiny'] if whole else []
    for seed in SEEDS:
        said += tables.exactly(f"SEEDS={seed} just experiment tiny", keys(seed, False), lines) if seed not in whole else []
    return said


def missing(lines: list[dict]) -> list[str]:
    there = {line["key"] for line in lines}
    left = {seed: [key for key in keys(seed, False) if key not in there] for seed in SEEDS}
    return [f"seed {seed}: {len(own)} of {tables.counted(len(keys(seed, False)), 'run')}" for seed, own in left.items() if own]


def is_small(line: dict) -> bool:
    return any(line["key"] in keys(seed, True) for seed in SMALL_SEEDS)


def page(lines: list[dict], folder) -> str:
    groups: dict[tuple, dict[str, dict[int, float]]] = {}
    for line in lines:
        task, rows, epochs, start, seed = line["key"].split(", ")
        setting = (task, int(rows.split()[0]), int(epochs.split()[0]))
        found = groups.setdefault(setting, {"trained": {}, "fresh": {}})
        found[start][int(seed.split()[1])] = line["metrics"]["accuracy"]
    text = (
        "# What models/tiny brings\n\n`models/tiny` was distilled from MiniLM; the fresh one has its config and vocabulary, and weights"
        " as BERT's before any training, of the run's\nseed. Both are fine-tuned alike: batch 16 and rate 1e-3, as `models/tiny.toml`"
        " advises; all of SST-2 with batch 64 and products in bf16.\nAccuracy in percent, mean and standard deviation over seeds, of the"
        " best epoch by the very rows that it is judged on, on both sides; the gain is\nthe mean of the differences seed by seed with its"
        " standard error. The rows are the first ones of the training rows, the same for every seed.\n\n"
        "`models/tiny` has seen SST-2's training texts before, without their labels (`models/tiny/README.md`), so what it gains on SST-2 is partly\n"
        "of knowing the very texts that it is fine-tuned on. SST-2's validation rows and tickets it has not seen.\n"
    )
    for task, title in TASKS.items():
        rows, gains = [], {}
        for setting in sorted(setting for setting in groups if setting[0] == task):
            _, n, epochs = setting
            trained, fresh = groups[setting]["trained"], groups[setting]["fresh"]
            both = [seed for seed in trained if seed in fresh]
            differences = [trained[seed] - fresh[seed] for seed in both]
            if not both:
                continue
            gains[n, epochs] = 100 * mean(differences)
            cells = [tables.mean_sd([side[seed] for seed in both], 100, 1) for side in (trained, fresh)]
            rows.append([f"{n:,}", epochs, *cells, tables.mean_se(differences, 100, 1), len(both)])
        if not rows:
            continue
        text += f"\n## {title}\n\n"
        text += tables.table(["training rows", "epochs", "trained", "fresh", "gain", "seeds"], rows)
        most, least = max(gains, key=gains.get), min(gains, key=gains.get)
        text += f"\nThe gain is greatest with {told(most)}, {gains[most]:.1f} points, and least with {told(least)}, {gains[least]:.1f}.\n"
    return text


def told(setting: tuple[int, int]) -> str:
    rows, epochs = setting
    return f"{rows:,} rows and {epochs} epoch{'s' if epochs > 1 else ''}"

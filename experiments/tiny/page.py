"""The encoder that ships beside the same one with fresh weights: a row a task, number of rows and number of epochs."""

from statistics import mean

import tables

TASKS = {"sst2": "SST-2, 872 validation rows", "tickets": "tickets, the last 300 of the 1,500 rows of months 1 to 3"}


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
        " standard error. The rows are the first ones of the training rows, the same for every seed.\n"
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

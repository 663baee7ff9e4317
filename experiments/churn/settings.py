"""What the lines say by setting and seed, and which setting the rules choose."""

from collections import defaultdict
from statistics import mean

NAMES = {"sst2": "SST-2", "ag_news": "AG News (20k)", "imdb": "IMDb", "sst2-5k": "SST-2, five times the rows"}

# Method, start, what else tells it apart.
Setting = tuple[str, str, str]
# Points by seed.
Points = dict[int, dict]
Found = dict[Setting, Points]

COLD = ("retrain", "cold", "")


def settings_of(own: list[dict]) -> Found:
    found: Found = defaultdict(dict)
    for line in own:
        for point in line["points"]:
            found[named(point)][line["seed"]] = point
    return dict(found)


def named(point: dict) -> Setting:
    """What tells it apart from others is a method of its own, where it is another loss."""
    method, setting = point["method"], point["setting"]
    for key, name in ((" divergence logit-mse", "l2-logit"), (" smoothed true", "anchor-rcp smoothed"), ("churn<=", "constrained")):
        if key in setting:
            method, setting = name, setting.replace(key, "")
    return method, point["init"], setting


def column(points: Points, key: str, seeds: list[int] | None = None) -> list[float]:
    return [points[seed][key] for seed in (sorted(points) if seeds is None else seeds)]


def both(found: Found, setting: Setting, among: list[int] | None = None) -> list[int]:
    """The seeds that a setting has with the cold retrain."""
    return [seed for seed in sorted(found[setting] if among is None else among) if seed in found[setting] and seed in found[COLD]]


def least_churn(found: Found, settings: list[Setting], among: list[int] | None = None) -> Setting | None:
    """Of the settings with a cold retrain's mean accuracy the one of lowest mean churn."""
    fit = []
    for setting in settings:
        seeds = both(found, setting, among)
        if not seeds:
            continue
        mean_of = lambda which, key: mean(column(found[which], key, seeds))
        if mean_of(setting, "accuracy") >= mean_of(COLD, "accuracy"):
            fit.append((mean_of(setting, "churn"), setting))
    return min(fit, default=(0.0, None))[1]


def by_validation(found: Found, settings: list[Setting]) -> list[dict]:
    """For each seed the point that its validation rows choose, where they choose one."""
    chosen = []
    for seed, cold in sorted(found[COLD].items()):
        points = [found[setting][seed] for setting in settings if seed in found[setting]]
        fit = [point for point in points if point["validation"][0] >= cold["validation"][0]]
        if fit:
            chosen.append(min(fit, key=lambda point: point["validation"][1]))
    return chosen


def families(found: Found) -> dict[tuple[str, str], list[Setting]]:
    families: dict[tuple[str, str], list[Setting]] = defaultdict(list)
    for setting in sorted(found):
        families[setting[:2]].append(setting)
    return dict(families)

"""RESULTS.md of this folder, from its lines."""

from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from tables import Axis, Series, counted, mean_se, plot, table

NAMES = {"sst2": "SST-2", "ag_news": "AG News (20k)", "imdb": "IMDb"}
SHARES = [n / 20 for n in range(21)]
Setting = tuple[str, str, str]


def page(lines: list[dict], folder: Path) -> str:
    parts = [
        "# Churn by distillation (paper 1, arXiv 2106.02654): its protocol on text\n",
        "A deployed model of 1,000 rows (100 for early stopping), its successor of those and 1,000 more, both judged on 2,000 others; all rows drawn",
        "anew with each seed. ± is the standard error over seeds. A setting's churn at cold accuracy counts where its mean accuracy is that of a cold",
        "retrain at least; the same rows order the settings and judge them, so the best look a little better than they are.\n",
    ]
    groups: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for line in lines:
        groups[(line["encoder"], line["data"])].append(line)
    parts += claims(groups)
    for (encoder, data), own in sorted(groups.items()):
        parts += one(f"{NAMES.get(data, data)}, {encoder}", f"{encoder}-{data}", own, folder)
    return "\n".join(parts)


def settings_of(own: list[dict]) -> dict[Setting, dict[int, dict]]:
    """Points by setting and seed."""
    found: dict[Setting, dict[int, dict]] = defaultdict(dict)
    for line in own:
        for point in line["points"]:
            found[(point["method"], point["init"], point["setting"])][line["seed"]] = point
    return found


def column(points: dict[int, dict], key: str) -> list[float]:
    return [points[seed][key] for seed in sorted(points)]


COLD = ("retrain", "cold", "")


def best_at_cold(found: dict[Setting, dict[int, dict]]) -> dict[tuple[str, str], Setting | None]:
    """By method and start, the setting of least churn with the accuracy of a cold retrain on the mean; None where none has it."""
    cold = mean(column(found[COLD], "accuracy"))
    best: dict[tuple[str, str], Setting | None] = {}
    for setting, points in found.items():
        key = setting[:2]
        best.setdefault(key, None)
        if mean(column(points, "accuracy")) >= cold:
            now = best[key]
            if now is None or mean(column(points, "churn")) < mean(column(found[now], "churn")):
                best[key] = setting
    return best


def hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lower convex hull of (churn, error): what a random choice among models can have, the linear programme of papers.md 5.4."""
    low: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        while len(low) > 1 and (low[-1][0] - low[-2][0]) * (y - low[-2][1]) <= (x - low[-2][0]) * (low[-1][1] - low[-2][1]):
            low.pop()
        if not low or y < low[-1][1]:
            low.append((x, y))
    return low


def mixed(low: list[tuple[float, float]], budget: float) -> float | None:
    """The least error of a mixture whose churn is the budget at most."""
    if not low or budget < low[0][0]:
        return None
    for (x0, y0), (x1, y1) in zip(low, low[1:]):
        if budget < x1:
            return y0 + (budget - x0) / (x1 - x0) * (y1 - y0)
    return low[-1][1]


def one(title: str, slug: str, own: list[dict], folder: Path) -> list[str]:
    found = settings_of(own)
    if COLD not in found:
        return []
    n = len(found[COLD])
    churn = mean(column(found[COLD], "churn"))
    rows = []
    for (method, init), setting in sorted(best_at_cold(found).items()):
        if setting is None:
            rows.append([method, init, "", "not attained", "", "", ""])
            continue
        points = found[setting]
        cells = [mean_se(column(points, key), 100) for key in ("accuracy", "churn", "nfr")]
        rows.append([method, init, setting[2], *cells, f"{mean(column(points, 'churn')) / churn:.2f}"])
    parts = [
        f"## {title}, {counted(n, 'seed')}\n",
        f"A cold retrain: accuracy {mean_se(column(found[COLD], 'accuracy'), 100)} %, churn {mean_se(column(found[COLD], 'churn'), 100)} %.\n",
        table(["method", "start", "setting", "accuracy %", "churn at cold accuracy %", "negative flips %", "churn / cold's"], rows),
    ]
    by_method: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (method, init, _), points in found.items():
        by_method[f"{method} {init}".strip()].append((100 * mean(column(points, "churn")), 100 - 100 * mean(column(points, "accuracy"))))
    everything = hull([point for points in by_method.values() for point in points])
    shown = ["retrain cold", "retrain warm", "distil cold", "distil warm", "anchor cold", "interpolate warm", "label-smoothing cold"]
    series = [Series("frontier of all", everything, "line", "#8C8C8C", True)]
    series += [Series(name, sorted(by_method[name]), "both" if len(by_method[name]) > 2 else "dots") for name in shown if name in by_method]
    plot(folder / f"frontier-{slug}.svg", f"Error against churn: {title}", Axis("churn %"), Axis("error %"), series)
    cost = lambda points, a: min(a * error + (1 - a) * churned for churned, error in points)
    curves = [Series(name, [(a, cost(by_method[name], a)) for a in SHARES], "line") for name in shown if name in by_method]
    plot(folder / f"cost-{slug}.svg", f"Cost a·error + (1 − a)·churn: {title}", Axis("a"), Axis("cost, points"), curves)
    parts += [f"![error against churn](frontier-{slug}.svg)\n", f"![cost by a](cost-{slug}.svg)\n"]
    distilled = [point for name in ("distil cold", "distil warm") for point in by_method.get(name, [])]
    distilled += by_method.get("retrain cold", [])
    low, budget = hull(distilled), 50 * churn
    single = min((error for churned, error in distilled if churned <= budget), default=None)
    both = mixed(low, budget)
    if single is not None and both is not None:
        parts += [
            f"At half of the cold retrain's churn ({budget:.2f} %), the best single λ has an error of {single:.2f} %, the best random mixture of two"
            f" (the linear programme of papers.md 5.4, over these means) {both:.2f} %.\n"
        ]
    return parts


def claims(groups: dict[tuple[str, str], list[dict]]) -> list[str]:
    first, second, third, fourth = [], [], [], []
    n = min((len(own) for own in groups.values()), default=0)
    for (encoder, data), own in sorted(groups.items()):
        found = settings_of(own)
        if COLD not in found:
            continue
        name = f"{NAMES.get(data, data)} {encoder}"
        best = best_at_cold(found)
        cold = mean(column(found[COLD], "churn"))
        distilled = [best[key] for key in best if key[0] == "distil" and best[key]]
        least = min((mean(column(found[s], "churn")) for s in distilled), default=None)
        first.append((least is not None and least < cold, f"{name} {'not attained' if least is None else f'{100 * least:.2f}'} of {100 * cold:.2f}"))
        trained = [s for key, s in best.items() if s and key[0] not in ("distil", "interpolate")]
        rival = min(trained, key=lambda s: mean(column(found[s], "churn")), default=None)
        if least is not None and rival:
            other = mean(column(found[rival], "churn"))
            second.append((least <= other, f"{name} {100 * least:.2f} against {100 * other:.2f} ({rival[0]} {rival[1]})"))
        lambdas = sorted((s for s in found if s[0] == "distil" and s[1] == "cold"), key=lambda s: s[2])
        way = [cold] + [mean(column(found[s], "churn")) for s in lambdas]
        third.append((all(a >= b for a, b in zip(way, way[1:])), f"{name} {' → '.join(f'{100 * x:.2f}' for x in way)}"))
        if lambdas and len(found[COLD]) > 1:
            spread = lambda s: stdev(column(found[s], "accuracy"))
            middle = lambdas[len(lambdas) // 2]
            fourth.append((spread(middle) < spread(COLD), f"{name} {100 * spread(middle):.2f} against {100 * spread(COLD):.2f}"))

    def verdict(claim: str, cases: list[tuple[bool, str]], least: int) -> list[str]:
        evidence = "; ".join(text for _, text in cases)
        if not cases:
            return [claim, "no run yet", ""]
        holds = sum(is_so for is_so, _ in cases)
        if n < least:
            return [claim, f"undecided with {counted(n, 'seed')}; holds in {holds} of {len(cases)}", evidence]
        return [claim, "reproduced" if holds == len(cases) else "not reproduced" if holds == 0 else "undecided at this size", evidence]

    rows = [
        verdict("distillation has less churn at cold accuracy than a cold retrain", first, 5),
        verdict("no trained baseline has less churn at cold accuracy (interpolation, which trains nothing, aside)", second, 5),
        verdict("churn falls with λ (cold start)", third, 5),
        verdict("soft targets vary less: deviation of accuracy over seeds, distilled and cold", fourth, 10),
    ]
    return ["## Claims\n", "Churn in percent, deviations in points.\n", table(["claim", "verdict", "evidence"], rows)]

"""RESULTS.md of this folder, from its lines."""

import math
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from statistic import Interval, interval, ratio_of_variances, slope
from tables import Axis, Series, counted, mean_se, plot, table

NAMES = {"sst2": "SST-2", "ag_news": "AG News (20k)", "imdb": "IMDb", "sst2-5k": "SST-2, five times the rows"}
SHARES = [n / 20 for n in range(21)]
# Method, start, what else tells it apart.
Setting = tuple[str, str, str]
# Points by seed.
Points = dict[int, dict]
Found = dict[Setting, Points]

COLD = ("retrain", "cold", "")
# Below, nothing is decided.
LEAST_TASKS, LEAST_SEEDS, LEAST_SEEDS_OF_VARIANCES = 2, 5, 10
# Halves of seeds that choose for one seed.
DRAWS = 50
# These train nothing, or more than one model.
NOT_ONE_TRAINING = ("interpolate", "ensemble")

ABOUT = """# Churn by distillation (paper 1, arXiv 2106.02654): its protocol on text

A deployed model of 1,000 rows (100 for early stopping: the best of its epochs), its successor of those and 1,000 more, both judged on
2,000 others; all rows are drawn anew with each seed, and the successor's head, order and dropout are of another seed than the deployed
model's. ± is the standard error over seeds, brackets are 95 % intervals.

- **Churn at cold accuracy**: of the settings whose mean accuracy is that of a cold retrain at least (on the same seeds), the lowest mean
  churn; "not attained" where there is none. The same rows order the settings and judge them, so the best look a little better than they are.
- **By validation**: for each seed, of the settings that have a cold retrain's accuracy on the 100 validation rows the one of lowest churn
  there; what it has on the 2,000 others, over the seeds where there is such a setting. The deployed model's epoch was chosen on these rows
  too, and 100 rows order little.
- **Claims** judge each seed by settings that others chose: a random half of the other seeds, drawn {draws} times, chooses by its means, and a cold
  retrain is chosen where nothing has its accuracy. Halves, since of all others a setting near a cold retrain's accuracy would be chosen just
  where the seed left out is one that it is bad for. This rule was written with most lines there.
- **Grids.** distil has five λ a start. Where part `tuned` was run, the others have about as many as papers.md 5.5 gives them ({tuned}); elsewhere they
  have one to three, which favours distil.
- **Steadier objective, steadier students.** The paper argues from the variance of the objective that soft or hard labels estimate. Part
  `objective` measures that: the loss of a cold retrain over the 2,000 rows, by labels and by the deployed model's scores, and how far their
  means lie apart, which is what the scores are wrong by. Over seeds of training the variance of accuracy and churn has other sources too.

`constrained` is distillation whose λ is driven so that the churn on the training rows' held-out part stays under a limit.

`scratch` is a transformer in the size of the paper's on IMDb (papers.md 5.6), trained from nothing: 20,000 words, 200 tokens, width 32, one
block of two heads, mean over tokens, Adam at 1e-3, batches of 32, five epochs. It isn't that network: the block is ModernBERT's (norms in
front, rotary positions, gated ReLU, no biases, heads 16 wide where those have 32), the dense layer behind the mean is 32 wide with a norm
for 20, and of a longer text the first 200 words are read. The vocabulary is of the whole training file. `tiny` is the encoder that ships,
three epochs. MiniLM, and tiny on IMDb, are trained and scored in bf16, all else in f32. l2-logit is `distil:divergence=logit-mse`.
"""


def page(lines: list[dict], folder: Path) -> str:
    groups: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for line in lines:
        groups[(line["encoder"], line["data"])].append(line)
    found = {group: settings_of(own) for group, own in sorted(groups.items())}
    found = {group: own for group, own in found.items() if COLD in own}
    counts = Counter(f"{NAMES.get(line['data'], line['data'])} {line['encoder']}" for line in lines if line["part"] == "tuned")
    tuned = [f"{name} with {counted(n, 'seed')}" for name, n in sorted(counts.items())]
    about = ABOUT.format(draws=DRAWS, tuned=", ".join(tuned) or "nowhere yet")
    parts = [about, *claims(found, {group: [line for line in own if line["part"] == "objective"] for group, own in groups.items()})]
    for (encoder, data), own in found.items():
        parts += one(f"{NAMES.get(data, data)}, {encoder}", f"{encoder}-{data}", own, folder)
    return "\n".join(parts)


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


def label(found: Found) -> str:
    return counted(len(found[COLD]), "seed")


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


def mixture(points: list[tuple[float, float]], limit: float) -> list[tuple[float, int]] | None:
    """The random choice among points that has the least mean second number with a mean first number of the limit at most: shares and
    places. A linear programme with two constraints has an optimum among single points and pairs that meet the limit exactly, and here
    all of these are tried (papers.md 5.4, C5)."""
    tried = [([(1.0, i)], y) for i, (x, y) in enumerate(points) if x <= limit]
    for i, (x0, y0) in enumerate(points):
        for j, (x1, y1) in enumerate(points):
            if x0 <= limit < x1:
                share = (x1 - limit) / (x1 - x0)
                tried.append(([(share, i), (1.0 - share, j)], share * y0 + (1.0 - share) * y1))
    return min(tried, key=lambda one: (one[1], len(one[0])), default=(None,))[0]


def frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """By the first number, those whose second is below all before."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not kept or y < kept[-1][1]:
            kept.append((x, y))
    return kept


def one(title: str, slug: str, found: Found, folder: Path) -> list[str]:
    cold = found[COLD]
    rows = []
    for (method, init), settings in families(found).items():
        chosen = by_validation(found, settings)
        validation = [mean_se([point[key] for point in chosen], 100) for key in ("accuracy", "churn")]
        validation.append(f"{len(chosen)} of {len(cold)}")
        best = least_churn(found, settings)
        if best is None:
            n = max(len(both(found, setting)) for setting in settings)
            rows.append([method, init, "", n, "–", "not attained", "–", "–", *validation])
            continue
        seeds = both(found, best)
        cells = [mean_se(column(found[best], key, seeds), 100) for key in ("accuracy", "churn", "nfr")]
        share = mean(column(found[best], "churn", seeds)) / mean(column(cold, "churn", seeds))
        rows.append([method, init, best[2], len(seeds), *cells, f"{share:.2f}", *validation])
    head = ["method", "start", "setting", "seeds", "accuracy %", "churn at cold accuracy %", "negative flips %", "churn / cold's"]
    head += ["by validation: accuracy %", "churn %", "attained"]
    parts = [
        f"## {title}, {label(found)}\n",
        f"A cold retrain: accuracy {mean_se(column(cold, 'accuracy'), 100)} %, churn {mean_se(column(cold, 'churn'), 100)} %.\n",
        table(head, rows),
    ]
    whole = {setting: points for setting, points in found.items() if len(both(found, setting)) == len(cold)}
    place = lambda setting: (100 * mean(column(found[setting], "churn")), 100 - 100 * mean(column(found[setting], "accuracy")))
    by_family: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for setting in whole:
        by_family[" ".join(setting[:2]).strip()].append(place(setting))
    shown = ["retrain cold", "retrain warm", "distil cold", "distil warm", "anchor-rcp cold", "interpolate warm", "knn-smoothing cold"]
    shown = [name for name in shown if name in by_family]
    series = [Series("frontier of all", frontier([place(setting) for setting in whole]), "line", "#8C8C8C", True)]
    series += [Series(name, sorted(by_family[name]), "both" if len(by_family[name]) > 2 else "dots") for name in shown]
    plot(folder / f"frontier-{slug}.svg", f"Error against churn: {title}", Axis("churn %"), Axis("error %"), series)
    cost = lambda points, a: min(a * error + (1 - a) * churned for churned, error in points)
    curves = [Series(name, [(a, cost(by_family[name], a)) for a in SHARES], "line") for name in shown]
    plot(folder / f"cost-{slug}.svg", f"Cost a·error + (1 − a)·churn: {title}", Axis("a"), Axis("cost, points"), curves)
    parts += [f"![error against churn](frontier-{slug}.svg)\n", f"![cost by a](cost-{slug}.svg)\n"]
    return parts + mixtures(whole, place)


def mixtures(whole: Found, place) -> list[str]:
    """What a random choice among models would gain at a cold retrain's accuracy."""
    limit = place(COLD)[1]
    alone = [setting for setting in whole if setting[0] not in NOT_ONE_TRAINING]
    rows = []
    for name, settings in (("distil and the retrains", [s for s in alone if s[0] in ("distil", "retrain")]), ("every training", alone)):
        points = [place(setting)[::-1] for setting in settings]
        best = min(y for x, y in points if x <= limit)
        shares = mixture(points, limit)
        said = " + ".join(f"{share:.2f} {' '.join(settings[at]).strip()}" for share, at in shares)
        churn = sum(share * points[at][1] for share, at in shares)
        rows.append([name, f"{best:.2f}", f"{churn:.2f}", f"{best - churn:.2f}", said])
    head = ["among", "best single: churn %", "best mixture: churn %", "gain, points", "shares"]
    return ["The linear programme over these means: least churn with the accuracy of a cold retrain at least.\n", table(head, rows)]


@dataclass
class Case:
    """What a task and encoder says to a claim."""

    name: str
    lies: Interval | None
    n_seeds: int
    said: str


def chosen_by_others(found: Found, settings: list[Setting], against: list[Setting]) -> tuple[Interval, Interval, int] | None:
    """Churn and accuracy of the best of some settings less those of the best of others, by seed, each chosen by halves of the other
    seeds; over how many."""
    rng = random.Random(0)
    seeds = sorted(found[COLD])
    churn, accuracy = [], []
    for seed in seeds:
        others = [other for other in seeds if other != seed]
        gaps = []
        for _ in range(DRAWS if len(others) > 1 else 0):
            half = rng.sample(others, len(others) // 2)
            a, b = (found[least_churn(found, which, half) or COLD].get(seed) for which in (settings, against))
            if a and b:
                gaps.append((a["churn"] - b["churn"], a["accuracy"] - b["accuracy"]))
        if gaps:
            churn.append(100 * mean(gap for gap, _ in gaps))
            accuracy.append(100 * mean(gap for _, gap in gaps))
    return (interval(churn), interval(accuracy), len(churn)) if len(churn) > 1 else None


def of_objective(name: str, lines: list[dict]) -> Case:
    """The variance over rows of a fixed model's loss under scores, over that under labels; and from how many rows on the error that
    scores bring is larger than what they save: E[v_labels - v_scores] / E[bias²], each bias² less what 2,000 rows make of none. Of
    λ 0.5 the bias is half as large."""
    logs, saved, saved_by_half, squares = [], [], [], []
    for line in lines:
        labels, half, scores = line["objective"]
        logs.append(math.log(scores["variance"] / labels["variance"]))
        saved.append(labels["variance"] - scores["variance"])
        saved_by_half.append(labels["variance"] - half["variance"])
        # 4·var(half) = var(labels) + var(scores) + 2·cov.
        of_difference = 2.0 * (labels["variance"] + scores["variance"]) - 4.0 * half["variance"]
        squares.append((scores["mean"] - labels["mean"]) ** 2 - of_difference / line["rows"])
    ratio, bias = interval(logs), interval(squares)
    middle, low, high = (math.exp(x) for x in (ratio.middle, ratio.low, ratio.high))
    off, beyond = "whether its mean is another isn't told from chance", ""
    if bias.low > 0.0:
        off = f"its mean is off by {math.sqrt(bias.middle):.3f} nats (root mean square)"
        if ratio.high < 0.0:
            rows = mean(saved) / bias.middle, mean(saved_by_half) / (bias.middle / 4.0)
            beyond = "; labels estimate the objective better from {:.0f} rows on, than λ 0.5 from {:.0f}".format(*rows)
    return Case(name, ratio, len(lines), f"{middle:.2f} [{low:.2f}, {high:.2f}] with {counted(len(lines), 'seed')}, {off}{beyond}")


def claims(groups: dict[tuple[str, str], Found], objectives: dict[tuple[str, str], list[dict]]) -> list[str]:
    """Each with one interval a group, of which a claim says that it lies below zero."""
    cases: dict[str, list[Case]] = defaultdict(list)
    for (encoder, data), lines in sorted(objectives.items()):
        if len(lines) > 1:
            cases[OBJECTIVE].append(of_objective(f"{NAMES.get(data, data)} {encoder}", lines))
    for (encoder, data), found in groups.items():
        name = f"{NAMES.get(data, data)} {encoder}"
        distilled = [setting for setting in found if setting[0] == "distil"]
        others = [s for s in found if s[0] not in ("distil", *NOT_ONE_TRAINING)]
        beyond = {claim: [s for s in found if s[0] == method] for claim, method in ((THAN_POINTS, "interpolate"), (THAN_ENSEMBLES, "ensemble"))}
        for claim, settings in {LESS: [COLD], LEAST: others, **{claim: own for claim, own in beyond.items() if own}}.items():
            compared = chosen_by_others(found, distilled, settings)
            if compared is None:
                cases[claim].append(Case(name, None, len(found[COLD]), "too few seeds"))
                continue
            churn, accuracy, n = compared
            said = f"churn {churn} points, accuracy {accuracy}, {n} of {len(found[COLD])} seeds"
            # Less churn for less accuracy is another matter.
            cases[claim].append(Case(name, churn if accuracy.high >= 0.0 else None, n, said))
        line = [setting for setting in distilled if setting[1] == "cold"]
        points = {0.0: found[COLD]} | {float(setting[2].removeprefix("λ ")): found[setting] for setting in line}
        seeds = [seed for seed in sorted(found[COLD]) if all(seed in own for own in points.values())]
        if len(seeds) > 1 and len(points) > 2:
            slopes = [slope([(x, 100 * own[seed]["churn"]) for x, own in points.items()]) for seed in seeds]
            means = [f"{100 * mean(column(own, 'churn', seeds)):.2f}" for _, own in sorted(points.items())]
            said = f"{' → '.join(means)} %, {interval(slopes)} points per unit of λ"
            cases[FALLS].append(Case(name, interval(slopes), len(seeds), said))
        middle = ("distil", "cold", "λ 0.5")
        if len(both(found, middle) if middle in found else []) > 1:
            seeds = both(found, middle)
            for claim, key in ((STEADIER, "accuracy"), (STEADIER_CHURN, "churn")):
                ratio = ratio_of_variances(column(found[middle], key, seeds), column(found[COLD], key, seeds))
                below_one = Interval(ratio.middle - 1.0, ratio.low - 1.0, ratio.high - 1.0)
                cases[claim].append(Case(name, below_one, len(seeds), f"{ratio} with {counted(len(seeds), 'seed')}"))
    ordered = [claim for claim in (LESS, LEAST, THAN_POINTS, THAN_ENSEMBLES, FALLS, OBJECTIVE, STEADIER, STEADIER_CHURN) if claim in cases]
    rows = [[claim, verdict(claim, cases[claim]), "; ".join(f"{case.name}: {case.said}" for case in cases[claim])] for claim in ordered]
    return [
        "## Claims\n",
        "Reproduced where the interval of every task and encoder lies on the claim's side of zero (for ratios: one), not reproduced where each\n"
        f"lies on the other, else undecided. Only those with {LEAST_SEEDS} seeds count, {LEAST_SEEDS_OF_VARIANCES} for variances, and below {LEAST_TASKS} of them all is undecided.\n"
        "Less churn for an accuracy that is clearly lower doesn't count.\n",
        table(["claim", "verdict", "evidence"], rows),
    ]


LESS = "distillation has less churn at cold accuracy than a cold retrain"
LEAST = "distillation has less churn at cold accuracy than the best other training of one model"
THAN_POINTS = "distillation has less churn at cold accuracy than points between the old weights and a warm retrain, which cost no training of their own"
THAN_ENSEMBLES = "distillation has less churn at cold accuracy than ensembles of cold retrains, which cost several models"
FALLS = "churn falls with λ (cold start)"
OBJECTIVE = "soft targets estimate the objective with less variance: a fixed model's loss, its variance over rows by the deployed model's scores over that by labels"
STEADIER = "soft targets vary less: variance of accuracy over seeds, distil λ 0.5 by cold retrain"
STEADIER_CHURN = "the same of churn"


def verdict(claim: str, cases: list[Case]) -> str:
    """In words; `lies` of a case is the interval that the claim says to be below zero."""
    least = LEAST_SEEDS_OF_VARIANCES if claim in (STEADIER, STEADIER_CHURN) else LEAST_SEEDS
    counting = [case for case in cases if case.n_seeds >= least]
    known = [case.lies for case in counting if case.lies is not None]
    below, above = sum(lies.high < 0.0 for lies in known), sum(lies.low > 0.0 for lies in known)
    if len(counting) < LEAST_TASKS:
        return f"undecided at this size; the interval is below in {below} of {len(counting)} that count, above in {above}"
    return "reproduced" if below == len(counting) else "not reproduced" if above == len(counting) else "undecided"

"""The paper's claims: a case for each task and encoder, an interval that the claim says to be below zero, and a verdict by counting."""

import math
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import mean

from evidence import named
from settings import COLD, NAMES, Found, Setting, both, column, least_churn
from statistic import Interval, interval, ratio_of_variances, slope
from tables import counted, in_short, table

# Below, nothing is decided.
LEAST_TASKS, LEAST_SEEDS, LEAST_SEEDS_OF_VARIANCES = 2, 5, 10
# Halves of seeds that choose for one seed.
DRAWS = 50
# What the successor is trained on.
TRAINED_ROWS = 2000
# These train nothing, or more than one model.
NOT_ONE_TRAINING = ("interpolate", "ensemble")
MIDDLE = ("distil", "cold", "λ 0.5")

TOO_FEW, OPEN, COSTLY = "too few seeds", "can't tell", "less churn for clearly less accuracy"


@dataclass
class Claim:
    """What is said of every case; `sides` are the words for an interval below zero and above it."""

    title: str
    head: list[str]
    note: str = ""
    sides: tuple[str, str] = ("ahead", "behind")
    least_seeds: int = LEAST_SEEDS


@dataclass
class Case:
    """What a task and encoder says to a claim; what is less for a price is no gain."""

    name: str
    lies: Interval | None
    n_seeds: int
    cells: list[str] = field(default_factory=list)
    is_costly: bool = False


CHOSEN = ["churn, points", "accuracy, points", "cold stood in for distillation, % of draws"]
OTHERS = [*CHOSEN, "for the others, %"]
RATIO = ["variance, ratio"]
ERROR = ["error by labels, nats", "with scores, nats", "difference of squares, 10⁻³ nats²", "labels are better from"]

LESS = Claim(
    "distillation has less churn at cold accuracy than a cold retrain",
    CHOSEN,
    'Under the rule before, by which all other seeds chose instead of halves of them, this was undecided ([LOG.md](../../LOG.md), 2026-11-22, "How\n'
    'a claim is judged decided it").\n',
)
PLAIN = Claim(
    "distillation with λ 0.5 from a cold start has less churn than a cold retrain, and isn't clearly less accurate",
    CHOSEN[:2],
    "Nothing is chosen here: one setting in every case. The claim was added after the lines were there.\n",
)
LEAST = Claim("distillation has less churn at cold accuracy than the best other training of one model", OTHERS)
THAN_POINTS = Claim(
    "distillation has less churn at cold accuracy than points between the old weights and a warm retrain",
    OTHERS,
    "Such points cost no training beside the warm retrain's.\n",
)
THAN_ENSEMBLES = Claim(
    "distillation has less churn at cold accuracy than ensembles of cold retrains", OTHERS, "An ensemble costs several models, trained and served.\n"
)
FALLS = Claim("churn falls with λ (cold start)", ["churn %, λ from 0 to 0.9", "points per unit of λ"], sides=("falls", "rises"))
OBJECTIVE = Claim(
    "soft targets estimate the objective with less variance than labels",
    ["variance over rows, scores' by labels'"],
    "Of one fixed model, a cold retrain: the variance of its loss over rows, with the deployed model's scores as targets, over that with labels.\n",
    ("below one", "above one"),
)
ESTIMATES = Claim(
    f"soft targets estimate the objective better than labels with {TRAINED_ROWS:,} rows",
    ERROR,
    f"How far a mean of the loss over {TRAINED_ROWS:,} rows, as many as the successor is trained on, lies from its expectation under true labels: root mean\n"
    "squares. Labels have variance alone. Scores have less variance and a bias, because a deployed model's scores are partly wrong. The interval is\n"
    "Student's t over seeds; squares of biases are skewed, so with five seeds it is rough. Before, this was not judged: one claim, reproduced, was of\n"
    "the variance alone. All of this is for one model; a bias that all models share wouldn't change which of them is best.\n",
    ("better", "worse"),
)
ESTIMATES_HALF = Claim(f"the same of λ 0.5, half labels and half scores, with {TRAINED_ROWS:,} rows", ERROR, sides=("better", "worse"))
STEADIER = Claim(
    "soft targets vary less: variance of accuracy over seeds, distil λ 0.5 by cold retrain",
    RATIO,
    "Two runs of one seed share rows and deployed model, so the interval is that of pairs (Pitman and Morgan; for normal numbers). Before, it was\n"
    "that of F, as if the two were independent, which is wider where they go together; this claim and that of churn were undecided by it as well.\n",
    ("below one", "above one"),
    LEAST_SEEDS_OF_VARIANCES,
)
STEADIER_CHURN = Claim("the same of churn", RATIO, sides=("below one", "above one"), least_seeds=LEAST_SEEDS_OF_VARIANCES)
CLAIMS = (LESS, PLAIN, LEAST, THAN_POINTS, THAN_ENSEMBLES, FALLS, OBJECTIVE, ESTIMATES, ESTIMATES_HALF, STEADIER, STEADIER_CHURN)


def claims(groups: dict[tuple[str, str], Found], objectives: dict[tuple[str, str], list[dict]]) -> list[str]:
    cases: dict[str, list[Case]] = defaultdict(list)
    for (encoder, data), lines in sorted(objectives.items()):
        if len(lines) > 1:
            name = f"{NAMES.get(data, data)}, {encoder}"
            cases[OBJECTIVE.title].append(of_variance(name, lines))
            cases[ESTIMATES.title].append(of_error(name, lines, 2))
            cases[ESTIMATES_HALF.title].append(of_error(name, lines, 1))
    for (encoder, data), found in groups.items():
        for claim, case in of_points(f"{NAMES.get(data, data)}, {encoder}", found):
            cases[claim.title].append(case)
    told = [(n, claim, cases[claim.title]) for n, claim in enumerate((claim for claim in CLAIMS if cases[claim.title]), 1)]
    of_variances = [n for n, claim, _ in told if claim.least_seeds == LEAST_SEEDS_OF_VARIANCES]
    more = f"; in {named(of_variances)}, on a variance over seeds, from {LEAST_SEEDS_OF_VARIANCES} on" if of_variances else ""
    parts = [
        in_short(*summary(cases)),
        "## Claims\n",
        f"A case is a task with an encoder. It counts from {LEAST_SEEDS} seeds on{more}. A claim is\n"
        "reproduced where the interval of every case that counts is on the claim's side (of zero; for ratios, of one), not reproduced where each is\n"
        f"on the other side, and else undecided, as it is with fewer than {LEAST_TASKS} cases that count. Less churn isn't on the claim's side where\n"
        "accuracy is clearly lower, which is where its whole interval is below zero.\n",
        table(["", "claim", "verdict", "seeds needed"], [[n, claim.title, verdict(claim, own), claim.least_seeds] for n, claim, own in told]),
    ]
    for n, claim, own in told:
        rows = [[case.name, *(case.cells or ["–"] * len(claim.head)), case.n_seeds, side(claim, case)] for case in own]
        parts += [f"### {n}. {claim.title[0].upper()}{claim.title[1:]}\n", *([claim.note] if claim.note else [])]
        parts.append(table(["case", *claim.head, "seeds", "side"], rows))
    return parts


def summary(cases: dict[str, list[Case]]) -> list[str]:
    """The two claims that a user chooses by, a sentence each."""
    by_side: dict[str, list[Case]] = defaultdict(list)
    for case in cases[LESS.title]:
        by_side[side(LESS, case)].append(case)
    ahead, n = by_side[LESS.sides[0]], len(cases[LESS.title]) - len(by_side[TOO_FEW])
    gains = sorted(-case.lies.middle for case in ahead)
    by = f", by {gains[0]:.1f} to {gains[-1]:.1f} points" if gains else ""
    of_points: dict[str, list[str]] = defaultdict(list)
    for case in cases[THAN_POINTS.title]:
        task, _, encoder = case.name.rpartition(", ")
        of_points[side(THAN_POINTS, case)].append(f"{task} with {encoder}")
    of_points.pop(TOO_FEW, None)
    words = {OPEN: "not told apart from them"}
    said = "; ".join(f"{words.get(word, word)} on {named_all(names)}" for word, names in sorted(of_points.items()))
    return [
        f"Distillation that is as accurate as a cold retrain had clearly less churn than it in {len(ahead)} of {n} pairs of task and encoder{by}.",
        "Against models between the old weights and a plain warm retrain, which cost no training of their own, it is",
        f"{said or 'not measured yet'}.",
    ]


def named_all(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def side(claim: Claim, case: Case) -> str:
    if case.n_seeds < claim.least_seeds or case.lies is None:
        return TOO_FEW
    if case.lies.high < 0.0:
        return COSTLY if case.is_costly else claim.sides[0]
    return claim.sides[1] if case.lies.low > 0.0 else OPEN


def verdict(claim: Claim, cases: list[Case]) -> str:
    """In words, with the counts."""
    counts = Counter(side(claim, case) for case in cases)
    too_few, (ahead, behind) = counts.pop(TOO_FEW, 0), claim.sides
    of = sum(counts.values())
    word = "undecided"
    if of >= LEAST_TASKS and of in (counts[ahead], counts[behind]):
        word = "reproduced" if counts[ahead] == of else "not reproduced"
    rest = [f"{name} in {counts[name]}" for name in (behind, COSTLY, OPEN) if counts[name]]
    return ", ".join([f"{word}: {ahead} in {counts[ahead]} of {of}", *rest, *([f"{TOO_FEW} in {too_few} more"] if too_few else [])])


def of_points(name: str, found: Found) -> list[tuple[Claim, Case]]:
    """What the points of a task and encoder say."""
    distilled = [setting for setting in found if setting[0] == "distil"]
    others = [setting for setting in found if setting[0] not in ("distil", *NOT_ONE_TRAINING)]
    told = [(LESS, chosen_by_others(name, found, distilled, [COLD]))]
    if MIDDLE in found and len(seeds := both(found, MIDDLE)) > 1:
        churn, accuracy = (interval(less(found, MIDDLE, seeds, key)) for key in ("churn", "accuracy"))
        told.append((PLAIN, Case(name, churn, len(seeds), [str(churn), str(accuracy)], accuracy.high < 0.0)))
    told.append((LEAST, chosen_by_others(name, found, distilled, others)))
    for claim, method in ((THAN_POINTS, "interpolate"), (THAN_ENSEMBLES, "ensemble")):
        own = [setting for setting in found if setting[0] == method]
        told += [(claim, chosen_by_others(name, found, distilled, own))] if own else []
    points = {float(setting[2].removeprefix("λ ")): found[setting] for setting in distilled if setting[1] == "cold"} | {0.0: found[COLD]}
    seeds = [seed for seed in sorted(found[COLD]) if all(seed in own for own in points.values())]
    if len(seeds) > 1 and len(points) > 2:
        slopes = interval([slope([(x, 100 * own[seed]["churn"]) for x, own in points.items()]) for seed in seeds])
        means = [f"{100 * mean(column(own, 'churn', seeds)):.2f}" for _, own in sorted(points.items())]
        told.append((FALLS, Case(name, slopes, len(seeds), [" → ".join(means), str(slopes)])))
    if MIDDLE in found:
        told += [(claim, of_steadiness(name, found, key)) for claim, key in ((STEADIER, "accuracy"), (STEADIER_CHURN, "churn"))]
    return told


def less(found: Found, setting: Setting, seeds: list[int], key: str) -> list[float]:
    """By seed, in points, than a cold retrain."""
    return [100 * (found[setting][seed][key] - found[COLD][seed][key]) for seed in seeds]


def chosen_by_others(name: str, found: Found, settings: list[Setting], against: list[Setting]) -> Case:
    """Churn and accuracy of the best of some settings less those of the best of others, by seed, each chosen by halves of the other
    seeds; and in which share of draws nothing had a cold retrain's accuracy, on either side."""
    rng = random.Random(0)
    # A cold retrain stands in where nothing has its accuracy, not where nothing was run.
    was_run = lambda which, seed: any(seed in found[setting] for setting in which)
    seeds = [seed for seed in sorted(found[COLD]) if was_run(settings, seed) and was_run(against, seed)]
    churn, accuracy, stood_in = [], [], []
    for seed in seeds:
        others = [other for other in seeds if other != seed]
        gaps = []
        for _ in range(DRAWS if len(others) > 1 else 0):
            half = rng.sample(others, len(others) // 2)
            chosen = [least_churn(found, which, half) for which in (settings, against)]
            a, b = (found[one or COLD].get(seed) for one in chosen)
            if a and b:
                gaps.append((a["churn"] - b["churn"], a["accuracy"] - b["accuracy"]))
                stood_in.append([one is None for one in chosen])
        if gaps:
            churn.append(100 * mean(gap for gap, _ in gaps))
            accuracy.append(100 * mean(gap for _, gap in gaps))
    if len(churn) < 2:
        return Case(name, None, len(seeds))
    lies, costs = interval(churn), interval(accuracy)
    shares = [f"{100 * mean(one):.0f}" for one in zip(*stood_in)]
    return Case(name, lies, len(churn), [str(lies), str(costs), *shares[: 1 if against == [COLD] else 2]], costs.high < 0.0)


def of_steadiness(name: str, found: Found, key: str) -> Case:
    seeds = both(found, MIDDLE)
    if len(seeds) < 3:
        return Case(name, None, len(seeds))
    ratio = ratio_of_variances(column(found[MIDDLE], key, seeds), column(found[COLD], key, seeds))
    return Case(name, Interval(ratio.middle - 1.0, ratio.low - 1.0, ratio.high - 1.0), len(seeds), [str(ratio)])


def of_variance(name: str, lines: list[dict]) -> Case:
    """The variance over rows of a fixed model's loss by scores, over that by labels; a mean of logarithms."""
    lies = interval([math.log(line["objective"][2]["variance"] / line["objective"][0]["variance"]) for line in lines])
    return Case(name, lies, len(lines), [str(Interval(*(math.exp(x) for x in (lies.middle, lies.low, lies.high))))])


def of_error(name: str, lines: list[dict], at: int) -> Case:
    """Mean squared errors of a mean of the loss over rows, of the target at this place in the line less of labels: bias² - (v_labels - v)/n.
    A squared difference of means has chance in it: what as many rows as were measured make of none is taken off."""
    labels, own, squares = [], [], []
    for line in lines:
        hard, half, soft = line["objective"]
        # 4·var(half) = var(labels) + var(scores) + 2·cov.
        of_difference = 2.0 * (hard["variance"] + soft["variance"]) - 4.0 * half["variance"]
        bias = (soft["mean"] - hard["mean"]) ** 2 - of_difference / line["rows"]
        squares.append(bias * line["objective"][at]["lambda"] ** 2)
        labels.append(hard["variance"])
        own.append(line["objective"][at]["variance"])
    lies = interval([bias - (a - b) / TRAINED_ROWS for bias, a, b in zip(squares, labels, own)])
    errors = [math.sqrt(mean(labels) / TRAINED_ROWS), math.sqrt(max(mean(own) / TRAINED_ROWS + mean(squares), 0.0))]
    saved = mean(labels) - mean(own)
    rows = counted(round(saved / mean(squares)), "row") if interval(squares).low > 0.0 and saved > 0.0 else "–, no bias is told from chance"
    shown = Interval(1e3 * lies.middle, 1e3 * lies.low, 1e3 * lies.high)
    return Case(name, lies, len(lines), [*(f"{error:.3f}" for error in errors), str(shown), rows])

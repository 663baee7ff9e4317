"""RESULTS.md of this folder, from its lines."""

from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean

from claims import DRAWS, NOT_ONE_TRAINING, claims
from made import commands, is_small, missing, times  # for tables.made_by
from settings import COLD, NAMES, Found, Setting, both, by_validation, column, families, least_churn, settings_of
from tables import Axis, Series, counted, mean_se, plot, table

SHARES = [n / 20 for n in range(21)]

ABOUT = """# Churn by distillation (paper 1, arXiv 2106.02654): its protocol on text

A deployed model of 1,000 rows (100 for early stopping: the best of its epochs), its successor of those and 1,000 more, both judged on
2,000 others; all rows are drawn anew with each seed, and the successor's head, order and dropout are of another seed than the deployed
model's. ± is the standard error over seeds, brackets are 95 % intervals.

- **Churn at cold accuracy**: of the settings whose mean accuracy is that of a cold retrain at least (on the same seeds), the lowest mean
  churn; "not attained" where there is none. The same rows order the settings and judge them, so the best look a little better than they are.
- **By validation**: for each seed, of the settings that have a cold retrain's accuracy on the 100 validation rows the one of lowest churn
  there; what it has on the 2,000 others, over the seeds where there is such a setting. The deployed model's epoch was chosen on these rows
  too, and 100 rows order little.
- **Claims at cold accuracy** judge each seed by settings that others chose: a random half of the other seeds, drawn {draws} times, chooses by its
  means, and a cold retrain stands in where nothing has its accuracy. Halves, since of all others a setting near a cold retrain's accuracy
  would be chosen just where the seed left out is one that it is bad for. This rule was written with most lines there.
- **Grids.** distil has five λ a start. Where part `tuned` was run ({tuned}), the other methods have grids too; elsewhere they have a
  few settings at most, which favours distil. The paper's own grids weren't at hand; these are ours, some of them as in published code.
- **Steadier objective, steadier students.** The paper argues from the variance of the objective that soft or hard labels estimate. Part
  `objective` measures that: the loss of a cold retrain over the 2,000 rows, by labels and by the deployed model's scores, and how far their
  means lie apart, which is what the scores are wrong by. Over seeds of training the variance of accuracy and churn has other sources too.

`constrained` is distillation whose λ is driven so that churn stays under a limit. That churn is measured on 30 % of the rows to judge by (chosen
by a hash of the text). Their labels aren't used, but what the tables say of this method is partly of rows that steered it.

`tiny` is the encoder that ships, three epochs. It was distilled from MiniLM on texts without labels, among them all of SST-2's training file,
from which the rows of both SST-2 tasks are drawn, and a part of IMDb's; of AG News it has seen rows of the test split, which isn't drawn
from. So on SST-2 it has seen the texts that it is judged on, never their labels. Both sides of every comparison start from it; `scratch`, which
starts from nothing, and MiniLM as its makers left it are the controls.

`scratch` is a transformer in the size of a Keras tutorial's on IMDb, which the paper's network is taken to be, trained from nothing: 20,000
words, 200 tokens, width 32, one block of two heads, mean over tokens, Adam at 1e-3, batches of 32, five epochs. It isn't that network: the block
is ModernBERT's (norms in front, rotary positions, gated ReLU, no biases, heads 16 wide where those have 32), the dense layer behind the mean
is 32 wide with a norm for 20, and of a longer text the first 200 words are read. The vocabulary is of the whole training file. MiniLM, and
tiny on IMDb, are trained and scored in bf16, all else in f32. l2-logit is `distil:divergence=logit-mse`.
"""


def page(lines: list[dict], folder: Path) -> str:
    groups: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for line in lines:
        groups[(line["encoder"], line["data"])].append(line)
    found = {group: settings_of(own) for group, own in sorted(groups.items())}
    found = {group: own for group, own in found.items() if COLD in own}
    counts = Counter(f"{line['encoder']} on {NAMES.get(line['data'], line['data'])}" for line in lines if line["part"] == "tuned")
    tuned = [f"{name}, {counted(n, 'seed')}" for name, n in sorted(counts.items())]
    about = ABOUT.format(draws=DRAWS, tuned=", ".join(tuned) or "nowhere yet")
    parts = [about, *claims(found, {group: [line for line in own if line["part"] == "objective"] for group, own in groups.items()})]
    for (encoder, data), own in found.items():
        parts += one(f"{NAMES.get(data, data)}, {encoder}", f"{encoder}-{data}", own, folder)
    return "\n".join([*parts, *times(lines)])


def mixture(points: list[tuple[float, float]], limit: float) -> list[tuple[float, int]] | None:
    """The random choice among points that has the least mean second number with a mean first number of the limit at most: shares and
    places. A linear programme with two constraints has an optimum among single points and pairs that meet the limit exactly, and here
    all of these are tried."""
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
        f"## {title}, {counted(len(found[COLD]), 'seed')}\n",
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

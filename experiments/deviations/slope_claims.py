"""What the page of deviations claims, each claim with what it rests on."""

from math import exp, log
from statistics import mean

from evidence import HEAD, LEAST_SEEDS, Case, Claim, counts, sides
from evidence import rows as rows_of
from statistic import interval
from tables import counted, mean_sd, table

SETS = {"sst2": "SST-2", "mrpc": "MRPC", "cola": "CoLA", "ag_news_20k": "AG News", "imdb": "IMDb", "tickets": "tickets"}
# Of so few rows a teacher learns little more there than which class is common.
LITTLE = ("cola", "mrpc")

RULES = (
    "*Of slopes*, and of what else is judged by data sets: reproduced where more than 3/4 of the sets have a 95 % interval over seeds on the claim's side\n"
    "(a slope above 1); not reproduced where more than 1/4 have one on the other side and these outnumber those on the claim's; else undecided. A set with\n"
    f"fewer than {LEAST_SEEDS} seeds isn't counted. *Of shares* (pairs, or layers of pairs): reproduced over 3/4, not reproduced under 1/4, else\n"
    "undecided. *Of switches, label noise and correlations*: reproduced where the 95 % interval, over seeds or data sets, lies on the claim's side of\n"
    "zero, not reproduced where it lies on the other, else undecided. Pairs of one data set share their rows.\n\n"
    "The rule by sets, and the claims of a higher T and of label noise, were written with the lines there. Before, slopes were judged by single students,\n"
    "each by its interval over rows; what that said is beside each slope's evidence. Two of the five sets, CoLA and MRPC, say little: there a teacher of 800\n"
    "rows learns little more than which class is common. They count all the same."
)


def slope(line, part="test", rows="all"):
    return line[part][rows]["slope"]


def known(values):
    return [value for value in values if value is not None]


def groups(lines, *keys):
    found = {}
    for line in lines:
        found.setdefault(tuple(line.get(key) for key in keys), []).append(line)
    return found


def gained(line):
    return line["test"]["student"] - line["test"]["teacher"]


def of_share(n, among):
    return "reproduced" if n > 0.75 * among else "not reproduced" if n < 0.25 * among else "undecided"


def of_sets(cases):
    up, down, n = sides(cases)
    return "undecided" if not n else "reproduced" if up > 0.75 * n else "not reproduced" if down > max(up, 0.25 * n) else "undecided"


def of_interval(lies):
    return "reproduced" if lies.low > 0 else "not reproduced" if lies.high < 0 else "undecided"


def by_set(lines, value, zero=0.0):
    """A case a data set; `value` of one line, `None` where it has none."""
    found = groups(lines, "data").items()
    name = lambda data: SETS[data] + (" (little learnt)" if data in LITTLE else "")
    return [Case(name(data), known([value(line) for line in sorted(same, key=lambda line: line["seed"])]), zero) for (data,), same in found]


def seen(cases, digits=2, is_signed=True):
    return table(["set", *HEAD], rows_of(cases, digits, is_signed))


def claims(of):
    own = [line for line in of("self") if line["lambda"] == 1]
    found = []
    if own:
        found += [exaggerated(own, part, t) for part in ("test", "train") for t in sorted({line["temperature"] for line in own})]
        found += [less_sure(own, of("independent"), t) for t in sorted({line["temperature"] for line in own})]
        found += [nearer(own, half) for half in ("lowest", "highest")]
    if of("ways"):
        found.append(directions(of("ways")))
    if own:
        found += [generalises(own), goes_together(own)]
    if of("noise"):
        found.append(mends_labels(of("noise")))
    for told, name in ((12, "that fits its rows"), (1, "that doesn't fit them")):
        lines = [line for line in of("switch") if line["teacher_epochs"] == told]
        by_kind = {str(kind): {line["seed"]: 100 * line["test"]["student"] for line in same} for (kind,), same in groups(lines, "lambda").items()}
        if {"0", "1", "0..1@50%", "1..0@50%"} <= set(by_kind):
            found.append(switched(name, 100 * mean(line["train"]["teacher"] for line in lines), by_kind, told == 12))
    return found


def exaggerated(own, part, t):
    same = [line for line in own if line["temperature"] == t]
    cases = by_set(same, lambda line: slope(line, part), zero=1.0)
    singles = [line[part]["finding"] for line in same]
    up, down, n = singles.count("exaggerates"), singles.count("softens"), len(singles)
    before = "reproduced" if up > 0.75 * n else "not reproduced" if down > max(up, 0.25 * n) else "undecided"
    where = "held-out rows" if part == "test" else "training rows"
    return Claim(
        f"Students exaggerate their teacher's confidence (claim i): {where}, T {t}",
        f"**{of_sets(cases)}**: {counts(cases, 'above 1', 'below 1')}",
        f"Slope of the self-distilled student on its teacher. By single students: {up} of {n} have an interval over rows above 1, {down} below; by that\n"
        f"rule {before}.\n\n{seen(cases, is_signed=False)}",
    )


def less_sure(own, null, t):
    """Of the lower half of held-out rows by the teacher's confidence; a student is less sure there than its teacher, but so is any other model."""
    mean_of = lambda line: line["test"]["lowest"]["mean"]
    by_chance = {(line["data"], line["seed"]): mean_of(line) for line in null}
    same = [line for line in own if line["temperature"] == t]
    under, over = sum(mean_of(line) < 0 for line in same), sum(line["test"]["highest"]["mean"] > 0 for line in same)
    said = (
        f"The mean of y − x is below 0 on the lower half in {under} of {len(same)} pairs, and above 0 on the upper half in {over}. That alone says nothing:\n"
        "y falls on rows where the student merely differs from its teacher, as every other model does. Before a null was asked for, this claim was\n"
        f"{of_share(under, len(same))} by the share of pairs."
    )
    claim = f"Where the teacher is unsure the student is less sure (low-confidence underfitting): held-out rows, T {t}"
    paired = [line for line in same if (line["data"], line["seed"]) in by_chance]
    if not paired:
        return Claim(claim, "**undecided**: no null was measured", said)
    cases = by_set(paired, lambda line: by_chance[line["data"], line["seed"]] - mean_of(line))
    return Claim(
        claim,
        f"**{of_sets(cases)}**: {counts(cases, 'less sure than the null', 'surer')}",
        f"{said} The null is a teacher of another seed in the student's place. Below is the null's mean of y − x less the student's,\n"
        f"lower half: above 0 the student is less sure than a model that never saw this teacher.\n\n{seen(cases)}",
    )


def nearer(own, half):
    pairs = {(line["data"], line["seed"], line["temperature"]): abs(line["test"][half]["mean"]) for line in own}
    lines = [line for line in own if line["temperature"] == 1 and (line["data"], line["seed"], 4) in pairs]
    gain = lambda line: pairs[line["data"], line["seed"], 1] - pairs[line["data"], line["seed"], 4]
    cases, n_nearer = by_set(lines, gain), sum(gain(line) > 0 for line in lines)
    where = "unsure (lower half)" if half == "lowest" else "sure (upper half)"
    return Claim(
        f"A higher T (4 for 1) brings the student nearer where the teacher is {where}",
        f"**{of_sets(cases)}**: {counts(cases, 'nearer', 'further')}",
        f"The size of the mean of y − x on held-out rows, at T 1 less at T 4; nearer in {n_nearer} of {len(lines)} pairs.\n\n"
        f"{seen(cases)}",
        marks=("nearer",),
    )


def directions(found):
    ratios = [ratio for line in found for ratio in known(line["ratios"].values())]
    heads = known([line["ratios"].get("head") for line in found])
    above, heads_above = (sum(ratio > 1 for ratio in among) for among in (ratios, heads))
    return Claim(
        "Distillation exaggerates gradient descent's bias to the top directions (claim ii)",
        f"**{of_share(above, len(ratios))}**: {above} of {len(ratios)} layers of {len(found)} pairs have a ratio above 1",
        f"Geometric mean of the ratios {exp(mean(map(log, ratios))):.2f}; above 1 in {heads_above} of {len(heads)} heads (see Directions).\n"
        "In the linear case it is a theorem, and a test (`a_students_spectrum_exaggerates_its_teachers`).\n",
    )


def generalises(own):
    better = [gained(line) for line in own]
    wins = sum(gain > 0 for gain in better)
    cases = by_set(own, lambda line: 100 * gained(line))
    for case in cases:
        case.beside = [f"{sum(value > 0 for value in case.values)} of {len(case.values)}"]
    return Claim(
        "Self-distillation generalises better (claim iii)",
        f"**{of_share(wins, len(better))}**: the student is more accurate in {wins} of {len(better)} pairs",
        f"Accuracy of the student less that of its teacher, held-out rows, both T: {mean_sd(better, 100)} points.\n\n"
        f"{table(['set', *HEAD, 'more accurate in'], rows_of(one_a_seed(own, cases), 2))}",
    )


def one_a_seed(own, cases):
    """Students of one seed share their teacher: an interval is over seeds, of the mean of both T."""
    for ((_,), same), case in zip(groups(own, "data").items(), cases):
        case.values = [100 * mean(map(gained, of_seed)) for _, of_seed in sorted(groups(same, "seed").items())]
    return cases


def goes_together(own):
    cells = {}
    for (data, _), same in groups(own, "data", "temperature").items():
        cells.setdefault(data, []).append([(slope(line), gained(line)) for line in same if slope(line) is not None])
    # A set whose pairs don't have one, being too few or all alike, is none of correlation 0.
    found = {SETS[data]: r for data, of_set in cells.items() if (r := correlation(within(of_set))) is not None}
    said = "Exaggeration goes with better generalisation (claim iii)"
    shown = "Correlation of slope and gain, each pair less the mean of its T: " + ", ".join(f"{name} {r:+.2f}" for name, r in found.items())
    if len(found) < 2:
        return Claim(said, f"**undecided**: a correlation in {counted(len(found), 'set')} alone", f"{shown}.\n" if found else "")
    lies = interval(list(found.values()))
    return Claim(said, f"**{of_interval(lies)}**: mean correlation {lies} over {len(found)} sets", f"{shown}.\n")


def within(cells):
    """Pairs less the means of their cell."""
    found = []
    for pairs in cells:
        if pairs:
            x, y = (mean(pair[axis] for pair in pairs) for axis in (0, 1))
            found += [(a - x, b - y) for a, b in pairs]
    return found


def correlation(pairs):
    if len(pairs) < 3:
        return None
    a, b = mean(x for x, _ in pairs), mean(y for _, y in pairs)
    up = sum((x - a) * (y - b) for x, y in pairs)
    down = (sum((x - a) ** 2 for x, _ in pairs) * sum((y - b) ** 2 for _, y in pairs)) ** 0.5
    return up / down if down else None


def mends_labels(lines):
    gains = [100 * gained(line) for line in lines if line["lambda"] != "none"]
    said = "A student of a teacher whose labels are a fifth wrong is more accurate than the teacher"
    if len(gains) < 2:
        return Claim(said, f"**undecided**: {len(gains)} seeds")
    lies = interval(gains)
    return Claim(said, f"**{of_interval(lies)}**: student less teacher {lies} points of held-out accuracy, {len(gains)} seeds")


def switched(name, trained, by_kind, has_fitted):
    """Of a teacher that fits its rows, following it from the middle on recovers much of the gain of following it throughout; of one that
    doesn't, ending on labels can beat both."""
    labels, teacher, late, back = (by_kind[kind] for kind in ("0", "1", "0..1@50%", "1..0@50%"))
    less = lambda a, b: [a[seed] - b[seed] for seed in sorted(a) if seed in b]
    means = [f"{mean(found.values()):.2f} %" for found in (labels, teacher, late, back)]
    shown = (
        f"SST-2, a teacher with {trained:.1f} % on its training rows; accuracy of students on held-out rows: labels throughout {means[0]}, teacher\n"
        f"throughout {means[1]}, from labels to the teacher at half {means[2]}, from the teacher to labels at half {means[3]}.\n"
    )
    if has_fitted:
        said = f"With a teacher {name}, following it from the middle on recovers much of what following it throughout gains"
    else:
        said = f"With a teacher {name}, following it first and ending on labels beats both labels throughout and the teacher throughout"
    if len(less(teacher, labels)) < 2:
        return Claim(said, "**undecided**: one seed", shown)
    if has_fitted:
        gain = interval(less(teacher, labels))
        if gain.low <= 0:
            return Claim(said, f"**undecided**: there may be no gain, {gain} points", shown)
        share = mean(less(late, labels)) / gain.middle
        return Claim(said, f"**{'reproduced' if share > 0.5 else 'not reproduced'}**: {100 * share:.0f} % of {gain} points", shown)
    over = [interval(less(back, other)) for other in (labels, teacher)]
    verdict = "reproduced" if all(one.low > 0 for one in over) else "not reproduced" if any(one.high < 0 for one in over) else "undecided"
    return Claim(said, f"**{verdict}**: {over[0]} points over labels throughout, {over[1]} over the teacher throughout", shown)

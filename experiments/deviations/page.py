"""The page of student-teacher deviations: slopes, switch times, what longer training and higher T do, directions, verdicts."""

from math import exp, log
from statistics import mean

from statistic import interval
from tables import Axis, Series, mean_sd, plot, table

SETS = {"sst2": "SST-2", "mrpc": "MRPC", "cola": "CoLA", "ag_news_20k": "AG News", "imdb": "IMDb", "tickets": "tickets"}


SIZES = {
    "": "small: teachers and students are tiny, of 800 rows and four epochs unless a table says otherwise; the larger model is MiniLM, two epochs, one seed",
    "full": "full: MiniLM, 20,000 rows",
}


def page(lines, folder):
    parts = [
        "# Deviations of students from their teachers",
        "",
        "Nagarajan et al. 2023 (2301.12923) on text. Each line is a student that follows a teacher's logits; φ = log(p/(1 − p)) of the class",
        "that the teacher predicts, of the teacher (x) and of the student (y), at T = 1; slopes are least squares of y on x, their intervals",
        "HC3 over rows. A slope above 1 is exaggeration: the student is less sure where the teacher is unsure, or surer where it is sure.",
        "What is called the paper's is its abstract's; of its numbers we have no first-hand copy. Of 800 rows a larger model learns less than a small",
        "one on SST-2, and on CoLA and MRPC little more than which class is common; the table has all accuracies.",
        "",
    ]
    for size, said in SIZES.items():
        own = [line for line in lines if line["key"].startswith("full ") == (size == "full")]
        if own:
            parts += of_size(own, folder, size, said)
    return "\n".join(parts)


def of_size(lines, folder, size, said):
    of = lambda what: [line for line in lines if line["what"] == what]
    mark = f"-{size}" if size else ""
    parts = [f"What follows is of the size {said}.", "", "## Claims", "", RULES, "", *claims(of), ""]
    parts += ["## Slopes", "", slopes(of("self") + of("large")), ""]
    draw_slopes(folder / f"slopes{mark}.svg", of)
    parts += [f"![slopes](slopes{mark}.svg)", ""]
    if of("switch"):
        parts += ["## Loss switched in the middle", "", "SST-2; students of four epochs, T 4. 0 % is the second loss throughout, 100 % the first.", ""]
        parts += [switches(of("switch")), ""]
        draw_switches(folder / f"switch{mark}.svg", of("switch"))
        parts += [f"![switch times](switch{mark}.svg)", ""]
    if of("length"):
        parts += ["## What the advice says", "", advice(of), ""]
    if of("noise"):
        parts += ["## A fifth of the teacher's labels wrong", "", noise(of("noise")), ""]
    if of("ways"):
        parts += ["## Directions", "", ways(of("ways")), ""]
    return parts


RULES = (
    "Reproduced where more than three quarters of the pairs show it, else undecided; not reproduced where fewer than a quarter do, and of slopes where more than\n"
    "a quarter are below 1 and more than are above it. Of switches and correlations: where the 95 % interval, over seeds or data sets, lies on one side of zero.\n"
    "Pairs of one data set share their rows."
)


def slope(line, part="test", rows="all"):
    return line[part][rows]["slope"]


def known(values):
    return [value for value in values if value is not None]


def claims(of):
    """One line a claim: reproduced, not reproduced or undecided at this size, with its evidence."""
    said = []
    own = [line for line in of("self") if line["lambda"] == 1]
    if own:
        for part in ("test", "train"):
            rows = "held-out rows" if part == "test" else "training rows"
            for (t,), same in sorted(groups(own, "temperature").items()):
                found = [line[part]["finding"] for line in same]
                up, down = found.count("exaggerates"), found.count("softens")
                verdict = "reproduced" if up > 0.75 * len(found) else "not reproduced" if down > max(up, 0.25 * len(found)) else "undecided"
                said.append(
                    f"- **Students exaggerate their teacher's confidence, {rows}, T {t}** (claim i): {verdict} at this size. Of {len(found)} self-distilled "
                    f"students {up} have a slope whose interval is above 1, {down} one below, {len(found) - up - down} neither; mean slope "
                    f"{mean_sd(known([slope(line, part) for line in same]))}."
                )
        under = [line["test"]["lowest"]["mean"] < 0 for line in own]
        over = [line["test"]["highest"]["mean"] > 0 for line in own]
        said.append(
            f"- **Where the teacher is unsure the student is less sure** (low-confidence underfitting, held-out rows): {of_share(sum(under), len(under))} at this size. "
            f"Mean y − x of the lower half is "
            f"below 0 in {sum(under)} of {len(under)}; above 0 in the upper half in {sum(over)} of {len(over)}. As y falls for a row on which the student "
            "merely differs, the first by itself says little."
        )
    found = of("ways")
    if found:
        ratios = [ratio for line in found for ratio in known(line["ratios"].values())]
        heads = known([line["ratios"].get("head") for line in found])
        above = sum(ratio > 1 for ratio in ratios)
        verdict = of_share(above, len(ratios))
        said.append(
            f"- **Distillation exaggerates gradient descent's bias to the top directions** (claim ii): {verdict} at this size. {above} of {len(ratios)} layers "
            f"of {len(found)} pairs have a ratio above 1, geometric mean {geometric(ratios):.2f}; of the heads {sum(r > 1 for r in heads)} of {len(heads)}. In the "
            "linear case it is a theorem, and a test (`a_students_spectrum_exaggerates_its_teachers`)."
        )
    if own:
        better = [gained(line) for line in own]
        wins = sum(gain > 0 for gain in better)
        said.append(
            f"- **Self-distillation generalises better** (claim iii): {of_share(wins, len(better))} at this size. The student is more accurate in {wins} of {len(better)}, by "
            f"{mean_sd(better, 100)} points."
        )
        by_set = {}
        for (data, _), same in groups(own, "data", "temperature").items():
            by_set.setdefault(data, []).append([(slope(line), gained(line)) for line in same if slope(line) is not None])
        found = [correlation(within(cells)) for cells in by_set.values()]
        said.append(f"- **Exaggeration goes with better generalisation** (claim iii): {of_interval(found)}")
    for told, name in ((12, "that fits its rows"), (1, "that doesn't")):
        rows = [line for line in of("switch") if line["teacher_epochs"] == told]
        by_kind = {str(kind): {line["seed"]: 100 * line["test"]["student"] for line in same} for (kind,), same in groups(rows, "lambda").items()}
        if {"0", "1", "0..1@50%", "1..0@50%"} <= set(by_kind):
            said.append(switched(name, 100 * mean(line["train"]["teacher"] for line in rows), by_kind, told == 12))
    return said


def gained(line):
    return line["test"]["student"] - line["test"]["teacher"]


def of_share(n, among):
    return "reproduced" if n > 0.75 * among else "not reproduced" if n < 0.25 * among else "undecided"


def of_interval(correlations):
    """Of one correlation a data set."""
    shown = ", ".join(f"{r:+.2f}" for r in correlations)
    if len(correlations) < 2:
        return f"undecided at this size. Correlation of slope and gain {shown}."
    lies = interval(correlations)
    verdict = "reproduced" if lies.low > 0 else "not reproduced" if lies.high < 0 else "undecided"
    return f"{verdict} at this size. Correlation of slope and gain by data set, each pair less the mean of its T: {shown}; mean {lies}."


def within(cells):
    """Pairs less the means of their cell."""
    found = []
    for pairs in cells:
        if pairs:
            x, y = (mean(pair[axis] for pair in pairs) for axis in (0, 1))
            found += [(a - x, b - y) for a, b in pairs]
    return found


def switched(name, trained, by_kind, has_fitted):
    """papers.md 6.7: of a teacher that fits its rows, following it from the middle on recovers much of the gain of following it
    throughout; of one that doesn't, ending on labels can beat both."""
    labels, teacher, late, back = (by_kind[kind] for kind in ("0", "1", "0..1@50%", "1..0@50%"))
    less = lambda a, b: [a[seed] - b[seed] for seed in sorted(a) if seed in b]
    means = [f"{mean(found.values()):.2f} %" for found in (labels, teacher, late, back)]
    said = (
        f"- **Switching in the middle, teacher {name}** (train {trained:.1f} %): labels throughout {means[0]}, teacher throughout {means[1]}, to the teacher at half "
        f"{means[2]}, to the labels at half {means[3]}. "
    )
    if len(less(teacher, labels)) < 2:
        return said + "One seed decides nothing."
    gain = interval(less(teacher, labels))
    if has_fitted:
        said += f"The teacher throughout has {gain} points more than labels. That the teacher from the middle on recovers much of this gain is "
        if gain.low <= 0:
            return said + "undecided at this size: there may be none."
        share = mean(less(late, labels)) / gain.middle
        return said + f"{'reproduced' if share > 0.5 else 'not reproduced'} at this size: {100 * share:.0f} % of it."
    over = [interval(less(back, other)) for other in (labels, teacher)]
    verdict = "reproduced" if all(one.low > 0 for one in over) else "not reproduced" if any(one.high < 0 for one in over) else "undecided"
    return said + f"That ending on labels beats both is {verdict} at this size: {over[0]} points over labels throughout, {over[1]} over the teacher throughout."


def correlation(pairs):
    if len(pairs) < 3:
        return 0.0
    a, b = mean(x for x, _ in pairs), mean(y for _, y in pairs)
    up = sum((x - a) * (y - b) for x, y in pairs)
    down = (sum((x - a) ** 2 for x, _ in pairs) * sum((y - b) ** 2 for _, y in pairs)) ** 0.5
    return up / down if down else 0.0


def geometric(ratios):
    return exp(mean(log(ratio) for ratio in ratios)) if ratios else 1.0


def groups(lines, *keys):
    found = {}
    for line in lines:
        found.setdefault(tuple(line.get(key) for key in keys), []).append(line)
    return found


HEAD = ["slope, test", "lower half", "upper half", "above / below 1", "slope, train", "teacher %", "student %", "agree %"]


def cells(found):
    """Means over seeds of what a slope is judged by."""
    marks = [line["test"]["finding"] for line in found]
    return [
        mean_sd(known([slope(line) for line in found])),
        mean_sd(known([slope(line, rows="lowest") for line in found])),
        mean_sd(known([slope(line, rows="highest") for line in found])),
        f"{marks.count('exaggerates')} / {marks.count('softens')} of {len(marks)}",
        mean_sd(known([slope(line, "train") for line in found])),
        mean_sd([line["test"]["teacher"] for line in found], 100, 1),
        mean_sd([line["test"]["student"] for line in found], 100, 1),
        mean_sd([line["test"]["agreement"] for line in found], 100, 1),
    ]


def slopes(lines):
    rows = []
    for (data, what, weight, t), found in groups(lines, "data", "what", "lambda", "temperature").items():
        who = "itself" if what == "self" else "a larger model"
        rows.append([SETS[data], who, f"λ {weight}", f"T {t}", *cells(found)])
    rows.sort(key=lambda row: row[:4])
    return table(["data", "teacher", "weight", "temperature", *HEAD], rows)


def switches(lines):
    rows = []
    order = ["1", "1..0@75%", "1..0@50%", "1..0@25%", "0", "0..1@75%", "0..1@50%", "0..1@25%"]
    for (told, weight), found in sorted(groups(lines, "teacher_epochs", "lambda").items(), key=lambda g: (g[0][0], order.index(str(g[0][1])))):
        rows.append([f"teacher {told} epochs", f"λ {weight}", *cells(found)])
    return table(["", "", *HEAD], rows)


def draw_slopes(path, of):
    series = []
    for n, data in enumerate(SETS):
        points = []
        for line in of("self") + of("large"):
            found = line["test"]["all"]
            if line["data"] == data and line["lambda"] == 1 and found["slope"] is not None and found["high"] is not None:
                at = n + 1 + 0.12 * (len(points) - 1)
                points.append((at, found["slope"], (found["high"] - found["low"]) / 2))
        series.append(Series(SETS[data], points, "dots"))
    ends = [(0.5, 1.0), (len(SETS) + 0.8, 1.0)]
    series.append(Series("1", ends, "line", "#8C8C8C", True))
    plot(path, "Slope of student on teacher, held-out rows, λ 1", Axis("data set", ticks=[0.0]), Axis("slope"), series)


def draw_switches(path, lines):
    series = []
    for told in sorted({line["teacher_epochs"] for line in lines}):
        for way, name in (("1..0", "to labels"), ("0..1", "to the teacher")):
            first, second = way.split("..")
            points = []
            for share in (0, 25, 50, 75, 100):
                key = second if share == 0 else first if share == 100 else f"{way}@{share}%"
                found = [line["test"]["student"] for line in lines if line["teacher_epochs"] == told and str(line["lambda"]) == key]
                if found:
                    points.append((share, 100 * mean(found)))
            series.append(Series(f"{name}, teacher {told} ep.", points, is_dashed=told == 1))
    plot(path, "Accuracy by the moment of the switch, SST-2", Axis("switched after % of the updates"), Axis("accuracy %"), series)


def higher_t(lines):
    """Pairs of students that differ by T alone: T 1, T 4."""
    own = [line for line in lines if line["lambda"] == 1]
    found = groups(own, "data", "seed")
    pairs = [{line["temperature"]: line for line in same} for same in found.values()]
    return [(pair[1], pair[4]) for pair in pairs if {1, 4} <= set(pair)]


def advice(of):
    """The same student, trained otherwise: does it come nearer to its teacher?"""
    said = []
    pairs = higher_t(of("self"))
    if pairs:
        nearer = lambda rows: sum(abs(four["test"][rows]["mean"]) < abs(one["test"][rows]["mean"]) for one, four in pairs)
        steeper = sum(slope(four) > slope(one) for one, four in pairs)
        said.append(
            f"A higher T (4 for 1) brings the mean of y − x nearer to 0 in {nearer('lowest')} of {len(pairs)} pairs in the lower half and in {nearer('highest')} in the "
            f"upper one, on held-out rows; the slope is steeper in {steeper}. So it follows more closely, and its slope alone would say the opposite."
        )
    sst2 = [line for line in of("self") if line["data"] == "sst2"]
    rows = []
    for (epochs, weight, t), found in sorted(groups(of("length") + sst2, "epochs", "lambda", "temperature").items(), key=str):
        means = [mean_sd([line["test"][half]["mean"] for line in found]) for half in ("lowest", "highest")]
        rows.append([f"epochs {epochs}", f"λ {weight}", f"T {t}", *means, *cells(found)])
    said.append("SST-2, students of one teacher:\n\n" + table(["", "", "", "mean y − x, lower", "upper", *HEAD], rows))
    return "\n\n".join(said)


def noise(lines):
    rows = []
    for (weight,), found in groups(lines, "lambda").items():
        name = "the teacher" if weight == "none" else "a student of its logits (T 4)"
        key = "teacher" if weight == "none" else "student"
        rows.append([
            name,
            mean_sd([line["test"][key] for line in found], 100, 1),
            mean_sd([line["train"][key] for line in found], 100, 1),
            "–" if weight == "none" else mean_sd(known([slope(line) for line in found])),
        ])
    return table(["tickets", "accuracy on held-out rows %", "on the true labels of its training rows %", "slope"], rows)


def ways(lines):
    names = list(lines[0]["ratios"])
    rows = [[SETS[data], *[mean_sd(known([line["ratios"].get(name) for line in found])) for name in names]] for (data,), found in groups(lines, "data").items()]
    note = (
        "At equal progress along the first eigenvector of what a layer reads: the teacher's way along the next five over the student's. Above 1 the student\n"
        "keeps more to the first. Both from the same base; the student has another order of rows and another head.\n\n"
    )
    return note + table(["data", *names], rows)

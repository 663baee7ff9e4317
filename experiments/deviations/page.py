"""The page of student-teacher deviations: slopes, switch times, what longer training and higher T do, directions, verdicts."""

from statistics import mean

from evidence import numbered, told
from made import MARK, commands, is_small, missing  # noqa: F401 (for tables.made_by)
from slope_claims import RULES, SETS, claims, groups, known, slope
from tables import Axis, Series, mean_sd, plot, table

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
        "one on SST-2; the table of slopes has all accuracies. `tiny`, the encoder that ships, was distilled on unlabelled texts (`models/tiny/README.md`),",
        "among them all training rows of SST-2 and CoLA, so also rows of this page; teachers and students of it share that.",
        "",
    ]
    if not any(line["key"].startswith(MARK) for line in lines):
        parts += ["The full size (MiniLM, up to 20,000 rows, five seeds, BERT-base as the larger model) hasn't been run.", ""]
    for size, said in SIZES.items():
        own = [line for line in lines if line["key"].startswith(MARK) == (size == "full")]
        if own:
            parts += of_size(own, folder, size, said)
    return "\n".join(parts)


def of_size(lines, folder, size, said):
    of = lambda what: [line for line in lines if line["what"] == what]
    mark = f"-{size}" if size else ""
    claimed = claims(of)
    parts = [f"What follows is of the size {said}.", "", "## Claims", "", RULES, "", *told(claimed), ""]
    parts += ["## Slopes", "", slopes(of("self") + of("large")), ""]
    draw_slopes(folder / f"slopes{mark}.svg", of)
    parts += [f"![slopes](slopes{mark}.svg)", ""]
    if of("switch"):
        parts += ["## Loss switched in the middle", "", "SST-2; students of four epochs, T 4. 0 % is the second loss throughout, 100 % the first.", ""]
        parts += [switches(of("switch")), ""]
        draw_switches(folder / f"switch{mark}.svg", of("switch"))
        parts += [f"![switch times](switch{mark}.svg)", ""]
    if of("length"):
        parts += ["## What the advice says", "", numbered(advice(of), claimed), ""]
    if of("noise"):
        parts += ["## A fifth of the teacher's labels wrong", "", noise(of("noise")), ""]
    if of("ways"):
        parts += ["## Directions", "", ways(of("ways")), ""]
    return parts


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


def advice(of):
    """The same student, trained otherwise: does it come nearer to its teacher?"""
    pairs = {(line["data"], line["seed"], line["temperature"]): line for line in of("self") if line["lambda"] == 1}
    both = [(line, pairs[(*key[:2], 4)]) for key, line in pairs.items() if key[2] == 1 and (*key[:2], 4) in pairs]
    steeper = sum(slope(four) > slope(one) for one, four in both)
    said = [
        f"How far a higher T brings the student nearer is in {{claims:nearer}}. Its slope is steeper at T 4 in {steeper} of {len(both)} pairs all the same:\n"
        "the slope alone would say the opposite."
    ] * bool(both)
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

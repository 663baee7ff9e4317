"""RESULTS.md of this folder, from its lines."""

from pathlib import Path
from statistics import mean, median, quantiles

from evidence import told
from made import commands, is_small, missing  # noqa: F401 (for tables.made_by)
from tables import COLOURS, Axis, Series, counted, mean_sd, plot, table
from variance_claims import NAMES, PLAIN, STUDENTS, claims, descended, floors, lowest, over_plain, rule, settled

TEACHERS = {"optimum": "the optimum", "good": "stopped early", "poor": "of 60 rows"}
# Of the whole encoder.
WHOLE = {"good": "of eight epochs", "early": "of 60 updates", "poor": "of 60 rows"}


def page(lines: list[dict], folder: Path) -> str:
    parts = [
        "# Distillation as variance reduction (paper 4, arXiv 2305.17581)\n",
        "Plain SGD on a linear probe: batches of 10, a constant step of 0.05, no clipping, 2,000 rows, frozen vectors. The excess is the loss on",
        "these rows less the lowest that any run of the seed comes to, as a mean over the second half of the evaluations of a run that starts at the",
        "optimum that AdamW found: noise and the pull of a biased teacher, and nothing of the way there. `tiny`, the encoder that ships, was distilled on",
        "unlabelled texts (`models/tiny/README.md`), SST-2's training rows among them, which are trained and judged on here; with a teacher and without one",
        "runs start from the same encoder.\n",
    ]
    if lines and {line["encoder"] for line in lines if "encoder" in line} == {"tiny"}:
        parts.append("The full size (MiniLM too, five seeds, λ by tenths) hasn't been run.\n")
    parts += least_squares([line for line in lines if line.get("experiment") == "least squares"], folder)
    runs = [line for line in lines if "data" in line]
    if runs:
        claimed = claims(lines)
        parts += ["## Claims\n", rule(claimed), *told(claimed), ""]
    for encoder in sorted({line["encoder"] for line in runs}):
        for data in sorted({line["data"] for line in runs if line["encoder"] == encoder}, reverse=True):
            own = [line for line in runs if (line["encoder"], line["data"]) == (encoder, data)]
            parts += probe(f"{NAMES.get(data, data)}, {encoder}", f"{encoder}-{data}", own, folder)
            parts += whole(f"{NAMES.get(data, data)}, {encoder}", f"{encoder}-{data}", own, folder)
            parts += descents(f"{NAMES.get(data, data)}, {encoder}", f"{encoder}-{data}", own, folder)
    return "\n".join(parts)


def least_squares(lines: list[dict], folder: Path) -> list[str]:
    if not lines:
        return []
    line = lines[-1]
    v, lambdas = line["v"], line["lambdas"]
    series, worst = [], 0.0
    for colour, teacher in zip(COLOURS, line["teachers"]):
        d2 = teacher["d2"]
        law = [(1 - lam) ** 2 * v + lam**2 * d2 for lam in lambdas]
        name = f"D² = {teacher['times'] ** 2:g}·V"
        series.append(Series(f"{name}, law", [(x, y / v) for x, y in zip(lambdas, law)], "line", colour))
        series.append(Series(f"{name}, run", [(x, y / v) for x, y in zip(lambdas, teacher["biased"])], "dots", colour))
        worst = max([worst] + [abs(found - y) / v for found, y in zip(teacher["biased"], law)])
    plot(folder / "least-squares.svg", "Error at stationarity by λ, over that of plain SGD", Axis("λ"), Axis("E‖x − x*‖² / V"), series)
    best = [
        [
            f"{teacher['times'] ** 2:g}",
            f"{v / (v + teacher['d2']):.2f}",
            f"{lambdas[at]:.1f}",
            f"{teacher['biased'][at] / v:.3f}",
            f"{min(teacher['unbiased']) / v:.3f}",
        ]
        for teacher in line["teachers"]
        for at in [teacher["biased"].index(min(teacher["biased"]))]
    ]
    return [
        "## Least squares: the exact law\n",
        f"E‖x − x*‖² = (1 − λ)²·V + λ²·D², derived here and not in the paper; measured on a path of {line['updates']:,} updates it is\n"
        f"off by at most {100 * worst:.1f} % of V.\n",
        "![law and runs](least-squares.svg)\n",
        table(["D²/V", "best λ, law", "best λ on the grid", "error there /V", "least error, unbiased /V"], best),
    ]


def probe(title: str, slug: str, own: list[dict], folder: Path) -> list[str]:
    excess = floors(own)
    if PLAIN not in excess:
        return []
    found = over_plain(excess)
    lambdas = sorted({key[1] for key in found if key[2] != "none"})
    best = lowest(own)
    rows, series = [], []
    for teacher, said in TEACHERS.items():
        gaps = [line["loss"] - best[line["seed"]] for line in own if line["experiment"] == "teacher" and line["teacher"] == teacher]
        for reduction in ("modified", "unbiased"):
            points = [(lam, list(found[(reduction, lam, teacher)].values())) for lam in lambdas if (reduction, lam, teacher) in found]
            if not points:
                continue
            rows.append([f"{said}, excess {mean_sd(gaps, 1, 4)}", reduction, *[mean_sd(values, 1, 3) for _, values in points]])
            shown = [(0.0, 1.0)] + [(lam, max(mean(values), 1e-6)) for lam, values in points]
            series.append(Series(f"{said}, {'biased' if reduction == 'modified' else reduction}", shown, "both", None, reduction == "unbiased"))
    name = f"floor-{slug}.svg"
    plot(folder / name, f"Excess loss at stationarity by λ: {title}", Axis("λ"), Axis("over that of plain SGD", is_log=True), series)
    svrg = list(found.get(("svrg", 1.0, "none"), {}).values())
    text = [
        f"## {title}\n",
        f"Plain SGD stays {mean(excess[PLAIN].values()):.5f} above the lowest loss; all below is over that of the same seed, "
        f"{counted(len(excess[PLAIN]), 'seed')} at most. SVRG: {mean_sd(svrg, 1, 3)}.\n",
        f"![excess by λ]({name})\n",
        table(["teacher", "update", *[f"λ {lam:g}" for lam in lambdas]], rows),
    ]
    curves = [line for line in own if line["experiment"] == "curve"]
    if curves:
        name = f"curve-{slug}.svg"
        first = min(line["seed"] for line in curves)
        series = []
        for line in [line for line in curves if line["seed"] == first]:
            label = "plain SGD" if line["reduction"] == "none" else f"λ {line['lambda']:g}, {TEACHERS[line['teacher']]}"
            points = [(step, max(loss - best[first], 1e-6)) for step, loss in zip(line["steps"], line["losses"])]
            series.append(Series(label, points, "line"))
        plot(folder / name, f"From a new last layer: {title}", Axis("updates"), Axis("excess loss", is_log=True), series)
        text += [f"![excess by update]({name})\n"]
    adamw = [line for line in own if line["experiment"] == "adamw" and line["seed"] in best]
    if adamw:
        of = {lam: [settled(line) - best[line["seed"]] for line in adamw if line["lambda"] == lam] for lam in sorted({line["lambda"] for line in adamw})}
        base = mean(of[0.0]) if 0.0 in of else None
        if base:
            cells = [mean_sd(values, 1 / base, 3) for values in of.values()]
            text += ["AdamW (1e-3) with the optimum as teacher, over its own excess without one:\n", table([f"λ {lam:g}" for lam in of], [cells])]
    return text


def whole(title: str, slug: str, own: list[dict], folder: Path) -> list[str]:
    """Gradients of the whole encoder: how far distillation's is from the labels', and from what the theory has in its place."""
    lines = [line for line in own if line["experiment"] == "cosines"]
    if not lines:
        return []
    rows = []
    for student, trained in STUDENTS.items():
        for teacher, said in WHOLE.items():
            same = [line for line in lines if (line["student"], line["teacher"]) == (student, teacher)]
            if not same:
                continue
            groups = [line["groups"]["all"] for line in same]
            rows.append([
                trained,
                said,
                mean_sd([line["loss"] for line in same], 1, 3),
                spread([value for line in same for value in line["label_cosines"]]),
                spread([value for line in same for value in line["cosines"]]),
                mean_sd([group["rho2_centred"] for group in groups]),
                mean_sd([group["lambda_hat_centred"] for group in groups]),
                mean_sd([group["measured_ratio"] for group in groups]),
                mean_sd([line["own"]["measured_ratio"] for line in same if line["own"]]),
            ])
    seeds, first = sorted({line["seed"] for line in lines}), lines[0]
    n_own = " or ".join(map(str, sorted({line["own_batches"] for line in lines})))
    text = [
        f"### The whole encoder: {title}\n",
        f"Gradients of {first['batches']} batches of 10 without dropout, of which {n_own} with the teacher's own gradient too; "
        f"{counted(len(seeds), 'seed')}; λ {first['lambda']:g}.\n"
        "Cosines as median (first to ninth decile) over batches and seeds: of the labels' gradient a to\n"
        "distillation's a − λ·b, which says how much distillation turns an update, and of distillation's to what the theory has in its place, a − λ·c with\n"
        "the teacher's own gradient c: 1 for a linear model. The variance is that of the batches' gradients, over that of the labels'. It isn't free of\n"
        "scale: a student that is its teacher has (1 − λ)² of it left, and as little of the signal. A teacher that\n"
        "fits its rows has hardly a residual: to follow it on them is to learn their labels, both cosines are 1, and no noise is taken away.\n",
        table(
            ["student", "teacher", "its loss", "cosine to the labels'", "to the theory's", "ρ²", "λ̂", "variance left", "left by the theory's"],
            rows,
        ),
    ]
    for key, name, what in (
        ("label_cosines", f"cosines-labels-{slug}.svg", "the labels' gradient and distillation's"),
        ("cosines", f"cosines-theory-{slug}.svg", "distillation's gradient and the theory's"),
    ):
        series = []
        for student, trained in STUDENTS.items():
            for teacher, said in WHOLE.items():
                values = [value for line in lines if (line["student"], line["teacher"]) == (student, teacher) for value in line[key]]
                if values:
                    series.append(Series(f"{trained}, {said}", shares(values), "line", COLOURS[list(WHOLE).index(teacher)], student == "begun"))
        plot(folder / name, f"Cosine of {what}: {title}", Axis("cosine"), Axis("share of the batches"), series)
        text += [f"![cosines of {what}]({name})\n"]
    return text


def descents(title: str, slug: str, own: list[dict], folder: Path) -> list[str]:
    """The whole encoder by plain SGD: its training loss by λ and teacher."""
    lines = [line for line in own if line["experiment"] == "descent"]
    found = over_plain(descended(lines))
    lambdas = sorted({key[1] for key in found if key != PLAIN})
    if not lambdas:
        return []
    values = lambda key: list(found.get(key, {}).values())
    rows = [
        [said, reduction, *[f"{mean_sd(values(key), 1, 3)} ({len(values(key))})" for lam in lambdas for key in [(reduction, lam, teacher)]]]
        for teacher, said in WHOLE.items()
        for reduction in ("kd", "modified", "unbiased")
    ]
    first, series = min(line["seed"] for line in lines), []
    for line in lines:
        is_shown = line["reduction"] == "none" or (line["reduction"], line["lambda"]) in (("kd", 0.5), ("kd", 0.9))
        if line["seed"] == first and is_shown:
            name = "plain SGD" if line["reduction"] == "none" else f"λ {line['lambda']:g}, {WHOLE[line['teacher']]}"
            series.append(Series(name, list(zip(line["steps"], line["losses"])), "line"))
    name = f"descent-{slug}.svg"
    plot(folder / name, f"The whole encoder by plain SGD: {title}", Axis("updates"), Axis("loss on its rows", is_log=True), series)
    return [
        f"### The whole encoder by plain SGD: {title}\n",
        "From its base and a new last layer, batches of 10, a constant step of 0.02, six epochs, no dropout. The mean loss on its own rows over the second\n"
        "half of the evaluations, over that of plain SGD of the same seed. `kd` is distillation, `modified` has the teacher's own gradient in the place\n"
        f"of its residual through the student, `unbiased` puts its mean back; in brackets the number of seeds.\n",
        table(["teacher", "update", *[f"λ {lam:g}" for lam in lambdas]], rows),
        f"![loss by update]({name})\n",
    ]


def spread(values: list[float]) -> str:
    if len(values) < 10:
        return mean_sd(values, 1, 3)
    tenths = quantiles(values, n=10)
    return f"{median(values):.3f} ({tenths[0]:.3f} to {tenths[-1]:.3f})"


def shares(values: list[float]) -> list[tuple[float, float]]:
    """A histogram of 40 bins from −1 to 1, from the first bin with anything in it on."""
    counts = [0] * 40
    for value in values:
        counts[min(39, max(0, int((value + 1.0) * 20.0)))] += 1
    first = max(0, next(at for at, n in enumerate(counts) if n) - 1)
    return [((at + 0.5) / 20.0 - 1.0, n / len(values)) for at, n in enumerate(counts) if at >= first]

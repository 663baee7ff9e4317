"""RESULTS.md of this folder, from its lines."""

from pathlib import Path
from statistics import mean, median, quantiles

from statistic import interval
from tables import COLOURS, Axis, Series, counted, mean_sd, plot, table

NAMES = {"sst2": "SST-2", "ag_news": "AG News"}
TEACHERS = {"optimum": "the optimum", "good": "stopped early", "poor": "of 60 rows"}
# Of the whole encoder.
WHOLE = {"good": "of eight epochs", "early": "of 60 updates", "poor": "of 60 rows"}
STUDENTS = {"begun": "20 updates", "trained": "two epochs"}


def page(lines: list[dict], folder: Path) -> str:
    parts = [
        "# Distillation as variance reduction (paper 4, arXiv 2305.17581)\n",
        "Plain SGD on a linear probe: batches of 10, a constant step of 0.05, no clipping, 2,000 rows, frozen vectors. The excess is the loss on",
        "these rows less the lowest that any run of the seed comes to, as a mean over the second half of the evaluations of a run that starts at the",
        "optimum that AdamW found: noise and the pull of a biased teacher, and nothing of the way there. What papers.md tags [D] is derived there and",
        "not the paper's.\n",
    ]
    parts += least_squares([line for line in lines if line.get("experiment") == "least squares"], folder)
    runs = [line for line in lines if "data" in line]
    parts += verdicts(lines)
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
        [f"{teacher['times'] ** 2:g}", f"{v / (v + teacher['d2']):.2f}", f"{lambdas[at]:.1f}", f"{teacher['biased'][at] / v:.3f}", f"{min(teacher['unbiased']) / v:.3f}"]
        for teacher in line["teachers"]
        for at in [teacher["biased"].index(min(teacher["biased"]))]
    ]
    return [
        "## Least squares: the exact law\n",
        f"E‖x − x*‖² = (1 − λ)²·V + λ²·D² [D]; measured on a path of {line['updates']:,} updates it is off by at most {100 * worst:.1f} % of V.\n",
        "![law and runs](least-squares.svg)\n",
        table(["D²/V", "best λ, law", "best λ on the grid", "error there /V", "least error, unbiased /V"], best),
    ]


def settled(line: dict) -> float:
    losses = line["losses"]
    return mean(losses[len(losses) // 2 :])


def lowest(own: list[dict]) -> dict[int, float]:
    """By seed the lowest loss that anything of a probe comes to: the optimum that AdamW found isn't quite one."""
    found: dict[int, float] = {}
    for line in own:
        if line["experiment"] in ("teacher", "floor"):
            loss = line["loss"] if line["experiment"] == "teacher" else settled(line)
            found[line["seed"]] = min(loss, found.get(line["seed"], loss))
    return found


# Reduction, λ, teacher.
Key = tuple[str, float, str]
PLAIN: Key = ("none", 0.0, "none")


def floors(own: list[dict]) -> dict[Key, dict[int, float]]:
    """Excess by seed."""
    best = lowest(own)
    found: dict[Key, dict[int, float]] = {}
    for line in own:
        if line["experiment"] == "floor":
            key = (line["reduction"], line["lambda"], line["teacher"])
            found.setdefault(key, {})[line["seed"]] = settled(line) - best[line["seed"]]
    return found


def over_plain(found: dict[Key, dict[int, float]]) -> dict[Key, dict[int, float]]:
    """By seed, over what plain SGD of the same seed has."""
    plain = found.get(PLAIN, {})
    return {key: {seed: value / plain[seed] for seed, value in own.items() if seed in plain} for key, own in found.items()}


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
        f"Plain SGD stays {mean(excess[PLAIN].values()):.5f} above the lowest loss; all below is over that of the same seed, {counted(len(excess[PLAIN]), 'seed')} at most. "
        f"SVRG: {mean_sd(svrg, 1, 3)}.\n",
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
        f"{counted(len(seeds), 'seed')}; λ {first['lambda']:g}.\nCosines as median (first to ninth decile) over batches and seeds: of the labels' gradient a to\n"
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


def descended(lines: list[dict]) -> dict[Key, dict[int, float]]:
    """Of descents the mean loss over the second half of the evaluations, by seed."""
    found: dict[Key, dict[int, float]] = {}
    for line in lines:
        if line["experiment"] == "descent":
            found.setdefault((line["reduction"], line["lambda"], line["teacher"]), {})[line["seed"]] = settled(line)
    return found


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


LEAST_SEEDS, LEAST_CASES = 3, 2
# What a claim says to be below 0, by seed, and what of it the evidence shows.
Case = tuple[list[float], str]


def judged(claim: str, cases: list[Case]) -> list[str]:
    """A row of the table of claims; a case is an encoder and data set."""
    shown, lies = [], []
    for values, said in cases:
        is_enough = len(values) >= LEAST_SEEDS
        shown.append(f"{said} ({counted(len(values), 'seed')})")
        if is_enough:
            lies.append(interval(values))
    below, above = sum(one.high < 0.0 for one in lies), sum(one.low > 0.0 for one in lies)
    if len(lies) < LEAST_CASES:
        verdict = f"undecided, {counted(len(lies), 'case')} of {len(cases)} with enough seeds"
    else:
        verdict = "reproduced" if below == len(lies) else "not reproduced" if above == len(lies) else "undecided at this size"
        verdict += f" ({below} of {counted(len(lies), 'case')} for it, {above} against)"
    return [claim, verdict, "; ".join(shown)]


def under(limit: float, of: dict[Key, dict[int, float]], key: Key) -> Case:
    values = list(of.get(key, {}).values())
    return [value - limit for value in values], shown_mean(values)


def above_it(limit: float, of: dict[Key, dict[int, float]], key: Key) -> Case:
    values, said = under(limit, of, key)
    return [-value for value in values], said


def less_than(of: dict[Key, dict[int, float]], key: Key, other: Key) -> Case:
    a, b = of.get(key, {}), of.get(other, {})
    both = [seed for seed in a if seed in b]
    return [a[seed] - b[seed] for seed in both], " and ".join(shown_mean([of_seed[seed] for seed in both]) for of_seed in (a, b))


def by_law(limit: float, of: dict[Key, dict[int, float]], teacher: str) -> Case:
    """The largest relative miss of (1 - λ)² + λ²·D²/V, with D²/V the floor at λ 1, over the other λ there are."""
    at_one = of.get(("modified", 1.0, teacher), {})
    misses = []
    for seed, d2 in at_one.items():
        floor_by = {key[1]: own[seed] for key, own in of.items() if key[0] == "modified" and key[1] < 1.0 and key[2] == teacher and seed in own}
        if floor_by:
            misses.append(max(abs(floor / ((1.0 - lam) ** 2 + lam**2 * d2) - 1.0) for lam, floor in floor_by.items()))
    return [miss - limit for miss in misses], shown_mean(misses)


def shown_mean(values: list[float]) -> str:
    return mean_sd(values, 1, 3) if values else "no run"


def verdicts(lines: list[dict]) -> list[str]:
    """A line a claim; what it takes to hold is in the condition."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for line in lines:
        if "data" in line:
            groups.setdefault((line["encoder"], line["data"]), []).append(line)
    of_probes = [over_plain(found) for own in groups.values() for found in [floors(own)] if PLAIN in found]
    of_descents = [over_plain(found) for own in groups.values() for found in [descended(own)] if PLAIN in found]
    of_gradients = [found for own in groups.values() for found in [gradients(own)] if found]

    def each(groups: list, claim: str, case) -> list[str]:
        return judged(claim, [case(of) for of in groups])

    biased = lambda lam, teacher: ("modified", lam, teacher)
    mended = lambda lam, teacher: ("unbiased", lam, teacher)
    kd = lambda lam, teacher: ("kd", lam, teacher)
    rows = [
        each(of_probes, "a teacher at the optimum takes nearly all noise away (λ 0.9: under 5 %)", lambda of: under(0.05, of, biased(0.9, "optimum"))),
        each(of_probes, "least squares' law (1 − λ)²·V + λ²·D² [D] tells the floors here too (teacher stopped early, D² as found at λ 1: misses under 10 %)", lambda of: by_law(0.1, of, "good")),
        each(of_probes, "the same of a poor teacher", lambda of: by_law(0.1, of, "poor")),
        each(of_probes, "a teacher stopped early takes noise off at a small λ, biased as it is (λ 0.1: under 1)", lambda of: under(1.0, of, biased(0.1, "good"))),
        each(of_probes, "a poor teacher raises the floor (λ 0.9: over 1)", lambda of: above_it(1.0, of, biased(0.9, "poor"))),
        each(of_probes, "a better teacher has a lower floor (stopped early, then poor, λ 0.9)", lambda of: less_than(of, biased(0.9, "good"), biased(0.9, "poor"))),
        each(of_probes, "the correction mends a poor teacher's pull (unbiased, then biased, λ 0.5)", lambda of: less_than(of, mended(0.5, "poor"), biased(0.5, "poor"))),
        each(of_probes, "SVRG's floor is under plain SGD's", lambda of: under(1.0, of, ("svrg", 1.0, "none"))),
    ]
    whole = [
        each(of_gradients, "distillation's gradient is near the theory's (median cosine over 0.9, teacher of 60 updates)", lambda of: above_it(0.9, of, ("cosine", 0.5, "early"))),
        each(of_gradients, "distillation leaves less variance than labels alone (teacher of 60 updates, λ 0.5: under 1)", lambda of: under(1.0, of, ("left", 0.5, "early"))),
        each(of_gradients, "a better teacher leaves less (60 updates, then 60 rows, λ 0.5)", lambda of: less_than(of, ("left", 0.5, "early"), ("left", 0.5, "poor"))),
        each(of_gradients, "the best teacher leaves least (eight epochs, then 60 updates, λ 0.5)", lambda of: less_than(of, ("left", 0.5, "good"), ("left", 0.5, "early"))),
        each(of_descents, "plain SGD goes lower with a well-trained teacher (eight epochs, λ 0.9: loss over plain's under 1)", lambda of: under(1.0, of, kd(0.9, "good"))),
        each(of_descents, "a poor teacher keeps it higher (60 rows, λ 0.9: over 1)", lambda of: above_it(1.0, of, kd(0.9, "poor"))),
        each(
            of_descents,
            "the correction mends a middling teacher's pull (60 updates, λ 0.5: unbiased, then kd)",
            lambda of: less_than(of, mended(0.5, "early"), kd(0.5, "early")),
        ),
        each(of_descents, "with it plain SGD goes lower (60 updates, λ 0.5, unbiased: under 1)", lambda of: under(1.0, of, mended(0.5, "early"))),
    ]
    return [
        "## Claims\n",
        "Excess, or the whole encoder's loss, over that of plain SGD of the same seed; mean ± standard deviation over seeds for each encoder and data set.\n"
        f"Reproduced where the 95 % interval over seeds lies on the claim's side for every encoder and data set with {LEAST_SEEDS} seeds, not reproduced where it lies\n"
        f"on the other for each, else undecided; also with fewer than {LEAST_CASES} that have so many seeds.\n",
        table(["claim", "verdict", "evidence"], rows + [[f"whole encoder: {claim}", *rest] for claim, *rest in whole if rest[1]]),
    ]


def gradients(own: list[dict]) -> dict[Key, dict[int, float]]:
    """What is measured of gradients of the whole encoder, by teacher and seed: the median cosine to the theory's, and the share of variance
    left, each over both students."""
    lines = [line for line in own if line["experiment"] == "cosines"]
    found: dict[Key, dict[int, float]] = {}
    for teacher in WHOLE:
        for seed in sorted({line["seed"] for line in lines if line["teacher"] == teacher}):
            same = [line for line in lines if (line["teacher"], line["seed"]) == (teacher, seed)]
            weight = same[0]["lambda"]
            found.setdefault(("cosine", weight, teacher), {})[seed] = median(value for line in same for value in line["cosines"])
            found.setdefault(("left", weight, teacher), {})[seed] = mean(line["groups"]["all"]["measured_ratio"] for line in same)
    return found

"""What the variance page measures of its lines and claims of it, each claim with what it rests on."""

from math import exp, log
from statistics import mean, median

from evidence import HEAD, LEAST_SEEDS, Case, Claim, numbered, rows, side
from tables import counted, mean_sd, table

NAMES = {"sst2": "SST-2", "ag_news": "AG News"}
# Data sets and encoders with so many seeds, below which nothing is decided.
LEAST_CASES = 2
# How far a student has come, as lines and as the page say it.
STUDENTS = {"begun": "20 updates", "trained": "two epochs"}
RULE = (
    "Probes are judged by their excess, the whole encoder by plain SGD by its loss, both over that of plain SGD of the same seed. Reproduced where the\n"
    f"95 % interval over seeds lies on the claim's side for every encoder and data set with {LEAST_SEEDS} seeds, not reproduced where it lies on the other\n"
    f"side for each, else undecided; also with fewer than {LEAST_CASES} that have so many seeds. What of the whole encoder's gradients is judged is a\n"
    "mean (of cosines the median) over both students, the one of 20 updates and the one of two epochs; a seed that has one of them alone isn't counted.\n"
)
LATER = (
    "Until {claims:later} were written, {claims:absolute} stood alone, as if an absolute variance said what distillation does to the noise of an update.\n"
    "When they were written, the lines of {claims:outcome} were there, and those of {claims:for its length} weren't.\n"
)


def rule(found: list[Claim]) -> str:
    return RULE + (numbered(LATER, found) if any("later" in claim.marks for claim in found) else "")


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


def descended(lines: list[dict]) -> dict[Key, dict[int, float]]:
    """Of descents the mean loss over the second half of the evaluations, by seed."""
    found: dict[Key, dict[int, float]] = {}
    for line in lines:
        if line["experiment"] == "descent":
            found.setdefault((line["reduction"], line["lambda"], line["teacher"]), {})[line["seed"]] = settled(line)
    return found


def gradients(own: list[dict]) -> dict[Key, dict[int, float]]:
    """Of the whole encoder's gradients by teacher and seed, each over both students: the median cosine to the theory's, the variance left, and
    the logarithm of the same for the length of the mean gradient, where lines have that."""
    found: dict[Key, dict[int, float]] = {}
    lines = [line for line in own if line["experiment"] in ("cosines", "signal")]
    for teacher, seed in sorted({(line["teacher"], line["seed"]) for line in lines}):
        same = [line for line in lines if (line["teacher"], line["seed"]) == (teacher, seed)]
        whole = [line for line in same if line["experiment"] == "cosines"]
        if {line["student"] for line in whole} == set(STUDENTS):
            weight = whole[0]["lambda"]
            found.setdefault(("cosine", weight, teacher), {})[seed] = median(value for line in whole for value in line["cosines"])
            found.setdefault(("left", weight, teacher), {})[seed] = mean(line["groups"]["all"]["measured_ratio"] for line in whole)
        with_length = {line["student"]: line for line in same if "student_of_mean" in line["groups"]["all"]}
        if set(with_length) == set(STUDENTS):
            by_student = {student: log(for_its_length(line)) for student, line in with_length.items()}
            weight = with_length["begun"]["lambda"]
            for name, value in (("for its length", mean(by_student.values())), *by_student.items()):
                found.setdefault((name, weight, teacher), {})[seed] = value
    return found


def for_its_length(line: dict) -> float:
    """E‖g − E g‖²/‖E g‖² of distillation's gradient g over that of the labels'."""
    group = line["groups"]["all"]
    return group["measured_ratio"] * group["student_of_mean"] / length(line)


def length(line: dict) -> float:
    """‖E g‖² of distillation's gradient g = a − λ·b: the batches are all rows once, so it is exact."""
    group, weight = line["groups"]["all"], line["lambda"]
    return group["student_of_mean"] - 2.0 * weight * group["product_of_means"] + weight**2 * group["teacher_of_mean"]


# What a claim is judged by in one data set: values by seed, the limit that they are to keep, cells beside.
Found = tuple[list[float], float, list[str]]


def under(limit: float, of: dict[Key, dict[int, float]], key: Key) -> Found:
    return list(of.get(key, {}).values()), limit, []


def less_than(of: dict[Key, dict[int, float]], key: Key, other: Key) -> Found:
    a, b = of.get(key, {}), of.get(other, {})
    both = [seed for seed in a if seed in b]
    return [a[seed] - b[seed] for seed in both], 0.0, [mean_sd([of_seed[seed] for seed in both], 1, 3) for of_seed in (a, b)]


def by_law(limit: float, of: dict[Key, dict[int, float]], teacher: str) -> Found:
    """The largest relative miss of (1 - λ)² + λ²·D²/V, with D²/V the floor at λ 1, over the other λ there are."""
    at_one = of.get(("modified", 1.0, teacher), {})
    misses = []
    for seed, d2 in at_one.items():
        floor_by = {key[1]: own[seed] for key, own in of.items() if key[0] == "modified" and key[1] < 1.0 and key[2] == teacher and seed in own}
        if floor_by:
            misses.append(max(abs(floor / ((1.0 - lam) ** 2 + lam**2 * d2) - 1.0) for lam, floor in floor_by.items()))
    return misses, limit, []


def log_ratio(of: dict[Key, dict[int, float]], weight: float, teacher: str) -> Found:
    """Of logarithms, which are shown as ratios; beside it the geometric means of both students."""
    values = list(of.get(("for its length", weight, teacher), {}).values())
    return values, 0.0, [f"{exp(mean(of[student, weight, teacher].values())):.3f}" for student in STUDENTS] if values else []


def judged(
    says: str,
    measured: str,
    way: str,
    found: dict[str, Found],
    missing: str = "no run",
    also: str = "",
    beside: tuple[str, ...] = ("the first", "the second"),
    is_log: bool = False,
    marks: tuple[str, ...] = (),
) -> Claim:
    """`way` is the claim's side of the limit, lower or higher."""
    cases = [Case(name, values, limit, beside=cells, is_log=is_log) for name, (values, limit, cells) in found.items() if values]
    if not cases:
        return Claim(says, f"**undecided**: {missing}", also, marks)
    n, n_for, n_against = votes(cases, way)
    verdict = f"**{word(n, n_for, n_against)}**: {n_for} of {counted(n, 'data set')} for it, {n_against} against"
    has_beside = any(case.beside for case in cases)
    head = ["data, encoder", *HEAD[:-1], "limit", HEAD[-1], *(beside if has_beside else ())]
    limit = lambda case: f"{exp(case.zero) if case.is_log else case.zero:g}"
    cells = [[*row[:4], limit(case), *row[4:]] for case, row in zip(cases, rows(cases, 3, has_beside and not is_log))]
    return Claim(says, verdict, f"{measured}.{also}\n\n{table(head, cells)}", marks)


def votes(cases: list[Case], way: str) -> tuple[int, int, int]:
    """Of those with enough seeds: how many there are, how many for the claim, how many against it."""
    enough = [case for case in cases if len(case.values) >= LEAST_SEEDS]
    return len(enough), *(sum(side(case) == of for case in enough) for of in (way, "higher" if way == "lower" else "lower"))


def word(n: int, n_for: int, n_against: int) -> str:
    if n < LEAST_CASES:
        return "undecided"
    return "reproduced" if n_for == n else "not reproduced" if n_against == n else "undecided"


def claims(lines: list[dict]) -> list[Claim]:
    own: dict[str, list[dict]] = {}
    for line in lines:
        if "data" in line:
            own.setdefault(f"{NAMES[line['data']]}, {line['encoder']}", []).append(line)
    probes = {name: over_plain(found) for name, same in own.items() for found in [floors(same)] if PLAIN in found}
    descents = {name: over_plain(found) for name, same in own.items() for found in [descended(same)] if PLAIN in found}
    noise = {name: found for name, same in own.items() for found in [gradients(same)] if found}
    each = lambda groups, case: {name: case(found) for name, found in groups.items()}

    biased = lambda lam, teacher: ("modified", lam, teacher)
    mended = lambda lam, teacher: ("unbiased", lam, teacher)
    kd = lambda lam, teacher: ("kd", lam, teacher)
    excess, loss, variance = "Excess over plain SGD's", "Loss over plain SGD's", "Variance of distillation's gradients over that of the labels'"
    of_probes = [
        judged(
            "A teacher at the optimum takes nearly all noise away (λ 0.9: under 5 %)",
            excess,
            "lower",
            each(probes, lambda of: under(0.05, of, biased(0.9, "optimum"))),
        ),
        judged(
            "Least squares' law (1 − λ)²·V + λ²·D² (derived here, not in the paper) tells the floors here too, teacher stopped early (misses under 10 %)",
            "The largest relative miss over all λ, with D² as found at λ 1",
            "lower",
            each(probes, lambda of: by_law(0.1, of, "good")),
        ),
        judged(
            "The same of a poor teacher",
            "The largest relative miss over all λ, with D² as found at λ 1",
            "lower",
            each(probes, lambda of: by_law(0.1, of, "poor")),
        ),
        judged(
            "A teacher stopped early takes noise off at a small λ, biased as it is (λ 0.1: under 1)",
            excess,
            "lower",
            each(probes, lambda of: under(1.0, of, biased(0.1, "good"))),
        ),
        judged("A poor teacher raises the floor (λ 0.9: over 1)", excess, "higher", each(probes, lambda of: under(1.0, of, biased(0.9, "poor")))),
        judged(
            "A better teacher has a lower floor (stopped early, then poor, λ 0.9)",
            f"{excess}, the first less the second",
            "lower",
            each(probes, lambda of: less_than(of, biased(0.9, "good"), biased(0.9, "poor"))),
        ),
        judged(
            "The correction mends a poor teacher's pull (unbiased, then biased, λ 0.5)",
            f"{excess}, the first less the second",
            "lower",
            each(probes, lambda of: less_than(of, mended(0.5, "poor"), biased(0.5, "poor"))),
        ),
        judged("SVRG's floor is under plain SGD's", excess, "lower", each(probes, lambda of: under(1.0, of, ("svrg", 1.0, "none")))),
    ]
    if not noise and not descents:
        return of_probes
    return of_probes + [
        judged(
            "Whole encoder: distillation's gradient is near the theory's (teacher of 60 updates: over 0.9)",
            "Median cosine",
            "higher",
            each(noise, lambda of: under(0.9, of, ("cosine", 0.5, "early"))),
        ),
        judged(
            "Whole encoder: distillation's gradients have less variance than the labels', in absolute size (teacher of 60 updates, λ 0.5: under 1)",
            variance,
            "lower",
            each(noise, lambda of: under(1.0, of, ("left", 0.5, "early"))),
            also=not_free_of_scale(own),
            marks=("absolute",),
        ),
        judged(
            "Whole encoder: distillation's gradients have less variance for the squared length of their mean (the same teacher and λ: under 1)",
            "Variance over the squared length of the mean gradient, distillation's over the labels': the geometric mean of both students, each beside it",
            "lower",
            each(noise, lambda of: log_ratio(of, 0.5, "early")),
            missing="no line has the length of the mean gradient of both students",
            also=of_ratios(own),
            beside=tuple(STUDENTS.values()),
            is_log=True,
            marks=("for its length", "later"),
        ),
        judged(
            "Whole encoder: a better teacher leaves less variance (60 updates, then 60 rows, λ 0.5)",
            f"{variance}, the first less the second",
            "lower",
            each(noise, lambda of: less_than(of, ("left", 0.5, "early"), ("left", 0.5, "poor"))),
        ),
        judged(
            "Whole encoder: the best teacher leaves least (eight epochs, then 60 updates, λ 0.5)",
            f"{variance}, the first less the second",
            "lower",
            each(noise, lambda of: less_than(of, ("left", 0.5, "good"), ("left", 0.5, "early"))),
        ),
        judged(
            "Whole encoder: plain SGD goes lower with a well-trained teacher (eight epochs, λ 0.9, kd: under 1)",
            loss,
            "lower",
            each(descents, lambda of: under(1.0, of, kd(0.9, "good"))),
        ),
        judged(
            "Whole encoder: the same teacher as in {claims:absolute} makes plain SGD go lower (60 updates, λ 0.5, kd: under 1)",
            loss,
            "lower",
            each(descents, lambda of: under(1.0, of, kd(0.5, "early"))),
            marks=("outcome", "later"),
        ),
        judged(
            "Whole encoder: a poor teacher keeps it higher (60 rows, λ 0.9, kd: over 1)",
            loss,
            "higher",
            each(descents, lambda of: under(1.0, of, kd(0.9, "poor"))),
        ),
        judged(
            "Whole encoder: the correction mends a middling teacher's pull (60 updates, λ 0.5: unbiased, then kd)",
            f"{loss}, the first less the second",
            "lower",
            each(descents, lambda of: less_than(of, mended(0.5, "early"), kd(0.5, "early"))),
        ),
        judged(
            "Whole encoder: with it plain SGD goes lower (60 updates, λ 0.5, unbiased: under 1)",
            loss,
            "lower",
            each(descents, lambda of: under(1.0, of, mended(0.5, "early"))),
        ),
    ]


def not_free_of_scale(own: dict[str, list[dict]]) -> str:
    said = []
    for name, lines in own.items():
        same = [line for line in lines if line["experiment"] == "cosines" and (line["student"], line["teacher"]) == ("trained", "early")]
        values = [value for line in same for value in line["label_cosines"]]
        if values:
            said.append(f"{median(values):+.2f} in {name} ({100 * sum(value < 0 for value in values) / len(values):.0f} % of the batches below 0)")
    scale = (
        "\nThis isn't free of scale: half a gradient has a quarter of its variance and is as noisy as before, so it takes {claims:for its length} to say\n"
        "whether noise went."
    )
    if not said:
        return scale
    return (
        f"{scale} For the student of two epochs the gradient is often turned round besides: its median cosine to the labels' is\n"
        f"{' and '.join(said)}. What comes of it is in {{claims:outcome}}."
    )


def of_ratios(own: dict[str, list[dict]]) -> str:
    """What the claim was by the mean of ratios, its measure when its lines came, and what the length is of."""
    cases, shares = [], []
    for name, lines in own.items():
        by_seed: dict[int, list[float]] = {}
        for line in lines:
            if line["experiment"] in ("cosines", "signal") and line["teacher"] == "early" and "student_of_mean" in line["groups"]["all"]:
                by_seed.setdefault(line["seed"], []).append(for_its_length(line))
                shares += [of_teacher(line)] if line["student"] == "trained" else []
        cases += [Case(name, [mean(values) for values in by_seed.values()], 1.0)] if by_seed else []
    if not cases:
        return ""
    pull = (
        "A mean gradient is longer too where the teacher pulls away from the labels: with the student of two epochs the teacher's term\n"
        f"λ²·‖E b‖² is {100 * min(shares):.0f} to {100 * max(shares):.0f} % of distillation's squared length, so its ratio says little of noise.\n"
    )
    return (
        f"\n{pull * bool(shares)}The measure was written before its lines were there, but as a mean of ratios, in which the student with the larger one has\n"
        f"the say; by that the claim was {word(*votes(cases, 'lower'))}."
    )


def of_teacher(line: dict) -> float:
    """The teacher's term alone over the squared length of distillation's mean gradient; above 1 where the labels' pulls against it."""
    return line["lambda"] ** 2 * line["groups"]["all"]["teacher_of_mean"] / length(line)

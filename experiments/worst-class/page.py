"""The page of the worst-class experiment, from its lines."""

from statistics import mean

from statistic import interval
from tables import Axis, Series, mean_sd, plot, table

OBJECTIVES = ["standard", "balanced", "robust"]
CONTRASTS = ["group-dro", "teacher-steered", "ada-margin", "ada-alpha", "post-shift-balanced", "post-shift-robust", "ratio-10", "ratio-100", "as-shipped"]


def fields(line):
    return dict(part.split("=", 1) for part in line["key"].split() if "=" in part)


def worst(line):
    """Recall of the worst class; of many classes, where that is nearly always 0, the mean of the five worst."""
    found = line["worst_class"]
    return found["recall"] if found["mean_of_worst"] is None else found["mean_of_worst"]


class Runs:
    def __init__(self, lines):
        self.all = {}
        for line in lines:
            f = fields(line)
            if "set" not in f or "objective" in f:
                continue
            # A size's runs are compared with its own alone.
            size = "small" if line["key"].startswith("small ") else "full"
            self.all[(size, f["set"], f["ratio"], f["teacher"], f["student"], f.get("weight", "1"), f["seed"])] = line

    def sets(self):
        return sorted({key[:3] for key in self.all})

    def of(self, which, teacher, student, weight="1"):
        """By seed."""
        return {key[6]: line for key, line in self.all.items() if key[:6] == (*which, teacher, student, weight)}


# Sets on one side, and none on the other, for a verdict. Seeds of a set share its rows, so they are one witness.
ENOUGH = 4
# Seeds of a set, below which it is on no side.
LEAST_SEEDS = 3


def lies(found):
    """The interval of a set's mean over seeds, in points."""
    return interval([100 * value for value in found]) if len(found) >= LEAST_SEEDS else None


def sides(differences):
    """In how many sets the interval lies above zero, and in how many below."""
    known = [one for one in map(lies, differences.values()) if one]
    return sum(one.low > 0 for one in known), sum(one.high < 0 for one in known)


def by_set(differences):
    shown = lambda found: f" [{lies(found).low:+.1f}, {lies(found).high:+.1f}]" if lies(found) else ""
    return ", ".join(f"{name} {100 * mean(found):+.1f}{shown(found)} ({len(found)})" for name, found in differences.items())


def verdict(differences, what):
    up, down = sides(differences)
    said = "reproduced" if up >= ENOUGH and not down else "not reproduced" if down >= ENOUGH and not up else "undecided at this size"
    return f"**{said}**: {what}, points by set (seeds): {by_set(differences)}; higher in {up}, lower in {down} of {len(differences)} sets"


def pairs(runs, one, other, measure=worst):
    """one − other, by set, a number a seed."""
    found = {}
    for which in runs.sets():
        a, b = runs.of(which, *one), runs.of(which, *other)
        same = [measure(a[seed]) - measure(b[seed]) for seed in sorted(a) if seed in b]
        if same:
            found[title(which)] = same
    return found


def accuracy(line):
    return line["metrics"]["accuracy"]


def cell(found):
    lines = list(found.values())
    of_seeds = f" ({len(lines)})" if lines else ""
    return f"{mean_sd([worst(x) for x in lines], 100, 1)} / {mean_sd([accuracy(x) for x in lines], 100, 1)}{of_seeds}"


def title(which):
    size, name, ratio = which
    return f"{name}, {'its own tail' if ratio == '1' else f'ratio {ratio}'}{', tiny encoder' if size == 'small' else ', MiniLM'}"


def claims(runs):
    standard = ("standard", "standard")
    return [
        "1. *Standard distillation costs the worst class* (its teacher has the higher worst class): "
        + verdict(pairs(runs, ("none", "standard"), standard), "standard teacher less its standard student"),
        "2. *A robust student protects the worst class*: "
        + verdict(pairs(runs, ("standard", "robust"), standard), "robust less standard student of the standard teacher"),
        "3. *A balanced student does too*: "
        + verdict(pairs(runs, ("standard", "balanced"), standard), "balanced less standard student of the standard teacher"),
        "4. *A robust teacher does not always give the more robust student*; of both signs is what noise makes too, so only a clear winner "
        "would say something: " + no_winner(pairs(runs, ("robust", "robust"), ("standard", "robust"))),
        "5. *A robust student beats post-shifting*: "
        + verdict(pairs(runs, ("standard", "robust"), ("standard", "post-shift-robust")), "robust student less shifted standard student"),
        "6. *Margins beat re-weighting (group DRO)*: "
        + verdict(pairs(runs, ("standard", "robust"), ("standard", "group-dro")), "margin less weights, both robust"),
        "7. *What it costs on average*, accuracy of the robust less that of the standard student of the standard teacher: "
        + cost(pairs(runs, ("standard", "robust"), standard, accuracy)),
        "8. *A bound on the weights' ratio (ours, `ratio=100`, the program's default) is better than none*, worst class: "
        + verdict(pairs(runs, ("standard", "ratio-100"), ("standard", "robust")), "bounded less unbounded robust student")
        + "; and accuracy: "
        + cost(pairs(runs, ("standard", "ratio-100"), ("standard", "robust"), accuracy)),
        "9. *The program's own settings of the robust objective (`as-shipped`) protect the worst class*: "
        + verdict(pairs(runs, ("standard", "as-shipped"), standard), "robust as shipped less standard student of the standard teacher")
        + "; and accuracy: "
        + cost(pairs(runs, ("standard", "as-shipped"), standard, accuracy)),
        "10. *They do better than the paper's without a bound*, worst class: "
        + verdict(pairs(runs, ("standard", "as-shipped"), ("standard", "robust")), "robust as shipped less unbounded robust student"),
        "11. *They do better than post-shifting*, worst class: "
        + verdict(pairs(runs, ("standard", "as-shipped"), ("standard", "post-shift-robust")), "robust as shipped less shifted standard student"),
    ]


def grouped(lines):
    """Of groups by a column: set, size → teacher, objective → seed → shares of right rows by group."""
    found = {}
    for line in lines:
        f = fields(line)
        if "groups" in f:
            size = "tiny encoder" if line["key"].startswith("small ") else "MiniLM"
            shares = {name: right / n for name, (right, n) in line["groups"].items()}
            found.setdefault((f["groups"], size), {}).setdefault((f["teacher"], f["student"]), {})[f["seed"]] = shares
    return found


def groups(found):
    parts = ["\n## Groups by a column\n", "The accuracy of the worst group / of all groups' mean, in percent; airlines of tweets, and whom a sentence of HateCheck is about.\n"]
    rows = []
    for (name, size), cells in sorted(found.items()):
        for (teacher, student), by_seed in cells.items():
            worst = mean_sd([min(shares.values()) for shares in by_seed.values()], 100, 1)
            rows.append([name, size, "labels" if teacher == "none" else f"{teacher} teacher", student, f"{worst} / {mean_sd([mean(s.values()) for s in by_seed.values()], 100, 1)}"])
    parts.append(table(["groups", "model", "from", "objective", "worst / mean"], rows))
    differences = {}
    for (name, _), cells in sorted(found.items()):
        for teacher in ("none", "standard"):
            standard, robust = cells.get((teacher, "standard"), {}), cells.get((teacher, "robust"), {})
            same = [min(robust[seed].values()) - min(shares.values()) for seed, shares in standard.items() if seed in robust]
            if same:
                differences[f"{name}, {'labels' if teacher == 'none' else 'a standard teacher'}"] = same
    if differences:
        parts.append(f"*The robust objective over groups helps the worst group*: {verdict(differences, 'robust less standard')}.")
    return parts


def updates(lines):
    """Under a budget of churn: what the deployed model's worst class was and is, and what was paid for it."""
    if not lines:
        return []
    found = {}
    for line in lines:
        f = fields(line)
        size = "tiny encoder" if line["key"].startswith("small ") else "MiniLM"
        found.setdefault((f"{f['set']}, ratio {f['ratio']}, {size}", f["objective"], f["budget"]), []).append(line)
    recall = lambda line, at: min(counts[at] / counts[0] for counts in line["classes"].values())
    of_all = lambda line, at: sum(counts[at] for counts in line["classes"].values()) / sum(counts[0] for counts in line["classes"].values())
    rows = []
    for (name, objective, budget), same in found.items():
        cells = [mean_sd([value(line) for line in same], 100, 1) for value in (
            lambda line: line["churn"],
            lambda line: of_all(line, 3),
            lambda line: max(counts[3] / counts[0] for counts in line["classes"].values()),
            lambda line: of_all(line, 1),
            lambda line: of_all(line, 2),
            lambda line: recall(line, 1),
            lambda line: recall(line, 2),
        )]
        rows.append([name, objective, budget, len(same), *cells])
    return [
        "\n## An update under a churn budget\n",
        "The deployed model is of one half of the rows, the other half is new; `update --max-churn`, with the program's own settings of the robust\n"
        "objective. No paper joins the two. All in percent, on the rows to test on.\n",
        table(["set", "objective", "budget", "seeds", "churn", "negative flips", "of the class with most", "accuracy before", "after", "worst recall before", "after"], rows),
    ]


def no_winner(differences):
    up, down = sides(differences)
    said = "**not reproduced**" if up >= ENOUGH and not down else "**undecided at this size**"
    return f"{said}: robust less standard teacher's robust student, points by set (seeds): {by_set(differences)}; higher in {up}, lower in {down} of {len(differences)} sets"


def cost(differences):
    up, down = sides(differences)
    return f"points by set (seeds): {by_set(differences)}; higher in {up}, lower in {down} of {len(differences)} sets" if differences else "no pair yet"


def page(lines, folder):
    runs = Runs(lines)
    parts = [
        "# The worst class: robust distillation\n",
        "After Wang et al. 2022 (2206.06479), on text; sets, sizes and settings are ours. Objectives for the teacher (trained on labels) and\n"
        "for the student (trained on the teacher's scores alone, λ 1, of the same size and start). Half of the rows that nothing is trained\n"
        "on steer the robust objective and fit the post-shift; the other half is what is measured here, 250 rows of a class at most, so\n"
        "that accuracy is nearly the mean over classes. Cells are *recall of the worst class / accuracy* in percent, mean ± standard\n"
        "deviation over seeds (so many); with ten classes and more the mean recall of the five worst.\n",
        "## The claims\n",
        f"Reproduced where the 95 % interval over seeds lies on the claim's side in {ENOUGH} sets at least and on the other in none, not reproduced the other way\n"
        f"round, else undecided: seeds of a set share its rows, so a set is one witness, and with fewer than {LEAST_SEEDS} seeds it is none. Only the direction is\n"
        "judged, since no result of the paper was at hand to compare sizes with. The robust objective is the paper's, whose weights may\n"
        "differ by any factor (`ratio=inf`); rows `ratio-…` bound the factor, which is ours, and\n"
        "`as-shipped` are the program's own settings, of smaller steps. The rule of intervals and claims 9 to 11 were written with most lines there.\n",
    ]
    if lines:
        parts += [claim + "." for claim in claims(runs)]
    by_group = grouped(lines)
    if by_group:
        parts += groups(by_group)
    parts += updates([line for line in lines if "objective" in fields(line)])
    curves = []
    for which in runs.sets():
        head = ["teacher", *(f"{student} student" for student in OBJECTIVES)]
        rows = []
        for teacher in ["none", *OBJECTIVES]:
            rows.append([{"none": "none, labels"}.get(teacher, teacher), *(cell(runs.of(which, teacher, s)) for s in OBJECTIVES)])
        parts += [f"\n## {title(which)}\n", table(head, rows)]
        named = [(name, runs.of(which, "standard", name)) for name in CONTRASTS]
        if any(found for _, found in named):
            parts.append(table(["of the standard teacher", "worst / accuracy"], [[name, cell(found)] for name, found in named if found]))
        points = []
        for weight in ["0", "0.25", "0.5", "0.75", "1"]:
            # Weight 0 is the balanced student.
            found = runs.of(which, "standard", "balanced") if weight == "0" else runs.of(which, "standard", "robust", weight)
            if found:
                points.append((100 * mean(map(accuracy, found.values())), 100 * mean(map(worst, found.values()))))
        curves.append(Series(title(which), points))
    if any(len(curve.points) > 1 for curve in curves):
        plot(folder / "trade-off.svg", "From the mean over classes to the worst one", Axis("accuracy %"), Axis("worst recall %"), curves)
        parts += [
            "\n## The trade-off\n",
            "Students of the standard teacher, `--worst-class-weight` 0 (balanced), 0.25, 0.5, 0.75, 1.\n",
            "![worst recall against accuracy](trade-off.svg)",
        ]
    return "\n".join(parts)

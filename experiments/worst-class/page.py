"""The page of the worst-class experiment, from its lines."""

from math import comb
from statistics import mean

from tables import Axis, Series, mean_sd, plot, table

OBJECTIVES = ["standard", "balanced", "robust"]
CONTRASTS = ["group-dro", "teacher-steered", "ada-margin", "post-shift-balanced", "post-shift-robust"]


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
            # A size's runs are compared with its own alone.
            size = "small" if line["key"].startswith("small ") else "full"
            self.all[(size, f["set"], f["ratio"], f["teacher"], f["student"], f.get("weight", "1"), f["seed"])] = line

    def sets(self):
        return sorted({key[:3] for key in self.all})

    def of(self, which, teacher, student, weight="1"):
        """By seed."""
        return {key[6]: line for key, line in self.all.items() if key[:6] == (*which, teacher, student, weight)}


def sign_test(differences):
    """Two-sided p of as many of one sign; ties are left out."""
    up, down = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    n, most = up + down, max(up, down)
    return (up, down, min(1.0, 2 * sum(comb(n, k) for k in range(most, n + 1)) / 2**n)) if n else (0, 0, 1.0)


def verdict(differences, what):
    up, down, p = sign_test(differences)
    said = "undecided at this size"
    if p < 0.05:
        said = "reproduced" if up > down else "not reproduced"
    points = 100 * mean(differences) if differences else 0.0
    return f"**{said}**: {what}: {points:+.1f} points on average; higher in {up}, lower in {down} of {len(differences)} pairs (sign test, p = {p:.3f})"


def pairs(runs, one, other, measure=worst):
    """one − other over all sets and seeds."""
    found = []
    for which in runs.sets():
        a, b = runs.of(which, *one), runs.of(which, *other)
        found += [measure(a[seed]) - measure(b[seed]) for seed in sorted(a) if seed in b]
    return found


def accuracy(line):
    return line["metrics"]["accuracy"]


def cell(found):
    lines = list(found.values())
    return f"{mean_sd([worst(x) for x in lines], 100, 1)} / {mean_sd([accuracy(x) for x in lines], 100, 1)}"


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
        "4. *A robust teacher does not always give the more robust student*; the pairs are robust students of the two teachers, of single "
        "seeds, and a pair of each sign is what noise makes too, so only a clear winner would say something: " + no_winner(pairs(runs, ("robust", "robust"), ("standard", "robust"))),
        "5. *A robust student beats post-shifting*: "
        + verdict(pairs(runs, ("standard", "robust"), ("standard", "post-shift-robust")), "robust student less shifted standard student"),
        "6. *Margins beat re-weighting (group DRO)*: "
        + verdict(pairs(runs, ("standard", "robust"), ("standard", "group-dro")), "margin less weights, both robust"),
        "7. *What it costs on average*, accuracy of the robust less that of the standard student of the standard teacher: "
        + cost(pairs(runs, ("standard", "robust"), standard, accuracy)),
    ]


def no_winner(differences):
    up, down, p = sign_test(differences)
    said = "**not reproduced**" if p < 0.05 and up > down else "**undecided at this size**"
    return f"{said}: the robust teacher's student is better in {up}, worse in {down} of {len(differences)} pairs (p = {p:.3f})"


def cost(differences):
    up, down, _ = sign_test(differences)
    return f"{100 * mean(differences):+.1f} points; higher in {up}, lower in {down} of {len(differences)} pairs" if differences else "no pair yet"


def page(lines, folder):
    runs = Runs(lines)
    parts = [
        "# The worst class: robust distillation\n",
        "After Wang et al. 2022 (2206.06479), on text; sets, sizes and settings are ours. Objectives for the teacher (trained on labels) and\n"
        "for the student (trained on the teacher's scores alone, λ 1, of the same size and start). Half of the rows that nothing is trained\n"
        "on steer the robust objective and fit the post-shift; the other half is what is measured here, 250 rows of a class at most, so\n"
        "that accuracy is nearly the mean over classes. Cells are *recall of the worst class / accuracy* in percent, mean ± standard\n"
        "deviation over seeds; with ten classes and more the mean recall of the five worst.\n",
        "## The claims\n",
        "A pair is one set and one seed; pairs of one set are not independent, so p is smaller than it should be. Only the direction is\n"
        "tested, since no result of the paper was at hand to compare sizes with.\n",
    ]
    if lines:
        parts += [claim + "." for claim in claims(runs)]
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

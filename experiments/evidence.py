"""Claims as a page tells them: one table of claims and verdicts, and below it for each claim a table of what it rests on, a row a data set.

Which counts make which verdict is each page's own rule; here is what a data set says, by its seeds.
"""

from dataclasses import dataclass, field

from statistic import Interval, interval
from tables import counted, table

# Fewer seeds of a data set are on no side.
LEAST_SEEDS = 3
HEAD = ["mean", "95 % interval", "seeds", "it says"]


@dataclass
class Case:
    """A data set: a number a seed, which a claim sets against `zero`."""

    name: str
    values: list[float]
    zero: float = 0.0
    # Why it doesn't count, though it is shown.
    left_out: str = ""
    # More cells of its row.
    beside: list[str] = field(default_factory=list)


@dataclass
class Claim:
    says: str
    # A word and counts.
    verdict: str
    # Markdown; nothing where the verdict says all.
    evidence: str = ""


def lies(case: Case) -> Interval | None:
    return interval(case.values) if len(case.values) >= LEAST_SEEDS else None


def side(case: Case) -> str:
    """Where the interval over seeds is: higher than zero, lower, or neither."""
    found = lies(case)
    if found is None:
        return "too few seeds"
    if found.low == found.high == case.zero:
        return "the same"
    return "higher" if found.low > case.zero else "lower" if found.high < case.zero else "neither"


def sides(cases: list[Case]) -> tuple[int, int, int]:
    """Of those that count: how many higher, how many lower, how many there are."""
    found = [side(case) for case in cases if not case.left_out]
    return found.count("higher"), found.count("lower"), len(found)


def shown(case: Case, digits: int, is_signed: bool = True) -> list[str]:
    """Mean, interval, seeds."""
    if not case.values:
        return ["–", "–", "0"]
    sign, found = "+" if is_signed else "", lies(case)
    said = lambda value: f"{value:{sign}.{digits}f}"
    middle = found.middle if found else sum(case.values) / len(case.values)
    return [said(middle), f"{said(found.low)} to {said(found.high)}" if found else "–", str(len(case.values))]


def rows(cases: list[Case], digits: int, is_signed: bool = True) -> list[list[str]]:
    return [[case.name, *shown(case, digits, is_signed), case.left_out or side(case), *case.beside] for case in cases]


def told(claims: list[Claim]) -> list[str]:
    """The table of all, then the evidence of each that has some."""
    numbered = list(enumerate(claims, 1))
    parts = [table(["", "claim", "verdict"], [[f"{n}.", claim.says, claim.verdict] for n, claim in numbered])]
    parts += [f"\n### Claim {n}\n\n{claim.evidence}" for n, claim in numbered if claim.evidence]
    return parts


def counts(cases: list[Case], above: str = "higher", below: str = "lower", where: str = "") -> str:
    """`higher in 3, lower in 0 of 5 sets, 1 more left out`."""
    up, down, n = sides(cases)
    n_left_out = len(cases) - n
    said = f"{above} in {up}, {below} in {down} of {counted(n, 'set')}{where}" if n else "no set counts yet"
    return said + (f", {n_left_out} more left out" if n_left_out else "")

"""Claims as a page tells them: one table of claims and verdicts, and below it for each claim a table of what it rests on, a row a data set.

Which counts make which verdict is each page's own rule; here is what a data set says, by its seeds.
"""

import re
from dataclasses import dataclass, field
from math import exp

from statistic import Interval, interval
from tables import counted, listed, table

# Fewer seeds of a data set are on no side.
LEAST_SEEDS = 3
TOO_FEW = "too few seeds"
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
    # Values are logarithms of ratios, and shown as ratios.
    is_log: bool = False


@dataclass
class Claim:
    """In its texts `{claims:MARK}` stands for the numbers of the claims of this page with the mark."""

    says: str
    # A word and counts.
    verdict: str
    # Markdown; nothing where the verdict says all.
    evidence: str = ""
    marks: tuple[str, ...] = ()


def lies(case: Case) -> Interval | None:
    return interval(case.values) if len(case.values) >= LEAST_SEEDS else None


def side(case: Case) -> str:
    """Where the interval over seeds is: higher than zero, lower, or neither."""
    found = lies(case)
    if found is None:
        return TOO_FEW
    if found.low == found.high == case.zero:
        return "the same"
    return "higher" if found.low > case.zero else "lower" if found.high < case.zero else "neither"


def sides(cases: list[Case]) -> tuple[int, int, int]:
    """Of those that count: how many higher, how many lower, how many there are. One with too few seeds doesn't count."""
    found = [side(case) for case in cases if not case.left_out]
    return found.count("higher"), found.count("lower"), len(found) - found.count(TOO_FEW)


def shown(case: Case, digits: int, is_signed: bool = True) -> list[str]:
    """Mean, interval, seeds."""
    if not case.values:
        return ["–", "–", "0"]
    sign, found = "+" if is_signed else "", lies(case)
    said = lambda value: f"{exp(value) if case.is_log else value:{sign}.{digits}f}"
    middle = found.middle if found else sum(case.values) / len(case.values)
    return [said(middle), f"{said(found.low)} to {said(found.high)}" if found else "–", str(len(case.values))]


def rows(cases: list[Case], digits: int, is_signed: bool = True) -> list[list[str]]:
    return [[case.name, *shown(case, digits, is_signed), case.left_out or side(case), *case.beside] for case in cases]


def told(claims: list[Claim]) -> list[str]:
    """The table of all, then the evidence of each that has some."""
    of = lambda text: numbered(text, claims)
    parts = [table(["", "claim", "verdict"], [[f"{n}.", of(claim.says), claim.verdict] for n, claim in enumerate(claims, 1)])]
    parts += [f"\n### Claim {n}\n\n{of(claim.evidence)}" for n, claim in enumerate(claims, 1) if claim.evidence]
    return parts


def numbered(text: str, claims: list[Claim]) -> str:
    """A text with the numbers of the claims that it names by their marks."""
    return re.sub(r"\{claims:([^}]+)\}", lambda found: which(claims, found[1]), text)


def which(claims: list[Claim], mark: str) -> str:
    """Those that have the mark; a page that names claims it hasn't is an error."""
    numbers = [n for n, claim in enumerate(claims, 1) if mark in claim.marks]
    if not numbers:
        raise ValueError(f"no claim is marked {mark!r}")
    return named(numbers)


def named(numbers: list[int]) -> str:
    """`claim 7`, `claims 7 and 8`, `claims 8 to 12`."""
    return f"claim{'s' * (len(numbers) > 1)} {' and '.join(listed(numbers).rsplit(', ', 1))}"


def counts(cases: list[Case], above: str = "higher", below: str = "lower", where: str = "") -> str:
    """`higher in 3, lower in 0 of 5 sets, 1 more left out`."""
    up, down, n = sides(cases)
    n_left_out = sum(bool(case.left_out) for case in cases)
    n_too_few = len(cases) - n_left_out - n
    said = f"{above} in {up}, {below} in {down} of {counted(n, 'set')}{where}" if n else "no set counts yet"
    said += f", {n_left_out} more left out" if n_left_out else ""
    return said + (f", {n_too_few}{' more' if n else ''} with too few seeds" if n_too_few else "")

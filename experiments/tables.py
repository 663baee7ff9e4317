"""RESULTS.md and plots of experiments from their lines: python3 experiments/tables.py [NAME...]; --check says which are not so.

An experiment is a folder with run.sh, results.jsonl (one line a run) and page.py, whose `page(lines, folder)` returns the text of
RESULTS.md and writes its plots with `plot`. page.py may also have, for the last section, `commands(lines)`, the command lines that make
exactly these lines; `missing(lines)`, what a declared size has beyond them; `is_small(line)`, whether it is of the small size.
What a page says `in_short` is written into README.md too, where that has a place for it.
The standard library is enough. Nothing here measures; every number is from the lines.
"""

import html
import importlib.util
import json
import math
import os
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"


# Lines.


def read(path: Path) -> list[dict]:
    """The lines of a file; one that was cut by a crash is an error that names it."""
    lines = []
    for n, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise SystemExit(f"{path}: line {n}: {error}; remove this line, and the run is made again")
    return lines


def has(path: Path, key: str) -> bool:
    return any(line["key"] == key for line in read(path))


def line(key: str, seconds: float, version: str, said: str) -> str:
    """What a run said last, with the key, seconds and version before it."""
    last = said.strip().splitlines()[-1] if said.strip() else ""
    try:
        found = json.loads(last)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise SystemExit(f"{key}: the last line is {last[:200]!r}, expected an object of JSON")
    found.pop("output", None)  # a folder of whoever ran it
    return json.dumps({"key": key, "seconds": round(seconds, 1), "version": version, "machine": machine(), **found}, ensure_ascii=False)


def machine() -> dict:
    """What this runs on: cores, threads where they were limited, the processor where Linux names it."""
    found: dict[str, object] = {"cores": os.cpu_count()}
    if threads := os.environ.get("RAYON_NUM_THREADS"):
        found["threads"] = int(threads) if threads.isdigit() else threads
    try:
        cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return found
    named = re.search(r"^model name\s*: (.+)$", cpus, re.MULTILINE)
    return found | ({"processor": named[1].strip()} if named else {})


# Numbers and tables.


def mean_sd(values: list[float], scale: float = 1.0, digits: int = 2) -> str:
    """`86.20 ± 0.12`: mean and standard deviation over runs; one run has no ±, none is a dash."""
    values = [scale * value for value in values]
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def mean_se(values: list[float], scale: float = 1.0, digits: int = 2) -> str:
    """As `mean_sd` with the standard error of the mean."""
    values = [scale * value for value in values]
    if len(values) < 2:
        return mean_sd(values, 1.0, digits)
    return f"{mean(values):.{digits}f} ± {stdev(values) / math.sqrt(len(values)):.{digits}f}"


def table(head: list[str], rows: list[list[object]]) -> str:
    """Markdown; columns are to the right where all of their cells start with a digit, a sign or a dash."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    is_number = [all(row[at][:1] in "0123456789+-−–" for row in cells) for at in range(len(head))]
    rule = ["---:" if right else "---" for right in is_number]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *cells]) + "\n"


def counted(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def listed(seeds: list[int]) -> str:
    """`1, 2, 42 to 61`: three and more in a row by their ends."""
    rows: list[list[int]] = []
    for seed in sorted(seeds):
        if rows and seed == rows[-1][-1] + 1:
            rows[-1].append(seed)
        else:
            rows.append([seed])
    return ", ".join(f"{row[0]} to {row[-1]}" if len(row) > 2 else ", ".join(map(str, row)) for row in rows)


def minutes(lines: list[dict]) -> str:
    return counted(round(sum(line["seconds"] for line in lines) / 60), "minute")


def exactly(command: str, declared: list[str], lines: list[dict]) -> list[str]:
    """The command that makes those of the declared keys that have a line, by `KEYS` where that isn't all of them."""
    there = {line["key"] for line in lines}
    kept, missing = ([key for key in declared if (key in there) == is_kept] for is_kept in (True, False))
    if not kept:
        return []
    sign, named = ("!", missing) if len(missing) <= len(kept) else ("@", kept)
    return [f"KEYS='{sign}({'|'.join(named)})' {command}" if missing else command]


def made_by(lines: list[dict], name: str, page: object = None) -> str:
    """The last section of every page: commands, versions, seeds, seconds, machines; `page` is the module of its page.py."""
    if not lines:
        return "No run is kept yet.\n"
    of = lambda what, otherwise: getattr(page, what, otherwise)
    in_key = (re.search(r"\bseed[= ](\d+)", line["key"]) for line in lines if "seed" not in line)
    seeds = {line["seed"] for line in lines if "seed" in line} | {int(found[1]) for found in in_key if found}
    said = f"- {counted(len(lines), 'run')}, {minutes(lines)} together" + (f"; seeds {listed(list(seeds))}" if seeds else "")
    parts = [f"{said}.\n- Version: {by_version(lines)}.\n- Machine: {by_machine(lines)}.\n"]
    own = of("commands", lambda lines: [])(lines)
    if own:
        parts.append("These commands make these lines and no others:\n")
        parts.append("```sh\n" + "\n".join(own) + "\n```\n")
    small = [line for line in lines if of("is_small", lambda line: False)(line)]
    sizes = f"`just experiment {name}` makes the full size, with `--small` the small one"
    sizes += f" ({counted(len(small), 'line')} of the above, {minutes(small)} by their seconds)" if small else ""
    parts.append(
        f"{sizes}.\nWhat has its line in `results.jsonl` is not made again; `RESULTS=FILE` in front starts from another file. `just results` makes this page\n"
        "of the lines.\n"
    )
    if hasattr(page, "missing"):
        without = of("missing", None)(lines)
        parts.append("Of the full size these have no line yet:\n" if without else "No line of the full size is missing.\n")
        parts += ["\n".join(f"- {one}" for one in without) + "\n"] if without else []
    return "\n".join(parts)


def by_version(lines: list[dict]) -> str:
    """`lowchurn 0.1.0: 3 runs of a commit that was not recorded, 2 runs of e03cc982c733`."""
    by_release: dict[str, list[str]] = {}
    for version, n in most_first([line["version"] for line in lines]):
        release, _, commit = version.partition(" at ")
        by_release.setdefault(release, []).append(f"{counted(n, 'run')} of {commit or 'a commit that was not recorded'}")
    return "; ".join(f"{release}: {', '.join(said)}" for release, said in by_release.items())


def by_machine(lines: list[dict]) -> str:
    said = []
    for found, n in most_first([json.dumps(line.get("machine", {}), sort_keys=True) for line in lines]):
        one = json.loads(found)
        if not one:
            said.append(f"{counted(n, 'run')} without a note of the machine")
            continue
        threads = f", RAYON_NUM_THREADS={one['threads']}" if "threads" in one else ""
        said.append(f"{counted(n, 'run')} on {counted(one['cores'] or 0, 'core')} of {one.get('processor', 'a processor without a name')}{threads}")
    return "; ".join(said)


def most_first(values: list[str]) -> list[tuple[str, int]]:
    return sorted(Counter(values).items(), key=lambda one: (-one[1], one[0]))


# Plots.

# Told apart by most people who see colours otherwise, and on white as on black (Okabe and Ito, the darkest left out).
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#B8A800"]
STYLE = (
    "text{fill:#3b4252;font:13px sans-serif}.t{font-size:15px;font-weight:600}.g{stroke:#d8dde3}.a{stroke:#5c6470}"
    "@media(prefers-color-scheme:dark){text{fill:#d8dee9}.g{stroke:#3b4252}.a{stroke:#aab2bd}}"
)


@dataclass
class Series:
    """Points (x, y) or (x, y, error of y), shown as line, dots, both or bars."""

    name: str
    points: list[tuple]
    shown: str = "both"
    colour: str | None = None
    is_dashed: bool = False


@dataclass
class Axis:
    label: str
    is_log: bool = False
    limits: tuple[float, float] | None = None
    ticks: list[float] = field(default_factory=list)


def plot(path: Path, title: str, x: Axis, y: Axis, series: list[Series]) -> None:
    """One panel with a legend to its right, on no background, readable on light and dark pages."""
    width, height, left, right, top, bottom = 820, 420, 78, 230, 36, 52
    series = [one for one in series if one.points]
    if not series:
        raise SystemExit(f"{path}: nothing to draw")
    has_bars = any(one.shown == "bars" for one in series)
    xs = [point[0] for one in series for point in one.points]
    ys = [point[1] + sign * (point[2] if len(point) > 2 else 0.0) for one in series for point in one.points for sign in (-1, 1)]
    ys = [value for value in ys if not y.is_log or value > 0.0] + ([0.0] if has_bars else [])
    across, up = scale(x, xs, left, width - right), scale(y, ys, height - bottom, top)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"><style>{STYLE}</style>',
        f'<title>{html.escape(title)}</title><text class="t" x="{left}" y="20">{html.escape(title)}</text>',
    ]
    for tick in across.ticks:
        at = across.at(tick)
        parts.append(f'<line class="g" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{height - bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - bottom + 18}" text-anchor="middle">{shown(tick)}</text>')
    for tick in up.ticks:
        at = up.at(tick)
        parts.append(f'<line class="g" x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{shown(tick)}</text>')
    parts.append(f'<path class="a" fill="none" d="M{left},{top}V{height - bottom}H{width - right}"/>')
    middle = (left + width - right) / 2
    parts.append(f'<text x="{middle:.0f}" y="{height - 12}" text-anchor="middle">{html.escape(x.label)}</text>')
    half = (top + height - bottom) / 2
    parts.append(f'<text transform="translate(16 {half:.0f}) rotate(-90)" text-anchor="middle">{html.escape(y.label)}</text>')
    for n, one in enumerate(series):
        colour = one.colour or COLOURS[n % len(COLOURS)]
        dash = ' stroke-dasharray="6 4"' if one.is_dashed else ""
        points = [(across.at(point[0]), up.at(max(point[1], up.low))) for point in one.points]
        if one.shown in ("line", "both"):
            way = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2"{dash} points="{way}"/>')
        if one.shown in ("dots", "both"):
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in points]
        if one.shown == "bars":
            broad = 0.9 * (width - right - left) / max(len(points), 1)
            foot = height - bottom
            parts += [
                f'<rect x="{a - broad / 2:.1f}" y="{b:.1f}" width="{broad:.1f}" height="{max(foot - b, 0):.1f}" fill="{colour}" fill-opacity="0.55"/>'
                for a, b in points
            ]
        for point, (a, _) in zip(one.points, points):
            if len(point) > 2 and point[2] > 0.0:
                ends = [up.at(max(point[1] + sign * point[2], up.low)) for sign in (-1, 1)]
                parts.append(f'<line stroke="{colour}" x1="{a:.1f}" x2="{a:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>')
        at = top + 10 + 20 * n
        parts.append(f'<line stroke="{colour}" stroke-width="3"{dash} x1="{width - right + 14}" x2="{width - right + 36}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{width - right + 42}" y="{at + 4}">{html.escape(one.name)}</text>')
    path.write_text("\n".join(parts) + "\n</svg>\n", encoding="utf-8")


@dataclass
class Scale:
    low: float
    high: float
    start: float
    end: float
    is_log: bool
    ticks: list[float]

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def scale(axis: Axis, values: list[float], start: float, end: float) -> Scale:
    low, high = axis.limits or (min(values), max(values))
    if axis.is_log:
        low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high) + 1e-12)
        high = high if high > low else 10.0 * low
        ticks = [10.0**n for n in range(round(math.log10(low)), round(math.log10(high)) + 1)]
        return Scale(low, high, start, end, True, axis.ticks or ticks)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    if axis.limits is None:
        room = 0.04 * (high - low)
        low, high = (low if low == 0.0 else low - room), high + room
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 2.5, 5, 10) if power * times >= rough * 0.999)
    ticks = [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return Scale(low, high, start, end, False, axis.ticks or ticks)


def shown(value: float) -> str:
    return "0" if abs(value) < 1e-15 else f"{value:.6g}"


# Pages.


def experiments() -> list[str]:
    return sorted(folder.parent.name for folder in HERE.glob("*/page.py"))


def page_of(name: str) -> object:
    """The module of a page.py, which may import what lies beside it. Two experiments may have modules of one name, so these are forgotten."""
    folder = HERE / name
    spec = importlib.util.spec_from_file_location(f"page_of_{name.replace('-', '_')}", folder / "page.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    spec.loader.exec_module(module)
    sys.path.remove(str(folder))
    for other, found in list(sys.modules.items()):
        if Path(getattr(found, "__file__", None) or "").parent == folder:
            del sys.modules[other]
    return module


def write(name: str, folder: Path) -> None:
    """The page and the plots of an experiment, into a folder."""
    module = page_of(name)
    results = HERE / name / "results.jsonl"
    lines = read(results) if results.exists() else []
    text = module.page(lines, folder).rstrip() + f"\n\n## How it was made\n\n{made_by(lines, name, module)}"
    (folder / "RESULTS.md").write_text(text, encoding="utf-8")


def in_short(*sentences: str) -> str:
    """A page's own summary, between marks that `with_summary` knows."""
    return "<!-- in short -->\n" + "\n".join(sentences) + "\n<!-- end -->\n"


def with_summary(readme: str, name: str, page: str) -> str:
    """README with what the page of this name says in short, where README has the place."""
    said = re.search(r"<!-- in short -->\n(.*?)<!-- end -->", page, re.DOTALL)
    place = re.compile(rf"(<!-- in short: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if said is None and place.search(readme):
        raise SystemExit(f"README.md has a place for what {name} says in short, and its page says nothing so")
    return place.sub(lambda found: found[1] + said[1] + found[2], readme)


def is_so(name: str) -> bool:
    """Whether page, plots and summary in the tree are what the lines give."""
    with tempfile.TemporaryDirectory() as text:
        write(name, Path(text))
        there = [(made, HERE / name / made.name) for made in Path(text).iterdir()]
        page, readme = Path(text, "RESULTS.md").read_text(encoding="utf-8"), read_readme()
        return with_summary(readme, f"experiments/{name}", page) == readme and all(kept.exists() and made.read_bytes() == kept.read_bytes() for made, kept in there)


def read_readme() -> str:
    return README.read_text(encoding="utf-8") if README.exists() else ""


def main(args: list[str]) -> None:
    if args[:1] == ["has"]:
        raise SystemExit(not has(Path(args[1]), args[2]))
    if args[:1] == ["line"]:
        key, started, ended, version = args[1:]
        print(line(key, float(ended) - float(started), version, sys.stdin.read()))
        return
    names = [arg for arg in args if not arg.startswith("-")] or experiments()
    unknown = [name for name in names if name not in experiments()]
    if unknown:
        raise SystemExit(f"{unknown[0]}: no such experiment with a page; known: {', '.join(experiments())}")
    if "--check" in args:
        stale = [name for name in names if not is_so(name)]
        if stale:
            raise SystemExit(f"not what the lines give: {', '.join(stale)}; just results makes them again")
        return
    for name in names:
        write(name, HERE / name)
        before = read_readme()
        after = with_summary(before, f"experiments/{name}", (HERE / name / "RESULTS.md").read_text(encoding="utf-8"))
        if after != before:
            README.write_text(after, encoding="utf-8")
        print(f"experiments/{name}/RESULTS.md")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main(sys.argv[1:])

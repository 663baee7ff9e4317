"""Which runs run.sh makes, which commands make those that are kept, and what of the full size isn't."""

from collections import Counter

from tables import counted, exactly

SETS = ("sst2", "mrpc", "cola", "ag_news_20k", "imdb")
SMALL_LARGE_SETS = ("sst2", "ag_news_20k", "mrpc")
FULL_SEEDS = [1, 2, 3, 4, 5]
SMALL_SEEDS = FULL_SEEDS[:2]
# Of the full size; those of the small one have none.
MARK = "full "
LAMBDAS = ("0", "1", "1..0@25%", "1..0@50%", "1..0@75%", "0..1@25%", "0..1@50%", "0..1@75%")


def keys(seeds: list[int], mark: str) -> list[str]:
    """Of a call with these seeds; one seed alone has no other model to be compared with."""
    of_one = [f"self {data} T {t}" for data in SETS for t in ((1, 2, 4) if mark else (1, 4))]
    of_one += [f"self {data} λ 0.5" for data in SETS]
    of_one += [f"null {data}" for data in SETS] if len(seeds) > 1 else []
    of_one += [f"length sst2 epochs {epochs}" for epochs in (2, 12)]
    of_one += [f"large {data} T 1" for data in (SETS if mark else SMALL_LARGE_SETS)]
    of_one += [f"switch T 4 teacher epochs {told} λ {weight}" for told in (1, 12) for weight in LAMBDAS]
    of_one += ["noise teacher", "noise student", "ways sst2", "ways tickets"]
    return [f"{mark}{what} seed {seed}" for seed in seeds for what in of_one]


def commands(lines: list[dict]) -> list[str]:
    """A null's line depends on which seed came next, which its key doesn't say: one with another partner is made by a call of the two."""
    found = []
    for mark, flag in (("", " --small"), (MARK, "")):
        own = [line for line in lines if line["key"].startswith(MARK) == bool(mark)]
        seeds = sorted({line["seed"] for line in own})
        following = dict(zip(seeds, seeds[1:] + seeds[:1]))
        calls = {tuple(seeds): []} if own else {}
        for line in own:
            is_apart = line["what"] == "independent" and line["other"] != following[line["seed"]]
            calls.setdefault((line["seed"], line["other"]) if is_apart else tuple(seeds), []).append(line)
        for call, same in calls.items():
            found += exactly(f'SEEDS="{" ".join(map(str, call))}" just experiment deviations{flag}', keys(list(call), mark), same)
    return found


def is_small(line: dict) -> bool:
    """Of the call with no seeds named."""
    return line["key"] in keys(SMALL_SEEDS, "")


def missing(lines: list[dict]) -> list[str]:
    """By kind of run."""
    there = {line["key"] for line in lines}
    kind = lambda key: key.removeprefix(MARK).split()[0]
    declared = keys(FULL_SEEDS, MARK)
    left = Counter(kind(key) for key in declared if key not in there)
    return [f"{what}: {left[what]} of {counted(n, 'run')}" for what, n in Counter(map(kind, declared)).items() if left[what]]

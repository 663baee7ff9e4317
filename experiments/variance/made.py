"""Which runs run.sh makes, which commands make those that are kept, and what of the full size isn't."""

from collections import Counter

from tables import counted, exactly

LEAST_SQUARES = "least squares"
SMALL_LAMBDAS = ("0.1", "0.3", "0.5", "0.9", "1")
FULL_LAMBDAS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1")
FULL_SEEDS = (42, 43, 44, 45, 46)


def keys(encoder: str, seed: int, lambdas: tuple[str, ...]) -> list[str]:
    """Those of the small size with an encoder are the full size's but for some λ of the floors."""
    probes, encoders = ("optimum", "good", "poor"), ("good", "early", "poor")
    found = [f"teacher {who}" for who in probes] + ["floor none 0 none", "floor svrg 1 none"]
    found += [f"floor {reduction} {weight} {who}" for who in probes for weight in lambdas for reduction in ("modified", "unbiased")]
    found += ["curve none 0 none"] + [f"curve kd {weight} {who}" for weight in ("0.5", "0.9") for who in ("optimum", "poor")]
    found += ["adamw none 0 none"] + [f"adamw modified {weight} optimum" for weight in ("0.5", "0.9")]
    found += [f"cosines {student} {who}" for student in ("begun", "trained") for who in encoders]
    found += [f"signal {student} early" for student in ("begun", "trained")]
    found += ["descent none 0 none"]
    found += [f"descent {how} {weight} {who}" for who in encoders for weight in ("0.1", "0.5", "0.9") for how in ("kd", "modified", "unbiased")]
    return [f"{what} {data} {encoder} {seed}" for data in ("sst2", "ag_news") for what in found]


FULL = [LEAST_SQUARES] + [key for encoder in ("tiny", "minilm-l6") for seed in FULL_SEEDS for key in keys(encoder, seed, FULL_LAMBDAS)]


def small(lines: list[dict]) -> list[str]:
    """Of the small size with every seed that a line has."""
    return [LEAST_SQUARES] + [key for seed in seeds_of(lines) for key in keys("tiny", seed, SMALL_LAMBDAS)]


def is_small(line: dict) -> bool:
    """Of the call with no seeds named."""
    return line["key"] in {LEAST_SQUARES, *keys("tiny", FULL_SEEDS[0], SMALL_LAMBDAS)}


def seeds_of(lines: list[dict]) -> list[int]:
    return sorted({line["seed"] for line in lines if "seed" in line})


def commands(lines: list[dict]) -> list[str]:
    """Of the small size alone where that makes all, else of the full one first."""
    declared = set(small(lines))
    if all(line["key"] in declared for line in lines):
        return of_small(lines)
    full = set(FULL)
    return exactly("just experiment variance", FULL, lines) + of_small([line for line in lines if line["key"] not in full])


def of_small(lines: list[dict]) -> list[str]:
    return exactly(f'SEEDS="{" ".join(map(str, seeds_of(lines)))}" just experiment variance --small', small(lines), lines)


def missing(lines: list[dict]) -> list[str]:
    """By encoder and kind of run."""
    there = {line["key"] for line in lines}
    left, of = (Counter(map(kind, declared)) for declared in ([key for key in FULL if key not in there], FULL))
    return [f"{what}: {left[what]} of {counted(n, 'run')}" for what, n in of.items() if left[what]]


def kind(key: str) -> str:
    """`tiny, floor`."""
    return key if key == LEAST_SQUARES else f"{key.split()[-2]}, {key.split()[0]}"

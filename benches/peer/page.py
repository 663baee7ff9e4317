"""BENCHMARKS.md from what pair.py and architectures.py wrote: medians, ratios of runs that were made in the same repeat, machine, commands.

    python benches/peer/page.py              writes BENCHMARKS.md and README's table from the lines in results/; --check: whether they are so
    python benches/peer/page.py FILE...      prints the page of these lines

Files are put together: a later one's case replaces an earlier one's. Every number on the page is from the lines.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))
from tables import README, in_short, read_readme, with_summary  # noqa: E402

# In this order, as later ones replace.
LINES = [ROOT / f"benches/peer/results/{name}.jsonl" for name in ("whole", "products", "training", "architectures")]
PAGE = ROOT / "BENCHMARKS.md"

# Ours over the peer's, at most: what is aimed at. None where no number was set.
AIMS = {
    ("sst2", "f32", "f32 random"): 0.28,
    ("sst2", "f32", "f32 grouped"): 0.65,
    ("sst2", "bf16", "f32 random"): 0.13,
    ("sst2", "bf16", "bf16 grouped"): 0.36,
    ("setup", "f32", "f32 random"): 0.25,
    ("scoring validation", "f32", "f32 file"): 0.55,
    ("scoring validation", "bf16", "bf16 file"): 0.4,
    ("scoring train", "f32", "f32 file"): 0.55,
    ("scoring train", "bf16", "bf16 file"): 0.4,
}
MEMORY_AIM = 0.35
TOKENISE_AIM = 1.5
EPOCH_AIM = 150.0
PRODUCT_AIMS = {"f32": 85, "bf16": 50}
THREADS_AIM = 1.8
# Ours in f32 over PyTorch's eager form; other architectures have no aim.
ARCHITECTURE_AIMS = {"deberta-v2": 1.0, "modernbert": 1.0}
TITLES = {
    "products": "Matrix products",
    "sst2": "Training: MiniLM on SST-2",
    "setup": "Set-up: all of SST-2's training rows, until the first step",
    "scoring validation": "Scoring SST-2's validation rows",
    "scoring train": "Scoring SST-2's training rows",
    "scaling": "Step time by tokens and threads (ours alone)",
    "bert-base": "Training in BERT-base's size, random weights, SST-2's rows",
    "imdb": "Training at 512 tokens: MiniLM on IMDb",
    "epoch": "A whole epoch of SST-2 (ours alone)",
    "architectures": "A training step of each architecture",
}


# What README has of it, beside PyTorch's fastest order of the rows.
SHORT = {
    "sst2": ("training MiniLM on SST-2", "grouped"),
    "imdb": ("training MiniLM on IMDb at 512 tokens", "grouped"),
    "bert-base": ("training in BERT-base's size", "grouped"),
    "scoring validation": ("scoring SST-2's validation rows", "length"),
}


def main(args: list[str]) -> None:
    if args and args != ["--check"]:
        print(page(args), end="")
        return
    made = page(LINES)
    readme = with_summary(read_readme(), "BENCHMARKS.md", made)
    if not args:
        PAGE.write_text(made, encoding="utf-8")
        README.write_text(readme, encoding="utf-8")
    elif made != PAGE.read_text(encoding="utf-8") or readme != read_readme():
        raise SystemExit("BENCHMARKS.md or README.md isn't what the lines give; just bench-page makes them again")


def page(paths: list[Path] | list[str]) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        tell(paths)
    return text.getvalue()


def tell(paths: list[Path] | list[str]) -> None:
    machines, cases, failed, n_again = [], {}, [], 0
    for path in paths:
        lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        machines.append(next(line for line in lines if line["kind"] == "machine"))
        failed += [line for line in lines if line["kind"] == "failed"]
        n_again += sum(line["kind"] == "disturbed" for line in lines)
        runs = [line for line in lines if line["kind"] == "run"]
        for case in TITLES:
            cases[case] = [run for run in runs if run["case"] == case] or cases.get(case, [])
    print("# Benchmarks\n")
    made_by = "`just bench-peer` and `just bench-architectures`" if cases["architectures"] else "`just bench-peer`"
    print(f"Made by `benches/peer/page.py` from the lines of {made_by}; not a number here is typed by hand.")
    print("A time is the median of the repeats. A ratio is ours divided by PyTorch's in the same repeat, then the median,")
    print("with the least and the greatest in brackets; under 1 is faster than PyTorch.\n")
    shorter(cases)
    machine_section(machines, [run for runs in cases.values() for run in runs], failed, n_again)
    for case, title in TITLES.items():
        if cases[case]:
            print(f"## {title}\n")
            section(case, cases[case])


def shorter(cases: dict[str, list[dict]]) -> None:
    """Nothing where lines lack what it compares, as those of a smoke test do."""
    rows = []
    for case, (title, order) in SHORT.items():
        of = lambda side, setting: [run for run in cases[case] if (run["side"], run["setting"]) == (side, setting)]
        pairs = {precision: paired(of("ours", precision), of("peer", f"{precision} {order}")) for precision in ("f32", "bf16")}
        if not all(pairs.values()):
            return
        cell = lambda key, precision: f"{median(mine[key] / theirs[key] for mine, theirs in pairs[precision]):.2f}"
        time = "eval_seconds" if case.startswith("scoring") else "steps_seconds"
        rows.append([title, *(cell(key, precision) for key in (time, "peak_rss_mib") for precision in pairs)])
    print(in_short(table(["lowchurn / PyTorch", "time, f32", "time, bf16", "peak memory, f32", "peak memory, bf16"], rows).rstrip()))


def machine_section(machines: list[dict], runs: list[dict], failed: list[dict], n_again: int) -> None:
    first = machines[0]
    print("## The machine\n")
    print(f"{first['processor']}, {first['cores']} cores, {first['memory_gib']} GiB, {first['system']}.")
    print(f"Both programs with {first['threads']} threads where nothing else is said.\n")
    for machine in machines:
        peer = machine["peer"]
        others = ", ".join(f"{name} {version}" for name, version in peer.items()) if peer else "no PyTorch"
        print(f"- {machine['made']}: `{machine['command']}`; {machine['lowchurn']}; {machine['rustc']}; {others}")
    others = [run["others_cores"] for run in runs if run["others_cores"] is not None]
    if others:
        n_disturbed = sum(cores > 0.3 for cores in others)
        print(
            f"\nOther processes used {median(others):.2f} cores during a run (median; {max(others):.2f} at most); "
            f"more than 0.3 in {n_disturbed} of {len(others)} runs."
        )
    if n_again:
        print(f"{n_again} runs beside more load than that were made again, whichever side they were, and don't count.")
    for line in failed:
        said = line["stderr"].strip().splitlines()[-1:] or ["nothing said"]
        print(f"\nFailed: `{line['command']}`: {said[0]}")
    if not all(machine["has_bf16"] for machine in machines):
        print("\nOurs had no bf16 then, so those rows are missing.")
    print()


def products(runs: list[dict]) -> None:
    """Rates of both sides, and their share of what the processor can do without memory."""
    n_repeats = len({run["repeat"] for run in runs})
    print(f"GFLOP/s of the fastest call of {n_repeats} repeats at the shapes of encoders' layers, 430 tokens, and in brackets the share")
    print("of the ceiling: what independent sums in registers reached in the fastest repeat. PyTorch multiplies by MKL and oneDNN. In")
    print("bf16 rounding and laying out count on both sides; `alone` is without them, as a step does them once for several products.\n")
    lines = fastest(runs)
    for threads in sorted({line["threads"] for line in lines if line["side"] == "ours"}):
        ours = [line for line in lines if line["side"] == "ours" and line["threads"] == threads]
        peer = {(line["layer"], line["product"]): line for line in lines if line["side"] == "peer" and line["threads"] == threads}
        limits = {precision: ours[0][f"{precision}_ceiling"] for precision in PRODUCT_AIMS}
        known = [f"{name} {rate:,.0f} ({ours[0][f'{name}_path']})" for name, rate in limits.items() if rate]
        print(f"{threads} thread{'s' * (threads > 1)}: memory {ours[0]['memory']} GB/s; ceilings {', '.join(known)}.\n")
        both = [(line, peer.get((line["layer"], line["product"]), {})) for line in ours]
        columns = [("f32", 0, "f32"), ("PyTorch f32", 1, "f32"), ("bf16", 0, "bf16_with_packs"), ("PyTorch bf16", 1, "bf16_with_packs"),
                   ("bf16 alone", 0, "bf16")]  # fmt: skip
        rows = [
            [pair[0]["layer"], pair[0]["product"], *[share(pair[side].get(key), limits[key.split("_")[0]]) for _, side, key in columns]]
            for pair in both
        ]
        print(table(["", "", *[title for title, _, _ in columns]], rows))
        for title, side, key in columns:
            precision = key.split("_")[0]
            aim, limit = PRODUCT_AIMS[precision], limits[precision]
            rates = [pair[side][key] for pair in both if pair[side].get(key) is not None]
            of_peer = "f32" if precision == "f32" else "bf16_with_packs"
            reached = [theirs[of_peer] for _, theirs in both if theirs]
            of = {"of the registers' ceiling": limit, "of PyTorch's fastest product": max(reached, default=None)}
            told = [f"{aim} % {what} in {sum(100 * rate >= aim * most for rate in rates)}" for what, most in of.items() if most]
            if rates and told:
                print(f"- {title}: {', '.join(told)} of {len(rates)}")
        print()
    print("Commands:\n")
    print(indented("\n".join(dict.fromkeys(run["command"] for run in runs))))


def fastest(runs: list[dict]) -> list[dict]:
    """One line for each product of a side and number of threads: its highest rates over the repeats, and the highest ceilings."""
    by_product = {}
    for run in runs:
        for line in run["products"]:
            by_product.setdefault((run["side"], line["threads"], line["layer"], line["product"]), []).append(line)

    def best(key: str, among: list[dict]) -> float | None:
        return max((line[key] for line in among if line.get(key) is not None), default=None)

    found = []
    for (side, threads, _, _), of_it in by_product.items():
        alike = [line for key, lines in by_product.items() if key[:2] == (side, threads) for line in lines]
        rates = {key: best(key, of_it) for key in ["f32", "bf16", "bf16_with_packs"]}
        limits = {key: best(key, alike) for key in ["memory", "f32_ceiling", "bf16_ceiling"]}
        found.append(of_it[0] | rates | limits | {"side": side})
    return found


def share(rate: float | None, ceiling: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate:,.0f} ({100 * rate / ceiling:.0f} %)" if ceiling else f"{rate:,.0f}"


def section(case: str, runs: list[dict]) -> None:
    if case == "products":
        return products(runs)
    if case == "scaling":
        return scaling(runs)
    if case == "architectures":
        return architectures(runs)
    by_setting = {}
    for run in runs:
        by_setting.setdefault((run["side"], run["setting"]), []).append(run)
    if case.startswith("scoring"):
        key, columns = "eval_seconds", [
            ("s", "eval_seconds", 3), ("rows", "rows", 0), ("accuracy", "accuracy", 4), ("peak MiB", "peak_rss_mib", 0),
        ]  # fmt: skip
    elif case == "setup":
        key, columns = "setup_seconds", [
            ("set-up s", "setup_seconds", 2), ("of it tokenising s", "tokenise_seconds", 2),
            ("end of the first step s", "first_step_seconds", 2), ("peak MiB", "peak_rss_mib", 0),
        ]  # fmt: skip
    else:
        key, columns = "steps_seconds", [
            ("all steps s", "steps_seconds", 2), ("training as the program counts s", "train_seconds", 2),
            ("a step s (median)", "step_seconds", 4), ("steps", "steps", 0),
            ("accuracy", "accuracy", 4), ("peak MiB", "peak_rss_mib", 0),
        ]  # fmt: skip
    columns = [column for column in columns if any(run.get(column[1]) is not None for run in runs)]
    rows = []
    for name in sorted(by_setting):
        values = [number(by_setting[name], column, digits) for _, column, digits in columns]
        rows.append([called(name), *values, str(len(by_setting[name]))])
    print(table(["", *[title for title, _, _ in columns], "repeats"], rows))
    rows = ratios(case, key, by_setting)
    if rows:
        print(table(["ours / PyTorch's", "time", "aim", "with saving", "peak memory", "aim"], rows))
    remarks(case, by_setting)
    print("Commands:\n")
    print(indented("\n".join(of_it[0]["command"] for of_it in by_setting.values())))


def ratios(case: str, key: str, by_setting: dict) -> list[list[str]]:
    rows = []
    peers = [setting for side, setting in by_setting if side == "peer"]
    for _, ours in [name for name in by_setting if name[0] == "ours"]:
        for peer in peers:
            pairs = paired(by_setting["ours", ours], by_setting["peer", peer])
            if not pairs:
                continue
            times = [mine[key] / theirs[key] for mine, theirs in pairs]
            memory = [mine["peak_rss_mib"] / theirs["peak_rss_mib"] for mine, theirs in pairs]
            aim = verdict(times, AIMS.get((case, ours, peer)))
            memory_aim = verdict(memory, MEMORY_AIM if case == "sst2" else None)
            # Ours saves a checkpoint inside its own count of a training, the Trainer doesn't.
            saving = [mine["train_seconds"] / theirs["train_seconds"] for mine, theirs in pairs if key == "steps_seconds"]
            with_saving = f"{median(saving):.3f}" if saving else ""
            rows.append([f"{ours} / {peer}", spread(times), aim, with_saving, spread(memory), memory_aim])
    return rows


def paired(ours: list[dict], peers: list[dict]) -> list[tuple[dict, dict]]:
    theirs = {run["repeat"]: run for run in peers}
    return [(run, theirs[run["repeat"]]) for run in ours if run["repeat"] in theirs]


def remarks(case: str, by_setting: dict) -> None:
    if case in ("sst2", "bert-base", "imdb", "epoch"):
        print("All steps: from the end of set-up to the end of the last step, by one clock for both. lowchurn's own")
        print("count has the saving of the checkpoint in it, which the Trainer is told to leave out.")
        if case == "sst2":
            print("Repeat r has the seed 42 + r on both sides; accuracy is of the validation rows. By seed:\n")
            accuracies(by_setting)
        print()
    if case == "setup" and ("ours", "f32") in by_setting:
        seconds = median(run["tokenise_seconds"] for run in by_setting["ours", "f32"])
        print("From the start of the process, imports included.")
        print(f"Tokenisation: {seconds:.2f} s, aim {TOKENISE_AIM} s: {'met' if seconds <= TOKENISE_AIM else 'not met'}.\n")
    if case == "epoch" and ("ours", "bf16") in by_setting:
        seconds = median(run["steps_seconds"] for run in by_setting["ours", "bf16"])
        print(f"bf16: {seconds:.0f} s, aim {EPOCH_AIM:.0f} s: {'met' if seconds <= EPOCH_AIM else 'not met'}.\n")
    if case.startswith("scoring"):
        print("Forward passes with their padding, batch 64, without tokenisation. `file`: rows as they come, `length`: the")
        print("longest first; ours always orders them by length itself.\n")


def accuracies(by_setting: dict) -> None:
    """Each seed's, because one mean says nothing about the noise."""
    for name in sorted(by_setting):
        runs = sorted(by_setting[name], key=lambda run: run["seed"])
        values = [f"{run['seed']}: {run['accuracy']:.4f}" for run in runs if run["accuracy"] is not None]
        print(f"- {called(name)}: {', '.join(values)}")


def called(name: tuple[str, str]) -> str:
    side, setting = name
    return f"{'lowchurn' if side == 'ours' else 'PyTorch'} {setting}"


def scaling(runs: list[dict]) -> None:
    by_shape, sums = {}, {}
    for run in runs:
        if run["setting"] == "sums":
            sums.setdefault((run["tokens"], run["length"]), []).append(run["gains"])
        elif run["step_seconds"] is not None:
            shape = (run["setting"], run["tokens"], run["length"])
            by_shape.setdefault(shape, {}).setdefault(run["threads"], []).append(run)
    threads = sorted({run["threads"] for run in runs})
    rows = []
    for (setting, tokens, length), by_threads in sorted(by_shape.items()):
        steps = [median(run["step_seconds"] for run in by_threads[n]) if n in by_threads else None for n in threads]
        row = [setting, str(tokens), str(length), str(tokens // length)]
        row += ["" if step is None else f"{1e3 * step:.1f}" for step in steps]
        row.append("" if steps[-1] is None else f"{1e6 * steps[-1] / tokens:.1f}")
        gains = []
        if len(threads) > 1 and None not in steps:
            pairs = paired(by_threads[threads[0]], by_threads[threads[-1]])
            gains = [one["step_seconds"] / both["step_seconds"] for one, both in pairs]
        row.append(spread(gains) if gains else "")
        if threads[-1] == 2 and gains:
            row[-1] += f", {'met' if median(gains) >= THREADS_AIM else 'not met'}"
        beside = [gain[setting] for gain in sums.get((tokens, length), []) if gain[setting]]
        row.append(spread(beside) if beside and gains else "")
        rows.append(row)
    titles = ["", "tokens a step", "tokens a row", "rows a step", *[f"ms a step, {n} threads" for n in threads]]
    print(table([*titles, f"µs a token, {threads[-1]} threads", "times faster on all threads", "sums in registers"], rows))
    if sums:
        print("Sums in registers: how many times faster all threads are where nothing but the processor and what others leave of it")
        print("decides; medians of spells of some milliseconds in the same minutes, each beside one on one thread.\n")
    if threads[-1:] == [2]:
        print(f"The aim on two threads is {THREADS_AIM} times one thread's speed.\n")
    print("Words of the vocabulary by chance, so that each row has as many tokens; such as:\n")
    print(indented("\n".join({run["setting"] == "sums": run["command"] for run in reversed(runs)}.values())))


def architectures(runs: list[dict]) -> None:
    by_model = {}
    for run in runs:
        model = (run["architecture"], run["known_by"], run["layers"], run["width"], run["shape"])
        by_model.setdefault(model, {}).setdefault((run["side"], run["setting"]), []).append(run)
    sides = [side for side in [("ours", "f32"), ("ours", "bf16"), ("peer", "f32"), ("peer", "bf16")] if any(side in of for of in by_model.values())]
    times, memory = [], []
    for (architecture, known_by, layers, width, shape), by_side in by_model.items():
        name = [known_by, f"{layers} x {width}", shape]
        of = lambda side: by_side.get(side, [])  # noqa: E731
        steps = [number([{"ms": 1e3 * run["step_seconds"]} for run in of(side)], "ms", 1) for side in sides]
        pairs = [paired(of(("ours", precision)), of(("peer", "f32"))) for precision in ["f32", "bf16"]]
        f32, bf16 = ([mine["step_seconds"] / theirs["step_seconds"] for mine, theirs in both] for both in pairs)
        aim = verdict(f32, ARCHITECTURE_AIMS.get(architecture)) if f32 else ""
        times.append([*name, *steps, *[spread(values) if values else "" for values in (f32, bf16)], aim])
        memory.append([*name, *[number(of(side), "peak_rss_mib", 0) for side in sides]])
    titles = [called(side) for side in sides]
    shared = ["", "layers x width", "rows x tokens"]
    print("Forward, backward, clipping and AdamW, in milliseconds; PyTorch with eager attention. Ratios are ours over PyTorch's in f32.\n")
    print(table([*shared, *titles, "f32 / f32", "bf16 / f32", "aim of f32"], times))
    print("Peak memory of the whole process, MiB:\n")
    print(table([*shared, *titles], memory))
    print("The vocabulary has 30,522 words for all; weights are random, rows of one length. Such as:\n")
    print(indented("\n".join(of_it[0]["command"] for of_it in next(iter(by_model.values())).values())))


def number(runs: list[dict], key: str, digits: int) -> str:
    values = [run[key] for run in runs if run.get(key) is not None]
    return f"{median(values):,.{digits}f}" if values else ""


def spread(values: list[float]) -> str:
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def verdict(values: list[float], aim: float | None) -> str:
    return "" if aim is None else f"{aim:.2f}, {'met' if median(values) <= aim else 'not met'}"


def table(titles: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in [titles, *rows]]
    lines.insert(1, "|---" + "|---:" * (len(titles) - 1) + "|")
    return "\n".join(lines) + "\n"


def indented(text: str) -> str:
    return "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


if __name__ == "__main__":
    main(sys.argv[1:])

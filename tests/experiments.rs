//! What all experiments share: a run has its line once, a page is what the lines give, and the pages in the tree are so.

mod util;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use util::{Lab, repository, skipped};

const RUN: &str = r#"source "$(dirname "$0")/../lib.sh"
said() { echo "first"; echo "{\"seed\": $1, \"accuracy\": 0.$1}"; echo "$1" >> ran; }
once "seed 5" said 5
once "seed 7" said 7
broken() { false; said 8; }
[ -n "$small" ] || once "seed 8" broken
"#;

const PAGE: &str = r##"
from tables import Axis, Series, in_short, mean_sd, plot, table


def page(lines, folder):
    points = [(line["seed"], line["accuracy"]) for line in lines]
    plot(folder / "seeds.svg", "a < b", Axis("seed"), Axis("accuracy"), [Series("all", points)])
    return "# A try\n\n" + in_short(f"{len(lines)} seeds.") + table(["seeds", "accuracy %"], [[len(lines), mean_sd([a for _, a in points], 100)]])
"##;

fn python() -> String {
    std::env::var("PYTHON").unwrap_or("python3".into())
}

fn has_python() -> bool {
    let is_new = "import sys; sys.exit(sys.version_info < (3, 10))";
    let done = Command::new(python()).args(["-c", is_new]).output();
    let is_there = done.is_ok_and(|done| done.status.success());
    if !is_there {
        skipped(&format!("no {} of 3.10 or newer", python()));
    }
    is_there
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn tables(tree: &Path, args: &[&str]) -> Output {
    let script = tree.join("experiments/tables.py");
    Command::new(python()).arg(script).args(args).current_dir(tree).output().unwrap()
}

/// Written by hand it would lose, when it is made again, what was never in its program.
#[test]
fn the_schema_of_reports_is_what_its_program_makes() {
    if has_python() {
        let (lab, folder) = (Lab::new(), repository().join("crates/churn/schema"));
        let script = folder.join("make.py");
        let done = Command::new(python()).arg(script).current_dir(lab.root()).output().unwrap();
        assert!(done.status.success(), "{}", text(&done));
        let there = fs::read_to_string(folder.join("report-v1.schema.json")).unwrap();
        assert!(lab.text("report-v1.schema.json") == there, "run just golden");
    }
}

#[test]
fn pages_in_the_tree_are_what_their_lines_give() {
    if has_python() {
        let done = tables(repository(), &["--check"]);
        assert!(done.status.success(), "{}", text(&done));
    }
}

#[test]
fn benchmarks_are_what_their_lines_give() {
    if has_python() {
        let script = repository().join("benches/peer/page.py");
        let done = Command::new(python()).arg(script).arg("--check").output().unwrap();
        assert!(done.status.success(), "{}", text(&done));
    }
}

#[test]
fn a_run_has_its_line_once_and_a_page_is_made_of_lines() {
    if !has_python() {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let here = tree.path().join("experiments/try");
    fs::create_dir_all(&here).unwrap();
    for name in ["lib.sh", "tables.py"] {
        let from = repository().join("experiments").join(name);
        fs::copy(from, tree.path().join("experiments").join(name)).unwrap();
    }
    fs::write(here.join("run.sh"), RUN).unwrap();
    fs::write(here.join("page.py"), PAGE).unwrap();
    let readme = tree.path().join("README.md");
    fs::write(
        &readme,
        "# Tries\n<!-- in short: experiments/try -->\n3 seeds.\n<!-- end -->\nMore.\n",
    )
    .unwrap();
    let run_of = |keys: &str, flag: &str| {
        let mut command = Command::new("bash");
        command.arg("experiments/try/run.sh").args(Some(flag).filter(|flag| !flag.is_empty()));
        command.env("KEYS", keys);
        command.env("LOWCHURN", env!("CARGO_BIN_EXE_lowchurn")).env_remove("RUNS");
        command.env_remove("RESULTS").current_dir(tree.path()).output().unwrap()
    };
    let run = |flag: &str| run_of("", flag);
    let ran = || fs::read_to_string(tree.path().join("ran")).unwrap();

    let done = run("--small");
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!(ran(), "5\n7\n");
    let done = run("");
    assert!(text(&done).contains("seed 8 failed"), "{}", text(&done));
    assert_eq!((done.status.code(), ran().as_str()), (Some(1), "5\n7\n"));
    assert!(text(&run("--smal")).contains("--smal is unknown"));
    let done = run_of("!(seed 8)", "");
    assert!(done.status.success() && ran() == "5\n7\n", "{}", text(&done));

    let results = here.join("results.jsonl");
    let lines = fs::read_to_string(&results).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.starts_with("{\"key\": \"seed 5\", \"seconds\": 0."), "{lines}");
    assert!(lines.contains("\"version\": \"lowchurn ") && lines.contains("\"accuracy\": 0.5}"));
    assert!(lines.contains("\"machine\": {\"cores\": "), "{lines}");

    assert!(!tables(tree.path(), &["--check"]).status.success());
    let made = tables(tree.path(), &[]);
    assert!(made.status.success(), "{}", text(&made));
    let page = fs::read_to_string(here.join("RESULTS.md")).unwrap();
    assert!(page.contains("| 2 | 60.00 ± 14.14 |"), "{page}"); // (50 + 70)/2 and √200
    assert!(page.contains("`just experiment try`") && page.contains("seeds 5, 7"), "{page}");
    let drawn = fs::read_to_string(here.join("seeds.svg")).unwrap();
    assert!(drawn.contains("a &lt; b") && drawn.contains("prefers-color-scheme"), "{drawn}");
    assert!(tables(tree.path(), &["--check"]).status.success());

    let said = "# Tries\n<!-- in short: experiments/try -->\n2 seeds.\n<!-- end -->\nMore.\n";
    assert_eq!(fs::read_to_string(&readme).unwrap(), said);

    // Neither a number typed into the page or the README nor a line that was cut goes unseen.
    fs::write(&readme, said.replace('2', "3")).unwrap();
    assert!(text(&tables(tree.path(), &["--check"])).contains("not what the lines give: try"));
    fs::write(&readme, said).unwrap();
    fs::write(here.join("RESULTS.md"), page.replace("60.00", "61.00")).unwrap();
    let stale = tables(tree.path(), &["--check"]);
    assert!(text(&stale).contains("not what the lines give: try"), "{}", text(&stale));
    fs::write(&results, &lines[..lines.len() - 9]).unwrap();
    assert!(text(&tables(tree.path(), &[])).contains("results.jsonl: line 2: "));
    assert!(text(&tables(tree.path(), &["tri"])).contains("tri: no such experiment with a page"));
}

/// Shares and risk of the best mixture and the lowest churn at a cold retrain's accuracy, by papers_examples.json; quantiles of t and
/// F, by scipy.stats (t.ppf(0.975, 4), f.ppf(0.975, 4, 9), f.ppf(0.025, 4, 9)).
const CHECKED: &str = r#"
import json, random, sys
from statistics import correlation
sys.path[:0] = ["experiments", "experiments/churn"]
import claims, evidence, made, page, statistic

def close(a, b):
    assert abs(a - b) < 1e-7, (a, b)

golden = json.load(open("tests/golden/papers_examples.json"))
lines = golden["C5_lp_mixture"]["candidates"]
points = [(line["churn"], line["risk"]) for line in lines]
for budget, expected in golden["C5_lp_mixture"]["solution"].items():
    shares = page.mixture(points, float(budget))
    close(sum(share * points[at][1] for share, at in shares), expected["risk"])
    assert len(shares) == len(expected["weights"])
    for share, at in shares:
        close(share, expected["weights"][str(lines[at]["lam"])])
assert page.mixture(points, 0.02) is None

six = golden["C6_churn_at_cold_accuracy"]
one_seed = lambda of: {1: {"accuracy": of["acc"], "churn": of["churn"]}}
found = {page.COLD: one_seed(six["cold"])} | {("m", "cold", run["h"]): one_seed(run) for run in six["runs"]}
settings = [setting for setting in found if setting != page.COLD]
assert page.least_churn(found, settings)[2] == six["answer"]["h"]
assert page.least_churn(found, settings[3:]) is None

close(statistic.student(4), 2.7764451051977934)
close(statistic.f_quantile(0.975, 4, 9), 4.7180784581281925)
close(statistic.f_quantile(0.025, 4, 9), 0.11230047780266185)
close(statistic.interval([1.0, 2.0, 3.0, 4.0, 5.0]).high, 3.0 + 2.7764451051977934 * (2.5 / 5) ** 0.5)
# At both ends of the interval sums and differences are just told to be correlated, by t with three degrees of freedom.
a, b = [1.0, 4.0, 2.0, 8.0, 5.0], [0.5, 1.0, 1.5, 3.0, 1.0]
ratio = statistic.ratio_of_variances(a, b)
close(ratio.middle, 7.5 / 0.925)
for end in (ratio.low, ratio.high):
    r = correlation(*([x + sign * end**0.5 * y for x, y in zip(a, b)] for sign in (1, -1)))
    close(abs(r) * (3 / (1 - r * r)) ** 0.5, statistic.student(3))
# Of normal pairs that go together, as many intervals as they say have the true ratio in them.
def has_true_ratio(rng):
    both = [(x, 0.8 * x + 0.6 * rng.gauss(0, 1)) for x in (rng.gauss(0, 1) for _ in range(10))]
    found = statistic.ratio_of_variances(*zip(*both))
    return found.low <= 1.0 <= found.high

rng = random.Random(1)
covered = sum(has_true_ratio(rng) for _ in range(4000)) / 4000
assert 0.93 < covered < 0.97, covered
close(statistic.mcnemar(2, 9), golden["A3_mcnemar_exact"]["p_two_sided"])
close(statistic.slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0)

# A verdict counts what its cases say; one of too few seeds says nothing.
def said(*cases):
    return claims.verdict(claims.LESS, [claims.Case("", statistic.Interval((low + high) / 2, low, high), n, [], costly) for low, high, n, costly in cases])

assert said((-2, -1, 5, False), (-3, -1, 5, False), (1, 2, 4, False)) == "reproduced: ahead in 2 of 2, too few seeds in 1 more"
assert said((1, 2, 5, False), (1, 3, 5, True)) == "not reproduced: ahead in 0 of 2, behind in 2"
assert said((-2, -1, 5, False), (-2, -1, 5, True)) == "undecided: ahead in 1 of 2, less churn for clearly less accuracy in 1"
assert said((-2, -1, 5, False)) == "undecided: ahead in 1 of 1"

# Sets with too few seeds have no vote, and are told apart from those that are left out.
few, up, down = ([1.0, 2.0], [1.0, 1.1, 1.2], [-1.0, -1.1, -1.2])
cases = [evidence.Case("", values) for values in (few, few, up, down, up)] + [evidence.Case("", few, left_out="why")]
assert evidence.sides(cases) == (2, 1, 3)
assert evidence.counts(cases) == "higher in 2, lower in 1 of 3 sets, 1 more left out, 2 more with too few seeds"
assert evidence.counts(cases[:2]) == "no set counts yet, 2 with too few seeds"
# Claims are named by marks, and ratios shown as such.
marked = [evidence.Claim("", "", marks=marks) for marks in ((), ("a", "b"), ("b",), ("b",), ("c",), ("c", "d"))]
assert evidence.numbered("in {claims:a}, {claims:b} and {claims:c}", marked) == "in claim 2, claims 2 to 4 and claims 5 and 6"
assert evidence.shown(evidence.Case("", [0.0, 0.0, 0.0], is_log=True), 2, False) == ["1.00", "1.00 to 1.00", "3"]

# Commands name the runs that have a line, each once.
runs = [("tiny", task, part, seed) for task in ("sst2", "ag_news") for part in ("cold", "warm") for seed in range(42, 45)]
runs += [("minilm-l6", "sst2", part, seed) for part in ("cold", "warm") for seed in (42, 44)] + [("tiny", "sst2", "seven", 43)]
assert made.commands([dict(zip(("encoder", "data", "part", "seed"), run)) for run in runs]) == [
    'TASKS="sst2 ag_news" ENCODERS="tiny:$(seq -s, 42 44)" PARTS="cold warm" just experiment churn',
    'TASKS="sst2" ENCODERS="tiny:43" PARTS="seven" just experiment churn',
    'TASKS="sst2" ENCODERS="minilm-l6:42,44" PARTS="cold warm" just experiment churn',
]
"#;

#[test]
fn mixtures_choices_and_intervals_are_those_of_the_papers_and_scipy() {
    if has_python() {
        succeeds(CHECKED);
    }
}

/// Each run.sh is called by the commands of its page with a program and a Python that do nothing but write down the keys asked for; then
/// by half of the lines, and by an AG News of other rows.
const COMMANDS: &str = r#"
import os, random, re, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
sys.path[:0] = ["experiments"]
import tables

STUBS = """
stub() { case "$*" in *"tables.py has"*) echo "${*: -1}" >>"$ASKED" ;; esac; }
awk() { :; }
mkdir() { [ -d "${*: -1}" ] || command mkdir "$@"; }
export -f stub awk mkdir
"""

def called(command, folder, **variables):
    own = {"PYTHON": "stub", "LOWCHURN": "stub", "HF_ENDPOINT": "none", "RUNS": f"{folder}/runs", "ASKED": f"{folder}/asked"}
    env = {"PATH": os.environ["PATH"], **own, **variables}
    return subprocess.run(["bash", "-c", STUBS + command], env=env, capture_output=True, text=True)

def script(command):
    return re.sub(r"just experiment (\S+)", r"bash experiments/\1/run.sh", command)

def asked(command):
    with tempfile.TemporaryDirectory() as folder:
        done = called(script(command), folder, RESULTS=f"{folder}/lines.jsonl")
        assert done.returncode == 0, (command, done.stderr)
        return Path(folder, "asked").read_text().splitlines()

def wrong(name, page, lines):
    commands = page.commands(lines)
    read = Path("experiments/lib.sh").read_text() + Path(f"experiments/{name}/run.sh").read_text()
    named = {one for command in commands for one in re.findall(r"(?:^| )([A-Z_]+)=", command)}
    unknown = [one for one in named if not re.search(rf"\$\{{?{one}\b", read)]
    made = sorted(key for command in commands for key in asked(command))
    kept = sorted(line["key"] for line in lines)
    return unknown or made != kept and f"{name}: {set(made) ^ set(kept)}"

# What a page takes for its full size is what run.sh makes of it; churn's is told by more than keys.
def is_of_full_size(name, page):
    all_of_it = [{"key": key} for key in asked(f"just experiment {name}")]
    without = [at for at in random.Random(name).sample(range(len(all_of_it)), 8) if not page.missing(all_of_it[:at] + all_of_it[at + 1 :])]
    return not page.missing(all_of_it) and not without

pages = {name: (tables.page_of(name), tables.read(tables.HERE / name / "results.jsonl")) for name in tables.experiments()}
half = lambda name, lines: random.Random(name).sample(lines, len(lines) // 2)
calls = [(name, page, lines) for name, (page, lines) in pages.items()]
calls += [(name, page, half(name, lines)) for name, (page, lines) in pages.items()]
with ThreadPoolExecutor() as pool:
    with_sizes = [(name, page) for name, (page, _) in pages.items() if name != "churn" and hasattr(page, "missing")]
    of_full_size = pool.map(lambda call: is_of_full_size(*call), with_sizes)
    found = [one for one in pool.map(lambda call: wrong(*call), calls) if one]
    found += [f"{name}: another full size" for (name, _), is_so in zip(with_sizes, of_full_size) if not is_so]
assert not found, found

with tempfile.TemporaryDirectory() as folder:
    done = called("bash experiments/churn/run.sh --small", folder, AG_NEWS="other/rows")
    assert done.returncode == 2 and done.stderr == (
        "churn: the rows of AG_NEWS=other/rows are others than those of experiments/churn/results.jsonl, under the same keys; "
        "name another file for its lines, such as RESULTS=runs/churn-whole.jsonl\n"
    ), done
    assert not called("bash experiments/churn/run.sh --small", folder, AG_NEWS="other/rows", RESULTS=f"{folder}/lines.jsonl").returncode
"#;

#[test]
fn the_commands_of_a_page_make_its_lines_and_no_others() {
    if has_python() {
        succeeds(COMMANDS);
    }
}

fn succeeds(script: &str) {
    let mut command = Command::new(python());
    let done = command.args(["-B", "-c", script]).current_dir(repository()).output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
}

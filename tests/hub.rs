//! The program against the local hub: real data, a real checkpoint, and a line that misbehaves. Skipped, and said so, where
//! the hub isn't present.

#[path = "../crates/hub/tests/local_hub/mod.rs"]
mod local_hub;
mod util;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use local_hub::LocalHub;
use util::{Lab, skipped};

/// Sixty-four rows and two updates of the real encoder.
const REAL: &str = "finetune rotten_tomatoes --model minilm-l6 --train-split train[:64] --eval-split validation[:64] \
                    --batch-size 32 --max-length 32 --max-steps 2 --output $T/run";

/// Rows of the hub, the encoder that ships.
const ROWS: &str = "finetune rotten_tomatoes --model tiny --train-split train[:64] --eval-split validation[:64] \
                    --batch-size 32 --max-length 32 --max-steps 2 --output $T/run";

const WAYS_OUT: &str = "three ways out: a cache (fill it where there is a network, point HF_HOME at it, \
                        set HF_HUB_OFFLINE=1), a mirror (HF_ENDPOINT=https://...), or local files (give a folder instead of the id)";

fn has_checkpoint() -> bool {
    let cache = std::env::var_os("LOCAL_HUB_CACHE").map(PathBuf::from);
    let cache =
        cache.or_else(|| Some(std::env::home_dir()?.join(".cache/local-hub"))).unwrap_or_default();
    let is_there =
        cache.join("models/sentence-transformers/all-MiniLM-L6-v2/model.safetensors").is_file();
    if !is_there {
        skipped("all-MiniLM-L6-v2 is not here; python3 ../shared/hub/get_models.py puts it there");
    }
    is_there
}

fn lab_of(server: &LocalHub) -> Lab {
    Lab::new().set("HF_ENDPOINT", &server.endpoint)
}

#[test]
fn from_ids_to_a_run_and_again_from_the_cache() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    if !has_checkpoint() {
        return;
    }
    let lab = lab_of(&server);
    let done = lab.ok(REAL);
    assert!(done.out.contains("$T/run: accuracy "), "{}", done.out);
    assert_eq!(lab.json("run/config.json")["id2label"]["1"], "pos");
    let weights = lab.read("run/model.safetensors");
    let asked = server.files_asked_for();
    for name in [
        "train.parquet",
        "validation.parquet",
        "model.safetensors",
        "config.json",
        "tokenizer.json",
    ] {
        let n = asked.iter().filter(|path| path.ends_with(&format!("/{name}"))).count();
        assert!(n >= 1, "{name} wasn't fetched: {asked:?}");
    }
    assert!(
        !asked.iter().any(|path| path.ends_with("/test.parquet")),
        "more than is read: {asked:?}"
    );

    // Finished is finished; and from the beginning it is the same, with nothing fetched.
    assert!(lab.ok(REAL).out.contains("$T/run is finished"));
    lab.ok(&format!("{REAL} --fresh"));
    assert!(lab.read("run/model.safetensors") == weights);
    assert_eq!(server.files_asked_for(), asked, "the second run fetched again");

    // Without the hub: told to, or because it is gone.
    drop(server);
    let gone = lab.ok(&format!("{REAL} --fresh"));
    assert!(gone.err.contains("using the cache"), "{}", gone.err);
    let mut command = lab.command(&format!("{REAL} --fresh"));
    command.env("HF_HUB_OFFLINE", "1").env_remove("HF_ENDPOINT");
    util::Running::of(command, "offline", lab.root()).wait().expect(0);
    assert!(lab.read("run/model.safetensors") == weights);

    // Scoring rows that were never fetched can't work; the message says which.
    let mut command = lab.command("eval --model $T/run --data rotten_tomatoes:test");
    command.env("HF_HUB_OFFLINE", "1");
    let done = util::Running::of(command, "eval", lab.root()).wait().expect(4);
    assert_eq!(
        done.error(),
        format!(
            "dataset cornell-movie-review-data/rotten_tomatoes: HF_HUB_OFFLINE is set, and the cache $T/hf/hub \
             doesn't hold test.parquet; unset HF_HUB_OFFLINE, or: {WAYS_OUT}"
        )
    );
    // What was fetched can be scored, and the run's own numbers come out.
    let eval =
        lab.ok("eval --model $T/run --data rotten_tomatoes --split validation[:64] --json").json();
    assert_eq!(eval.last().unwrap()["metrics"], lab.json("run/eval_results.json")["scores"]);
}

#[test]
fn a_model_of_the_hub_without_a_head_cannot_be_scored() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    if !has_checkpoint() {
        return;
    }
    let lab = lab_of(&server);
    let line =
        "eval --model sentence-transformers/all-MiniLM-L6-v2 --data tickets --split train[:10]";
    let done = lab.run(line).expect(3);
    let expected =
        "train it first: lowchurn finetune DATA --model sentence-transformers/all-MiniLM-L6-v2";
    assert!(done.error().ends_with(expected), "{}", done.err);
}

#[test]
fn a_dry_run_fetches_neither_rows_nor_weights() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    if !has_checkpoint() {
        return;
    }
    let lab = lab_of(&server);
    let line = "finetune rotten_tomatoes --dry-run --epochs 1 --output $T/run";
    let done = lab.ok(line);
    for part in ["train.parquet", "validation.parquet", "model.safetensors", "8,530", "267"] {
        assert!(done.out.contains(part), "no {part} in {}", done.out);
    }
    let asked = server.files_asked_for();
    assert!(asked.iter().all(|path| path.ends_with("README.md")), "{asked:?}");
    assert!(!lab.path("run").exists());
    let json = lab.ok(&format!("{line} --json")).json();
    let last = json.last().unwrap();
    assert_eq!((last["rows"].as_u64(), last["steps"].as_u64()), (Some(8530), Some(267)));
    assert!(last["download_bytes"].as_u64().unwrap() > 80_000_000, "{last}");
}

#[test]
fn the_cache_is_where_the_environment_says() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let lab = lab_of(&server).set("HF_HUB_CACHE", "$T/elsewhere");
    lab.ok(ROWS);
    // The commit is kept with the name.
    let manifest = lab.json("run/manifest.json");
    let train = manifest["provenance"]["train"].as_str().unwrap_or_else(|| panic!("{manifest}"));
    let (name, commit) = train.split_once('@').unwrap_or_else(|| panic!("{train}"));
    assert!(name.ends_with("(cornell-movie-review-data/rotten_tomatoes"), "{train}");
    assert_eq!(commit.len(), 41, "{train}");
    assert_eq!(
        lab.names("elsewhere"),
        [".locks/", "datasets--cornell-movie-review-data--rotten_tomatoes/"]
    );
    assert!(!lab.path("hf").exists() && !lab.path(".cache").exists(), "{:?}", lab.names(""));
}

#[test]
fn a_line_that_misbehaves_is_borne() {
    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let lab = lab_of(&server);
    lab.ok(ROWS);
    let weights = lab.read("run/model.safetensors");
    for faults in [["cut:100000"], ["503:3"], ["429:3"]] {
        let Some(server) = LocalHub::start(&faults, &[]) else { return };
        let lab = lab_of(&server).set("HF_TOKEN", "hf_aVerySecretToken");
        let done = lab.ok(ROWS);
        assert!(done.err.contains("; trying again "), "{faults:?} wasn't told: {}", done.err);
        assert!(!done.err.contains("hf_aVerySecretToken"), "{}", done.err);
        assert!(lab.read("run/model.safetensors") == weights, "{faults:?}: other rows");
    }
}

#[test]
fn wrong_bytes_are_not_believed() {
    let Some(server) = LocalHub::start(&["corrupt"], &[]) else { return };
    let lab = lab_of(&server);
    let line =
        "finetune imdb --model tiny --train-split train[:16] --eval-split none --output $T/run";
    let done = lab.run(line).expect(4);
    let (before, after) = done.error().split_once(", expected sha256 ").expect(&done.err);
    assert_eq!(
        before, "dataset stanfordnlp/imdb: plain_text/train-00000-of-00001.parquet: wrong content",
        "{}",
        done.err
    );
    assert!(
        after.ends_with("; the bytes were deleted, try again or use another HF_ENDPOINT"),
        "{after}"
    );
    let large: Vec<PathBuf> = lab
        .tree("hf")
        .into_iter()
        .filter(|(_, bytes)| bytes.len() > 100_000)
        .map(|(path, _)| path)
        .collect();
    assert_eq!(large, Vec::<PathBuf>::new(), "half of a file was kept");
    assert!(!lab.path("run").exists());
}

#[test]
fn hubs_that_cannot_be_reached_and_names_that_are_not_there() {
    // Nobody listens at the endpoint of a lab without a server.
    let lab = Lab::new();
    let done = lab.run(ROWS).expect(4);
    assert_eq!(
        done.error(),
        format!(
            "dataset cornell-movie-review-data/rotten_tomatoes: the hub at http://127.0.0.1:9 can't be reached \
             (io: Connection refused (os error 111)), and the cache $T/hf/hub doesn't hold it; {WAYS_OUT}"
        )
    );
    let lab = Lab::new().set("HF_HUB_OFFLINE", "1");
    let done = lab.run(ROWS).expect(4);
    assert_eq!(
        done.err,
        format!(
            "error: dataset cornell-movie-review-data/rotten_tomatoes: HF_HUB_OFFLINE is set, and the cache $T/hf/hub \
             doesn't hold it; unset HF_HUB_OFFLINE, or: {WAYS_OUT}\n"
        )
    );
    assert!(lab.tree("").is_empty(), "{:?}", lab.names(""));

    let Some(server) = LocalHub::start(&[], &[]) else { return };
    let lab = lab_of(&server);
    let endpoint = server.endpoint.clone();
    let check = |data: &str, flags: &str, code: i32, expected: &str| {
        let done =
            lab.run(&format!("finetune {data} --model tiny --output $T/run {flags}")).expect(code);
        assert_eq!(done.error(), expected.replace("HUB", &endpoint));
        assert!(!lab.path("run").exists());
    };
    check(
        "cornell-movie-review-data/rotten_tomatoes@nowhere",
        "",
        4,
        "dataset cornell-movie-review-data/rotten_tomatoes@nowhere: cornell-movie-review-data/rotten_tomatoes has no revision \
         \"nowhere\" at HUB (404); check the branch, tag or commit, or leave it out for main",
    );
    check(
        "nobody/nothing",
        "",
        4,
        "dataset nobody/nothing: not found at HUB (404); check owner and name, and that it is a dataset there; \
         a private repository looks the same without a token that may read it (HF_TOKEN)",
    );
    check(
        "rotten_tomatoes",
        "--train-split trian",
        2,
        "split \"trian\" isn't there (splits: test, train, validation); did you mean \"train\"?",
    );
    let done = lab.run("finetune nyu-mll/glue:sst3 --model tiny --output $T/run").expect(2);
    assert!(done.error().starts_with("config \"sst3\" isn't there (configs: "), "{}", done.err);
    assert!(done.error().ends_with("; did you mean \"sst2\"?"), "{}", done.err);
    let done = lab.run("finetune nyu-mll/glue --model tiny --output $T/run").expect(2);
    assert!(
        done.error().starts_with("the dataset has several configs, name one of: "),
        "{}",
        done.err
    );
    let asked = server.files_asked_for();
    assert!(
        !asked.iter().any(|path| path.ends_with(".parquet")),
        "rows were fetched for nothing: {asked:?}"
    );
}

#[test]
fn a_killed_download_goes_on() {
    let Some(server) = LocalHub::start(&["slow:150"], &[]) else { return };
    let lab = lab_of(&server);
    for _ in 0..4 {
        let mut running = lab.start(ROWS);
        thread::sleep(Duration::from_millis(400));
        running.kill();
        running.wait();
    }
    lab.ok(ROWS);
    let asked = server.files_asked_for().len();
    lab.ok(&format!("{ROWS} --fresh"));
    assert_eq!(server.files_asked_for().len(), asked);
    assert!(Path::new(&lab.path("run/manifest.json")).is_file());
}

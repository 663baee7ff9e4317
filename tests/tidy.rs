//! What a review would otherwise have to look for: manifests and plans that parse, files that are short, marks that were
//! forgotten, and documents that say what is so.

mod util;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lowchurn_data::Task;
use util::{Lab, repository};

/// Text files of the repository, built things and other people's aside.
fn files(suffixes: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_ours = !name.starts_with('.')
                && !["target", "runs", "__pycache__"].contains(&name.as_str());
            if path.is_dir() && is_ours {
                folders.push(path);
            } else if path.is_file() && suffixes.iter().any(|suffix| name.ends_with(suffix)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap().display().to_string()
}

fn manifests(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join(folder)).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|s| s == "toml")).collect();
    found.sort();
    found
}

#[test]
fn every_task_parses_and_says_its_kind() {
    let found = manifests("datasets");
    assert!(found.len() >= 10, "{found:?}");
    for path in found {
        let task = Task::read(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(task.kind.is_some(), "{}", path.display());
    }
}

#[test]
fn every_model_and_plan_parses() {
    let lab = Lab::new().set("HF_HUB_OFFLINE", "1");
    // 0 where all is here, 4 where the hub would be needed: what is written in the file is never the trouble.
    let check = |line: &str| {
        let done = lab.run(line);
        assert!(matches!(done.code, Some(0 | 4)), "{line}: {:?} {}", done.code, done.err);
    };
    let models = manifests("models");
    assert!(models.len() >= 6, "{models:?}");
    for path in models {
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        check(&format!("finetune tickets --dry-run --output $T/run --model {name}"));
    }
    for path in manifests("configs") {
        check(&format!("finetune --dry-run --output $T/run --plan {}", shown(&path)));
    }
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for path in files(&[".rs"]) {
        let name = shown(&path);
        let is_test = name.split('/').any(|part| part == "tests");
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
        if lines > 400 && !is_test {
            long.push(format!("{name}: {lines}"));
        }
    }
    assert!(long.is_empty(), "more than 400 lines without tests: {long:?}");
}

#[test]
fn files_say_what_they_are_for() {
    let silent: Vec<String> = files(&[".rs"])
        .iter()
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//! "))
        .map(|path| shown(path))
        .collect();
    assert!(silent.is_empty(), "no //! on top: {silent:?}");
}

#[test]
fn nothing_is_left_to_be_done() {
    // In halves, so that this file isn't found.
    let marks = [
        concat!("to", "do!("),
        concat!("db", "g!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("TO", "DO"),
    ];
    let mut found = Vec::new();
    for path in files(&[".rs", ".toml", ".md", ".py", "justfile", "run"]) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        for (n, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                found.push(format!("{}:{}: {}", shown(&path), n + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// What stands between two lines that start a section of a document; `None` where there is no such document yet.
fn section(document: &str, title: &str) -> Option<String> {
    let text = fs::read_to_string(repository().join(document)).ok()?;
    let start =
        text.find(&format!("\n{title}\n")).unwrap_or_else(|| panic!("{document} has no {title:?}"));
    let rest = &text[start + title.len() + 2..];
    Some(rest.split("\n## ").next().unwrap().to_string())
}

#[test]
fn the_tree_in_the_readme_is_the_tree() {
    let Some(section) = section("README.md", "## The tree") else { return };
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    let mut listed = BTreeSet::new();
    for line in lines {
        let first = line.split_whitespace().next().unwrap_or_default();
        assert!(repository().join(first).exists(), "README.md lists {first}, which isn't there");
        listed.insert(first.trim_end_matches('/').to_string());
        let named = line.split_whitespace().filter(|word| word.ends_with(".md"));
        for name in named {
            assert!(repository().join(name).exists(), "README.md lists {name}, which isn't there");
            listed.insert(name.to_string());
        }
        for inner in line.split('`').skip(1).step_by(2).filter(|word| word.ends_with('/')) {
            assert!(
                repository().join(first).join(inner).exists(),
                "README.md: no {inner} in {first}"
            );
        }
    }
    let folders = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap());
        let names = entries.filter(|entry| entry.path().is_dir());
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| {
                !name.starts_with('.') && !["target", "runs", "crates"].contains(&name.as_str())
            })
            .collect()
    };
    let crates = folders("crates").into_iter().map(|name| format!("crates/{name}"));
    for there in folders("").into_iter().chain(crates) {
        assert!(listed.contains(&there), "README.md doesn't list {there}");
    }
}

/// `distill::resume` → the file, by the rule that ARCHITECTURE.md gives.
fn file_of(word: &str) -> Option<PathBuf> {
    let path = match word.split_once("::") {
        Some((name @ ("distill" | "models"), file)) => {
            format!("crates/{name}/tests/{name}/{file}.rs")
        }
        Some(("data", file)) => format!("crates/data/src/{file}.rs"),
        Some(_) => return None,
        None if word.ends_with(".rs")
            && (word.starts_with("crates/") || word.starts_with("tests/")) =>
        {
            word.to_string()
        }
        None => return None,
    };
    Some(repository().join(path))
}

#[test]
fn each_invariant_names_tests_that_are_there() {
    let Some(section) = section("ARCHITECTURE.md", "## Invariants") else { return };
    let invariants: Vec<&str> = section.split("\n").collect();
    let starts: Vec<usize> = (0..invariants.len())
        .filter(|&n| {
            invariants[n]
                .split_once(". **")
                .is_some_and(|(number, _)| number.parse::<u32>().is_ok())
        })
        .collect();
    assert!(starts.len() >= 10, "invariants found: {}", starts.len());
    for (i, &start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).copied().unwrap_or(invariants.len());
        let mut n_files = 0;
        for line in &invariants[start..end] {
            let mut file: Option<(PathBuf, String)> = None;
            for word in line.split('`').skip(1).step_by(2) {
                if let Some(path) = file_of(word) {
                    let text = fs::read_to_string(&path);
                    let text =
                        text.unwrap_or_else(|error| panic!("ARCHITECTURE.md: `{word}`: {error}"));
                    file = Some((path, text));
                    n_files += 1;
                } else if let Some((path, text)) = &file {
                    let is_there = text.contains(&format!("fn {word}("));
                    assert!(is_there, "ARCHITECTURE.md: no `{word}` in {}", shown(path));
                }
            }
        }
        let says_so = invariants[start..end].iter().any(|line| line.contains("no test knows"));
        assert!(n_files > 0 || says_so, "no test is named for: {}", invariants[start]);
    }
}

#[test]
fn documents_name_files_that_are_there() {
    let folders = [
        "crates", "tests", "benches", "configs", "datasets", "models", "data", "hub", "kernels",
        "distill",
    ];
    for document in ["README.md", "ARCHITECTURE.md", "STYLE.md"] {
        let Ok(text) = fs::read_to_string(repository().join(document)) else { continue };
        for word in text.split('`').skip(1).step_by(2) {
            let Some((first, rest)) = word.split_once('/') else { continue };
            let is_plain = rest.contains('.')
                && rest.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
            let is_name =
                word.contains("NAME") || word.contains("TASK") || word.ends_with("/file.rs");
            if folders.contains(&first) && is_plain && !is_name {
                // Sources of a crate are called `distill/step.rs`.
                let places = [
                    word.to_string(),
                    format!("crates/{word}"),
                    format!("crates/{first}/src/{rest}"),
                ];
                let is_there = places.iter().any(|place| repository().join(place).exists());
                assert!(is_there, "{document} names {word}, which isn't there");
            }
        }
    }
}

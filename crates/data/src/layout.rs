//! From a repository's file names and its README.md to the files of each split: a pure function.
//!
//! The card decides where it names files; else the conventional names do, as in Hugging Face `datasets`. Refuses to choose
//! among several configs, and never yields a path that leaves the repository. Opens no file.

use std::collections::BTreeMap;

use crate::card::{self, CardConfig};
use crate::error::{Error, Result, nearest};
use crate::features::Feature;
use crate::glob;
use crate::table::Format;

/// The files of one config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub config: String,
    /// In the card's order, or train, validation, test, then others by name.
    pub splits: Vec<SplitFiles>,
    /// From the card; empty where it says nothing.
    pub features: Vec<Feature>,
}

/// Paths relative to the repository's root, in the order in which their rows follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitFiles {
    pub name: String,
    pub files: Vec<String>,
    /// As the card says, before anything is read.
    pub rows: Option<u64>,
}

/// Lays out a repository with this README.md (if it has one) and these files, for the config asked for.
///
/// Without a config: the card's default, the one named `default`, or the only one. For the branch `refs/convert/parquet`
/// pass no README.md: its files are named by convention, and their footers carry the features.
/// `Error::NoDataFiles` means that nothing here is readable, and that this branch is worth a try.
pub fn layout(readme: Option<&str>, listing: &[String], wanted: Option<&str>) -> Result<Layout> {
    let card = card::parse(readme.unwrap_or_default())?;
    let mut listing: Vec<&str> =
        listing.iter().map(String::as_str).filter(|path| stays_inside(path)).collect();
    listing.sort_unstable();
    let (config, mut splits) = if card.configs.is_empty() {
        by_convention(&listing, wanted)?
    } else {
        by_card(&card.configs, &listing, wanted)?
    };
    refuse_missing_shards(&splits)?;
    let info = card
        .infos
        .iter()
        .find(|info| info.config.as_deref() == Some(&config))
        .or_else(|| card.infos.iter().find(|info| info.config.is_none()));
    let rows_of = |name: &str| {
        let found = info?.rows.iter().find(|(split, _)| split == name);
        found.map(|(_, rows)| *rows)
    };
    for split in &mut splits {
        split.rows = rows_of(&split.name);
    }
    Ok(Layout {
        config,
        splits,
        features: info.map(|info| info.features.clone()).unwrap_or_default(),
    })
}

fn stays_inside(path: &str) -> bool {
    !path.starts_with('/')
        && !path.contains(['\\', '\0', ':'])
        && path.split('/').all(|part| !part.is_empty() && part != "..")
}

fn by_card(
    configs: &[CardConfig],
    listing: &[&str],
    wanted: Option<&str>,
) -> Result<(String, Vec<SplitFiles>)> {
    let names: Vec<String> = configs.iter().map(|config| config.name.clone()).collect();
    let default =
        configs.iter().find(|config| config.is_default).map(|config| config.name.as_str());
    let name = choose(&names, wanted, default)?;
    let Some(config) = configs.iter().find(|config| config.name == name) else {
        return Err(Error::ConfigNeeded { configs: names });
    };
    let folder =
        config.data_dir.as_deref().map(|dir| dir.trim_start_matches("./").trim_matches('/'));
    let folder = folder.filter(|dir| !matches!(*dir, "" | ".")).map(|dir| format!("{dir}/"));
    if config.data_files.is_empty() {
        let inside = |path: &&str| folder.as_ref().is_none_or(|folder| path.starts_with(folder));
        let files: Vec<&str> =
            listing.iter().copied().filter(inside).filter(|path| is_data(path)).collect();
        return if files.is_empty() {
            Err(Error::NoDataFiles)
        } else {
            Ok((name, splits_of(&files)))
        };
    }
    let mut splits: Vec<SplitFiles> = Vec::new();
    let mut unmatched = None;
    'splits: for (split, patterns) in &config.data_files {
        let mut files = Vec::new();
        for pattern in patterns {
            let pattern =
                format!("{}{}", folder.as_deref().unwrap_or(""), pattern.trim_start_matches("./"));
            let matched =
                listing.iter().filter(|path| glob::matches(&pattern, path) && !is_hidden(path));
            let before = files.len();
            files.extend(matched.map(|path| (*path).to_owned()));
            if files.len() == before {
                // A cache holds the splits that were wanted before; those are to be read without the others.
                let (config, split) = (name.clone(), split.clone());
                unmatched.get_or_insert(Error::NothingMatches { config, split, pattern });
                continue 'splits;
            }
        }
        // Two patterns that match the same file don't read it twice.
        let mut seen = std::collections::HashSet::new();
        files.retain(|file| seen.insert(file.clone()));
        match splits.iter_mut().find(|known| known.name == *split) {
            Some(known) => known.files.extend(files),
            None => splits.push(SplitFiles { name: split.clone(), files, rows: None }),
        }
    }
    match unmatched {
        Some(error) if splits.is_empty() => Err(error),
        _ => Ok((name, splits)),
    }
}

/// Names like `train-00001-of-00003.parquet` say how many there are; fewer would be fewer rows without a word.
fn refuse_missing_shards(splits: &[SplitFiles]) -> Result<()> {
    for split in splits {
        for file in &split.files {
            let Some((_, rest)) = file.rsplit_once("-of-") else { continue };
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let Ok(expected) = digits.parse::<usize>() else { continue };
            let suffix = format!("-of-{rest}");
            let found = split.files.iter().filter(|file| file.ends_with(&suffix)).count();
            if found < expected {
                let split = split.name.clone();
                return Err(Error::MissingShards { split, found, expected, like: file.clone() });
            }
        }
    }
    Ok(())
}

// Without a card, folders that aren't `data` or named after a split are configs.
fn by_convention(listing: &[&str], wanted: Option<&str>) -> Result<(String, Vec<SplitFiles>)> {
    let mut configs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for path in listing.iter().copied().filter(|path| is_data(path)) {
        configs.entry(config_of(path)).or_default().push(path);
    }
    if configs.is_empty() {
        return Err(Error::NoDataFiles);
    }
    let names: Vec<String> = configs.keys().map(|name| (*name).to_owned()).collect();
    let name = choose(&names, wanted, None)?;
    let splits = configs.get(name.as_str()).map(|files| splits_of(files)).unwrap_or_default();
    Ok((name, splits))
}

fn choose(names: &[String], wanted: Option<&str>, default: Option<&str>) -> Result<String> {
    match (wanted, default, names) {
        (Some(wanted), _, _) if names.iter().any(|name| name == wanted) => Ok(wanted.to_owned()),
        (Some(wanted), _, _) => Err(Error::UnknownConfig {
            config: wanted.to_owned(),
            configs: names.to_vec(),
            suggestion: nearest(wanted, names.iter().map(String::as_str)),
        }),
        (None, Some(default), _) => Ok(default.to_owned()),
        (None, None, [only]) => Ok(only.clone()),
        (None, None, _) if names.iter().any(|name| name == "default") => Ok("default".to_owned()),
        (None, None, _) => Err(Error::ConfigNeeded { configs: names.to_vec() }),
    }
}

fn config_of(path: &str) -> &str {
    match path.split_once('/') {
        Some((folder, _)) if folder != "data" && keyword(folder).is_none() => folder,
        _ => "default",
    }
}

// Files of one config by split. Where some are named after a split, the others (notes.csv) are no rows of the data set; where
// several formats offer rows, only the best is read, or rows would come twice.
fn splits_of(files: &[&str]) -> Vec<SplitFiles> {
    let named: Vec<&str> = files.iter().filter(|path| split_of(path).is_some()).copied().collect();
    let files = if named.is_empty() { files } else { &named };
    let of_suffix = |suffixes: &[&str]| -> Vec<&str> {
        let wanted = |path: &&&str| {
            path.rsplit_once('.').is_some_and(|(_, suffix)| suffixes.contains(&suffix))
        };
        files.iter().filter(wanted).copied().collect()
    };
    let best = [&["parquet"][..], &["jsonl", "ndjson", "json"], &["csv"], &["tsv"]]
        .into_iter()
        .map(of_suffix)
        .find(|files| !files.is_empty())
        .unwrap_or_else(|| files.to_vec());
    let mut splits: Vec<SplitFiles> = Vec::new();
    for path in best {
        let name = split_of(path).unwrap_or_else(|| "train".to_owned());
        match splits.iter_mut().find(|split| split.name == name) {
            Some(split) => split.files.push(path.to_owned()),
            None => splits.push(SplitFiles { name, files: vec![path.to_owned()], rows: None }),
        }
    }
    let rank = |name: &str| {
        KEYWORDS.iter().position(|(_, split)| *split == name).unwrap_or(KEYWORDS.len())
    };
    splits.sort_by(|a, b| rank(&a.name).cmp(&rank(&b.name)).then_with(|| a.name.cmp(&b.name)));
    splits
}

// The split that a path is named after, if it is.
fn split_of(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').collect();
    let file = parts.pop().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    // Shards: whatever stands before -00000-of-00001 is the split, known word or not.
    if let Some((before, count)) = stem.rsplit_once("-of-")
        && let Some((name, number)) = before.rsplit_once('-')
        && [number, count]
            .iter()
            .all(|digits| digits.len() >= 5 && digits.bytes().all(|c| c.is_ascii_digit()))
    {
        return Some(keyword(name).unwrap_or(name).to_owned());
    }
    keyword(stem)
        .or_else(|| parts.iter().rev().find_map(|folder| keyword(folder)))
        .map(str::to_owned)
}

const KEYWORDS: [(&str, &str); 10] = [
    ("train", "train"),
    ("training", "train"),
    ("validation", "validation"),
    ("valid", "validation"),
    ("dev", "validation"),
    ("val", "validation"),
    ("test", "test"),
    ("testing", "test"),
    ("eval", "test"),
    ("evaluation", "test"),
];

/// The split that a file or folder name stands for: a keyword set off by anything that isn't a letter.
pub fn keyword(name: &str) -> Option<&'static str> {
    let words: Vec<String> = name
        .split(|c: char| !c.is_alphabetic())
        .map(str::to_lowercase)
        .filter(|word| !word.is_empty())
        .collect();
    KEYWORDS.iter().find(|(word, _)| words.iter().any(|own| own == word)).map(|(_, split)| *split)
}

fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with(['.', '_']))
}

pub(crate) fn is_data(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let suffix = file.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    // A .json or .jsonl that names no split is more often metadata than rows.
    Format::of_suffix(suffix).is_some()
        && !is_hidden(path)
        && (suffix != "json" || keyword(path).is_some())
        && file != "metadata.jsonl"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lay(front: &str, listing: &[&str], wanted: Option<&str>) -> Result<String> {
        let listing: Vec<String> = listing.iter().map(|path| (*path).to_owned()).collect();
        let readme = format!("---\n{front}\n---\n");
        let layout = layout((!front.is_empty()).then_some(&readme), &listing, wanted)?;
        let splits =
            layout.splits.iter().map(|split| format!("{}={}", split.name, split.files.join(",")));
        Ok(format!("{}: {}", layout.config, splits.collect::<Vec<_>>().join(" ")))
    }

    #[test]
    fn conventions() {
        let check = |listing: &[&str], wanted: Option<&str>, expected: &str| {
            assert_eq!(
                lay("", listing, wanted).unwrap_or_else(|error| error.to_string()),
                expected
            );
        };
        check(
            &[
                "README.md",
                "data/test-00000-of-00001.parquet",
                "data/train-00001-of-00002.parquet",
                "data/train-00000-of-00002.parquet",
            ],
            None,
            "default: train=data/train-00000-of-00002.parquet,data/train-00001-of-00002.parquet test=data/test-00000-of-00001.parquet",
        );
        check(
            &["train.csv", "dev.csv", "my_test_file.csv"],
            None,
            "default: train=train.csv validation=dev.csv test=my_test_file.csv",
        );
        check(
            &["train/a.jsonl", "valid/b.jsonl"],
            None,
            "default: train=train/a.jsonl validation=valid/b.jsonl",
        );
        check(
            &["data/train/a.jsonl", "data/test/a.jsonl"],
            None,
            "default: train=data/train/a.jsonl test=data/test/a.jsonl",
        );
        check(&["rows.csv"], None, "default: train=rows.csv");
        check(
            &["notes.csv", "notes.parquet", "train.csv", "validation.csv"],
            None,
            "default: train=train.csv validation=validation.csv",
        );
        check(&["data/extra.csv", "data/test.csv"], None, "default: test=data/test.csv");
        check(
            &["data/extra-00000-of-00001.parquet"],
            None,
            "default: extra=data/extra-00000-of-00001.parquet",
        );
        check(
            &["sst2/train-0.parquet", "cola/train-0.parquet"],
            Some("sst2"),
            "sst2: train=sst2/train-0.parquet",
        );
        check(&["sst2/train-0.parquet"], None, "sst2: train=sst2/train-0.parquet");
        check(
            &["default/train/0000.parquet", "default/test/0000.parquet"],
            None,
            "default: train=default/train/0000.parquet test=default/test/0000.parquet",
        );
        check(
            &["sst2/train-0.parquet", "cola/train-0.parquet"],
            None,
            "the dataset has several configs, name one of: cola, sst2",
        );
        check(
            &["sst2/train-0.parquet", "cola/train-0.parquet"],
            Some("sst-2"),
            r#"config "sst-2" isn't there (configs: cola, sst2); did you mean "sst2"?"#,
        );
        check(&["train.csv", "train.parquet"], None, "default: train=train.parquet");
        check(
            &["train.json", "package.json", "metadata.jsonl", "_train.csv", ".x/train.csv"],
            None,
            "default: train=train.json",
        );
        let none = "no parquet, csv, tsv or json lines file here; for a dataset of the hub try the revision refs/convert/parquet";
        check(&["glue.py", "README.md"], None, none);
        check(
            &["../train.csv", "/train.csv", "a\\train.csv", "a//train.csv", "c:train.csv"],
            None,
            none,
        );
        check(&["restaurants.csv"], None, "default: train=restaurants.csv");
        check(&["contest.csv", "latest.csv"], None, "default: train=contest.csv,latest.csv");
    }

    #[test]
    fn cards() {
        let check = |front: &str, listing: &[&str], wanted: Option<&str>, expected: &str| {
            assert_eq!(
                lay(front, listing, wanted).unwrap_or_else(|error| error.to_string()),
                expected
            );
        };
        let two = "configs:\n- config_name: a\n  data_files:\n  - split: train\n    path: a/*.csv\n- config_name: b\n  data_files: b/x.csv";
        let files = ["a/1.csv", "a/2.csv", "b/x.csv", "b/y.csv"];
        check(two, &files, Some("a"), "a: train=a/1.csv,a/2.csv");
        check(two, &files, Some("b"), "b: train=b/x.csv");
        check(two, &files, None, "the dataset has several configs, name one of: a, b");
        check(&format!("{two}\n  default: true"), &files, None, "b: train=b/x.csv");
        check(two, &files, Some("c"), r#"config "c" isn't there (configs: a, b)"#);
        check(
            two,
            &["b/x.csv"],
            Some("a"),
            r#"config "a": nothing in the repository matches "a/*.csv", which README.md gives for split "train""#,
        );
        check(
            "configs:\n- config_name: d\n  data_dir: ./sub/",
            &["sub/train.csv", "train.csv"],
            None,
            "d: train=sub/train.csv",
        );
        check(
            "configs:\n- data_files: ['*.csv', './x.csv']",
            &["x.csv", "y.csv"],
            None,
            "default: train=x.csv,y.csv",
        );
        check(
            "configs:\n- data_files: ../x.csv",
            &["../x.csv"],
            None,
            r#"config "default": nothing in the repository matches "../x.csv", which README.md gives for split "train""#,
        );
        check("license: mit", &["train.csv"], None, "default: train=train.csv");
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_inside(readme in ".*", listing in prop::collection::vec(".*|(\\.\\./|/|data/|train/){0,3}(train|x)\\.(csv|json)", 0..8), wanted: Option<String>) {
            if let Ok(layout) = layout(Some(&readme), &listing, wanted.as_deref()) {
                for file in layout.splits.iter().flat_map(|split| &split.files) {
                    prop_assert!(listing.contains(file) && stays_inside(file));
                }
            }
        }
    }

    const TWO_SPLITS: &str = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n  - split: test\n    path: data/test-*\n---\n";

    /// What a cache holds after training is the training split alone.
    #[test]
    fn splits_without_files_are_left_out() {
        let files = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let found = layout(Some(TWO_SPLITS), &files(&["data/train-00000-of-00001.parquet"]), None);
        let names: Vec<String> =
            found.unwrap().splits.into_iter().map(|split| split.name).collect();
        assert_eq!(names, ["train"]);
        let nothing = layout(Some(TWO_SPLITS), &files(&["x.parquet"]), None);
        assert!(matches!(nothing, Err(Error::NothingMatches { .. })));
    }

    #[test]
    fn missing_shards_are_an_error() {
        let files = ["data/train-00000-of-00003.parquet", "data/train-00002-of-00003.parquet"];
        let files: Vec<String> = files.iter().map(|name| name.to_string()).collect();
        assert_eq!(
            layout(Some(TWO_SPLITS), &files, None).unwrap_err().to_string(),
            "split train has 2 of 3 files like data/train-00000-of-00003.parquet; fetch the others (a cache may hold only some)"
        );
    }
}

//! The YAML front matter of a dataset's README.md: its configs with their files, and the features of each config.
//!
//! Reads only what the layout needs; unknown keys belong to others and are passed over. A front matter that isn't YAML is
//! an error: guessing on could silently train on other files than the author meant. So is one whose aliases stand for much
//! more than is written there.

use std::collections::HashMap;

use yaml_rust2::parser::{Event, EventReceiver, Parser};
use yaml_rust2::{ScanError, Yaml, YamlLoader};

use crate::error::{Error, Result};
use crate::features::{Feature, FeatureKind};

/// What a card says; both lists empty without front matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    pub configs: Vec<CardConfig>,
    pub infos: Vec<CardInfo>,
}

/// One entry of `configs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardConfig {
    pub name: String,
    /// (split, patterns) in the card's order; empty: by the conventional names, under `data_dir`.
    pub data_files: Vec<(String, Vec<String>)>,
    pub data_dir: Option<String>,
    pub is_default: bool,
}

/// One entry of `dataset_info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardInfo {
    pub config: Option<String>,
    pub features: Vec<Feature>,
    /// (split, rows) as the card says; only a reading tells.
    pub rows: Vec<(String, u64)>,
}

/// Parses the text of a README.md.
pub fn parse(readme: &str) -> Result<Card> {
    let Some(top) = top(readme)? else { return Ok(Card::default()) };
    Ok(Card {
        configs: one_or_many(&top["configs"]).iter().map(config).collect(),
        infos: one_or_many(&top["dataset_info"]).iter().map(info).collect(),
    })
}

/// The values of `license` of a README.md, of a model or a data set; none where it says nothing.
///
/// # Errors
/// A front matter that isn't YAML.
pub fn licenses(readme: &str) -> Result<Vec<String>> {
    let Some(top) = top(readme)? else { return Ok(Vec::new()) };
    Ok(match &top["license"] {
        Yaml::Array(many) => many.iter().filter_map(text).collect(),
        one => text(one).into_iter().collect(),
    })
}

fn top(readme: &str) -> Result<Option<Yaml>> {
    let Some(front) = front_matter(readme) else { return Ok(None) };
    let refuse = |reason: &str| Err(Error::BadCard { line: 2, reason: reason.to_owned() });
    if too_deep(front) {
        return refuse("nested too deeply");
    }
    let not_yaml = |error: ScanError| Error::BadCard {
        line: error.marker().line() + 1,
        reason: error.info().to_owned(),
    };
    let mut copied = Copied::default();
    Parser::new_from_str(front).load(&mut copied, true).map_err(not_yaml)?;
    if copied.total > MOST_COPIED {
        return refuse("its aliases stand for over 64 MiB; write out what they stand for");
    }
    let documents = YamlLoader::load_from_str(front).map_err(not_yaml)?;
    Ok(documents.into_iter().next())
}

/// Bytes that anchors and aliases may have the loader copy. Cards written by a program repeat features so, a few KiB each.
const MOST_COPIED: usize = 64 << 20;
/// About what a value takes besides its text.
const NODE: usize = 64;

/// What loading would copy: a node with an anchor is kept beside the document, and each alias to it is a copy of that. So ten
/// lines, each a list of aliases to the line above, stand for more than any memory holds.
#[derive(Default)]
struct Copied {
    total: usize,
    /// Bytes of all nodes so far, copies among them.
    seen: usize,
    /// Anchor, and `seen` where it began, of the lists and maps that aren't closed.
    open: Vec<(usize, usize)>,
    /// Bytes of each anchor's node.
    sizes: HashMap<usize, usize>,
}

impl Copied {
    fn close(&mut self, anchor: usize, start: usize) {
        // The parser counts anchors from 1; 0 is none.
        if anchor > 0 {
            let size = self.seen - start;
            self.sizes.insert(anchor, size);
            self.total = self.total.saturating_add(size);
        }
    }
}

impl EventReceiver for Copied {
    fn on_event(&mut self, event: Event) {
        let start = self.seen;
        match event {
            Event::Scalar(text, _, anchor, _) => {
                self.seen = self.seen.saturating_add(NODE + text.len());
                self.close(anchor, start);
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                self.open.push((anchor, start));
                self.seen = self.seen.saturating_add(NODE);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((anchor, start)) = self.open.pop() {
                    self.close(anchor, start);
                }
            }
            Event::Alias(anchor) => {
                // Within its own node there is nothing to copy yet.
                let size = self.sizes.get(&anchor).copied().unwrap_or(0);
                self.seen = self.seen.saturating_add(size);
                self.total = self.total.saturating_add(size);
            }
            _ => {}
        }
    }
}

// Between a first line `---` and the next such line.
fn front_matter(readme: &str) -> Option<&str> {
    let body = readme.strip_prefix('\u{feff}').unwrap_or(readme);
    let body = body.strip_prefix("---\n").or_else(|| body.strip_prefix("---\r\n"))?;
    let mut end = 0;
    for line in body.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return Some(&body[..end]);
        }
        end += line.len();
    }
    None
}

// The loader recurses once a level, so a card of brackets could overflow the stack. Real cards stay under ten.
fn too_deep(front: &str) -> bool {
    let brackets = front.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let indent = front
        .lines()
        .map(|line| line.len() - line.trim_start_matches([' ', '-', '?', ':']).len())
        .max();
    brackets > 2000 || indent.unwrap_or(0) > 400
}

fn one_or_many(yaml: &Yaml) -> &[Yaml] {
    match yaml {
        Yaml::Array(many) => many,
        Yaml::Hash(_) => std::slice::from_ref(yaml),
        _ => &[],
    }
}

fn config(yaml: &Yaml) -> CardConfig {
    CardConfig {
        name: text(&yaml["config_name"]).unwrap_or_else(|| "default".to_owned()),
        data_files: data_files(&yaml["data_files"]),
        data_dir: text(&yaml["data_dir"]),
        is_default: yaml["default"].as_bool() == Some(true),
    }
}

// A pattern, a list of patterns, a list of {split, path}, or a map of split to pattern(s).
fn data_files(yaml: &Yaml) -> Vec<(String, Vec<String>)> {
    match yaml {
        Yaml::Hash(splits) => splits
            .iter()
            .filter_map(|(split, paths)| Some((text(split)?, patterns(paths))))
            .collect(),
        Yaml::Array(items) if items.iter().any(|item| item.as_hash().is_some()) => items
            .iter()
            .map(|item| {
                (
                    text(&item["split"]).unwrap_or_else(|| "train".to_owned()),
                    patterns(&item["path"]),
                )
            })
            .collect(),
        Yaml::BadValue | Yaml::Null => Vec::new(),
        _ => vec![("train".to_owned(), patterns(yaml))],
    }
}

fn patterns(yaml: &Yaml) -> Vec<String> {
    match yaml {
        Yaml::Array(many) => many.iter().filter_map(text).collect(),
        one => text(one).into_iter().collect(),
    }
}

fn info(yaml: &Yaml) -> CardInfo {
    let features = match &yaml["features"] {
        Yaml::Array(list) => list
            .iter()
            .filter_map(|item| {
                Some(Feature { name: text(&item["name"])?, kind: kind(item, MOST_LEVELS) })
            })
            .collect(),
        _ => Vec::new(),
    };
    let rows_of = |split: &Yaml| {
        let rows = split["num_examples"].as_i64()?;
        Some((text(&split["name"])?, u64::try_from(rows).ok()?))
    };
    let rows = one_or_many(&yaml["splits"]).iter().filter_map(rows_of).collect();
    CardInfo { config: text(&yaml["config_name"]), features, rows }
}

const MOST_LEVELS: usize = 8;

fn kind(yaml: &Yaml, levels: usize) -> FeatureKind {
    if levels == 0 {
        return FeatureKind::Other;
    }
    if let Yaml::String(dtype) = yaml {
        return FeatureKind::of_dtype(dtype);
    }
    if !yaml["class_label"].is_badvalue() {
        let names = class_names(&yaml["class_label"]["names"]);
        return if names.is_empty() { FeatureKind::Integer } else { FeatureKind::Classes(names) };
    }
    for key in ["sequence", "list"] {
        if !yaml[key].is_badvalue() {
            return kind(&yaml[key], levels - 1).listed();
        }
    }
    if yaml["dtype"].is_badvalue() { FeatureKind::Other } else { kind(&yaml["dtype"], levels - 1) }
}

// A list, or a map whose keys are the indices as text; the map may be in any order, and gaps make it useless.
fn class_names(yaml: &Yaml) -> Vec<String> {
    match yaml {
        Yaml::Array(names) => names.iter().filter_map(text).collect(),
        Yaml::Hash(map) => {
            let mut named: Vec<(usize, String)> = map
                .iter()
                .filter_map(|(index, name)| Some((text(index)?.parse().ok()?, text(name)?)))
                .collect();
            named.sort();
            let whole = named.len() == map.len()
                && named.iter().enumerate().all(|(at, (index, _))| at == *index);
            if whole { named.into_iter().map(|(_, name)| name).collect() } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

// Unquoted yes, no, 1 and 1.0 are meant as text where a name is expected.
fn text(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn card(front: &str) -> Card {
        parse(&format!("---\n{front}\n---\n# title\n")).unwrap()
    }

    #[test]
    fn data_files_in_every_form() {
        let check = |data_files: &str, expected: &[(&str, &[&str])]| {
            let card = card(&format!("configs:\n- config_name: c\n  data_files: {data_files}"));
            let got: Vec<(&str, Vec<&str>)> = card.configs[0]
                .data_files
                .iter()
                .map(|(split, paths)| (split.as_str(), paths.iter().map(String::as_str).collect()))
                .collect();
            let expected: Vec<_> =
                expected.iter().map(|(split, paths)| (*split, paths.to_vec())).collect();
            assert_eq!(got, expected);
        };
        check("a.csv", &[("train", &["a.csv"])]);
        check("[a.csv, b*.csv]", &[("train", &["a.csv", "b*.csv"])]);
        check(
            "\n  - split: train\n    path: data/train-*\n  - split: test\n    path: [x, y]",
            &[("train", &["data/train-*"]), ("test", &["x", "y"])],
        );
        check(
            "\n    train: a.csv\n    dev: [b.csv]",
            &[("train", &["a.csv"]), ("dev", &["b.csv"])],
        );
        check("\n  - path: a.csv", &[("train", &["a.csv"])]);
        check("", &[]);
    }

    #[test]
    fn configs_and_features() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let card = card(
            "configs:\n- config_name: a\n  data_dir: d\n- config_name: b\n  default: true\ndataset_info:\n- config_name: a\n  \
             features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n      class_label:\n        names:\n          \
             '1': yes\n          '0': no\n  - name: tags\n    sequence:\n      class_label:\n        names: [x, true, 7]\n  \
             - name: score\n    dtype: float32\n  - name: n\n    dtype: int64\n  - name: gap\n    dtype:\n      class_label:\n        \
             names:\n          '0': a\n          '2': b\n  - name: image\n    dtype: image\n  - name: words\n    sequence: string",
        );
        assert_eq!(
            (card.configs.len(), card.configs[0].is_default, card.configs[1].is_default),
            (2, false, true)
        );
        assert_eq!(card.configs[0].data_dir.as_deref(), Some("d"));
        assert_eq!(card.infos[0].config.as_deref(), Some("a"));
        let kinds: Vec<_> =
            card.infos[0].features.iter().map(|feature| feature.kind.clone()).collect();
        assert_eq!(
            kinds,
            [
                FeatureKind::Text,
                FeatureKind::Classes(names(&["no", "yes"])),
                FeatureKind::ClassList(names(&["x", "true", "7"])),
                FeatureKind::Float,
                FeatureKind::Integer,
                FeatureKind::Integer,
                FeatureKind::Other,
                FeatureKind::Other,
            ]
        );
    }

    #[test]
    fn no_front_matter_is_an_empty_card() {
        for readme in [
            "",
            "# title",
            "---\nconfigs: []",
            "---\n---\n",
            "---\nlicense: mit\n---",
            "---\n- 1\n---\n",
        ] {
            assert_eq!(parse(readme).unwrap(), Card::default(), "{readme:?}");
        }
    }

    #[test]
    fn broken_front_matter_names_the_line() {
        let check = |front: &str, message: &str| {
            let got = parse(&format!("---\n{front}\n---\n")).unwrap_err().to_string();
            assert_eq!(got, message);
        };
        check(
            "license: mit\nconfigs: [a",
            "README.md:4: the front matter can't be read (while parsing a flow sequence, expected ',' or ']')",
        );
        check(
            &"[".repeat(100_000),
            "README.md:2: the front matter can't be read (nested too deeply)",
        );
        check(
            &"- ".repeat(100_000),
            "README.md:2: the front matter can't be read (nested too deeply)",
        );
    }

    // Each line stands for ten of the one above: 10^30 of the first.
    #[test]
    fn aliases_may_not_grow_without_end() {
        let line =
            |n: usize| format!("a{n}: &a{n} [{}]", vec![format!("*a{}", n - 1); 10].join(", "));
        let lines: Vec<String> = (1..30).map(line).collect();
        let bombs = [
            format!("a0: &a0 [x]\n{}", lines.join("\n")),
            // Anchors alone: each is kept with all that it holds.
            format!("{}{}{}", "&a [".repeat(200), "x".repeat(1 << 19), "]".repeat(200)),
        ];
        for front in bombs {
            assert_eq!(
                parse(&format!("---\n{front}\n---\n")).unwrap_err().to_string(),
                "README.md:2: the front matter can't be read (its aliases stand for over 64 MiB; write out what they stand for)"
            );
        }
    }

    /// As PyYAML writes what is there twice.
    #[test]
    fn aliases_of_a_program_are_read() {
        let card = card(
            "dataset_info:\n- config_name: a\n  features: &id001\n  - name: text\n    dtype: string\n- config_name: b\n  features: *id001",
        );
        assert_eq!(card.infos[0].features, card.infos[1].features);
        assert_eq!(card.infos[1].features.len(), 1);
    }

    proptest! {
        #[test]
        fn never_panics(front in ".*", nested in r"([a-z_]{0,6}: ?[\[\]{},'&*!|>-]{0,5}\n? {0,4}){0,12}") {
            for front in [front, nested] {
                let _ = parse(&front);
                let _ = parse(&format!("---\n{front}\n---\n"));
                let _ = parse(&format!("---\nconfigs:\n{front}\ndataset_info:\n{front}\n---\n"));
            }
        }
    }
}

//! `chose.json`: the rows that a model was chosen by. It looks better on them than on others, so they certify nothing of it.
//!
//! By hash, so that they are known wherever they stand, without their file and without their texts.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lowchurn_data::Example;
use lowchurn_distill::{sha256_of_text, write_json};
use serde::{Deserialize, Serialize};

use crate::rows;

pub const FILE: &str = "chose.json";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// What of the model they chose.
    pub what: String,
    /// (N,) half a SHA-256 each.
    pub rows: BTreeSet<String>,
}

impl Chosen {
    /// Those of the rows that chose. All are given, since of rows with one text each is known by its place among them.
    pub fn new(what: &str, rows: &[Example], chose: impl Fn(usize) -> bool) -> Chosen {
        let keys = keys(rows).into_iter().enumerate();
        let rows = keys.filter(|(row, _)| chose(*row)).map(|(_, key)| key).collect();
        Chosen { what: what.into(), rows }
    }

    /// With what the models were chosen by that this one is made of.
    pub fn with(mut self, folders: &[&Path]) -> Result<Chosen> {
        for folder in folders {
            self.rows.extend(read(folder)?.unwrap_or_default().rows);
        }
        Ok(self)
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        match self.rows.is_empty() {
            // An earlier run's.
            true if path.exists() => {
                fs::remove_file(&path).with_context(|| path.display().to_string())
            }
            true => Ok(()),
            false => Ok(write_json(&path, self)?),
        }
    }
}

/// `None` where the folder doesn't say.
pub fn read(folder: &Path) -> Result<Option<Chosen>> {
    let path = folder.join(FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    let found = serde_json::from_slice(&text);
    Ok(Some(
        found.with_context(|| {
            format!("{}: expected an object with what and rows", path.display())
        })?,
    ))
}

/// (N,) which row each is: of rows with one text the first, the second, …
pub fn keys<'r>(rows: impl IntoIterator<Item = &'r Example>) -> Vec<String> {
    let mut met: HashMap<rows::Text, u64> = HashMap::new();
    let key = |row| {
        let (text, pair) = rows::text(row);
        let n = met.entry((text, pair)).or_default();
        *n += 1;
        sha256_of_text(&format!("{n}\0{text}\0{pair}"))[..32].to_string()
    };
    rows.into_iter().map(key).collect()
}

/// Rows of a text that an earlier row has. Each counts as a row of traffic, by which frequent texts weigh what they weigh there; copies
/// that came in otherwise don't, and make a bound too narrow.
pub fn said_of_repeats<'r>(rows: impl IntoIterator<Item = &'r Example>) -> Option<String> {
    let (mut texts, mut n) = (HashSet::new(), 0);
    for row in rows {
        texts.insert(rows::text(row));
        n += 1;
    }
    let repeats = n - texts.len();
    (repeats * REPEATS_SAID > n).then(|| {
        format!(
            "{repeats} of {n} rows have a text that another one has, and each counts by itself: right where that is how often such \
             texts come; where they are copies, take them out"
        )
    })
}

/// One in so many is not worth a word: it moves a bound by less than a hundredth of itself.
const REPEATS_SAID: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str, pair: Option<&str>) -> Example {
        let (id, pair) = ("1".into(), pair.map(String::from));
        Example { id, text: text.into(), pair, label: None, target: None }
    }

    #[test]
    fn rows_are_known_by_their_text_and_place_among_equals() {
        let rows = [row("a", None), row("b", None), row(" a ", None), row("a", Some("b"))];
        let all = keys(&rows);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 4);
        assert_eq!(keys(&rows[1..]), [&all[1], &all[0], &all[3]].map(String::clone));
        // The second row of a text stays the second where the first didn't choose.
        let chosen = Chosen::new("the weights", &rows, |row| row == 2);
        assert_eq!(chosen.rows.into_iter().collect::<Vec<_>>(), [all[2].clone()]);
        // printf '1\0a\0' | sha256sum
        assert_eq!(all[0], "58525f5331809fa6cde78056d788b65f");
    }

    #[test]
    fn what_a_model_is_made_of_chose_it_too() {
        let lab = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = lab.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (one, two) = (folder("one"), folder("two"));
        assert_eq!(read(&one).unwrap(), None);
        Chosen::new("the checkpoint", &[row("a", None)], |_| true).write(&one).unwrap();
        let both =
            Chosen::new("the shift", &[row("b", None)], |_| true).with(&[&one, &two]).unwrap();
        both.write(&two).unwrap();
        assert_eq!(read(&two).unwrap().map(|found| found.rows.len()), Some(2));
        Chosen::default().write(&one).unwrap();
        Chosen::default().write(&one).unwrap();
        assert_eq!(read(&one).unwrap(), None);
        fs::write(one.join(FILE), "[]").unwrap();
        let error = read(&one).unwrap_err().to_string();
        assert!(error.ends_with("chose.json: expected an object with what and rows"), "{error}");
    }

    #[test]
    fn copies_are_said_where_there_are_many() {
        let rows: Vec<Example> = (0..200).map(|n| row(&(n % 197).to_string(), None)).collect();
        let said = said_of_repeats(&rows).unwrap();
        assert!(said.starts_with("3 of 200 rows have a text that another one has"), "{said}");
        assert_eq!(said_of_repeats(&rows[..198]), None);
    }
}

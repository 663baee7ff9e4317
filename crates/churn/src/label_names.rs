//! Names of classes: how numbers are written, which two are one name spelt twice, and in what order they stand.

use std::collections::BTreeSet;

// "3" and "3.0" but not "03" or "+3", which may be codes.
pub(crate) fn whole(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(".0").unwrap_or(name);
    digits.parse::<i64>().ok().filter(|value| value.to_string() == digits)
}

/// The same name but for case and blanks.
pub(crate) fn is_respelt(one: &str, other: &str) -> bool {
    one != other && one.trim().to_lowercase() == other.trim().to_lowercase()
}

// Each once: numbers by size, else by the alphabet.
pub(crate) fn sorted<'n>(names: impl Iterator<Item = &'n String>) -> Vec<String> {
    let mut sorted: Vec<String> = names.cloned().collect::<BTreeSet<_>>().into_iter().collect();
    if sorted.iter().all(|name| whole(name).is_some()) {
        sorted.sort_by_key(|name| whole(name));
    }
    sorted
}

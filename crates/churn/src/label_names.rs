//! Names of classes: how numbers are written, which two are one name spelt twice, and in what order they stand.

use std::collections::BTreeSet;

use lowchurn_data::labels::whole;

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

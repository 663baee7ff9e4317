//! Counts of flips. They merge by addition, so shards merge exactly; every rate divides at the end.

use serde::{Deserialize, Serialize};

/// Sums over rows. `changed` counts all rows; the five kinds below it count labelled rows only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flips {
    pub rows: u64,
    /// Predictions that differ.
    pub changed: u64,
    pub labelled: u64,
    pub both_right: u64,
    /// Was right, now wrong: negative flips.
    pub negative: u64,
    /// Was wrong, now right: positive flips.
    pub positive: u64,
    /// Wrong before and after, differently.
    pub lateral: u64,
    /// Wrong before and after, in the same way.
    pub same_wrong: u64,
}

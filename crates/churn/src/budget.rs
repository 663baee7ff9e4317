//! A churn budget: what is promised, how many rows a promise takes, and what is said of it.

use serde::{Deserialize, Serialize};

use crate::error::as_typed;
use crate::interval::{at_most, lower_bound, upper_bound};
use crate::{Error, Interval, Result};

/// What must hold of an update. Shares, not percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    pub max_churn: Option<f64>,
    pub max_nfr: Option<f64>,
    /// On every slice with rows enough: as many as certify the limit where nothing flips.
    pub max_slice_nfr: Option<f64>,
    /// The same of every true class with rows enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_class_nfr: Option<f64>,
    /// accuracy_new − accuracy_old is certified to be at least this. 0 asks for a proven gain; an update that may lose half
    /// a point at most asks for −0.005.
    pub min_accuracy_gain: Option<f64>,
    /// Ids whose prediction must not change.
    pub golden: Vec<String>,
    /// Of the whole verdict, see [`crate::certify`].
    pub confidence: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    Pass,
    Fail,
    Inconclusive,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Inconclusive => "INCONCLUSIVE",
        }
    }
}

/// Which side of the limit is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    AtMost,
    AtLeast,
}

/// One limit, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `churn`, `nfr`, `nfr of airline = Delta`, `accuracy gain`, `golden rows`.
    pub name: String,
    pub sense: Sense,
    pub limit: f64,
    /// 0 where there are no rows; `of` says so.
    pub observed: f64,
    /// Flips of the kind that is limited; for the accuracy gain negative and positive flips together.
    pub count: u64,
    pub of: u64,
    /// One-sided exact bounds: the one that passes (`high` of what is at most, `low` of what is at least) holds with
    /// `confidence`, the other one with `fail_confidence`.
    pub low: f64,
    pub high: f64,
    pub confidence: f64,
    pub fail_confidence: f64,
    pub verdict: Verdict,
    /// Rows needed in all for a PASS at the observed rate, where inconclusive and reachable.
    pub rows_needed: Option<u64>,
    /// A sentence for people.
    pub said: String,
}

/// The verdict over all limits: FAIL if one fails, else INCONCLUSIVE if one is, else PASS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    pub verdict: Verdict,
    pub checks: Vec<Check>,
    pub confidence: f64,
    /// How the error was shared, for people.
    pub correction: String,
    /// What was asked for, without the ids of golden rows; whoever judges the report again starts from these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Budget>,
    /// What else must be known, such as slices that are too small to be judged.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The candidates, from safest to boldest as [`crate::walk`] has it, where there were several.
    pub walked: Vec<Step>,
}

/// A candidate on the way from safest to boldest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub calibration_churn: f64,
    pub calibration_accuracy: Option<f64>,
    /// `None` where the walk had stopped before it.
    pub certified: Option<Verdict>,
    pub is_chosen: bool,
}

/// Where a promise would take more rows than this, it counts as out of reach.
const MOST_ROWS: u64 = 100_000_000;

/// The part of the error that the accuracy gain spends on not knowing how many rows discord.
const DISCORD_SHARE: f64 = 0.1;

impl Budget {
    /// Refuses what no rows could certify, before any work.
    ///
    /// Errors: [`Error::BudgetEmpty`], [`Error::BudgetShare`], [`Error::BudgetGain`], [`Error::BudgetConfidence`].
    pub fn check(&self) -> Result<()> {
        if self.is_empty() {
            return Err(Error::BudgetEmpty);
        }
        for (limit, value) in self.shares() {
            if !(value > 0.0 && value < 1.0) {
                return Err(Error::BudgetShare { limit, value });
            }
        }
        let is_gain = |gain: &f64| gain.abs() < 1.0;
        if let Some(value) = self.min_accuracy_gain.filter(|gain| !is_gain(gain)) {
            return Err(Error::BudgetGain { value });
        }
        if !(self.confidence > 0.5 && self.confidence < 1.0) {
            return Err(Error::BudgetConfidence { value: self.confidence });
        }
        Ok(())
    }

    /// Nothing is limited.
    pub fn is_empty(&self) -> bool {
        let is_limited = !self.shares().is_empty() || self.min_accuracy_gain.is_some();
        !is_limited && self.golden.is_empty()
    }

    /// These limits, and of `other` those that aren't given here. The confidence is this one's.
    pub fn over(&self, other: &Budget) -> Budget {
        let golden = if self.golden.is_empty() { &other.golden } else { &self.golden };
        Budget {
            max_churn: self.max_churn.or(other.max_churn),
            max_nfr: self.max_nfr.or(other.max_nfr),
            max_slice_nfr: self.max_slice_nfr.or(other.max_slice_nfr),
            max_class_nfr: self.max_class_nfr.or(other.max_class_nfr),
            min_accuracy_gain: self.min_accuracy_gain.or(other.min_accuracy_gain),
            golden: golden.clone(),
            confidence: self.confidence,
        }
    }

    /// Refuses a budget that so few certification rows can't certify even where nothing flips. To be asked before training.
    /// `certifying` is the share of held-out rows that certify, each drawn by itself; the message says how many to hold out, so that it
    /// nearly always is enough (two standard deviations).
    ///
    /// Errors: those of [`Budget::check`]; [`Error::BudgetRows`], which says how many rows are needed.
    pub fn check_rows(&self, rows: u64, labelled: u64, certifying: f64) -> Result<()> {
        self.check()?;
        let confidence = self.confidence;
        let few = |limit, value, kind, found, needed| {
            // The root √n of n·c − 2·√(n·c·(1 − c)) = needed.
            let spread = (certifying * (1.0 - certifying)).sqrt();
            let root =
                (spread + (spread * spread + certifying * needed as f64).sqrt()) / certifying;
            let hold_out = (needed < u64::MAX).then(|| (root * root - 1e-6).ceil() as u64);
            Error::BudgetRows { limit, value, confidence, kind, found, needed, hold_out }
        };
        for (limit, value) in self.shares() {
            let needed = least_rows(value, confidence);
            let (found, kind) =
                if limit == "max churn" { (rows, "") } else { (labelled, "labelled ") };
            if found < needed {
                return Err(few(limit, value, kind, found, needed));
            }
        }
        if let Some(value) = self.min_accuracy_gain {
            let needed = least_rows_of_gain(value, confidence, true);
            if labelled < needed {
                let (limit, kind) = ("min accuracy gain", "labelled ");
                let found = labelled;
                return Err(few(limit, value, kind, found, needed));
            }
        }
        Ok(())
    }

    /// What it takes so many labelled rows to certify a gain that may be below 0: more than nothing changing. `None` where that
    /// would do. To be told before training.
    pub fn remark_rows(&self, labelled: u64) -> Option<String> {
        let floor = self.min_accuracy_gain.filter(|floor| *floor < 0.0)?;
        let needed = least_rows_of_gain(floor, self.confidence, false);
        (labelled < needed).then(|| {
            format!(
                "min accuracy gain {}: {labelled} labelled rows certify it only where accuracy rises; where nothing changes it takes \
                 {needed}",
                as_typed(floor)
            )
        })
    }

    /// Refuses a limit on slices that none of them has rows enough to certify even where nothing flips. `slices` are names
    /// with labelled certification rows. To be asked before training.
    ///
    /// Errors: [`Error::BudgetSlices`].
    pub fn check_slices(&self, slices: &[(String, u64)]) -> Result<()> {
        let found = self.too_small(self.max_slice_nfr, slices);
        found.map_or(Ok(()), |(value, name, found, needed)| {
            let confidence = self.confidence;
            Err(Error::BudgetSlices { value, confidence, name, found, needed })
        })
    }

    /// The same of the limit on classes.
    ///
    /// Errors: [`Error::BudgetClasses`].
    pub fn check_classes(&self, classes: &[(String, u64)]) -> Result<()> {
        let found = self.too_small(self.max_class_nfr, classes);
        found.map_or(Ok(()), |(value, name, found, needed)| {
            let confidence = self.confidence;
            Err(Error::BudgetClasses { value, confidence, name, found, needed })
        })
    }

    /// The largest of parts that are all too small for a limit: the limit, name, rows, and the rows that it takes.
    fn too_small(
        &self,
        limit: Option<f64>,
        parts: &[(String, u64)],
    ) -> Option<(f64, String, u64, u64)> {
        let limit = limit?;
        let needed = least_rows(limit, self.confidence);
        let largest = parts.iter().max_by_key(|(_, labelled)| *labelled);
        let (name, found) = largest.cloned().unwrap_or_else(|| ("none".into(), 0));
        (found < needed).then_some((limit, name, found, needed))
    }

    fn shares(&self) -> Vec<(&'static str, f64)> {
        let all = [
            ("max churn", self.max_churn),
            ("max nfr", self.max_nfr),
            ("max slice nfr", self.max_slice_nfr),
            ("max class nfr", self.max_class_nfr),
        ];
        all.into_iter().filter_map(|(limit, value)| Some((limit, value?))).collect()
    }
}

/// Whether the one-sided exact upper bound of count / of stays within the limit: P(X ≤ count | of, limit) ≤ 1 − confidence.
pub fn is_certified(count: u64, of: u64, limit: f64, confidence: f64) -> bool {
    of > 0 && at_most(count, of, limit) <= 1.0 - confidence
}

/// Rows that certify the budget where nothing flips: the least n with (1 − budget)ⁿ ≤ 1 − confidence.
///
/// `u64::MAX` where no number of rows would do (a budget of 0, a confidence of 1).
pub fn least_rows(budget: f64, confidence: f64) -> u64 {
    first_true(1, MOST_ROWS, |rows| is_certified(0, rows, budget, confidence)).unwrap_or(u64::MAX)
}

/// Rows in all that certify the budget if flips go on at the observed rate: the least n with ⌈n·count/of⌉ flips certified.
///
/// `of` where they certify it already; `None` where the observed rate isn't below the budget, or is so near to it that a
/// hundred million rows don't do.
pub fn rows_needed(count: u64, of: u64, budget: f64, confidence: f64) -> Option<u64> {
    if is_certified(count, of, budget, confidence) {
        return Some(of);
    }
    if count == 0 {
        return Some(least_rows(budget, confidence)).filter(|rows| *rows <= MOST_ROWS);
    }
    if of == 0 || count as f64 >= budget * of as f64 {
        return None;
    }
    // k flips are seen in up to k·of/count rows, and the rows that k flips take grow slower than k does.
    let rows_of = |k: u64| (u128::from(k) * u128::from(of) / u128::from(count)) as u64;
    let most = (u128::from(MOST_ROWS) * u128::from(count) / u128::from(of)) as u64;
    let flips = first_true(count, most, |k| is_certified(k, rows_of(k), budget, confidence))?;
    first_true(of, rows_of(flips), |rows| is_certified(flips, rows, budget, confidence))
}

/// One-sided bounds of accuracy_new − accuracy_old = PFR − NFR on paired rows: `low` holds with `confidence`, and so does
/// `high`, each alone.
///
/// With ψ the share of rows that discord and π the share of positive flips among them, gain = ψ·(2π − 1). Given how many
/// discord, positive flips are binomial, so π has an exact bound (this is McNemar's exact test); ψ has one too, and only
/// the side of it that makes the gain smaller is used. π gets 9/10 of the error 1 − confidence and ψ the rest; the sum of
/// both makes the bound valid for any ψ (the argument of Berger and Boos 1994). Exact up to this sum: never too narrow.
pub fn gain_bounds(negative: u64, positive: u64, of: u64, confidence: f64) -> Interval {
    let low = gain_low(negative, positive, of, confidence);
    Interval { low, high: -gain_low(positive, negative, of, confidence), confidence }
}

fn gain_low(negative: u64, positive: u64, of: u64, confidence: f64) -> f64 {
    let (discordant, error) = (negative + positive, 1.0 - confidence);
    let of_discord = 1.0 - DISCORD_SHARE * error;
    let tilt = 2.0 * lower_bound(positive, discordant, 1.0 - (1.0 - DISCORD_SHARE) * error) - 1.0;
    let discord = if tilt >= 0.0 { lower_bound } else { upper_bound };
    tilt * discord(discordant, of, of_discord)
}

/// The least error 1 − confidence at which the gain is certified to be at least `floor`, to within 10⁻⁹; 1 where none is.
pub(crate) fn doubt_of_gain(negative: u64, positive: u64, of: u64, floor: f64) -> f64 {
    let holds = |error: f64| of > 0 && gain_low(negative, positive, of, 1.0 - error) >= floor;
    let (mut low, mut high) = (0.0, 1.0);
    while high - low > 1e-9 {
        let middle = 0.5 * (low + high);
        if holds(middle) { high = middle } else { low = middle }
    }
    high
}

/// Rows in all for a gain of at least `floor` if flips go on at the observed rates; about, as counts are whole numbers.
///
/// `of` where it is certified already; `None` where the observed gain isn't above the floor, or is too near to it.
pub fn rows_needed_of_gain(
    negative: u64,
    positive: u64,
    of: u64,
    floor: f64,
    confidence: f64,
) -> Option<u64> {
    let gain = (positive as f64 - negative as f64) / of as f64;
    if of == 0 {
        return Some(least_rows_of_gain(floor, confidence, false))
            .filter(|rows| *rows <= MOST_ROWS);
    }
    if gain.is_nan() || gain <= floor {
        return None;
    }
    let part = |count: u64, rows: u64| u128::from(count) * u128::from(rows) / u128::from(of);
    let is_enough = |rows: u64| {
        let (negative, positive) = (part(negative, rows) as u64, part(positive, rows) as u64);
        gain_low(negative, positive, rows, confidence) >= floor
    };
    first_true(of, MOST_ROWS, is_enough)
}

// Where every row is a positive flip, or where nothing changes, by which a floor of 0 or more is never certified.
fn least_rows_of_gain(floor: f64, confidence: f64, all_flip: bool) -> u64 {
    let is_enough = |rows: u64| {
        let positive = if all_flip || floor >= 0.0 { rows } else { 0 };
        gain_low(0, positive, rows, confidence) >= floor
    };
    first_true(1, MOST_ROWS, is_enough).unwrap_or(u64::MAX)
}

// The first n in from..=most for which a step from false to true holds: strides that double, then halves.
fn first_true(from: u64, most: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut below, mut above, mut stride) = (from, from, 1);
    while !holds(above) {
        if above >= most {
            return None;
        }
        below = above + 1;
        above = above.saturating_add(stride).min(most);
        stride = stride.saturating_mul(2);
    }
    while below < above {
        let middle = below + (above - below) / 2;
        if holds(middle) { above = middle } else { below = middle + 1 }
    }
    Some(above)
}

//! A pair → everything that is said about it, split into all, old and new rows, and slices.

use std::collections::{BTreeMap, HashSet};

use lowchurn_data::error::nearest;
use serde::{Deserialize, Serialize};

use crate::classes::{classes, worst};
use crate::gain::gain_interval;
use crate::interval::mcnemar;
use crate::predicted::length;
use crate::slices::{
    Cut, by_column, by_keyword, by_length, by_prediction, column_slices, fisher_exact, holm,
};
use crate::soft::SoftSums;
use crate::{
    Error, Estimate, Flips, McNemar, OfAnswers, OfClass, Pair, PairAnswers, Predicted, Rate,
    Result, Soft, Unmatched, WorstClasses,
};

/// What is to be said of a pair beyond its flips. All per-row lists are in the pair's order of rows.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Of every interval, two-sided.
    pub confidence: f64,
    /// (label, score): rows that cross it are counted.
    pub thresholds: &'a [(String, f64)],
    /// Whether a row is one that the old model was not made for.
    pub is_new_row: Option<&'a [bool]>,
    /// (column, the value of each row).
    pub slice_columns: &'a [(String, Vec<String>)],
    /// For slices by length and by keyword.
    pub texts: Option<&'a [String]>,
    pub keywords: &'a [String],
    /// Slices with fewer rows are left out and counted.
    pub min_slice_rows: u64,
    /// Churn of a plain retrain on these rows.
    pub retrain_churn: Option<f64>,
    /// See [`seed_floor`].
    pub seed_floor: Option<Rate>,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Asked {
            confidence: 0.95,
            thresholds: &[],
            is_new_row: None,
            slice_columns: &[],
            texts: None,
            keywords: &[],
            min_slice_rows: 30,
            retrain_churn: None,
            seed_floor: None,
        }
    }
}

/// One set of rows, measured. What isn't defined (nothing labelled, a division by nothing) is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub flips: Flips,
    pub churn: Option<Rate>,
    pub nfr: Option<Rate>,
    pub pfr: Option<Rate>,
    pub lateral: Option<Rate>,
    pub accuracy_old: Option<Rate>,
    pub accuracy_new: Option<Rate>,
    /// accuracy_new − accuracy_old over paired rows, with its score interval, see [`gain_interval`].
    pub accuracy_gain: Option<Estimate>,
    pub nfi: Option<f64>,
    pub pfi: Option<f64>,
    pub relative_nfr: Option<f64>,
    pub win_loss: Option<f64>,
    pub btc: Option<f64>,
    pub bec: Option<f64>,
    pub mcnemar: Option<McNemar>,
}

/// A named subset of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Such as `airline = Delta`, `predicted = positive` (by the old model), `length 3–10 words`, `contains "refund"`.
    pub name: String,
    /// What the slices of one kind have in common: `airline`, `predicted`, `length`, `keyword`.
    pub kind: String,
    pub measured: Measured,
    /// Two-sided p of "this slice's churn is that of the other rows", corrected over all slices (Holm).
    pub p_corrected: Option<f64>,
}

/// Rows that went from one prediction to another, the diagonal included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FromTo {
    pub from: String,
    pub to: String,
    pub rows: u64,
    pub negative: u64,
    pub positive: u64,
}

/// All that a comparison of two models says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub all: Measured,
    pub old_rows: Option<Measured>,
    pub new_rows: Option<Measured>,
    pub soft: Option<Soft>,
    pub classes: Vec<OfClass>,
    /// Lowest recall of a class, by name.
    pub worst_class_old: Option<(String, f64)>,
    pub worst_class_new: Option<(String, f64)>,
    /// What else is told of the worst classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_classes: Option<WorstClasses>,
    /// Worst first, by the lower bound of churn, so that slices of few rows don't lead.
    pub slices: Vec<Slice>,
    /// Slices that were left out, for they have fewer rows than was asked for.
    #[serde(default)]
    pub n_small_slices: u64,
    /// By the values of the columns that were named, small ones too: what a budget's limit on slices is judged by, see
    /// [`column_slices`].
    #[serde(default)]
    pub column_slices: Vec<(String, Flips)>,
    /// How the p-values of slices were corrected, for people; `None` where there are none.
    #[serde(default)]
    pub slice_correction: Option<String>,
    pub from_to: Vec<FromTo>,
    /// churn ÷ churn of a plain retrain, where one was given.
    pub churn_ratio: Option<f64>,
    /// Churn between runs that differ by their seed only, where such were given.
    pub seed_floor: Option<Rate>,
    /// Rows on one side only, which don't count.
    pub n_only_old: u64,
    pub n_only_new: u64,
    /// Of answers that aren't one class a row.
    #[serde(default, skip_serializing_if = "OfAnswers::is_classes")]
    pub answers: OfAnswers,
}

/// Measures a pair.
///
/// # Errors
/// Where a list has another number of entries than the pair has rows, a threshold is for no label or outside (0, 1), or the
/// confidence is outside (0.5, 1).
pub fn compare(pair: &Pair, asked: &Asked<'_>) -> Result<Comparison> {
    check(pair, asked)?;
    let of_mask = |keep: bool| -> Option<Measured> {
        let flips = flips_where(pair, asked.is_new_row?, keep);
        (flips.rows > 0).then(|| Measured::of(flips, asked.confidence))
    };
    let all = pair.flips();
    let places = thresholds(pair, asked.thresholds)?;
    let classes = classes(pair, asked.confidence);
    let (slices, n_small_slices) = slices(pair, asked, &all);
    let tests = slices.iter().filter(|slice| slice.p_corrected.is_some()).count();
    let churn = all.churn();
    Ok(Comparison {
        all: Measured::of(all, asked.confidence),
        old_rows: of_mask(false),
        new_rows: of_mask(true),
        soft: SoftSums::of(pair, &places).and_then(|sums| sums.mean(asked.thresholds)),
        worst_class_old: worst(&classes, |class| class.recall_old),
        worst_class_new: worst(&classes, |class| class.recall_new),
        worst_classes: WorstClasses::of(&classes),
        classes,
        slices,
        n_small_slices,
        column_slices: column_slices(pair, asked.slice_columns),
        slice_correction: (tests > 0).then(|| {
            format!("two-sided Fisher exact tests against the other rows, Holm over {tests} slices")
        }),
        from_to: from_to(pair),
        churn_ratio: asked
            .retrain_churn
            .filter(|retrain| *retrain > 0.0)
            .and_then(|retrain| churn.map(|churn| churn / retrain)),
        seed_floor: asked.seed_floor,
        n_only_old: pair.n_only_old,
        n_only_new: pair.n_only_new,
        answers: OfAnswers::of(pair, asked.confidence),
    })
}

/// Churn between runs that differ by their seed only: the mean over all pairs of runs. The interval is that of one pair: it
/// says what rows leave open, not what seeds do. Where `among` names rows, on those. `None` for fewer than two runs.
///
/// # Errors
/// As [`Pair::align`].
pub fn seed_floor(
    runs: &[Predicted],
    among: Option<&[String]>,
    confidence: f64,
) -> Result<Option<Rate>> {
    let among: Option<HashSet<&String>> = among.map(|ids| ids.iter().collect());
    let (mut flips, mut rows) = (Flips::default(), 0);
    for (at, first) in runs.iter().enumerate() {
        for second in &runs[at + 1..] {
            let pair = Pair::align(first, second, &[], Unmatched::Refuse)?;
            let is_among =
                |row: &usize| among.as_ref().is_none_or(|ids| ids.contains(&pair.ids[*row]));
            let of_pair = pair.flips_of((0..pair.rows()).filter(is_among));
            rows = of_pair.rows;
            flips += of_pair;
        }
    }
    let Some(churn) = flips.churn() else { return Ok(None) };
    let count = (churn * rows as f64).round() as u64;
    Ok(Rate::new(count, rows, confidence).map(|rate| Rate { value: churn, ..rate }))
}

impl Measured {
    /// All that follows from counts.
    pub fn of(flips: Flips, confidence: f64) -> Measured {
        let rate = |count, of| Rate::new(count, of, confidence);
        let of_labelled = |count| rate(count, flips.labelled);
        Measured {
            churn: rate(flips.changed, flips.rows),
            nfr: of_labelled(flips.negative),
            pfr: of_labelled(flips.positive),
            lateral: of_labelled(flips.lateral),
            accuracy_old: of_labelled(flips.right_old()),
            accuracy_new: of_labelled(flips.right_new()),
            accuracy_gain: gain(&flips, confidence),
            nfi: flips.nfi(),
            pfi: flips.pfi(),
            relative_nfr: flips.relative_nfr(),
            win_loss: flips.win_loss(),
            btc: flips.btc(),
            bec: flips.bec(),
            mcnemar: (flips.labelled > 0).then(|| mcnemar(flips.negative, flips.positive)),
            flips,
        }
    }
}

fn gain(flips: &Flips, confidence: f64) -> Option<Estimate> {
    let interval = gain_interval(flips.negative, flips.positive, flips.labelled, confidence);
    flips.accuracy_gain().map(|value| Estimate { value, interval })
}

fn check(pair: &Pair, asked: &Asked<'_>) -> Result<()> {
    if !(asked.confidence > 0.5 && asked.confidence < 1.0) {
        return Err(Error::ConfidenceOutside { confidence: asked.confidence });
    }
    let rows = pair.rows();
    if let Some(mask) = asked.is_new_row {
        length("marks of new rows", mask.len(), rows)?;
    }
    for (column, values) in asked.slice_columns {
        length(&format!("values of column {column:?}"), values.len(), rows)?;
    }
    match asked.texts {
        Some(texts) => length("texts", texts.len(), rows),
        None if !asked.keywords.is_empty() => length("texts to find keywords in", 0, rows),
        None => Ok(()),
    }
}

fn thresholds(pair: &Pair, asked: &[(String, f64)]) -> Result<Vec<(usize, f64)>> {
    let without = [(&pair.old_scores, &pair.old_name), (&pair.new_scores, &pair.new_name)];
    if let (false, Some((_, name))) =
        (asked.is_empty(), without.into_iter().find(|(scores, _)| scores.is_none()))
    {
        return Err(Error::ThresholdWithoutScores { name: name.clone() });
    }
    let place = |(label, threshold): &(String, f64)| {
        if !(*threshold > 0.0 && *threshold < 1.0) {
            let (label, threshold) = (label.clone(), *threshold);
            return Err(Error::ThresholdOutside { label, threshold });
        }
        let unknown = || Error::ThresholdLabel {
            label: label.clone(),
            known: pair.labels.clone(),
            suggestion: nearest(label, pair.labels.iter().map(String::as_str)),
        };
        let at = pair.labels.iter().position(|name| name == label).ok_or_else(unknown)?;
        Ok((at, *threshold))
    };
    asked.iter().map(place).collect()
}

fn flips_where(pair: &Pair, mask: &[bool], keep: bool) -> Flips {
    let mut flips = Flips::default();
    for (row, is_new) in mask.iter().enumerate() {
        if *is_new == keep {
            flips.count(pair.judged(row));
        }
    }
    flips
}

fn from_to(pair: &Pair) -> Vec<FromTo> {
    let mut cells: BTreeMap<(u32, u32), FromTo> = BTreeMap::new();
    if matches!(pair.answers, PairAnswers::Values { .. }) {
        return Vec::new();
    }
    for ((old, new), gold) in pair.old.iter().zip(&pair.new).zip(&pair.gold) {
        let cell = cells.entry((*old, *new)).or_insert_with(|| FromTo {
            from: pair.labels[*old as usize].clone(),
            to: pair.labels[*new as usize].clone(),
            rows: 0,
            negative: 0,
            positive: 0,
        });
        cell.rows += 1;
        cell.negative += u64::from(old != new && *gold == Some(*old));
        cell.positive += u64::from(old != new && *gold == Some(*new));
    }
    cells.into_values().collect()
}

// The slices, worst first, and how many were too small.
fn slices(pair: &Pair, asked: &Asked<'_>, all: &Flips) -> (Vec<Slice>, u64) {
    let mut cuts: Vec<Cut> = vec![by_prediction(pair)];
    cuts.extend(asked.slice_columns.iter().map(|(column, values)| by_column(column, values)));
    if let Some(texts) = asked.texts {
        cuts.push(by_length(texts));
        cuts.extend(by_keyword(texts, asked.keywords));
    }
    let (mut slices, mut raw, mut n_small) = (Vec::new(), Vec::new(), 0);
    for cut in cuts {
        let mut flips = vec![Flips::default(); cut.names.len()];
        for (row, slice) in cut.of_row.iter().enumerate() {
            if let Some(flips) = flips.get_mut(*slice as usize) {
                flips.count(pair.judged(row));
            }
        }
        for (name, flips) in cut.names.into_iter().zip(flips) {
            if flips.rows < asked.min_slice_rows.max(1) {
                n_small += u64::from(flips.rows > 0);
                continue;
            }
            let others = all.rows - flips.rows;
            raw.push((others > 0).then(|| {
                let changed = all.changed - flips.changed;
                let same = flips.rows - flips.changed;
                fisher_exact(flips.changed, same, changed, others - changed)
            }));
            let measured = Measured::of(flips, asked.confidence);
            slices.push(Slice { name, kind: cut.kind.clone(), measured, p_corrected: None });
        }
    }
    for (slice, p) in slices.iter_mut().zip(holm(&raw)) {
        slice.p_corrected = p;
    }
    let low = |slice: &Slice| slice.measured.churn.map_or(0.0, |churn| churn.interval.low);
    slices.sort_by(|one, other| low(other).total_cmp(&low(one)));
    (slices, n_small)
}

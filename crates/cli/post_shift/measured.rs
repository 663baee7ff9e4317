//! What a shift does to rows: accuracy and the worst class before and after, and who pays.

use anyhow::Result;
use lowchurn_distill::{Shift, ShiftTo, predicted_with};
use serde_json::json;

use crate::console::Console;
use crate::eval::Scored;
use crate::progress::{count, printable};

/// What the shift does, on rows that it wasn't fitted on where there are such.
pub fn tell(
    fitted: &Scored,
    held: Option<&Scored>,
    (to, shift): (ShiftTo, &Shift),
    console: &mut Console,
) -> Result<()> {
    let which = match held {
        Some(_) => "which it isn't fitted on",
        None => {
            "which it is fitted on, so that it looks better than elsewhere; --holdout names others"
        }
    };
    let scored = held.unwrap_or(fitted);
    let n = scored.split.examples.iter().filter(|row| row.label.is_some()).count();
    console.tell(&format!("{}, {} rows, {which}:", scored.split.name, count(n as u64)))?;
    let none = vec![0.0; scored.labels.len()];
    let mut event = json!({ "event": "measured", "data": scored.split.name, "rows": n, "is_fitted": held.is_none() });
    for (what, key, bias) in
        [("as it is:", "before", &none), ("shifted:", "after", &shift.rescaling.bias)]
    {
        let Some(found) = recalls(scored, bias) else { break };
        console.tell(&format!(
            "  {what:<9} accuracy {:.2} %; worst class {}, recall {:.2} %; mean of the classes {:.2} %",
            100.0 * found.accuracy,
            printable(found.worst.0),
            100.0 * found.worst.1,
            100.0 * found.mean
        ))?;
        event[key] = json!({
            "accuracy": found.accuracy, "worst_class": found.worst.0, "worst_recall": found.worst.1, "mean_recall": found.mean,
        });
    }
    if let Some(cost) = cost(scored, &shift.rescaling.bias) {
        let worst = match cost.worst {
            (_, 0.0) => String::new(),
            (name, nfr) => {
                format!(", at most {:.2} % of a class: {}", 100.0 * nfr, printable(name))
            }
        };
        console.tell(&format!(
            "  its cost: churn {:.2} %, negative flips {:.2} %{worst}",
            100.0 * cost.churn,
            100.0 * cost.nfr,
        ))?;
        event["cost"] = json!({
            "churn": cost.churn, "nfr": cost.nfr, "worst_class": cost.worst.0, "worst_class_nfr": cost.worst.1,
        });
    }
    console.event(&event);
    if shift.rescaling.bias.iter().all(|bias| *bias == 0.0) {
        console.tell(match to {
            ShiftTo::Balanced => "  the classes' shares are even, so there is nothing to shift by; the model stays as it is",
            ShiftTo::Robust { .. } => "  no shift is better than none; the model stays as it is",
        })?;
    }
    Ok(())
}

/// The class of a row with `bias` (K,) on its logits, added as the folded head adds it.
fn says(scored: &Scored, row: usize, bias: &[f64]) -> usize {
    let logits = scored.predictions.logits_of(row);
    predicted_with(logits, bias)
}

/// How rows fare, all together and by class.
struct Recalls<'s> {
    accuracy: f64,
    worst: (&'s str, f64),
    mean: f64,
}

/// Of the labelled rows; `None` where no row has a label.
fn recalls<'s>(scored: &'s Scored, bias: &[f64]) -> Option<Recalls<'s>> {
    let of = shares_of_classes(scored, |row, label| says(scored, row, bias) == label);
    let (right, all) = of.iter().fold((0, 0), |sum, (_, n, all)| (sum.0 + n, sum.1 + all));
    let recalls: Vec<(&str, f64)> =
        of.iter().map(|(name, right, all)| (*name, *right as f64 / *all as f64)).collect();
    Some(Recalls {
        accuracy: right as f64 / all as f64,
        worst: recalls.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))?,
        mean: recalls.iter().map(|(_, recall)| recall).sum::<f64>() / recalls.len() as f64,
    })
}

/// What changes for those that are served: by class the one that loses most of its rows.
struct Cost<'s> {
    churn: f64,
    nfr: f64,
    worst: (&'s str, f64),
}

/// Of the labelled rows; `None` where no row has a label.
fn cost<'s>(scored: &'s Scored, bias: &[f64]) -> Option<Cost<'s>> {
    let none = vec![0.0; bias.len()];
    let both = |row: usize| (says(scored, row, &none), says(scored, row, bias));
    let changed = shares_of_classes(scored, |row, _| both(row).0 != both(row).1);
    let lost = shares_of_classes(scored, |row, label| {
        let (old, new) = both(row);
        old == label && new != label
    });
    let all: u64 = lost.iter().map(|(.., all)| all).sum();
    let share =
        |of: &[(&str, u64, u64)]| of.iter().map(|(_, n, _)| n).sum::<u64>() as f64 / all as f64;
    let by_class = lost.iter().map(|(name, n, all)| (*name, *n as f64 / *all as f64));
    let worst = by_class.max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Cost { churn: share(&changed), nfr: share(&lost), worst })
}

/// (name, rows for which it holds, rows) of each class that a labelled row has; it is asked of a row and its label.
fn shares_of_classes(
    scored: &Scored,
    holds: impl Fn(usize, usize) -> bool,
) -> Vec<(&str, u64, u64)> {
    let mut counts = vec![(0u64, 0u64); scored.labels.len()];
    for (row, example) in scored.split.examples.iter().enumerate() {
        let Some(label) = example.label.map(|label| label as usize) else { continue };
        if let Some((n, all)) = counts.get_mut(label) {
            *n += u64::from(holds(row, label));
            *all += 1;
        }
    }
    let met = scored.labels.iter().zip(counts).filter(|(_, (_, all))| *all > 0);
    met.map(|(name, (n, all))| (name.as_str(), n, all)).collect()
}

//! Points of a sweep that train nothing: the mean of the probabilities of so many retrains that differ by their seed alone.

use std::path::Path;

use anyhow::Result;
use lowchurn_churn::{Names, Predicted, RunPoint};
use lowchurn_data::first_largest;
use serde_json::json;

use super::setting::Setting;
use super::{place, rows_of, write_point};
use crate::args::Sweep;
use crate::console::Console;
use crate::failure::Usage;
use crate::points::{is_same, read_point};
use crate::updating::Updating;

/// Refuses ensembles that could never be there.
pub fn check(args: &Sweep, settings: &[Setting]) -> Result<()> {
    let Some(most) = args.ensemble_of.iter().max() else { return Ok(()) };
    let refuse = |reason: String| Err(Usage(format!("--ensemble-of {most}: {reason}")).into());
    if args.deployed.base.contains("{seed}") {
        return refuse(
            "each seed has a deployed model of its own, and an ensemble is held against one; name one --base".into(),
        );
    }
    if args.shard.is_some() {
        return refuse(
            "with --shard its retrains are in several folders; leave one of them out".into(),
        );
    }
    if !settings.iter().any(Setting::is_plain_retrain) {
        return refuse("of retrains, and none is asked for; add --method retrain".into());
    }
    match *most > args.seeds {
        true => {
            refuse(format!("so many retrains need as many seeds, found --seeds {}", args.seeds))
        }
        false => Ok(()),
    }
}

/// The ensembles that are whole with the `n`th seed from `first`; each is a point of the first of its seeds.
pub fn points(
    args: &Sweep,
    updating: &Updating,
    setting: &Setting,
    (first, n): (u64, u64),
    output: &Path,
    console: &mut Console,
) -> Result<()> {
    for &size in args.ensemble_of.iter().filter(|size| n.is_multiple_of(u64::from(**size))) {
        let seeds: Vec<u64> = (n - u64::from(size)..n).map(|n| first.saturating_add(n)).collect();
        let members: Vec<_> =
            seeds.iter().map(|&seed| place(output, &setting.folder(), seed)).collect();
        let init = setting.init_name();
        let dir = place(output, &format!("ensemble-{init}-{size}"), seeds[0]);
        let mut made_from = rows_of(updating);
        let of = |dir: &std::path::PathBuf| Ok(read_point(dir)?.map(|there| there.made_from));
        made_from["members"] = json!(members.iter().map(of).collect::<Result<Vec<_>>>()?);
        if read_point(&dir)?.is_some_and(|there| {
            is_same(&there.made_from, &made_from) && there.point.members == seeds
        }) {
            continue;
        }
        let read = |dir: &std::path::PathBuf| {
            Ok(Predicted::read(&dir.join("predictions.jsonl"), &Names::default())?)
        };
        let members = members.iter().map(read).collect::<Result<Vec<Predicted>>>()?;
        let point = RunPoint {
            method: "ensemble".into(),
            init: init.into(),
            setting: format!("of {size}"),
            seed: seeds[0],
            members: seeds,
            ..RunPoint::default()
        };
        write_point(&dir, updating, mean(members)?, point, &made_from, 0.0, console)?;
    }
    Ok(())
}

/// What models say together: the mean of their probabilities (N·K), the class of the highest, the first of equals.
fn mean(members: Vec<Predicted>) -> Result<Predicted> {
    let n = members.len() as f64;
    let Some(first) = members.first().cloned() else {
        return Err(Usage("an ensemble of nothing".into()).into());
    };
    let (mut sums, classes) =
        (vec![0f64; first.ids.len() * first.labels.len()], first.labels.len());
    for member in &members {
        let scores = member.scores.as_deref().filter(|scores| scores.len() == sums.len());
        let (Some(scores), true) = (scores, member.ids == first.ids) else {
            return Err(Usage(format!(
                "{}: other rows or classes than {}; remove this point, and it is computed again",
                member.name, first.name
            ))
            .into());
        };
        sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += f64::from(*score));
    }
    let scores: Vec<f32> = sums.iter().map(|sum| (sum / n) as f32).collect();
    let highest = |row: &[f64]| first_largest(row.len(), |class| row[class]) as u32;
    let predicted = sums.chunks_exact(classes.max(1)).map(highest).collect();
    Ok(Predicted { predicted, scores: Some(scores), ..first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(scores: &[f32]) -> Predicted {
        Predicted {
            labels: vec!["a".into(), "b".into()],
            ids: vec!["1".into(), "2".into()],
            gold: vec![None, None],
            scores: Some(scores.to_vec()),
            ..Predicted::default()
        }
    }

    /// Two weak voices for b outweigh a strong one for a in votes, and not in the mean: (0.9 + 0.4 + 0.45)/3 = 0.5833. A tie is
    /// the first class's.
    #[test]
    fn probabilities_are_averaged_and_votes_are_not_counted() {
        let members = [[0.9, 0.1, 0.25, 0.75], [0.4, 0.6, 0.75, 0.25], [0.45, 0.55, 0.5, 0.5]];
        let found = mean(members.iter().map(|scores| said(scores)).collect()).unwrap();
        assert_eq!(found.predicted, [0, 0]);
        let scores = found.scores.unwrap();
        let expected = [1.75 / 3.0, 1.25 / 3.0, 0.5, 0.5];
        assert!(scores.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-7), "{scores:?}");
    }

    #[test]
    fn members_of_other_rows_are_refused() {
        let other =
            Predicted { ids: vec!["1".into(), "3".into()], name: "x".into(), ..said(&[0.5; 4]) };
        let error = mean(vec![said(&[0.5; 4]), other]).unwrap_err().to_string();
        assert!(error.starts_with("x: other rows or classes than "), "{error}");
    }
}

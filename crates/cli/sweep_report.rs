//! What a sweep leaves at the top of its folder: the frontier as JSON and as a table, and a report of the setting that keeps
//! most predictions among those as accurate as a cold retrain.

mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use lowchurn_churn::{
    Asked, ChurnAtAccuracy, Estimate, Names, Pair, Point, Predicted, Rate, RunPoint, Side,
    Unmatched, churn_at_cold_accuracy, churn_of_runs, compare, cost_curves, frontier_svg,
    paired_difference, points, seed_floor,
};
use lowchurn_distill::{Objective, write_file, write_json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::table::{ChurnInterval, Difference, Setting};
use crate::console::Console;
use crate::points::{PointFile, write_predictions};
use crate::reporting::{self, Told};
use crate::updating::Updating;

/// Version of frontier.json.
const SCHEMA: &str = "lowchurn.frontier.v1";

const OLD: &str = "old";
const TEXTS: &str = "texts.jsonl";

/// What the report says of a held-out row beside its predictions.
#[derive(Default, Serialize, Deserialize)]
struct KeptRow {
    id: String,
    text: String,
    /// Of --old-holdout.
    #[serde(default)]
    is_old: bool,
    /// By column of --slice.
    #[serde(default)]
    slices: BTreeMap<String, String>,
}

/// Keeps what the report will need of one seed's deployed model: its predictions, and the texts and slices of the rows.
/// Another command's, such as one with other slices, are written over.
pub fn keep_old(output: &Path, updating: &Updating, seed: u64) -> Result<()> {
    let path = output.join(OLD).join(format!("seed-{seed}.jsonl"));
    fs::create_dir_all(output.join(OLD))?;
    let lines = |write: &dyn Fn(&mut BufWriter<Vec<u8>>) -> Result<()>| -> Result<Vec<u8>> {
        let mut out = BufWriter::new(Vec::new());
        write(&mut out)?;
        Ok(out.into_inner().map_err(|error| error.into_error())?)
    };
    let rows = &updating.rows;
    let texts = lines(&|out| {
        for (at, row) in rows.holdout.examples.iter().enumerate() {
            let columns = rows.holdout_columns.iter();
            let kept = KeptRow {
                id: row.id.clone(),
                text: reporting::both_texts(row),
                is_old: at < rows.n_old_holdout,
                slices: columns.map(|(name, all)| (name.clone(), all[at].clone())).collect(),
            };
            serde_json::to_writer(&mut *out, &kept)?;
            std::io::Write::write_all(out, b"\n")?;
        }
        Ok(())
    })?;
    write_if_other(&output.join(OLD).join(TEXTS), &texts)?;
    let predictions = lines(&|out| write_predictions(&updating.old_on_holdout, out))?;
    write_if_other(&path, &predictions)
}

fn write_if_other(path: &Path, bytes: &[u8]) -> Result<()> {
    match fs::read(path) {
        Ok(there) if there == bytes => Ok(()),
        _ => Ok(write_file(path, bytes)?),
    }
}

pub fn write(output: &Path, all: &[(PathBuf, PointFile)], console: &mut Console) -> Result<()> {
    let runs: Vec<RunPoint> = all.iter().map(|(_, file)| file.point.clone()).collect();
    let points = points(&runs);
    let is_cold = |point: &&Point| point.method == "retrain" && point.init == "cold";
    // The plain one where there is one, else the first of those that train a part.
    let cold = points.iter().filter(is_cold).min_by_key(|point| !point.setting.is_empty());
    let at_cold = cold.map(|cold| churn_at_cold_accuracy(&runs, &points, cold)).unwrap_or_default();
    let told = table::Told {
        differences: differences(&runs, &points),
        intervals: intervals(all, &points)?,
        points: &points,
        at_cold: &at_cold,
        steered: points.iter().filter(|p| is_steered(all, p)).map(Setting::of).collect(),
    };
    fs::create_dir_all(output)?;
    write_json(
        &output.join("frontier.json"),
        &json!({
            "schema": SCHEMA, "runs": runs, "points": points, "churn_at_cold_accuracy": at_cold,
            "differences": told.differences, "churn_over_rows_and_seeds": told.intervals, "steered": told.steered,
            "cost_curves": cost_curves(&points, 20), "rows_chose": table::CHOSE,
        }),
    )?;
    let table = table::markdown(&told);
    write_file(&output.join("frontier.md"), table.as_bytes())?;
    console.tell(table.trim_end())?;
    let of_cold: Vec<&(PathBuf, PointFile)> =
        all.iter().filter(|(_, file)| cold.is_some_and(|cold| cold.has(&file.point))).collect();
    let floor = cold_floor(&of_cold)?;
    let svg = frontier_svg(&points, floor.map(|rate| rate.value));
    write_file(&output.join("frontier.svg"), svg.as_bytes())?;
    if let Some(path) = report(output, all, &points, (&at_cold, &of_cold, floor))? {
        console.tell(&format!("report: {}", path.display()))?;
    }
    console.event(&json!({
        "event": "finished", "output": output, "points": points, "churn_at_cold_accuracy": at_cold,
    }));
    Ok(())
}

/// Every setting against each plain retrain that there is, over the seeds that both have.
fn differences(runs: &[RunPoint], points: &[Point]) -> Vec<Difference> {
    let retrains = points.iter().filter(|point| point.method == "retrain");
    let pairs = retrains.flat_map(|baseline| points.iter().map(move |point| (point, baseline)));
    let others = pairs.filter(|(point, baseline)| point != baseline);
    let difference = |(point, baseline): (&Point, &Point)| {
        let difference = paired_difference(runs, point, baseline)?;
        let setting = Setting::of(point);
        Some(Difference { setting, baseline: Setting::of(baseline), difference })
    };
    others.filter_map(difference).collect()
}

/// Churn of each setting with its interval over rows and seeds, of one seed over rows; without those whose predictions aren't here.
fn intervals(all: &[(PathBuf, PointFile)], points: &[Point]) -> Result<Vec<ChurnInterval>> {
    let mut found = Vec::new();
    for point in points {
        let of_point = all.iter().filter(|(_, file)| point.has(&file.point));
        let pairs: Option<Vec<Pair>> =
            of_point.map(|(dir, file)| pair(dir, file.point.seed)).collect::<Result<_>>()?;
        let Some(pairs) = pairs else { continue };
        let is_over_seeds = pairs.len() > 1;
        let churn = match &pairs[..] {
            [one] => of_rows(one),
            pairs => churn_of_runs(pairs, 0.95)?,
        };
        found.extend(churn.map(|churn| ChurnInterval {
            setting: Setting::of(point),
            churn,
            is_over_seeds,
        }));
    }
    Ok(found)
}

fn of_rows(run: &Pair) -> Option<Estimate> {
    let flips = run.flips();
    let rate = Rate::new(flips.changed, flips.rows, 0.95)?;
    Some(Estimate { value: rate.value, interval: rate.interval })
}

/// Whether it was trained by a λ that follows churn, or an objective that looks for the worst class.
fn is_steered(all: &[(PathBuf, PointFile)], point: &Point) -> bool {
    let looks = |made_from: &Value| {
        let said = |key: &str| made_from["plan"][key].as_str().unwrap_or_default();
        said("method").contains("lambda=churn<=")
            || Objective::from_str(said("objective")).is_ok_and(|found| found.robust().is_some())
    };
    all.iter().filter(|(_, file)| point.has(&file.point)).any(|(_, file)| {
        let members = file.made_from["members"].as_array();
        looks(&file.made_from) || members.into_iter().flatten().any(looks)
    })
}

/// Where the sweep of a point's folder keeps the deployed model's predictions of a seed; `None` where it doesn't.
fn kept(dir: &Path, seed: u64) -> Option<(PathBuf, PathBuf)> {
    let folder = dir.ancestors().nth(3)?.join(OLD);
    let predictions = folder.join(format!("seed-{seed}.jsonl"));
    predictions.exists().then(|| (predictions, folder.join(TEXTS)))
}

fn pair(dir: &Path, seed: u64) -> Result<Option<Pair>> {
    let Some((old, _)) = kept(dir, seed) else { return Ok(None) };
    let (old, new) = (read(&old)?, read(&dir.join("predictions.jsonl"))?);
    Ok(Some(Pair::align(&old, &new, &[], Unmatched::Refuse)?))
}

fn read(path: &Path) -> Result<Predicted> {
    Ok(Predicted::read(path, &Names::default())?)
}

/// The setting worth looking at: lowest churn at the accuracy of a cold retrain, else the retrain itself.
fn shown<'p>(points: &'p [Point], at_cold: &'p [ChurnAtAccuracy]) -> Option<&'p Point> {
    let attained = at_cold.iter().filter_map(|best| best.attained.as_ref());
    let best = attained.min_by(|a, b| a.churn.value.total_cmp(&b.churn.value));
    best.or_else(|| points.iter().find(|point| point.method == "retrain")).or(points.first())
}

/// Compares the shown setting's first seed with the deployed model of that seed. `None` where its predictions aren't in this
/// folder, as when only points were merged.
fn report(
    output: &Path,
    all: &[(PathBuf, PointFile)],
    points: &[Point],
    (at_cold, of_cold, floor): (&[ChurnAtAccuracy], &[&(PathBuf, PointFile)], Option<Rate>),
) -> Result<Option<PathBuf>> {
    let Some(point) = shown(points, at_cold) else { return Ok(None) };
    let Some((dir, file)) = all.iter().find(|(_, file)| point.has(&file.point)) else {
        return Ok(None);
    };
    let seed = file.point.seed;
    let Some((old, rows)) = kept(dir, seed) else { return Ok(None) };
    let (old, new) = (read(&old)?, read(&dir.join("predictions.jsonl"))?);
    let pair = Pair::align(&old, &new, &[], Unmatched::Refuse)?;
    let rows = kept_rows(&rows, &pair)?;
    let texts: Vec<String> = rows.iter().map(|row| row.text.clone()).collect();
    let is_new: Vec<bool> = rows.iter().map(|row| !row.is_old).collect();
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.slices.keys()).collect();
    let value = |row: &KeptRow, name: &String| row.slices.get(name).cloned().unwrap_or_default();
    let columns: Vec<(String, Vec<String>)> = names
        .into_iter()
        .map(|name| (name.clone(), rows.iter().map(|row| value(row, name)).collect()))
        .collect();
    let retrain = of_cold.iter().find(|(_, file)| file.point.seed == seed);
    let asked = Asked {
        texts: Some(&texts),
        slice_columns: &columns,
        is_new_row: is_new.contains(&false).then_some(&is_new[..]),
        retrain_churn: retrain.map(|(_, file)| file.point.churn),
        seed_floor: floor,
        ..Asked::default()
    };
    let comparison = compare(&pair, &asked)?;
    let side = |predicted: &Predicted, name: String| Side {
        name,
        sha256: None,
        labels: predicted.labels.clone(),
    };
    let words = [&point.method, &point.init, &point.setting].map(String::as_str);
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let name = format!("{}, seed {seed}", words.join(" "));
    let told = Told {
        title: format!("Sweep in {}", output.display()),
        old: side(&old, "deployed model".into()),
        new: side(&new, name),
        data: "held-out rows of the sweep",
        data_sha256: file.made_from["holdout_sha256"].as_str().map(str::to_string),
        pair: &pair,
        texts: Some(&texts),
        comparison,
        certificate: None,
        rows_chose: Some(format!("the setting that is shown, among {}", points.len())),
        nearest: BTreeMap::new(),
        frontier: points.to_vec(),
        provenance: vec![
            (
                "shown".into(),
                "the lowest churn among settings as accurate as a cold retrain, else the retrain"
                    .into(),
            ),
            ("points".into(), all.len().to_string()),
            ("lowchurn".into(), env!("CARGO_PKG_VERSION").into()),
            ("plan".into(), file.made_from["plan"].to_string()),
        ],
    };
    reporting::write(&reporting::report(told), output)?;
    Ok(Some(output.join("report.html")))
}

/// Churn between cold retrains that differ by their seed alone.
fn cold_floor(of_cold: &[&(PathBuf, PointFile)]) -> Result<Option<Rate>> {
    let runs = of_cold.iter().map(|(dir, _)| read(&dir.join("predictions.jsonl")));
    let runs = runs.collect::<Result<Vec<_>>>()?;
    Ok(seed_floor(&runs, None, 0.95)?)
}

/// By row of the pair.
fn kept_rows(path: &Path, pair: &Pair) -> Result<Vec<KeptRow>> {
    let lines = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut by_id = HashMap::new();
    for line in lines.lines() {
        let row: KeptRow =
            serde_json::from_str(line).with_context(|| path.display().to_string())?;
        by_id.insert(row.id.clone(), row);
    }
    Ok(pair.ids.iter().map(|id| by_id.remove(id).unwrap_or_default()).collect())
}

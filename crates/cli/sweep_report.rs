//! What a sweep leaves at the top of its folder: the frontier as JSON and as a table, and a report of the setting that keeps
//! most predictions among those as accurate as a cold retrain.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowchurn_churn::{
    Asked, ChurnAtAccuracy, Mean, Names, Pair, Point, Predicted, Rate, RunPoint, Side, Unmatched,
    churn_at_cold_accuracy, compare, cost_curves, frontier_svg, points, seed_floor,
};
use lowchurn_distill::{write_file, write_json};
use serde_json::json;

use crate::console::Console;
use crate::points::{PointFile, write_predictions};
use crate::reporting::{self, Told};
use crate::updating::Updating;

/// Version of frontier.json.
const SCHEMA: &str = "lowchurn.frontier.v1";

const OLD: &str = "old";
const TEXTS: &str = "texts.jsonl";

/// Keeps what the report will need of one seed's deployed model: its predictions, and the texts of the rows.
pub fn keep_old(output: &Path, updating: &Updating, seed: u64) -> Result<()> {
    let path = output.join(OLD).join(format!("seed-{seed}.jsonl"));
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(output.join(OLD))?;
    let lines = |write: &dyn Fn(&mut BufWriter<Vec<u8>>) -> Result<()>| -> Result<Vec<u8>> {
        let mut out = BufWriter::new(Vec::new());
        write(&mut out)?;
        Ok(out.into_inner().map_err(|error| error.into_error())?)
    };
    let texts = lines(&|out| {
        for row in &updating.rows.holdout.examples {
            serde_json::to_writer(&mut *out, &json!({ "id": row.id, "text": row.text }))?;
            std::io::Write::write_all(out, b"\n")?;
        }
        Ok(())
    })?;
    write_file(&output.join(OLD).join(TEXTS), &texts)?;
    let predictions = lines(&|out| write_predictions(&updating.old_on_holdout, out))?;
    Ok(write_file(&path, &predictions)?)
}

pub fn write(output: &Path, all: &[(PathBuf, PointFile)], console: &mut Console) -> Result<()> {
    let runs: Vec<RunPoint> = all.iter().map(|(_, file)| file.point.clone()).collect();
    let points = points(&runs);
    let cold = points.iter().find(|point| point.method == "retrain" && point.init == "cold");
    let at_cold = cold.map(|cold| churn_at_cold_accuracy(&points, cold)).unwrap_or_default();
    fs::create_dir_all(output)?;
    write_json(
        &output.join("frontier.json"),
        &json!({
            "schema": SCHEMA, "runs": runs, "points": points, "churn_at_cold_accuracy": at_cold,
            "cost_curves": cost_curves(&points, 20),
        }),
    )?;
    let table = table(&points, &at_cold);
    write_file(&output.join("frontier.md"), table.as_bytes())?;
    console.tell(table.trim_end())?;
    let floor = cold_floor(all)?;
    let svg = frontier_svg(&points, floor.map(|rate| rate.value));
    write_file(&output.join("frontier.svg"), svg.as_bytes())?;
    if let Some(path) = report(output, all, &points, &at_cold, floor)? {
        console.tell(&format!("report: {}", path.display()))?;
    }
    console.event(&json!({
        "event": "finished", "output": output, "points": points, "churn_at_cold_accuracy": at_cold,
    }));
    Ok(())
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
    at_cold: &[ChurnAtAccuracy],
    floor: Option<Rate>,
) -> Result<Option<PathBuf>> {
    let Some(point) = shown(points, at_cold) else { return Ok(None) };
    let is_of = |run: &RunPoint, point: &Point| {
        run.method == point.method && run.init == point.init && run.setting == point.setting
    };
    let Some((dir, file)) = all.iter().find(|(_, file)| is_of(&file.point, point)) else {
        return Ok(None);
    };
    let seed = file.point.seed;
    let folder = |dir: &Path| dir.ancestors().nth(3).map(|sweep| sweep.join(OLD));
    let Some(kept) = folder(dir) else { return Ok(None) };
    let old_path = kept.join(format!("seed-{seed}.jsonl"));
    if !old_path.exists() {
        return Ok(None);
    }
    let read = |path: &Path| Predicted::read(path, &Names::default());
    let (old, new) = (read(&old_path)?, read(&dir.join("predictions.jsonl"))?);
    let pair = Pair::align(&old, &new, &[], Unmatched::Refuse)?;
    let texts = texts(&kept.join(TEXTS), &pair)?;
    let retrain = all.iter().find(|(_, file)| is_cold(&file.point) && file.point.seed == seed);
    let asked = Asked {
        texts: Some(&texts),
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
    let name = format!("{} {} {}, seed {seed}", point.method, point.init, point.setting);
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

fn is_cold(run: &RunPoint) -> bool {
    run.method == "retrain" && run.init == "cold"
}

/// Churn between cold retrains that differ by their seed alone.
fn cold_floor(all: &[(PathBuf, PointFile)]) -> Result<Option<Rate>> {
    let runs = all.iter().filter(|(_, file)| is_cold(&file.point));
    let read = |dir: &Path| Predicted::read(&dir.join("predictions.jsonl"), &Names::default());
    let runs = runs.map(|(dir, _)| Ok(read(dir)?)).collect::<Result<Vec<_>>>()?;
    Ok(seed_floor(&runs, 0.95)?)
}

/// Texts by row of the pair.
fn texts(path: &Path, pair: &Pair) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Row {
        id: String,
        text: String,
    }
    let lines = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut by_id = HashMap::new();
    for line in lines.lines() {
        let row: Row = serde_json::from_str(line).with_context(|| path.display().to_string())?;
        by_id.insert(row.id, row.text);
    }
    Ok(pair.ids.iter().map(|id| by_id.remove(id).unwrap_or_default()).collect())
}

/// A line a setting, in percent: mean ± standard error over seeds.
fn table(points: &[Point], at_cold: &[ChurnAtAccuracy]) -> String {
    let show = |mean: &Mean| match mean.standard_error {
        Some(error) => format!("{:.2} ± {:.2}", 100.0 * mean.value, 100.0 * error),
        None => format!("{:.2}", 100.0 * mean.value),
    };
    let mut lines = vec![
        "| method | start | setting | seeds | accuracy % | churn % | negative flips % | frontier |"
            .to_string(),
        "|---|---|---|---:|---:|---:|---:|---|".to_string(),
    ];
    for p in points {
        let seeds = match p.missing_seeds.len() {
            0 => p.seeds.len().to_string(),
            n => format!("{} ({n} missing)", p.seeds.len()),
        };
        lines.push(format!(
            "| {} | {} | {} | {seeds} | {} | {} | {} | {} |",
            p.method,
            p.init,
            p.setting,
            show(&p.accuracy),
            show(&p.churn),
            show(&p.nfr),
            if p.is_on_frontier { "yes" } else { "" },
        ));
    }
    lines.push(String::new());
    lines.push("Lowest churn at the accuracy of a cold retrain, by method:".into());
    lines.push(String::new());
    for best in at_cold {
        let found = match &best.attained {
            Some(p) => {
                format!("{} % at {} % accuracy ({})", show(&p.churn), show(&p.accuracy), p.setting)
            }
            None => "not attained".into(),
        };
        lines.push(format!("- {} {}: {found}", best.method, best.init));
    }
    lines.join("\n") + "\n"
}

//! What a sweep leaves at the top of its folder: the frontier as JSON and as a table.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_churn::{Point, RunPoint, points};
use lowchurn_distill::{write_file, write_json};
use serde_json::json;

use crate::console::Console;
use crate::points::PointFile;

pub fn write(output: &Path, all: &[(PathBuf, PointFile)], console: &mut Console) -> Result<()> {
    let runs: Vec<RunPoint> = all.iter().map(|(_, file)| file.point.clone()).collect();
    let points = points(&runs);
    std::fs::create_dir_all(output)?;
    write_json(&output.join("frontier.json"), &json!({ "runs": runs, "points": points }))?;
    let table = table(&points);
    write_file(&output.join("frontier.md"), table.as_bytes())?;
    console.tell(table.trim_end())?;
    console.event(&json!({ "event": "finished", "output": output, "points": points }));
    Ok(())
}

/// A line a setting, in percent: mean ± standard error over seeds.
fn table(points: &[Point]) -> String {
    let show = |mean: &lowchurn_churn::Mean| match mean.standard_error {
        Some(error) => format!("{:.2} ± {:.2}", 100.0 * mean.value, 100.0 * error),
        None => format!("{:.2}", 100.0 * mean.value),
    };
    let mut lines = vec![
        "| method | start | setting | seeds | accuracy % | churn % | negative flips % | on the frontier |".to_string(),
        "|---|---|---|---|---|---|---|---|".to_string(),
    ];
    for p in points {
        lines.push(format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            p.method,
            p.init,
            p.setting,
            p.seeds.len(),
            show(&p.accuracy),
            show(&p.churn),
            show(&p.nfr),
            if p.is_on_frontier { "yes" } else { "" },
        ));
    }
    lines.join("\n") + "\n"
}

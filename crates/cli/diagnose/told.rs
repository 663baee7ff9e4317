//! A diagnosis for a terminal.

use std::path::Path;

use anyhow::Result;
use lowchurn_churn::{Fit, Interval, Part, Report};
use serde_json::json;

use crate::console::Console;
use crate::machine::peak_rss_mib;
use crate::progress::{count, printable};

pub fn tell(report: &Report, output: &Path, console: &mut Console) -> Result<()> {
    let Some(diagnosis) = &report.diagnosis else { return Ok(()) };
    for part in &diagnosis.parts {
        for line in lines(part, diagnosis.quantile) {
            console.tell(&line)?;
        }
    }
    if let Some(switch) = &diagnosis.switch {
        console.tell(&format!("switch: {}", switch.said))?;
    }
    if let Some(directions) = &diagnosis.directions {
        console.tell(&format!("directions: {}", directions.said))?;
    }
    console.tell(&format!("what to do: {}", diagnosis.advice))?;
    let path = output.join("report.html");
    let more = if diagnosis.gradients.is_some() { ", gradients.json" } else { "" };
    console.tell(&format!(
        "report: {} (and report.json, report.md, flips.jsonl{more})",
        path.display()
    ))?;
    let parts = diagnosis.parts.iter().map(|part| Part { points: Vec::new(), ..part.clone() });
    console.event(&json!({
        "event": "finished", "output": output, "report": output.join("report.json"),
        "parts": parts.collect::<Vec<_>>(), "advice": diagnosis.advice, "directions": diagnosis.directions,
        "switch": diagnosis.switch, "peak_rss_mib": peak_rss_mib(),
    }));
    Ok(())
}

/// A part for a terminal.
fn lines(part: &Part, quantile: f64) -> Vec<String> {
    let percent = |rate: &Option<lowchurn_churn::Rate>| {
        rate.as_ref().map_or("–".into(), |rate| format!("{:.2} %", 100.0 * rate.value))
    };
    let mut lines = vec![
        format!("{}: {}", part.data, part.said),
        format!(
            "  right: teacher {}, student {}; they agree on {}",
            percent(&part.teacher_accuracy),
            percent(&part.student_accuracy),
            percent(&part.agreement)
        ),
        format!("  {:<14} {:>8}  {:<26} mean y − x", "by confidence", "rows", "slope"),
    ];
    let share = |share: f64| format!("{:.0} %", 100.0 * share);
    let mut fits = vec![
        ("all".to_string(), &part.all),
        (format!("lowest {}", share(quantile)), &part.low),
        (format!("highest {}", share(1.0 - quantile)), &part.high),
    ];
    let quarters = part.quarters.iter().enumerate();
    fits.extend(quarters.map(|(at, fit)| (format!("quarter {}", at + 1), fit)));
    lines.extend(fits.into_iter().map(|(name, fit)| line(&name, fit)));
    lines.extend(part.class_gaps.as_ref().map(|gaps| format!("  {}", gaps.said)));
    lines.iter().map(|line| printable(line)).collect()
}

fn line(name: &str, fit: &Fit) -> String {
    let with = |value: f64, interval: &Option<Interval>| match interval {
        Some(interval) => format!("{value:.3} ({:.3} to {:.3})", interval.low, interval.high),
        None => format!("{value:.3} (no interval)"),
    };
    let slope = fit.line.map_or("–".into(), |line| with(line.slope, &line.interval));
    let mean = match fit.rows {
        0 => "–".into(),
        _ => with(fit.mean_deviation, &fit.mean_interval),
    };
    format!("  {name:<14} {:>8}  {slope:<26} {mean}", count(fit.rows))
}

//! The table of a sweep for people: a line a setting, what each does less the plain retrains, and which rows chose.

use lowchurn_churn::{ChurnAtAccuracy, Estimate, Mean, PairedDifference, Point};
use serde::Serialize;

/// Said below the table and in frontier.json.
pub const CHOSE: &str = "These rows order the settings, so that the best of them look a little better than they are. \
    Certify none of them on these rows: hold out others, and give those to update or compare.";

pub struct Told<'t> {
    pub points: &'t [Point],
    pub at_cold: &'t [ChurnAtAccuracy],
    pub differences: Vec<Difference>,
    pub intervals: Vec<ChurnInterval>,
    /// Settings whose training looked at calibration rows, which are among those that judge here.
    pub steered: Vec<Setting>,
}

/// Its name, as points have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    pub method: String,
    pub init: String,
    pub setting: String,
}

/// A setting less a plain retrain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    #[serde(flatten)]
    pub setting: Setting,
    pub baseline: Setting,
    #[serde(flatten)]
    pub difference: PairedDifference,
}

/// Mean churn over seeds; the interval is of 95 %, over rows and seeds together (see [`lowchurn_churn::churn_of_runs`]), and of one
/// seed over rows alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChurnInterval {
    #[serde(flatten)]
    pub setting: Setting,
    pub churn: Estimate,
    pub is_over_seeds: bool,
}

impl Setting {
    pub fn of(point: &Point) -> Setting {
        let Point { method, init, setting, .. } = point.clone();
        Setting { method, init, setting }
    }

    fn name(&self) -> String {
        let words = [&self.method, &self.init, &self.setting];
        let words: Vec<&str> = words.into_iter().map(|word| word.as_str()).collect();
        words.join(" ").trim().to_string()
    }
}

/// Shares in percent: mean ± standard error over seeds.
pub fn markdown(told: &Told) -> String {
    let mut lines = of_points(told);
    lines.extend(of_differences(told));
    lines.push(String::new());
    lines.push("Lowest churn at the accuracy of a cold retrain, by method:".into());
    lines.push(String::new());
    for best in told.at_cold {
        let found = match &best.attained {
            Some(p) => {
                let (churn, accuracy) = (show(&p.churn), show(&p.accuracy));
                let with =
                    if p.setting.is_empty() { "".into() } else { format!(", {}", p.setting) };
                format!("{churn} % at {accuracy} % accuracy{with}")
            }
            None => "not attained".into(),
        };
        lines.push(format!("- {} {}: {found}", best.method, best.init));
    }
    lines.push(String::new());
    lines.push(CHOSE.into());
    if !told.steered.is_empty() {
        let names: Vec<String> = told.steered.iter().map(Setting::name).collect();
        lines.push(format!(
            "Steered by calibration rows, which are among these, so that they look better still: {}.",
            names.join("; ")
        ));
    }
    lines.join("\n") + "\n"
}

fn of_points(told: &Told) -> Vec<String> {
    let mut lines = vec![
        "| method | start | setting | seeds | accuracy % | churn % | 95 % over rows and seeds | negative flips % | frontier |"
            .to_string(),
        "|---|---|---|---:|---:|---:|---:|---:|---|".to_string(),
    ];
    for p in told.points {
        let seeds = match p.missing_seeds.len() {
            0 => p.seeds.len().to_string(),
            n => format!("{} ({n} missing)", p.seeds.len()),
        };
        let found = told.intervals.iter().find(|found| found.setting == Setting::of(p));
        let interval = found.map_or(String::new(), |found| {
            let interval = &found.churn.interval;
            let over = if found.is_over_seeds { "" } else { ", rows alone" };
            format!("{:.2} to {:.2}{over}", 100.0 * interval.low, 100.0 * interval.high)
        });
        lines.push(format!(
            "| {} | {} | {} | {seeds} | {} | {} | {interval} | {} | {} |",
            p.method,
            p.init,
            p.setting,
            show(&p.accuracy),
            show(&p.churn),
            show(&p.nfr),
            if p.is_on_frontier { "yes" } else { "" },
        ));
    }
    lines
}

/// A table for each plain retrain that was run.
fn of_differences(told: &Told) -> Vec<String> {
    let mut lines = Vec::new();
    let mut baselines: Vec<&Setting> = told.differences.iter().map(|d| &d.baseline).collect();
    baselines.dedup();
    for baseline in baselines {
        lines.push(String::new());
        lines.push(format!("Less {}, in points, over the seeds that both have:", baseline.name()));
        lines.push(String::new());
        lines.push("| setting | seeds | accuracy | churn | negative flips |".into());
        lines.push("|---|---:|---:|---:|---:|".into());
        for found in told.differences.iter().filter(|found| found.baseline == *baseline) {
            let PairedDifference { seeds, accuracy, churn, nfr } = &found.difference;
            lines.push(format!(
                "| {} | {} | {} | {} | {} |",
                found.setting.name(),
                seeds.len(),
                signed(accuracy),
                signed(churn),
                signed(nfr),
            ));
        }
    }
    lines
}

fn show(mean: &Mean) -> String {
    match mean.standard_error {
        Some(error) => format!("{:.2} ± {:.2}", 100.0 * mean.value, 100.0 * error),
        None => format!("{:.2}", 100.0 * mean.value),
    }
}

fn signed(mean: &Mean) -> String {
    let sign = if mean.value < 0.0 { "" } else { "+" };
    format!("{sign}{}", show(mean))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowchurn_churn::{Interval, RunPoint, paired_difference, points};

    #[test]
    fn a_table_has_differences_and_says_what_the_rows_chose() {
        let run = |method: &str, setting: &str, seed: u64, accuracy: f64, churn: f64| RunPoint {
            method: method.into(),
            init: "cold".into(),
            setting: setting.into(),
            seed,
            accuracy,
            churn,
            nfr: churn / 2.0,
            ..RunPoint::default()
        };
        let runs = [
            run("retrain", "", 1, 0.90, 0.10),
            run("retrain", "", 2, 0.92, 0.12),
            run("distil", "λ 0.5", 1, 0.91, 0.04),
            run("distil", "λ 0.5", 2, 0.93, 0.08),
        ];
        let points = points(&runs);
        let setting = Setting::of(&points[1]);
        let told = Told {
            differences: vec![Difference {
                setting: setting.clone(),
                baseline: Setting::of(&points[0]),
                difference: paired_difference(&runs, &points[1], &points[0]).unwrap(),
            }],
            intervals: vec![
                ChurnInterval {
                    setting,
                    churn: Estimate {
                        value: 0.06,
                        interval: Interval { low: 0.035, high: 0.085, confidence: 0.95 },
                    },
                    is_over_seeds: true,
                },
                ChurnInterval {
                    setting: Setting::of(&points[0]),
                    churn: Estimate {
                        value: 0.11,
                        interval: Interval { low: 0.09, high: 0.13, confidence: 0.95 },
                    },
                    is_over_seeds: false,
                },
            ],
            points: &points,
            at_cold: &[],
            steered: vec![Setting::of(&points[1])],
        };
        let text = markdown(&told);
        for line in [
            "| retrain | cold |  | 2 | 91.00 ± 1.00 | 11.00 ± 1.00 | 9.00 to 13.00, rows alone | 5.50 ± 0.50 |  |",
            "| distil | cold | λ 0.5 | 2 | 92.00 ± 1.00 | 6.00 ± 2.00 | 3.50 to 8.50 | 3.00 ± 1.00 | yes |",
            "Less retrain cold, in points, over the seeds that both have:",
            "| distil cold λ 0.5 | 2 | +1.00 ± 0.00 | -5.00 ± 1.00 | -2.50 ± 0.50 |",
            CHOSE,
            "Steered by calibration rows, which are among these, so that they look better still: distil cold λ 0.5.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

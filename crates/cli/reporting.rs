//! From a comparison to the report that `compare` and `update` write: `report.json`, `report.html`, `report.md`, and all
//! flips in `flips.jsonl`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowchurn_churn::{
    Certificate, Comparison, Flip, FlipKind, Neighbour, Pair, Point, Rate, Report, SCHEMA, Side,
    html, markdown,
};
use lowchurn_data::Example;
use lowchurn_distill::{PrecisionName, write_file};

use crate::device;
use crate::output;
use crate::progress::{count, printable};
use crate::signals::command_that_goes_on as command;

/// Flips that `report.json` holds; the page shows no more of them, and `flips.jsonl` has the rest.
pub const MAX_FLIPS: usize = 2_000;

/// What a report is made of.
pub struct Told<'a> {
    pub title: String,
    pub old: Side,
    pub new: Side,
    pub data: &'a str,
    pub data_sha256: Option<String>,
    pub pair: &'a Pair,
    /// By row of the pair.
    pub texts: Option<&'a [String]>,
    pub comparison: Comparison,
    pub certificate: Option<Certificate>,
    /// What these rows chose; see [`Report::rows_chose`].
    pub rows_chose: Option<String>,
    /// By row of the pair; see `nearest`.
    pub nearest: BTreeMap<usize, Vec<Neighbour>>,
    pub frontier: Vec<Point>,
    pub provenance: Vec<(String, String)>,
}

/// A text, or both of a pair.
pub fn both_texts(row: &Example) -> String {
    match &row.pair {
        Some(pair) => format!("{}\n{pair}", row.text),
        None => row.text.clone(),
    }
}

/// The report with all flips: negative ones first, then lateral, positive and unlabelled ones, each from the one that the
/// new model is surest of.
pub fn report(mut told: Told) -> Report {
    let pair = told.pair;
    let mut flips = Vec::new();
    for row in flipped(pair) {
        let nearest = told.nearest.remove(&row).unwrap_or_default();
        let text = told.texts.and_then(|texts| texts.get(row)).cloned();
        flips.push(flip(pair, row, text, nearest));
    }
    Report {
        schema: SCHEMA.into(),
        title: told.title,
        old: told.old,
        new: told.new,
        data: told.data.into(),
        data_sha256: told.data_sha256,
        rows: pair.rows() as u64,
        rows_chose: told.rows_chose,
        labels: pair.labels.clone(),
        alignment: pair.alignment.clone(),
        certificate: told.certificate,
        comparison: told.comparison,
        n_flips: flips.len() as u64,
        flips,
        frontier: told.frontier,
        diagnosis: None,
        history: None,
        provenance: told.provenance,
    }
}

/// Rows whose prediction changed, in the order in which a report lists them.
pub fn flipped(pair: &Pair) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..pair.rows()).filter(|row| pair.judged(*row).is_flip()).collect();
    let sure = |row: usize| score(&pair.new_scores, pair, row, pair.new[row]).unwrap_or(0.0);
    rows.sort_by(|a, b| {
        kind(pair, *a).cmp(&kind(pair, *b)).then_with(|| sure(*b).total_cmp(&sure(*a)))
    });
    rows
}

/// What became of a row whose prediction changed.
pub fn kind(pair: &Pair, row: usize) -> FlipKind {
    match pair.judged(row).is_right {
        None => FlipKind::Unlabelled,
        Some((true, _)) => FlipKind::Negative,
        Some((false, true)) => FlipKind::Positive,
        Some((false, false)) => FlipKind::Lateral,
    }
}

fn flip(pair: &Pair, row: usize, text: Option<String>, nearest: Vec<Neighbour>) -> Flip {
    let (old, new) = (pair.old[row], pair.new[row]);
    let said = pair.said(row);
    Flip {
        id: pair.ids[row].clone(),
        text,
        gold: said.2,
        old: said.0,
        new: said.1,
        old_score: score(&pair.old_scores, pair, row, old),
        new_score: score(&pair.new_scores, pair, row, new),
        kind: kind(pair, row),
        nearest,
    }
}

fn score(scores: &Option<Vec<f32>>, pair: &Pair, row: usize, class: u32) -> Option<f64> {
    let at = row * pair.labels.len() + class as usize;
    scores.as_ref()?.get(at).map(|score| f64::from(*score))
}

/// Writes the report's files, each beside its place first; `report.json` last, for it is what others look for.
pub fn write(report: &Report, folder: &Path) -> Result<()> {
    write_cut(report, MAX_FLIPS, folder)
}

/// [`write`], with at most so many flips in the report itself.
pub fn write_cut(report: &Report, max_flips: usize, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{}: can't be made", folder.display()))?;
    let mut lines = Vec::new();
    for flip in &report.flips {
        serde_json::to_writer(&mut lines, flip)?;
        lines.push(b'\n');
    }
    let mut shown = report.clone();
    shown.flips.truncate(max_flips);
    write_file(&folder.join("flips.jsonl"), &lines)?;
    write_file(&folder.join("report.html"), html(&shown).as_bytes())?;
    write_file(&folder.join("report.md"), markdown(&shown).as_bytes())?;
    write_file(&folder.join("report.json"), shown.to_json().as_bytes())?;
    Ok(())
}

/// NEW/FOLDER where NEW is a run's folder, else VERB-OLD-NEW where the program runs.
pub fn default_output(
    (verb, folder): (&str, &str),
    (old, new): (&str, &str),
    is_model: bool,
) -> PathBuf {
    if is_model && output::is_run(Path::new(new)) {
        return Path::new(new).join(folder);
    }
    let name = |text: &str| -> String {
        let stem = Path::new(text).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        stem.unwrap_or_default().chars().map(plain).collect()
    };
    format!("{verb}-{}-{}", name(old), name(new)).into()
}

/// Version, command, the precision where models were scored (in bf16 or not), and flags that were given.
pub fn provenance_of(
    bf16: Option<bool>,
    given: &[(&str, &Option<String>)],
) -> Vec<(String, String)> {
    let mut lines = vec![
        ("lowchurn".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ("command".to_string(), command()),
    ];
    if let Some(bf16) = bf16 {
        let precision = PrecisionName::of(device::precision(bf16));
        lines.push(("matrix products".into(), precision.into()));
    }
    let given = given.iter().filter_map(|(key, value)| Some((key.to_string(), (*value).clone()?)));
    lines.extend(given);
    lines
}

/// The verdict and its checks for a terminal, a line each.
pub fn check_lines(certificate: &Certificate) -> Vec<String> {
    let mut lines = vec![certificate.verdict.word().to_string()];
    for check in &certificate.checks {
        lines.push(format!("  {:<12}  {}: {}", check.verdict.word(), check.name, check.said));
    }
    lines.extend(certificate.notes.iter().map(|note| format!("  note: {note}")));
    // Names of labels and slices come from data.
    lines.iter().map(|line| printable(line)).collect()
}

/// The numbers of a report for a terminal.
pub fn lines(report: &Report) -> Vec<String> {
    let all = &report.comparison.all;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let rate = |rate: &Option<Rate>| match rate {
        Some(rate) => {
            let (low, high) = (100.0 * rate.interval.low, 100.0 * rate.interval.high);
            format!("{} ({low:.2} to {high:.2})", percent(rate.value))
        }
        None => "–".into(),
    };
    let gain = match &all.accuracy_gain {
        Some(gain) => {
            let [value, low, high] =
                [gain.value, gain.interval.low, gain.interval.high].map(|x| 100.0 * x);
            format!("{value:+.2} points ({low:+.2} to {high:+.2})")
        }
        None => "–".into(),
    };
    let rows = |n: u64| format!("{} {}", count(n), if n == 1 { "row" } else { "rows" });
    let right = report.comparison.answers.right();
    let (old_right, new_right) = (format!("{right}, old"), format!("{right}, new"));
    let mut table = vec![
        ("rows", format!("{}, {} with a label", count(report.rows), count(all.flips.labelled))),
        (old_right.as_str(), rate(&all.accuracy_old)),
        (new_right.as_str(), rate(&all.accuracy_new)),
        ("gain", gain),
        ("churn", format!("{}, {}", rate(&all.churn), rows(all.flips.changed))),
        ("negative flips", format!("{}, {}", rate(&all.nfr), rows(all.flips.negative))),
        ("positive flips", format!("{}, {}", rate(&all.pfr), rows(all.flips.positive))),
    ];
    for (name, old, new) in report.comparison.answers.scores() {
        let shown = |score: Option<f64>| score.map_or("–".into(), |score| format!("{score:.4}"));
        table.push((name, format!("{} old, {} new", shown(old), shown(new))));
    }
    let named = |worst: &Option<(String, f64)>| {
        worst
            .as_ref()
            .map_or("–".into(), |(label, share)| format!("{} ({label})", percent(*share)))
    };
    let comparison = &report.comparison;
    if comparison.worst_class_old.is_some() || comparison.worst_class_new.is_some() {
        let (old, new) = (named(&comparison.worst_class_old), named(&comparison.worst_class_new));
        table.push(("worst class", format!("recall {old} old, {new} new")));
    }
    if let Some(worst) = &comparison.worst_classes {
        if let (Some(k), Some(old), Some(new)) =
            (worst.k, worst.mean_recall_old, worst.mean_recall_new)
        {
            let said =
                format!("mean recall of the {k} worst {} old, {} new", percent(old), percent(new));
            table.push(("worst classes", said));
        }
        if worst.nfr.as_ref().is_some_and(|(_, nfr)| *nfr > 0.0) {
            table.push(("class flips", format!("negative flips at most {}", named(&worst.nfr))));
        }
    }
    let parts = [
        ("on old rows", &report.comparison.old_rows),
        ("on new rows", &report.comparison.new_rows),
    ];
    for (name, part) in parts {
        let Some(part) = part else { continue };
        let said = [&part.churn, &part.nfr].map(rate);
        table.push((name, format!("churn {}, negative flips {}", said[0], said[1])));
    }
    if let Some(test) = &all.mcnemar {
        let p = |p: f64| if p < 1e-4 { "p < 0.0001".into() } else { format!("p = {p:.4}") };
        table.push(("McNemar", format!("{} exact, {} mid-p", p(test.exact), p(test.mid))));
    }
    if let Some(floor) = &report.comparison.seed_floor {
        table.push(("between seeds", format!("{} of rows differ", rate(&Some(*floor)))));
    }
    if let Some(ratio) = report.comparison.churn_ratio {
        table.push(("of a retrain's", format!("{ratio:.2} × the churn of the plain retrain")));
    }
    let slices = report.comparison.slices.iter();
    if let Some(worst) = slices.clone().find(|slice| slice.measured.flips.changed > 0) {
        let measured = &worst.measured;
        let said = [rate(&measured.churn), rows(measured.flips.rows)];
        table.push(("worst slice", format!("{}: churn {}, {}", worst.name, said[0], said[1])));
    }
    let (old, new) = (report.comparison.n_only_old, report.comparison.n_only_new);
    if (old, new) != (0, 0) {
        let (old, new) = (rows(old), rows(new));
        table.push(("left out", format!("{old} only in the old, {new} only in the new")));
    }
    if let Some(what) = &report.rows_chose {
        let said =
            format!("{what}; fresh rows will look worse, and no limit is certified on these");
        table.push(("these rows chose", said));
    }
    let names = report.alignment.iter().cloned();
    let all = names.chain(table.into_iter().map(|(name, said)| format!("{name:<15} {said}")));
    all.map(|line| printable(&line)).collect()
}

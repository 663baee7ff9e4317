//! `update`: deployed model and new rows → trained candidates → calibration and certification → the next model and its report.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Result, anyhow};
use lowchurn_churn::{
    Budget, Candidate, Certificate, Flips, Golden, Measurements, Pair, Predicted, Unmatched,
    exit_code, walk,
};
use lowchurn_data::Split;
use lowchurn_distill::{Method, Plan, Provenance, State, finished_provenance, release, write_file};
use lowchurn_models::{Classifier, Head};
use serde_json::json;

use crate::args::{BudgetFlags, Init, Update};
use crate::between::Line;
use crate::console::Console;
use crate::failure::{INTERRUPTED, Usage};
use crate::found;
use crate::golden::{self, GoldenRows};
use crate::machine::peak_rss_mib;
use crate::reporting::check_lines;
use crate::updating::{self, Updating};
use crate::{grid, output, settings, signals, update_report};

/// A model that may become the update, with its predictions of all held-out rows.
pub struct Trial {
    pub name: String,
    /// The folder of the trained model.
    pub trained: PathBuf,
    pub plan: Plan,
    /// Of the old weights.
    pub share: f64,
    pub pair: Pair,
    golden: Golden,
}

pub fn update(args: &Update, console: &mut Console) -> Result<u8> {
    signals::listen()?;
    let flags = args.method.onto(&args.deployed.settings);
    let methods = methods(args)?;
    let shares = grid::grid("--interpolate", &args.interpolate, (0.0, 1.0))?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => next_name(&args.deployed.base),
    };
    output::check(&output)?;
    let flags = settings::Settings { method: None, lambda: None, temperature: None, ..flags };
    let Some(mut updating) = updating::open(&args.deployed, flags, console)? else {
        return Ok(INTERRUPTED);
    };
    if args.budget.max_slice_nfr.is_some() && args.deployed.slice.is_empty() {
        return Err(Usage("--max-slice-nfr needs slices; name a column with --slice".into()).into());
    }
    let golden = match &args.budget.golden {
        Some(path) => Some(golden::read(path, &updating.old.labels, &updating.hub, console)?),
        None => None,
    };
    let budget = budget(&args.budget, golden.as_ref())?;
    if let Some(budget) = &budget {
        let labelled = |row: &usize| updating.rows.holdout.examples[*row].label.is_some();
        let rows = certification_rows(&updating);
        budget.check_rows(
            rows.len() as u64,
            rows.iter().filter(|row| labelled(row)).count() as u64,
        )?;
    }
    if let Some(GoldenRows::Ids(ids)) = &golden {
        refuse_missing(ids, &updating.rows.holdout)?;
    }
    output::refuse_foreign(&output, &updating.old.folder)?;
    if args.dry_run {
        return dry_run(&updating, &methods, args, &output, console);
    }
    // Before training: who stops it here has lost nothing.
    if let Some(GoldenRows::Rows(rows)) = &golden
        && golden_of_old(&updating, rows, console)?.is_none()
    {
        return Ok(INTERRUPTED);
    }
    if args.fresh {
        let _ = fs::remove_dir_all(output.join("candidates"));
        output::start_over(&output)?;
    }
    let mut trials = Vec::new();
    for method in &methods {
        let plan = updating.plan(*method, None, None)?;
        let dir = output.join("candidates").join(folder_name(method));
        if updating.train(&plan, args.init, &dir, false, console)?.is_none() {
            return Ok(INTERRUPTED);
        }
        let golden = golden.as_ref();
        match try_all(&updating, args, method, &plan, &dir, &shares, golden, console)? {
            Some(all) => trials.extend(all),
            None => return Ok(INTERRUPTED),
        }
    }
    let (chosen, certificate) = choose(&updating, &trials, budget.as_ref())?;
    let trial = &trials[chosen];
    write_model(&updating, trial, &output)?;
    let written =
        update_report::write(&updating, args, trial, certificate.clone(), &output, console)?;
    tell(trial, certificate.as_ref(), &output, &written, console)?;
    Ok(certificate.map_or(0, |certificate| exit_code(certificate.verdict)))
}

/// `runs/x` → `runs/x-v2` → `runs/x-v3`.
fn next_name(base: &str) -> PathBuf {
    let base = base.trim_end_matches('/');
    let local = if Path::new(base).is_dir() {
        base.to_string()
    } else {
        format!("runs/{}", base.rsplit('/').next().unwrap_or(base))
    };
    let next = local.rsplit_once("-v").and_then(|(stem, n)| Some((stem, n.parse::<u32>().ok()?)));
    match next {
        Some((stem, n)) => PathBuf::from(format!("{stem}-v{}", n.saturating_add(1))),
        None => PathBuf::from(format!("{local}-v2")),
    }
}

/// One method for each λ: `--lambda 0.3,0.5` trains two candidates.
fn methods(args: &Update) -> Result<Vec<Method>> {
    let flags = &args.method;
    let lambdas: Vec<Option<String>> = match &flags.lambda {
        Some(list) => list.split(',').map(|lambda| Some(lambda.trim().to_string())).collect(),
        None => vec![None],
    };
    let of = |lambda: Option<String>| {
        settings::method(&settings::Settings {
            method: Some(flags.method.clone().unwrap_or_else(|| "distil".into())),
            lambda,
            temperature: flags.temperature,
            ..settings::Settings::default()
        })
    };
    lambdas.into_iter().map(of).collect()
}

fn folder_name(method: &Method) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    method.to_string().chars().map(plain).collect()
}

pub fn budget(flags: &BudgetFlags, golden: Option<&GoldenRows>) -> Result<Option<Budget>> {
    if !flags.is_set() {
        return Ok(None);
    }
    let golden = match golden {
        Some(GoldenRows::Ids(ids)) => ids.clone(),
        Some(GoldenRows::Rows(rows)) => rows.examples.iter().map(|row| row.id.clone()).collect(),
        None => Vec::new(),
    };
    let budget = Budget {
        max_churn: flags.max_churn,
        max_nfr: flags.max_nfr,
        max_slice_nfr: flags.max_slice_nfr,
        min_accuracy_gain: flags.min_accuracy_gain,
        golden,
        confidence: flags.confidence,
    };
    budget.check()?;
    Ok(Some(budget))
}

/// The certificate would say it too, but after training.
fn refuse_missing(golden: &[String], holdout: &Split) -> Result<()> {
    let ids: HashSet<&str> = holdout.examples.iter().map(|row| row.id.as_str()).collect();
    let missing: Vec<&String> = golden.iter().filter(|id| !ids.contains(id.as_str())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let first = missing.iter().take(3).map(|id| id.to_string()).collect();
    Err(lowchurn_churn::Error::GoldenMissing { first, missing: missing.len() }.into())
}

/// Held-out rows that nothing is chosen by.
pub fn certification_rows(updating: &Updating) -> Vec<usize> {
    (0..updating.is_calibration.len()).filter(|&row| !updating.is_calibration[row]).collect()
}

/// The trained model and those between it and the old one, scored on every held-out row. `None` where it was interrupted.
#[expect(clippy::too_many_arguments, reason = "each is another thing")]
fn try_all(
    updating: &Updating,
    args: &Update,
    method: &Method,
    plan: &Plan,
    dir: &Path,
    shares: &[f64],
    golden: Option<&GoldenRows>,
    console: &mut Console,
) -> Result<Option<Vec<Trial>>> {
    // All of the old weights is the old model, and no update.
    let mut shares: Vec<f64> = shares.iter().copied().filter(|share| *share < 1.0).collect();
    if args.init == Init::Cold {
        shares.clear();
        console.say("no models between old and new: a cold start's weights don't lie on one line with the old ones");
    }
    if !shares.contains(&0.0) {
        shares.push(0.0);
    }
    let line = Line::open(updating, dir)?;
    let mut trials = Vec::new();
    signals::work_begins();
    for share in shares {
        if signals::STOP.load(Ordering::Relaxed) {
            let command = signals::command_that_goes_on();
            console.say(&format!("stopped; the trained model is kept, go on with: {command}"));
            return Ok(None);
        }
        let name = match share {
            0.0 => method.to_string(),
            share => format!("{method}, {share} of the old weights"),
        };
        let new = Predicted { name: name.clone(), ..line.score(updating, share, console)? };
        let pair = Pair::align(&updating.old_on_holdout, &new, &[], Unmatched::Refuse)?;
        let golden = look_up(updating, &line, share, golden, &pair, console)?;
        trials.push(Trial { name, trained: dir.into(), plan: plan.clone(), share, pair, golden });
    }
    Ok(Some(trials))
}

fn look_up(
    updating: &Updating,
    line: &Line,
    share: f64,
    golden: Option<&GoldenRows>,
    pair: &Pair,
    console: &mut Console,
) -> Result<Golden> {
    match golden {
        None => Ok(Golden::default()),
        Some(GoldenRows::Ids(ids)) => Ok(Golden::look_up(ids, &pair.ids, &pair.old, &pair.new)),
        Some(GoldenRows::Rows(rows)) => {
            let ids: Vec<String> = rows.examples.iter().map(|row| row.id.clone()).collect();
            let old = golden_of_old(updating, rows, console)?;
            let old = old.ok_or_else(|| anyhow!("interrupted"))?; // never: it was scored before
            let new = line.predict(updating, share, &rows.examples, console)?;
            Ok(Golden::look_up(&ids, &ids, &old, &new))
        }
    }
}

/// `None` where it was interrupted.
fn golden_of_old(
    updating: &Updating,
    rows: &Split,
    console: &mut Console,
) -> Result<Option<Vec<u32>>> {
    let table = found::table(&updating.old, rows, &updating.tables, &updating.device, console)?;
    let Some(table) = table else { return Ok(None) };
    let found = found::predicted(&updating.old, rows, &table.labels, &table.logits)?;
    Ok(Some(found.predicted))
}

/// With a budget the walk's choice, or where nothing is certified the safest; without one the trained model.
fn choose(
    updating: &Updating,
    trials: &[Trial],
    budget: Option<&Budget>,
) -> Result<(usize, Option<Certificate>)> {
    let Some(budget) = budget else {
        let trained = trials.iter().position(|trial| trial.share == 0.0);
        return Ok((trained.unwrap_or(0), None));
    };
    let flips = |trial: &Trial, wanted: bool| {
        let rows: Vec<u32> = (0..trial.pair.ids.len() as u32)
            .filter(|&row| updating.is_calibration[row as usize] == wanted)
            .collect();
        let part = trial.pair.subset(&rows);
        Flips::of(&part.old, &part.new, &part.gold)
    };
    let candidates: Vec<Candidate> = trials
        .iter()
        .map(|trial| Candidate {
            name: trial.name.clone(),
            calibration: flips(trial, true),
            certification: Measurements {
                all: flips(trial, false),
                slices: slices(updating, trial),
                golden: trial.golden.clone(),
            },
        })
        .collect();
    let (chosen, certificate) = walk(&candidates, budget)?;
    let safest = certificate.walked.first().map(|step| step.name.clone());
    let chosen =
        chosen.or_else(|| trials.iter().position(|trial| Some(&trial.name) == safest.as_ref()));
    Ok((chosen.unwrap_or(0), Some(certificate)))
}

/// Counts on the certification rows by the values of the columns that were named.
fn slices(updating: &Updating, trial: &Trial) -> Vec<(String, Flips)> {
    let mut all: BTreeMap<String, Flips> = BTreeMap::new();
    let pair = &trial.pair;
    for (column, values) in &updating.rows.holdout_columns {
        for row in certification_rows(updating) {
            let flips = all.entry(format!("{column} = {}", values[row])).or_default();
            flips.add(pair.old[row], pair.new[row], pair.gold[row]);
        }
    }
    all.into_iter().collect()
}

/// The chosen weights as an ordinary run's folder.
fn write_model(updating: &Updating, trial: &Trial, output: &Path) -> Result<()> {
    let trained = Classifier::open(&trial.trained, Head::FromCheckpoint, &updating.device)?.0;
    let model = match trial.share {
        0.0 => trained,
        share => Line::open(updating, &trial.trained)?.model(share)?,
    };
    fs::create_dir_all(output)?;
    let _lock = output::lock(output)?;
    let settings = updating.settings(&trial.plan)?;
    write_file(&output.join("run.toml"), settings::to_toml(&settings)?.as_bytes())?;
    let provenance = Provenance {
        old: Some((updating.old.name.clone(), updating.old.sha256.clone())),
        share_of_old: (trial.share > 0.0).then_some(trial.share),
        ..finished_provenance(&trial.trained)?
    };
    let state = State::new(model)?;
    release(output, &state, &provenance, &trial.trained, 0, 0.0)?;
    Ok(())
}

fn dry_run(
    updating: &Updating,
    methods: &[Method],
    args: &Update,
    output: &Path,
    console: &mut Console,
) -> Result<u8> {
    for method in methods {
        let plan = updating.plan(*method, None, None)?;
        let rows = updating.rows.train.examples.len();
        console.tell(&format!(
            "would train {method} ({}) for {} updates into {}",
            args.init.name(),
            plan.total_steps(rows),
            output.display()
        ))?;
    }
    Ok(0)
}

fn tell(
    trial: &Trial,
    certificate: Option<&Certificate>,
    output: &Path,
    written: &[PathBuf],
    console: &mut Console,
) -> Result<()> {
    let flips = Flips::of(&trial.pair.old, &trial.pair.new, &trial.pair.gold);
    let percent =
        |share: Option<f64>| share.map_or("–".into(), |x| format!("{:.2} %", 100.0 * x));
    console.tell(&format!(
        "{}: {}: accuracy {} (old {}), churn {}, negative flips {}",
        output.display(),
        trial.name,
        percent(flips.accuracy_new()),
        percent(flips.accuracy_old()),
        percent(flips.churn()),
        percent(flips.nfr()),
    ))?;
    for line in certificate.map(check_lines).unwrap_or_default() {
        console.tell(&line)?;
    }
    for path in written {
        console.tell(&format!("report: {}", path.display()))?;
    }
    console.event(&json!({
        "event": "finished", "output": output, "chosen": trial.name, "share_of_old": trial.share,
        "flips": flips, "certificate": certificate, "peak_rss_mib": peak_rss_mib(),
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_name_counts_up() {
        assert_eq!(next_name("owner/sst2"), PathBuf::from("runs/sst2-v2"));
        assert_eq!(next_name("owner/sst2-v2"), PathBuf::from("runs/sst2-v3"));
        assert_eq!(next_name("src"), PathBuf::from("runs/src-v2"));
    }
}

//! `update`: deployed model and new rows → trained candidates → calibration and certification → the next model and its report.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Result, anyhow};
use lowchurn_churn::{Budget, Certificate, Golden, Pair, Predicted, Report, Unmatched, exit_code};
use lowchurn_data::Split;
use lowchurn_distill::{
    ADAPTER, Method, Plan, Provenance, SelectBy, State, finished_provenance, release_of, write_file,
};
use lowchurn_models::{Classifier, Head};
use serde_json::json;

use crate::args::{BudgetFlags, Init, Update};
use crate::between::Line;
use crate::certification::{certification_rows, choose, looks_at_rows, refuse_few_rows};
use crate::chosen::Chosen;
use crate::console::Console;
use crate::dry_run::{self, Planned};
use crate::failure::{INTERRUPTED, Usage};
use crate::found;
use crate::golden::{self, GoldenRows};
use crate::machine::peak_rss_mib;
use crate::progress::count;
use crate::reporting::{self, check_lines};
use crate::rows::{self, SharedTexts};
use crate::settings::Settings;
use crate::updating::{self, Updating, starts_fresh};
use crate::{
    base, compare, grid, job, kinds, output, recipe, settings, signals, update_record,
    update_report,
};

/// A model that may become the update, with its predictions of all held-out rows.
pub struct Trial {
    pub name: String,
    /// The folder of the trained model.
    pub trained: PathBuf,
    pub plan: Plan,
    /// Of the old weights.
    pub share: f64,
    pub pair: Pair,
    pub golden: Golden,
}

pub fn update(args: &Update, console: &mut Console) -> Result<u8> {
    signals::listen()?;
    let typed = recipe::typed(&args.deployed, &args.method.onto(&args.deployed.settings)?)?;
    let methods = methods(&typed)?;
    if args.init == Init::Warm && !methods.iter().any(starts_fresh) {
        recipe::refuse_encoder(&typed)?;
    }
    let shares = grid::grid("--interpolate", &args.interpolate, (0.0, 1.0))?;
    if let Some(output) = &args.output {
        output::check(output)?;
    }
    // Nothing is scored before all that can be refused has been.
    let mut updating = updating::read(&args.deployed, &typed, SharedTexts::Dropped, console)?;
    if args.budget.max_slice_nfr.is_some() && updating.rows.holdout_columns.is_empty() {
        return Err(Usage("--max-slice-nfr needs slices; name a column with --slice".into()).into());
    }
    let golden = match &args.budget.golden {
        Some(path) => {
            let columns = rows::wishes(&typed).columns;
            Some(golden::read(path, &updating.old.labels, &columns, &updating.hub, console)?)
        }
        None => None,
    };
    if updating.layers.settings.select_by == Some(SelectBy::WorstClass) {
        kinds::refuse_other(updating.old.outputs.kind, "--select-by worst_class")?;
    }
    if let Some(GoldenRows::Rows(_)) = &golden {
        kinds::refuse_other(
            updating.old.outputs.kind,
            "--golden with texts (a list of ids isn't)",
        )?;
    }
    let golden = golden::among(golden, &updating.rows.holdout)?;
    let budget = budget(&args.budget, golden.as_ref())?;
    let is_cut = args.deployed.holdout.is_none();
    refuse_few_rows(&updating, budget.as_ref(), &methods, is_cut, console)?;
    let made_from = update_record::made_from(&updating, args, &methods, console)?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => update_record::next_name(&args.deployed.base, &made_from, args.choose_again)?,
    };
    output::check(&output)?;
    output::refuse_foreign(&output, &updating.old.folder)?;
    if let (Some(report), _) = looked(&output, &made_from, args)? {
        return tell_finished(&report, &output, console);
    }
    if args.dry_run {
        return tell_dry_run(&updating, &methods, args, &output, console);
    }
    if updating.score_old(console)?.is_none() {
        return Ok(INTERRUPTED);
    }
    // Before training: who stops it here has lost nothing.
    if let Some(GoldenRows::Rows(rows)) = &golden
        && golden_of_old(&updating, rows, console)?.is_none()
    {
        return Ok(INTERRUPTED);
    }
    let _lock = output::lock(&output)?;
    // Another may have begun here since.
    let (finished, earlier) = looked(&output, &made_from, args)?;
    if let Some(report) = finished {
        return tell_finished(&report, &output, console);
    }
    if args.fresh {
        output::start_over(&output)?;
    }
    update_record::write(&output, &made_from, &earlier)?;
    // Only a budget chooses among them.
    let shares = if budget.is_some() { shares } else { Vec::new() };
    let mut trials = Vec::new();
    for method in &methods {
        let plan = updating.plan(*method, None, None)?;
        job::tell_plan(&plan, &updating.layers, &updating.old.name, console)?;
        let dir = output.join("candidates").join(folder_name(method));
        if updating.train(&plan, args.init, &dir, console)?.is_none() {
            return Ok(INTERRUPTED);
        }
        let golden = golden.as_ref();
        match try_all(&updating, args, method, &plan, &dir, &shares, golden, console)? {
            Some(all) => trials.extend(all),
            None => return Ok(INTERRUPTED),
        }
    }
    // Of trials as safe as each other the walk takes the first: the one nearest to the old model.
    trials.sort_by(|a, b| b.share.total_cmp(&a.share));
    let (chosen, mut certificate) = choose(&updating, &trials, budget.as_ref())?;
    if let (Some(certificate), false) = (&mut certificate, earlier.is_empty()) {
        certificate.notes.push(format!(
            "these rows have answered before, to {}; whoever moves a limit until it is met errs more often than the confidence says",
            earlier.join(" and to ")
        ));
    }
    let trial = &trials[chosen];
    let looks = looks_at_rows(&updating, budget.as_ref(), &methods);
    let chose = |row: usize| looks && updating.is_calibration[row];
    Chosen::new("the weights", &updating.rows.holdout.examples, chose).write(&output)?;
    write_model(&updating, trial, args.init, &output)?;
    let rows = match looks {
        true => certification_rows(&updating),
        false => (0..trial.pair.ids.len()).collect(),
    };
    let written = update_report::write(
        &updating,
        args,
        trial,
        (&rows, certificate.clone()),
        &output,
        console,
    )?;
    tell(trial, certificate.as_ref(), &output, &written, console)?;
    Ok(certificate.map_or(0, |certificate| exit_code(certificate.verdict)))
}

/// One method for each λ: `--lambda 0.3,0.5` trains two candidates.
fn methods(typed: &Settings) -> Result<Vec<Method>> {
    let lambdas: Vec<Option<String>> = match &typed.lambda {
        Some(list) => list.split(',').map(|lambda| Some(lambda.trim().to_string())).collect(),
        None => vec![None],
    };
    let of = |lambda: Option<String>| {
        settings::method(&Settings {
            method: Some(typed.method.clone().unwrap_or_else(|| "distil".into())),
            lambda,
            temperature: typed.temperature,
            ..Settings::default()
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
    let budget = compare::budget(flags, golden);
    budget.check()?;
    Ok(Some(budget))
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
    if args.init == Init::Cold && !shares.is_empty() {
        shares.clear();
        console.say("no models between old and new: a cold start's weights don't lie on one line with the old ones");
    }
    if !shares.contains(&0.0) {
        shares.push(0.0);
    }
    // Of equals the one nearer to the old weights is walked first.
    shares.sort_by(|a, b| b.total_cmp(a));
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
        Some(GoldenRows::Ids(ids)) => {
            let (old, new) = pair.answers_as_classes();
            Ok(Golden::look_up(ids, &pair.ids, &old, &new))
        }
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
    let table = found::table(&updating.old, rows, &updating.tables, &updating.compute, console)?;
    let Some(table) = table else { return Ok(None) };
    let found = found::predicted(&updating.old, rows, &table.labels, None, &table.logits)?;
    Ok(Some(found.predicted))
}

type Looked = (Option<Report>, Vec<String>);

/// The report where this very update is finished, and the budgets that its rows have answered; refuses a folder of another.
fn looked(output: &Path, made_from: &update_record::MadeFrom, args: &Update) -> Result<Looked> {
    if args.fresh {
        return Ok((None, Vec::new()));
    }
    let (there, earlier) =
        update_record::again(update_record::look(output)?, made_from, args.choose_again);
    update_record::refuse_other(output, &there, made_from)?;
    Ok((update_record::finished_report(output, &there)?, earlier))
}

/// The chosen weights as an ordinary run's folder.
fn write_model(updating: &Updating, trial: &Trial, init: Init, output: &Path) -> Result<()> {
    let trained =
        Classifier::open(&trial.trained, Head::FromCheckpoint, &updating.compute.device)?.0;
    let model = match trial.share {
        0.0 => trained,
        share => Line::open(updating, &trial.trained)?.model(share)?,
    };
    let settings = updating.settings(&trial.plan, init)?;
    write_file(&output.join("run.toml"), settings::to_toml(&settings)?.as_bytes())?;
    let old = &updating.old;
    let provenance = Provenance {
        old: Some((base::find("--base", &old.name)?.pinned(&old.folder), old.sha256.clone())),
        share_of_old: (trial.share > 0.0).then_some(trial.share),
        ..finished_provenance(&trial.trained)?
    };
    // A model on the way back to the old one is no base with that adapter.
    let keeps_adapter = trial.share == 0.0;
    let _ = fs::remove_dir_all(output.join(ADAPTER));
    release_of(&trial.trained, keeps_adapter, output, &State::new(model)?, &provenance)?;
    Ok(())
}

fn tell_dry_run(
    updating: &Updating,
    methods: &[Method],
    args: &Update,
    output: &Path,
    console: &mut Console,
) -> Result<u8> {
    let planned = |method: &Method| {
        Ok(Planned {
            name: format!("{method} ({})", args.init.name()),
            plan: updating.plan(*method, None, None)?,
            init: args.init,
            output: output.into(),
        })
    };
    let trainings = methods.iter().map(planned).collect::<Result<Vec<_>>>()?;
    dry_run::of_updating(updating, &trainings, console)?;
    Ok(0)
}

/// What the finished update here said, again.
fn tell_finished(report: &Report, output: &Path, console: &mut Console) -> Result<u8> {
    console.tell(&format!("{} is finished; --fresh starts over", output.display()))?;
    let certificate = report.certificate.as_ref();
    let verdict = certificate.map(check_lines).unwrap_or_default();
    for line in reporting::lines(report).into_iter().chain(verdict) {
        console.tell(&line)?;
    }
    console.event(&json!({
        "event": "finished", "output": output, "certificate": certificate, "already": true,
        "flips": report.comparison.all.flips, "peak_rss_mib": peak_rss_mib(),
    }));
    Ok(certificate.map_or(0, |certificate| exit_code(certificate.verdict)))
}

fn tell(
    trial: &Trial,
    certificate: Option<&Certificate>,
    output: &Path,
    written: &[PathBuf],
    console: &mut Console,
) -> Result<()> {
    let flips = trial.pair.flips();
    let objective = match &trial.plan.objective {
        objective if objective.is_standard() => String::new(),
        objective => format!(", objective {}", objective.name()),
    };
    let percent =
        |share: Option<f64>| share.map_or("–".into(), |x| format!("{:.2} %", 100.0 * x));
    console.tell(&format!(
        "{}: {}{objective}: on all {} held-out rows: accuracy {} (old {}), churn {}, negative flips {}",
        output.display(),
        trial.name,
        count(flips.rows),
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

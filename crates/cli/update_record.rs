//! `update.json`: what the update in a folder is made from. Written before it trains and compared before anything is written
//! there, so that the same command goes on or says that it is finished, and no other one writes over the result.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowchurn_churn::Report;
use lowchurn_distill::{
    Combine, Error as DistilError, Method, device_kind, finished, finished_provenance,
    sha256_of_file, sha256_of_model, sha256_of_text, write_json,
};

use serde::Serialize;

use crate::args::{BudgetFlags, Init, Update};
use crate::console::Console;
use crate::failure::Usage;
use crate::updating::{Updating, starts_fresh};
use crate::{base, output};

const FILE: &str = "update.json";

/// What decides which of the trained models is taken, and not how they are trained.
const OF_CHOICE: [&str; 5] = [
    "budget",
    "interpolation",
    "list of methods",
    "list of slice columns",
    "values of slice columns",
];

/// Budgets that a choice in this folder went by before the one that its update went by.
const EARLIER: &str = "earlier budgets";

/// (what, value), in the order in which differences are told.
pub type MadeFrom = Vec<(String, String)>;

/// What an output folder holds.
#[derive(Debug, PartialEq)]
pub enum There {
    /// No run.
    Nothing,
    /// An update that isn't finished; its candidates know themselves what they are from.
    Begun(MadeFrom),
    Finished(MadeFrom),
    /// A run that isn't an update's result.
    OtherRun,
}

/// What the result depends on: values and weights by what they hold.
pub fn made_from(
    updating: &Updating,
    args: &Update,
    methods: &[Method],
    console: &mut Console,
) -> Result<MadeFrom> {
    let (rows, deployed) = (&updating.rows, &args.deployed);
    let listed = |all: &[String]| if all.is_empty() { "none".into() } else { all.join(", ") };
    let names: Vec<String> = methods.iter().map(Method::to_string).collect();
    let mut all = vec![
        ("old model", updating.old.sha256.clone()),
        ("training data", rows.train.sha256.clone()),
        ("number of old rows", rows.n_old.to_string()),
        ("list of methods", listed(&names)),
        ("start", args.init.name().into()),
        ("interpolation", args.interpolate.clone()),
        ("held-out data", rows.holdout.sha256.clone()),
        ("number of old held-out rows", rows.n_old_holdout.to_string()),
        ("list of slice columns", listed(&deployed.slice)),
        ("budget", budget(&args.budget)?),
        ("list of teachers", listed(&updating.teacher_hashes)),
        ("way of several teachers", combined(updating.combine).into()),
        ("label map", deployed.label_map.clone().unwrap_or_else(|| "none".into())),
        ("device", device_kind(&updating.compute.device).into()),
    ];
    if let Some(tolerance) = updating.tolerance {
        all.push(("tolerance", tolerance.to_string()));
    }
    if !rows.holdout_columns.is_empty() {
        all.push(("values of slice columns", sha256_of_json(&rows.holdout_columns)?));
    }
    if let Some(values) = &rows.groups {
        all.push(("values of the objective's column", sha256_of_json(values)?));
    }
    if args.init == Init::Cold {
        all.push(("encoder", updating.encoder.clone().unwrap_or_default()));
    }
    let is_cold = |method: &Method| args.init == Init::Cold || starts_fresh(method);
    if let (Some(encoder), true) = (&updating.encoder, methods.iter().any(is_cold)) {
        let folder = base::find("--model", encoder)?.folder(&updating.hub, console)?;
        all.push(("encoder's weights", sha256_of_model(&folder)?));
    }
    let mut all: MadeFrom = all.into_iter().map(|(what, is)| (what.to_string(), is)).collect();
    // Methods differ in nothing else.
    if let Some(method) = methods.first() {
        let plan = serde_json::to_value(updating.plan(*method, None, None)?)?;
        let settings = plan.as_object().into_iter().flatten();
        let settings = settings.filter(|(key, _)| *key != "method");
        all.extend(settings.map(|(key, value)| (key.clone(), value.to_string())));
    }
    Ok(all)
}

fn sha256_of_json(value: &impl Serialize) -> Result<String> {
    Ok(sha256_of_text(&serde_json::to_string(value)?))
}

/// The base's own folder, or one below `runs` for a base that lies elsewhere, such as on the hub.
pub fn beside(base: &str) -> String {
    let base = base.trim_end_matches('/');
    if Path::new(base).is_dir() {
        return base.to_string();
    }
    let name = base.rsplit('/').next().unwrap_or(base);
    format!("runs/{}", name.split('@').next().unwrap_or(name))
}

/// As people call it.
pub fn combined(combine: Combine) -> &'static str {
    match combine {
        Combine::Probabilities => "mean of probabilities",
        Combine::Logits => "mean of logits",
    }
}

fn budget(flags: &BudgetFlags) -> Result<String> {
    if !flags.is_set() {
        return Ok("none".into());
    }
    let share = |name: &str, limit: Option<f64>| limit.map(|limit| format!("{name} {limit}"));
    let golden = match &flags.golden {
        Some(path) => Some(format!("golden {}", short(&sha256_of_file(path)?))),
        None => None,
    };
    let limits = [
        share("max-churn", flags.max_churn),
        share("max-nfr", flags.max_nfr),
        share("max-slice-nfr", flags.max_slice_nfr),
        share("max-class-nfr", flags.max_class_nfr),
        share("min-accuracy-gain", flags.min_accuracy_gain),
        golden,
        share("confidence", Some(flags.confidence())),
    ];
    Ok(limits.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// Hashes are long, and twelve letters tell two apart.
fn short(value: &str) -> String {
    let is_hash = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash { value[..12].into() } else { value.into() }
}

pub fn look(output: &Path) -> Result<There> {
    let is_there = |name: &str| output.join(name).exists();
    if !is_there(FILE) {
        let is_run = is_there("manifest.json") || is_there("run.toml");
        return Ok(if is_run { There::OtherRun } else { There::Nothing });
    }
    let path = output.join(FILE);
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    let bad = |error| Usage(format!("{}: {error}; --fresh starts over here", path.display()));
    let found: MadeFrom = serde_json::from_slice(&text).map_err(bad)?;
    Ok(match (is_there("manifest.json"), is_there("candidates")) {
        (true, _) => There::Finished(found),
        (false, true) => There::Begun(found),
        // What was refused before a candidate began has left nothing to go on with.
        (false, false) => There::Nothing,
    })
}

/// With `choose_again` a finished update that differs in its choice alone is gone on with, since its models are trained. Beside it the
/// budgets that these rows have answered.
pub fn again(there: There, now: &MadeFrom, choose_again: bool) -> (There, Vec<String>) {
    let (There::Begun(found) | There::Finished(found)) = &there else { return (there, Vec::new()) };
    let earlier = found.iter().filter(|(what, _)| what == EARLIER);
    let mut earlier: Vec<String> = earlier.map(|(_, budget)| budget.clone()).collect();
    let differs = differences(found, now);
    let is_of_choice = !differs.is_empty() && differs.iter().all(|(what, ..)| is_choice(what));
    match there {
        There::Finished(found) if choose_again && is_of_choice => {
            let answered = found.iter().filter(|(what, _)| what == "budget");
            let name =
                |budget: &str| if budget == "none" { "no budget" } else { budget }.to_string();
            earlier.extend(answered.map(|(_, budget)| name(budget)));
            (There::Begun(found), earlier)
        }
        there => (there, earlier),
    }
}

fn is_choice(what: &str) -> bool {
    OF_CHOICE.contains(&what)
}

/// (what, then, now): what is at its default may be left out, on either side.
fn differences(found: &MadeFrom, now: &MadeFrom) -> Vec<(String, Option<String>, Option<String>)> {
    let of = |all: &MadeFrom, what: &String| {
        all.iter().find(|(key, _)| key == what).map(|(_, is)| is.clone())
    };
    let gone = found.iter().filter(|(what, _)| what != EARLIER && of(now, what).is_none());
    let keys = now.iter().chain(gone).map(|(what, _)| what.clone());
    keys.map(|what| (of(found, &what), of(now, &what), what))
        .filter(|(then, now, _)| then != now)
        .map(|(then, now, what)| (what, then, now))
        .collect()
}

/// Refuses a folder with the result of another run; says what differs.
pub fn refuse_other(output: &Path, there: &There, now: &MadeFrom) -> Result<()> {
    let found = match there {
        There::Nothing | There::Begun(_) => return Ok(()),
        There::OtherRun => {
            return Err(Usage(format!(
                "{} holds a run that isn't this update's; choose another --output, or --fresh to start over here",
                output.display()
            ))
            .into());
        }
        There::Finished(found) => found,
    };
    let differs = differences(found, now);
    // What can't be chosen again is told first.
    let first = differs.iter().find(|(what, ..)| !is_choice(what)).or(differs.first());
    let Some((what, then, now)) = first else { return Ok(()) };
    let shown = |is: &Option<String>| is.as_deref().map_or("not set".into(), short);
    let (then, now) = (shown(then), shown(now));
    if is_choice(what) {
        let output = output.display();
        return Err(Usage(format!(
            "{output} holds an update with another {what}: {then}, now {now}; --choose-again chooses among its trained models, --fresh \
             trains them anew, or choose another --output"
        ))
        .into());
    }
    let (path, what) = (output.into(), what.clone());
    Err(DistilError::OtherRun { path, what, found: then, expected: now }.into())
}

/// The report of this very update, where it is finished and its files are as they were.
pub fn finished_report(output: &Path, there: &There) -> Result<Option<Report>> {
    let path = output.join("report.json");
    if !matches!(there, There::Finished(_)) || !path.exists() {
        return Ok(None);
    }
    finished(output, &finished_provenance(output)?)?;
    Ok(Some(Report::read(&path)?))
}

/// Takes what an earlier choice says away first: nothing here is finished from now on, and no report is another's.
pub fn write(output: &Path, made_from: &MadeFrom, earlier: &[String]) -> Result<()> {
    fs::create_dir_all(output)
        .with_context(|| format!("{}: can't be written", output.display()))?;
    for name in ["manifest.json", "report.json", "report.html", "report.md", "flips.jsonl"] {
        output::remove_file(&output.join(name))?;
    }
    let earlier = earlier.iter().map(|budget| (EARLIER.to_string(), budget.clone()));
    let all: MadeFrom = made_from.iter().cloned().chain(earlier).collect();
    Ok(write_json(&output.join(FILE), &all)?)
}

/// `runs/x` → `runs/x-v2` → `runs/x-v3`: the first that isn't there yet, or that holds this very update, or where it is
/// chosen again one with the same trainings.
pub fn next_name(base: &str, now: &MadeFrom, choose_again: bool) -> Result<PathBuf> {
    let local = beside(base);
    let versioned = local.rsplit_once("-v");
    let versioned = versioned.and_then(|(stem, n)| Some((stem, n.parse::<u32>().ok()?)));
    let (stem, mut n) = match versioned {
        Some((stem, n)) => (stem, n.saturating_add(1)),
        None => (local.as_str(), 2),
    };
    loop {
        let path = PathBuf::from(format!("{stem}-v{n}"));
        let is_ours = match look(&path)? {
            There::Begun(found) | There::Finished(found) => {
                let differs = differences(&found, now);
                differs.iter().all(|(what, ..)| choose_again && is_choice(what))
            }
            There::OtherRun => false,
            There::Nothing => is_free(&path),
        };
        if is_ours || n == u32::MAX {
            return Ok(path);
        }
        n += 1;
    }
}

fn is_free(path: &Path) -> bool {
    match fs::read_dir(path) {
        // The second is left by one that was refused.
        Ok(mut entries) => entries.all(|entry| {
            entry.is_ok_and(|entry| entry.file_name() == FILE || entry.file_name() == ".lock")
        }),
        Err(_) => !path.exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(seed: u32) -> MadeFrom {
        vec![("training data".into(), "a".repeat(64)), ("seed".into(), seed.to_string())]
    }

    #[test]
    fn the_next_name_counts_up_past_what_others_left() {
        let lab = tempfile::tempdir().unwrap();
        let base = lab.path().join("sst2").display().to_string();
        fs::create_dir_all(&base).unwrap();
        let next = |base: &str, seed| {
            let path = next_name(base, &made(seed), false).unwrap();
            path.file_name().unwrap().to_string_lossy().into_owned()
        };
        assert_eq!(next(&base, 1), "sst2-v2");
        write(&lab.path().join("sst2-v2"), &made(1), &[]).unwrap();
        assert_eq!(next(&base, 2), "sst2-v2", "refused before it began");
        fs::create_dir_all(lab.path().join("sst2-v2/candidates")).unwrap();
        assert_eq!((next(&base, 1), next(&base, 2)), ("sst2-v2".into(), "sst2-v3".into()));
        fs::create_dir_all(lab.path().join("sst2-v3")).unwrap();
        assert_eq!(next(&base, 2), "sst2-v3", "an empty folder is free");
        fs::write(lab.path().join("sst2-v3/notes.txt"), "x").unwrap();
        assert_eq!(next(&base, 2), "sst2-v4");
        fs::create_dir_all(lab.path().join("sst2-v7")).unwrap();
        assert_eq!(next(&lab.path().join("sst2-v7").display().to_string(), 1), "sst2-v8");
        let hub = next_name("nobody/nothing-like-this-v2", &made(1), false).unwrap();
        assert_eq!(hub, Path::new("runs/nothing-like-this-v3"));
    }

    #[test]
    fn a_choice_is_made_again_where_nothing_else_differs() {
        let with = |budget: &str| {
            let mut all = made(1);
            all.push(("budget".into(), budget.into()));
            all
        };
        let lab = tempfile::tempdir().unwrap();
        let here = lab.path();
        write(here, &with("max-churn 0.01"), &["max-churn 0.005".into()]).unwrap();
        fs::write(here.join("manifest.json"), "{}").unwrap();
        let again = |now: &MadeFrom, asked| again(look(here).unwrap(), now, asked);
        let (there, earlier) = again(&with("max-churn 0.02"), true);
        assert!(matches!(there, There::Begun(_)));
        assert_eq!(earlier, ["max-churn 0.005", "max-churn 0.01"]);
        // The very same is finished, and knows what it answered before; another training is another run.
        let (there, earlier) = again(&with("max-churn 0.01"), true);
        assert!(matches!(there, There::Finished(_)));
        assert_eq!(refuse_other(here, &there, &with("max-churn 0.01")).ok(), Some(()));
        assert_eq!(earlier, ["max-churn 0.005"]);
        assert!(matches!(again(&made(2), true).0, There::Finished(_)));
        assert!(matches!(again(&with("max-churn 0.02"), false).0, There::Finished(_)));
        write(here, &with("max-churn 0.02"), &[]).unwrap();
        assert!(
            !here.join("manifest.json").exists(),
            "half of a choice isn't taken for a whole one"
        );
    }

    #[test]
    fn only_a_finished_result_of_another_run_is_refused() {
        let lab = tempfile::tempdir().unwrap();
        let here = lab.path();
        let refusal = |seed| {
            let refused = refuse_other(here, &look(here).unwrap(), &made(seed));
            refused.map_err(|error| error.to_string().replace(&here.display().to_string(), "$T"))
        };
        assert_eq!(look(here).unwrap(), There::Nothing);
        fs::write(here.join("run.toml"), "").unwrap();
        assert_eq!(
            refusal(1),
            Err("$T holds a run that isn't this update's; choose another --output, or --fresh to start over here".into())
        );
        write(here, &made(1), &[]).unwrap();
        assert_eq!((refusal(1), refusal(2)), (Ok(()), Ok(())), "nothing is finished yet");
        fs::write(here.join("manifest.json"), "{}").unwrap();
        assert_eq!(refusal(1), Ok(()));
        assert_eq!(
            refusal(2),
            Err("$T holds a run with another seed: 1, now 2; choose another output folder, or --fresh to start over here".into())
        );
        let mut more = made(1);
        more.push(("precision".into(), "\"bf16\"".into()));
        let refusal_of = |now| {
            let refused = refuse_other(here, &look(here).unwrap(), &now).unwrap_err().to_string();
            refused.split("with another ").nth(1).unwrap_or_default().to_string()
        };
        let end = "choose another output folder, or --fresh to start over here";
        assert_eq!(refusal_of(more.clone()), format!("precision: not set, now \"bf16\"; {end}"));
        write(here, &more, &[]).unwrap();
        fs::write(here.join("manifest.json"), "{}").unwrap();
        assert_eq!(refusal_of(made(1)), format!("precision: \"bf16\", now not set; {end}"));
        fs::write(here.join(FILE), "[").unwrap();
        let error = look(here).unwrap_err().to_string();
        assert!(error.ends_with("; --fresh starts over here"), "{error}");
    }
}

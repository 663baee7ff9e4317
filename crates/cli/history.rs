//! `history`: several releases of one model on the same rows. Which came before which is what their folders say: an update's
//! manifest names the deployed model that it was made from, by name and hash, with the commit where it came from the hub.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_churn::{
    Asked, History as Measured, Pair, Predicted, Rate, Side, Unmatched, compare as measure,
    history as over_time,
};
use lowchurn_distill::{finished_provenance, sha256_of_model};
use lowchurn_hub::Hub;
use serde_json::json;

use crate::args::{Compare, History};
use crate::console::Console;
use crate::device::{self, Compute};
use crate::facts::{self, Facts};
use crate::failure::Usage;
use crate::machine::peak_rss_mib;
use crate::progress::{count, printable};
use crate::reporting::{self, Told};
use crate::served::Form;
use crate::sides::{self, Source, known};
use crate::signals::command_that_goes_on as command;
use crate::{base, output, places, seen};

/// Flip-flops that a report holds.
const MAX_FLIP_FLOPS: usize = reporting::MAX_FLIPS;

pub fn history(args: &History, console: &mut Console) -> Result<u8> {
    let hub = places::hub()?;
    let names = match &args.releases[..] {
        [newest] => lineage(newest, &hub, console)?,
        several => several.to_vec(),
    };
    let newest = names.last().cloned().unwrap_or_default();
    if names.len() < 2 {
        return Err(Usage(format!(
            "{newest}: no earlier release is known of it; name all of them, the oldest first"
        ))
        .into());
    }
    let output = args.output.clone().unwrap_or_else(|| default_output(&newest));
    output::check(&output)?;
    output::refuse_report_of_run(&output)?;
    let how = how(args);
    let precision = device::precision(args.scoring.bf16);
    let compute = Compute::open(&args.scoring.device, precision, console)?;
    let mut releases = Vec::new();
    for name in &names {
        releases.push(sides::find(name, &args.scoring, Form::default(), &hub, console)?);
    }
    let asked: Vec<&Source> = releases.iter().collect();
    let kind = sides::kind(&asked, args.tolerance)?;
    let data = match &args.data {
        Some(text) => {
            Some(facts::read(&how, text, (known(&asked)?.as_ref(), kind), &hub, console)?)
        }
        None => {
            facts::refuse_models(&asked)?;
            None
        }
    };
    let examples = data.as_ref().map_or(&[][..], |data| &data.examples);
    let mut says: Vec<Predicted> = Vec::new();
    for release in &releases {
        says.push(sides::predicted(release, examples, &how, &compute, console)?);
    }
    let facts = match data {
        Some(data) => data,
        None => facts::of_files(&how, &releases.iter().zip(&says).collect::<Vec<_>>())?,
    };
    if let Some((newest, earlier)) = says.split_last_mut() {
        earlier.iter_mut().try_for_each(|side| facts.judge(side, newest, &[]))?;
    }
    let n = says.len();
    let mut whole = Pair::align(&says[n - 2], &says[n - 1], &[], Unmatched::Refuse)?;
    let (pair, rows_chose) = seen::of_releases(&releases, &mut whole, &facts, &hub, console)?;
    let mut left_out: HashSet<&str> = whole.ids.iter().map(String::as_str).collect();
    pair.ids.iter().for_each(|id| {
        left_out.remove(id.as_str());
    });
    let mut history = over_time(&says, &left_out, args.confidence)?;
    tell(&history, console)?;

    let report = report(args, (&releases, &says), &facts, (&pair, rows_chose), &mut history)?;
    reporting::write(&report, &output)?;
    let path = output.join("report.html");
    console
        .tell(&format!("report: {} (and report.json, report.md, flips.jsonl)", path.display()))?;
    console.event(&json!({
        "event": "finished", "output": output, "report": output.join("report.json"), "rows": history.rows,
        "releases": history.releases, "since": history.since, "flip_flops": history.n_flip_flops, "back": history.n_back,
        "peak_rss_mib": peak_rss_mib(),
    }));
    Ok(0)
}

/// What `compare` would be asked.
fn how(args: &History) -> Compare {
    Compare {
        split: args.split.clone(),
        tolerance: args.tolerance,
        scoring: args.scoring.clone(),
        ..Compare::default()
    }
}

/// NEWEST/history where that is a run's folder, else history where the program runs.
fn default_output(newest: &str) -> PathBuf {
    let folder = Path::new(newest);
    match output::is_run(folder) {
        true => folder.join("history"),
        false => "history".into(),
    }
}

/// A release and those before it, the oldest first. Where one isn't to be found any more, the history begins behind it.
fn lineage(newest: &str, hub: &Hub, console: &mut Console) -> Result<Vec<String>> {
    let mut names = vec![newest.to_string()];
    let mut folder = PathBuf::from(newest);
    if !folder.exists() {
        folder = base::find("", newest)?.folder(hub, console)?;
    }
    while let Ok(provenance) = finished_provenance(&folder) {
        let Some((name, sha256)) = provenance.old else { break };
        let older = earlier(&name, &sha256, &folder, hub, console);
        let Some((shown, older)) = older else {
            console.say(&format!(
                "{} updates {name}, which isn't found as it was then; the history begins here",
                names[names.len() - 1]
            ));
            break;
        };
        // A folder that two releases were written to can only be one of them.
        if names.contains(&shown) {
            break;
        }
        names.push(shown);
        folder = older;
    }
    names.reverse();
    Ok(names)
}

/// The release with this hash and how to call it: where the update had it, at the hub, or beside the update.
fn earlier(
    name: &str,
    sha256: &str,
    update: &Path,
    hub: &Hub,
    console: &mut Console,
) -> Option<(String, PathBuf)> {
    let there = PathBuf::from(name);
    if is_model(&there, sha256) {
        return Some((name.to_string(), there));
    }
    let base = base::find("", name).ok().filter(|base| base.hub_id().is_some());
    let fetched = base.map(|base| base.folder(hub, console));
    match fetched {
        Some(Ok(folder)) if is_model(&folder, sha256) => return Some((name.to_string(), folder)),
        Some(Err(error)) => console.say(&format!("{name}: {error:#}")),
        _ => {}
    }
    let folder = beside(name, sha256, update)?;
    Some((folder.display().to_string(), folder))
}

fn is_model(folder: &Path, sha256: &str) -> bool {
    folder.join("config.json").is_file()
        && sha256_of_model(folder).is_ok_and(|found| found == sha256)
}

/// The neighbour of the update's folder with this hash.
fn beside(name: &str, sha256: &str, update: &Path) -> Option<PathBuf> {
    let parent = update.parent()?;
    let last = Path::new(name).file_name()?;
    let mut beside: Vec<PathBuf> =
        std::fs::read_dir(parent).ok()?.flatten().map(|entry| entry.path()).collect();
    beside.sort();
    // By its name first: hashing every neighbour takes a while.
    beside.sort_by_key(|path| path.file_name() != Some(last));
    beside.into_iter().find(|folder| is_model(folder, sha256))
}

/// The newest release against the one before, with what came before both.
fn report(
    args: &History,
    (releases, says): (&[Source], &[Predicted]),
    facts: &Facts,
    (pair, rows_chose): (&Pair, Option<String>),
    history: &mut Measured,
) -> Result<lowchurn_churn::Report> {
    let n = says.len();
    let texts = facts.texts(pair);
    if let Some(texts) = &texts {
        let text: HashMap<&String, &String> = pair.ids.iter().zip(texts).collect();
        for row in &mut history.flip_flops {
            row.text = text.get(&row.id).map(|text| (*text).clone());
        }
    }
    history.flip_flops.truncate(MAX_FLIP_FLOPS);
    let comparison = measure(
        pair,
        &Asked { confidence: args.confidence, texts: texts.as_deref(), ..Asked::default() },
    )?;
    let side = |at: usize| Side {
        name: says[at].name.clone(),
        sha256: Some(releases[at].sha256().into()),
        labels: says[at].labels.clone(),
    };
    let mut provenance = vec![
        ("lowchurn".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ("command".to_string(), command()),
    ];
    for (number, release) in releases.iter().enumerate() {
        let line = format!("{} {}", says[number].name, release.sha256());
        provenance.push((format!("release {}", number + 1), line));
    }
    let report = reporting::report(Told {
        title: format!("{n} releases up to {}", says[n - 1].name),
        old: side(n - 2),
        new: side(n - 1),
        data: &facts.name,
        data_sha256: facts.sha256.clone(),
        pair,
        texts: texts.as_deref(),
        comparison,
        certificate: None,
        rows_chose,
        nearest: Default::default(),
        frontier: Vec::new(),
        provenance,
    });
    Ok(lowchurn_churn::Report { history: Some(history.clone()), ..report })
}

/// A line a release: how often it is right, and its churn against each earlier one.
fn tell(history: &Measured, console: &mut Console) -> Result<()> {
    let percent = |rate: Option<Rate>| {
        rate.map_or("–".to_string(), |rate| format!("{:.2} %", 100.0 * rate.value))
    };
    for (number, release) in history.releases.iter().enumerate() {
        let earlier = history.since.iter().filter(|since| since.new == number);
        let churn: Vec<String> = earlier
            .map(|since| format!("{} from {}", percent(since.churn), since.old + 1))
            .collect();
        let churn =
            if churn.is_empty() { String::new() } else { format!(", churn {}", churn.join(", ")) };
        let right = percent(release.accuracy);
        console.tell(&printable(&format!(
            "{} {}: right {right}{churn}",
            number + 1,
            release.name
        )))?;
    }
    let rows = Rate::new(history.n_flip_flops, history.rows, 0.95);
    console.tell(&format!(
        "flip-flops: {} of {} rows changed twice or more ({}), {} of them back to the oldest answer",
        count(history.n_flip_flops),
        count(history.rows),
        percent(rows),
        count(history.n_back),
    ))?;
    Ok(())
}

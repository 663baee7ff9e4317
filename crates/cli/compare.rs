//! `compare`: two models, or two files of predictions of any stack → what changed, in a report.
//!
//! Files alone need no model, no data and no network. The exit code says that it worked; `gate` judges.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use lowchurn_churn::{
    Answers, Asked, Budget, Certificate, Comparison, Flips, Golden, Judged, Measurements,
    Neighbour, Pair, Predicted, Rate, Report, Side, Unmatched, Verdict, certify, class_flips,
    compare as measure, seed_floor, withhold_pass,
};
use lowchurn_data::{Example, Split, parse_map};
use lowchurn_hub::Hub;
use serde_json::json;

use crate::args::{BudgetFlags, Compare};
use crate::console::Console;
use crate::device::{self, Compute};
use crate::facts::{self, Facts};
use crate::failure::Usage;
use crate::machine::peak_rss_mib;
use crate::progress::count;
use crate::reporting::{self, Told, check_lines};
use crate::seen::{self, Unseen};
use crate::served::Form;
use crate::sides::{self, Source, known};
use crate::{golden, nearest, output, places, served, slices};

pub fn compare(args: &Compare, console: &mut Console) -> Result<u8> {
    let label_map = check(args)?;
    let hub = places::hub()?;
    let precision = device::precision(args.scoring.bf16);
    let compute = Compute::open(&args.scoring.device, precision, console)?;
    let (old_form, new_form) = served::forms(args)?;
    let find = |text: &str, form: Form, console: &mut Console| {
        sides::find(text, &args.scoring, form, &hub, console)
    };
    let (old, new) = (find(&args.old, old_form, console)?, find(&args.new, new_form, console)?);
    let output = args.output.clone().unwrap_or_else(|| {
        reporting::default_output(
            ("compare", "compare"),
            (&args.old, &args.new),
            new.model().is_some(),
        )
    });
    sides::refuse_shards(&output, &[&old, &new])?;
    output::check(&output)?;
    output::refuse_report_of_run(&output)?;

    let mut others = Vec::new(); // the plain retrain, then the runs of other seeds
    for text in args.retrain.iter().chain(&args.seed_run) {
        others.push(find(text, new_form, console)?);
    }
    let asked: Vec<&Source> = [&old, &new].into_iter().chain(&others).collect();
    let kind = sides::kind(&asked, args.tolerance)?;
    let data = match &args.data {
        Some(text) => {
            Some(facts::read(args, text, (known(&asked)?.as_ref(), kind), &hub, console)?)
        }
        None => {
            facts::refuse_models(&asked)?;
            None
        }
    };
    let has_models = asked.iter().any(|source| source.model().is_some());
    let examples = data.as_ref().map_or(&[][..], |data| &data.examples);
    let mut old_says = sides::predicted(&old, examples, args, &compute, console)?;
    let is_same = is_same(&old, &new);
    let new_says = match is_same {
        true => Predicted { name: args.new.clone(), ..old_says.clone() },
        false => sides::predicted(&new, examples, args, &compute, console)?,
    };
    let facts = match data {
        Some(data) => data,
        None => facts::of_files(args, &[(&old, &old_says), (&new, &new_says)])?,
    };
    facts.judge(&mut old_says, &new_says, &label_map)?;

    let unmatched = if args.allow_partial { Unmatched::Count } else { Unmatched::Refuse };
    let pair = Pair::align(&old_says, &new_says, &label_map, unmatched)?;
    let mut whole = facts.keep(pair, args.allow_partial, console)?;
    if is_same {
        whole.alignment.insert(0, "both sides are the same, by their hashes".into());
    }
    let Unseen { pair, train, rows_chose, notes } =
        seen::leave_out(&mut whole, (&old, &new), args, &facts, &hub, console)?;
    let mut others_say = Vec::new();
    for source in &others {
        others_say.push(sides::predicted(source, &facts.examples, args, &compute, console)?);
    }
    let (retrain, seeds) = others_say.split_at(usize::from(args.retrain.is_some()));
    let retrain_churn = match retrain.first() {
        Some(retrain) => churn_of(&old_says, retrain, &pair, &label_map)?,
        None => None,
    };
    let floor = floor(&new_says, seeds, &pair, args.budget.confidence())?;

    let texts = facts.texts(&pair);
    if texts.is_none() && !args.keyword.is_empty() {
        return Err(Usage(
            "--keyword: there are no texts to find it in; name the rows with --data, or the column of a prediction file with \
             --text-column"
                .into(),
        )
        .into());
    }
    let columns = facts.slice_columns(&pair);
    let is_new = is_new_row(args, &whole, &pair, &hub, console)?;
    let comparison = measure(
        &pair,
        &Asked {
            confidence: args.budget.confidence(),
            thresholds: &args.threshold,
            is_new_row: is_new.as_deref(),
            slice_columns: &columns,
            texts: texts.as_deref(),
            keywords: &args.keyword,
            min_slice_rows: args.min_slice_rows,
            retrain_churn,
            seed_floor: floor,
        },
    )?;
    let certificate = certificate(args, &whole, &comparison, (&facts.name, &hub), console)?;
    let certificate = certificate.map(|made| match &rows_chose {
        Some(what) => withhold_pass(&made, what),
        None => Certificate { notes: made.notes.iter().cloned().chain(notes).collect(), ..made },
    });
    let nearest = near(args, &new, &facts, &pair, (train, &compute), console)?;
    let report = reporting::report(Told {
        title: format!("{} → {}", args.old, args.new),
        old: side(&old, &old_says),
        new: side(&new, &new_says),
        data: &facts.name,
        data_sha256: facts.sha256.clone(),
        pair: &pair,
        texts: texts.as_deref(),
        comparison,
        certificate,
        rows_chose,
        nearest,
        frontier: Vec::new(),
        provenance: provenance(args, has_models, [&old, &new]),
    });
    reporting::write_cut(&report, args.max_flips, &output)?;
    tell(&report, is_same, &output, console)?;
    Ok(0)
}

/// What can be refused before anything is read.
fn check(args: &Compare) -> Result<Vec<(String, String)>> {
    if args.budget.is_set() {
        if args.budget.max_slice_nfr.is_some() && args.slice.is_empty() {
            let said = "--max-slice-nfr needs slices; name a column with --slice";
            return Err(Usage(said.into()).into());
        }
        // Golden rows are read later; that there are some is enough here.
        let golden = args.budget.golden.iter().map(|_| String::new()).collect();
        budget(&args.budget, golden).check()?;
    }
    let confidence = args.budget.confidence();
    if !(confidence > 0.5 && confidence < 1.0) {
        return Err(lowchurn_churn::Error::ConfidenceOutside { confidence }.into());
    }
    if args.scoring.batch_size == 0 {
        return Err(Usage("--batch-size 0: expected at least 1".into()).into());
    }
    if let (Some(split), None) = (&args.split, &args.data) {
        return Err(Usage(format!("--split {split}: of which data? Name it with --data")).into());
    }
    if args.by_position && args.scoring.id_column.is_some() {
        return Err(Usage(
            "--by-position and --id-column: rows are told apart by one of them".into(),
        )
        .into());
    }
    Ok(args.label_map.as_deref().map(parse_map).transpose()?.unwrap_or_default())
}

fn is_same(old: &Source, new: &Source) -> bool {
    old.sha256() == new.sha256() && old.form() == new.form()
}

fn side(source: &Source, says: &Predicted) -> Side {
    let n = says.n_declared.unwrap_or(says.labels.len());
    let labels = match &says.answers {
        Answers::Sets { names, .. } => names.clone(),
        _ => says.labels.iter().take(n).cloned().collect(),
    };
    let name = match source.served() {
        Some(served) => format!("{} ({served})", says.name),
        None => says.name.clone(),
    };
    Side { name, sha256: Some(source.sha256().into()), labels }
}

/// Churn of another model against the old one, on the rows of the pair.
fn churn_of(
    old: &Predicted,
    other: &Predicted,
    pair: &Pair,
    label_map: &[(String, String)],
) -> Result<Option<f64>> {
    let context = || format!("--retrain {}", other.name);
    let all = Pair::align(old, other, label_map, Unmatched::Count).with_context(context)?;
    let rows: HashSet<&str> = pair.ids.iter().map(String::as_str).collect();
    let mut flips = Flips::default();
    for (row, id) in all.ids.iter().enumerate() {
        if rows.contains(id.as_str()) {
            flips.count(Judged { is_right: None, ..all.judged(row) });
        }
    }
    if flips.rows < pair.rows() as u64 {
        let (found, all) = (count(flips.rows), count(pair.rows() as u64));
        anyhow::bail!(
            "--retrain {}: {found} of {all} compared rows are in it; all are needed",
            other.name
        );
    }
    Ok(flips.churn())
}

fn floor(
    new: &Predicted,
    seeds: &[Predicted],
    pair: &Pair,
    confidence: f64,
) -> Result<Option<Rate>> {
    let runs: Vec<Predicted> = std::iter::once(new).chain(seeds).cloned().collect();
    match seeds.is_empty() {
        true => Ok(None),
        false => seed_floor(&runs, Some(&pair.ids), confidence).context("--seed-run"),
    }
}

fn is_new_row(
    args: &Compare,
    whole: &Pair,
    pair: &Pair,
    hub: &Hub,
    console: &mut Console,
) -> Result<Option<Vec<bool>>> {
    let Some(text) = &args.new_rows else { return Ok(None) };
    let ids = slices::ids("--new-rows", text, args.scoring.id_column.as_deref(), hub, console)?;
    let is_new: Vec<bool> = pair.ids.iter().map(|id| ids.contains(id)).collect();
    if !whole.ids.iter().any(|id| ids.contains(id)) {
        let (listed, known) = (ids.iter().min(), whole.ids.first());
        anyhow::bail!(
            "--new-rows {text}: none of its ids (such as {:?}) is a row that is compared (such as {:?})",
            listed.map_or("", String::as_str),
            known.map_or("", String::as_str)
        );
    }
    if !is_new.contains(&true) {
        console.say(&format!("--new-rows {text}: one of the two was trained on all of them"));
        return Ok(None);
    }
    Ok(Some(is_new))
}

pub fn budget(flags: &BudgetFlags, golden: Vec<String>) -> Budget {
    Budget {
        max_churn: flags.max_churn,
        max_nfr: flags.max_nfr,
        max_slice_nfr: flags.max_slice_nfr,
        max_class_nfr: flags.max_class_nfr,
        min_accuracy_gain: flags.min_accuracy_gain,
        golden,
        confidence: flags.confidence(),
    }
}

fn certificate(
    args: &Compare,
    whole: &Pair,
    comparison: &Comparison,
    (data, hub): (&str, &Hub),
    console: &mut Console,
) -> Result<Option<Certificate>> {
    if !args.budget.is_set() {
        return Ok(None);
    }
    let golden = match &args.budget.golden {
        Some(path) => {
            let text = path.display().to_string();
            let id_column = args.scoring.id_column.as_deref();
            let mut ids: Vec<String> =
                slices::ids("--golden", &text, id_column, hub, console)?.into_iter().collect();
            ids.sort();
            if golden::has_texts(path, args.scoring.text_column.as_deref()) {
                console.say(&format!(
                    "--golden {text}: looked up by id among the compared rows; its texts aren't asked, as update and repair do"
                ));
            }
            let known: Vec<&str> = whole.ids.iter().map(String::as_str).collect();
            golden::ids_among(&ids, &known, data)?
        }
        None => Vec::new(),
    };
    // Golden rows are counted, and may be trained on.
    let (old, new) = whole.answers_as_classes();
    let rows = Measurements {
        all: comparison.all.flips,
        slices: comparison.column_slices.clone(),
        classes: class_flips(&comparison.classes),
        golden: Golden::look_up(&golden, &whole.ids, &old, &new),
    };
    Ok(Some(certify(&budget(&args.budget, golden), &rows)?))
}

/// Training rows near the flips, where the new side is a model and its training rows are known.
fn near(
    args: &Compare,
    new: &Source,
    facts: &Facts,
    pair: &Pair,
    (train, compute): (Option<Split>, &Compute),
    console: &mut Console,
) -> Result<BTreeMap<usize, Vec<Neighbour>>> {
    let (Some(found), Some(train)) = (new.model(), train) else { return Ok(BTreeMap::new()) };
    let flips = reporting::flipped(pair).into_iter().take(nearest::MAX_FLIPS);
    let flips: Vec<(usize, Example)> =
        flips.filter_map(|row| Some((row, facts.example(&pair.ids[row])?))).collect();
    nearest::of(found, &flips, &facts.others(train), args.nearest, compute, console)
}

fn provenance(args: &Compare, has_models: bool, sides: [&Source; 2]) -> Vec<(String, String)> {
    let given =
        [("label map", &args.label_map), ("new rows", &args.new_rows), ("retrain", &args.retrain)];
    let mut lines = reporting::provenance_of(has_models.then_some(args.scoring.bf16), &given);
    for (side, source) in ["old computed as", "new computed as"].into_iter().zip(sides) {
        lines.extend(source.served().map(|served| (side.into(), served)));
    }
    if !args.seed_run.is_empty() {
        lines.push(("seed runs".into(), args.seed_run.join(", ")));
    }
    lines
}

fn tell(report: &Report, is_same: bool, output: &Path, console: &mut Console) -> Result<()> {
    for line in reporting::lines(report) {
        console.tell(&line)?;
    }
    if let Some(certificate) = &report.certificate {
        for line in check_lines(certificate) {
            console.tell(&line)?;
        }
    }
    if report.certificate.as_ref().is_some_and(|made| made.verdict != Verdict::Pass) {
        let path = output.join("report.json");
        console.say(&format!(
            "compare exits with 0 all the same; for a verdict's exit code: lowchurn gate {}",
            path.display()
        ));
    }
    let path = output.join("report.html");
    console
        .tell(&format!("report: {} (and report.json, report.md, flips.jsonl)", path.display()))?;
    let all = &report.comparison.all;
    console.event(&json!({
        "event": "finished", "output": output, "report": output.join("report.json"), "rows": report.rows,
        "flips": report.n_flips, "metrics": all, "soft": report.comparison.soft, "is_same": is_same,
        "seed_floor": report.comparison.seed_floor, "churn_ratio": report.comparison.churn_ratio,
        "verdict": report.certificate.as_ref().map(|certificate| certificate.verdict),
        "peak_rss_mib": peak_rss_mib(),
    }));
    Ok(())
}

//! `publish`: a finished run → the release's folder → one commit at the hub, read back and compared.
//!
//! Refuses a model whose gate didn't pass, weights that rounding changes too much, and a licence that nobody named. What is
//! at the hub is written over only where an earlier `publish` put it.

mod card;
mod licence;
mod measured;
mod run;
mod stage;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lowchurn_churn::{Verdict, exit_code};
use lowchurn_hub::{Access, Change, Committed, Hub, Kind, Listing, Prepared, Repo, Target};
use lowchurn_kernels::Precision;
use serde_json::{Value, json};

use self::card::Told;
use self::measured::Cast;
use self::run::{Gate, Run};
use self::stage::Stage;
use crate::args::{Dtype, Publish};
use crate::console::Console;
use crate::device::Compute;
use crate::failure::{INTERRUPTED, Usage};
use crate::found::describe;
use crate::progress::bytes;
use crate::reporting::check_lines;
use crate::{found, output, places, shipped};

pub fn publish(args: &Publish, console: &mut Console) -> Result<u8> {
    let repo = repository(args)?;
    let hub = places::hub()?;
    let run = run::read(args)?;
    output::check(&run.folder)?;
    let _lock = output::lock(&run.folder)?;
    let is_forced = match judge(&run, args, console)? {
        Judged::Passed => false,
        Judged::Forced => true,
        Judged::Refused(code) => return Ok(code),
    };
    let names = run.made_from();
    let origin = licence::find(args.license.as_deref(), &names, &hub, console)?;

    let stage = Stage::begin(&run)?;
    stage.write_model(&run, args.dtype)?;
    stage.write_records(&run)?;
    stage.write_onnx(&run)?;
    let cast = match args.dtype {
        Dtype::F32 => None,
        dtype => Some(measure_cast(args, dtype, &run, stage.path(), console)?),
    };
    if let Some(cast) = &cast {
        console.tell(&cast.said())?;
        if !cast.is_within() && !args.force {
            console.tell("refused: publish as f32, or allow more with --max-cast-churn")?;
            return Ok(exit_code(Verdict::Fail));
        }
    }
    if args.with_table && !write_table(args, repo.id(), &run, stage.path(), console)? {
        return Ok(INTERRUPTED);
    }
    stage.write_report(&run, args.with_texts)?;
    let told = Told {
        id: repo.id(),
        run: &run,
        origin: &origin,
        cast: cast.as_ref(),
        is_forced,
        has_texts: args.with_texts,
        has_table: args.with_table,
    };
    stage.write_results(&told)?;
    let card = match &args.card {
        Some(path) => own_card(path)?,
        None => card::card(&told),
    };
    stage.write_card(&card)?;
    let release =
        stage.finish(&run, record(args, &run, is_forced, cast.as_ref(), &origin.licences))?;

    let files = hub.prepare(&stage::local_files(&release)?)?;
    tell_files(&files, console)?;
    if args.dry_run {
        console.tell(&format!(
            "{} holds the release; nothing was sent. Its card:\n",
            release.display()
        ))?;
        console.tell(&card)?;
        let names: BTreeMap<&str, u64> = files.iter().map(|f| (f.path.as_str(), f.size)).collect();
        console.event(&json!({
            "event": "finished", "dry_run": true, "to": repo.id(), "files": names, "card": card, "forced": is_forced,
            "cast": cast,
        }));
        return Ok(0);
    }
    let committed = send(&hub, &repo, &run, &files, args, console)?;
    let address = format!("{}/{}", hub.settings.endpoint, repo.address());
    let what = match committed.n_sent {
        0 => "is there already, as it is here".to_string(),
        n => format!("{n} files in one commit"),
    };
    console.tell(&format!(
        "{address}: {what}; read back, every hash is right ({})",
        committed.commit
    ))?;
    if let Some(url) = &committed.pull_request {
        console.tell(&format!("pull request: {url}"))?;
    }
    console.event(&json!({
        "event": "finished", "dry_run": false, "to": repo.id(), "url": address, "commit": committed.commit,
        "pull_request": committed.pull_request, "files_sent": committed.n_sent, "files": files.len(), "forced": is_forced,
        "cast": cast,
    }));
    Ok(0)
}

fn repository(args: &Publish) -> Result<Repo> {
    let text = match &args.revision {
        Some(_) if args.to.contains('@') => {
            return Err(Usage(format!(
                "--to {}: it names a branch, and so does --revision; name one",
                args.to
            ))
            .into());
        }
        Some(revision) => format!("{}@{revision}", args.to),
        None => args.to.clone(),
    };
    let repo = Repo::parse(Kind::Model, &text)?;
    match repo.id().contains('/') {
        true => Ok(repo),
        false => Err(Usage(format!("--to {text}: expected owner/name")).into()),
    }
}

enum Judged {
    Passed,
    Forced,
    /// With the exit code that says why.
    Refused(u8),
}

fn judge(run: &Run, args: &Publish, console: &mut Console) -> Result<Judged> {
    match &run.gate {
        Gate::First => {
            console.tell("gate: there is no report of an earlier model, so there is nothing to be close to")?;
            Ok(Judged::Passed)
        }
        Gate::Judged(certificate) if certificate.verdict == Verdict::Pass => {
            console.tell(&format!("gate: {}", check_lines(certificate).join("\n")))?;
            Ok(Judged::Passed)
        }
        Gate::Judged(certificate) => {
            console.tell(&format!("gate: {}", check_lines(certificate).join("\n")))?;
            if args.force {
                console.tell("published all the same, as --force says; the card says so too")?;
                return Ok(Judged::Forced);
            }
            console.tell("refused: the gate didn't pass; --force publishes it all the same, and its card says so")?;
            Ok(Judged::Refused(exit_code(certificate.verdict)))
        }
        Gate::NotJudged if args.force => {
            console.tell("gate: no limit was set; published all the same, as --force says, and the card says so")?;
            Ok(Judged::Forced)
        }
        Gate::NotJudged => Err(Usage(format!(
            "{}: its report has no verdict, for no limit was set; set one now, such as --max-churn 2%, or publish without a \
             gate with --force, which the card then says",
            run.folder.display()
        ))
        .into()),
    }
}

/// The release is opened as any reader would open it.
fn measure_cast(
    args: &Publish,
    dtype: Dtype,
    run: &Run,
    release: &Path,
    console: &mut Console,
) -> Result<Cast> {
    let rows = measured::rows(args, run, console)?;
    let compute = Compute::open(&args.device, Precision::F32, console)?;
    let name = stage::number_format(dtype).in_config();
    let new = describe(name, release.to_path_buf())?;
    measured::measure((&run.model, &new), &rows, name, args.max_cast_churn, &compute, console)
}

/// Logits of the release itself, as it is stored, on the rows that it was trained on. False where it was interrupted.
fn write_table(
    args: &Publish,
    id: &str,
    run: &Run,
    release: &Path,
    console: &mut Console,
) -> Result<bool> {
    let rows = measured::trained_on(run, console)?;
    let compute = Compute::open(&args.device, Precision::F32, console)?;
    let found = describe(id, release.to_path_buf())?;
    let tables = release.join(shipped::FOLDER);
    Ok(found::table(&found, &rows, &tables, &compute, console)?.is_some())
}

/// # Errors
/// A front matter that isn't YAML or names no licence.
fn own_card(path: &Path) -> Result<String> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| shown.to_string())?;
    let licences = lowchurn_data::card::licenses(&text).map_err(|error| {
        Usage(format!("--card {shown}: {error}; it has to be YAML between two lines ---"))
    })?;
    match licences.is_empty() {
        true => Err(Usage(format!("--card {shown}: its front matter names no licence; add a line such as license: apache-2.0")).into()),
        false => Ok(text),
    }
}

/// What the release's manifest says besides the run's.
fn record(
    args: &Publish,
    run: &Run,
    is_forced: bool,
    cast: Option<&Cast>,
    licences: &[String],
) -> Value {
    let gate = match &run.gate {
        Gate::First => json!("first release"),
        Gate::NotJudged => json!("no limit was set"),
        Gate::Judged(certificate) => json!(certificate.verdict),
    };
    json!({
        "lowchurn_version": env!("CARGO_PKG_VERSION"), "gate": gate, "is_forced": is_forced,
        "dtype": stage::number_format(args.dtype).in_config(), "cast": cast, "licences": licences,
        "has_texts": args.with_texts,
    })
}

fn tell_files(files: &[Prepared], console: &mut Console) -> Result<()> {
    let width = files.iter().map(|file| file.path.chars().count()).max().unwrap_or(0);
    for file in files {
        console.tell(&format!(
            "  {:<width$}  {:>9}  {}",
            file.path,
            bytes(file.size),
            &file.sha256[..12]
        ))?;
    }
    let all = files.iter().map(|file| file.size).sum();
    console.tell(&format!("{} files, {}", files.len(), bytes(all)))?;
    Ok(())
}

fn send(
    hub: &Hub,
    repo: &Repo,
    run: &Run,
    files: &[Prepared],
    args: &Publish,
    console: &mut Console,
) -> Result<Committed> {
    let access = if args.private { Access::Private } else { Access::Public };
    let there = hub.open_for_writing(repo, access, &mut |event| console.hub(&event))?;
    let removed = replaced(hub, repo, &there, files, args, console)?;
    let target = if args.create_pr { Target::PullRequest } else { Target::Branch };
    let summary = match &run.report {
        Some(report) => format!("{}, after {}", run.folder.display(), report.old.name),
        None => run.folder.display().to_string(),
    };
    let lines = run.provenance().into_iter().map(|(key, value)| format!("{key}: {value}\n"));
    let (summary, description) = (format!("Publish {summary}"), lines.collect::<String>());
    let change =
        Change { files, removed: &removed, summary: &summary, description: &description, target };
    let committed = hub.commit(repo, &there, &change, &mut |event| console.hub(&event))?;
    hub.verify(repo, &committed, files, &mut |event| console.hub(&event))?;
    Ok(committed)
}

/// The files of an earlier release that this one doesn't have.
///
/// # Errors
/// Files that no `publish` put there, or a card that was changed since; with `--force` they are written over, and others stay.
fn replaced(
    hub: &Hub,
    repo: &Repo,
    there: &Listing,
    files: &[Prepared],
    args: &Publish,
    console: &mut Console,
) -> Result<Vec<String>> {
    let is_new = |path: &str| !files.iter().any(|file| file.path == path);
    let read = |path: &str, console: &mut Console| -> Result<Option<std::path::PathBuf>> {
        if there.file(path).is_none() {
            return Ok(None);
        }
        let wanted = [path.to_string()];
        let folder = hub.fetch(repo, there, &wanted, &mut |event| console.hub(&event))?;
        Ok(Some(folder.join(path)))
    };
    let manifest = match read("manifest.json", console)? {
        Some(path) => stage::released(&fs::read(path)?),
        None => None,
    };
    let Some(earlier) = manifest else {
        let others: Vec<&str> = there.files.iter().map(|file| file.path.as_str()).collect();
        let others: Vec<&str> =
            others.into_iter().filter(|path| *path != ".gitattributes").collect();
        // Half of an upload is in no commit, so files mean that somebody else has been here.
        if others.is_empty() || args.force {
            return Ok(Vec::new());
        }
        let shown: Vec<&str> = others.iter().take(3).copied().collect();
        return Err(Usage(format!(
            "{repo} holds {} files that lowchurn didn't publish ({}, …); choose another --to, or write over those of the same name \
             with --force",
            others.len(),
            shown.join(", ")
        ))
        .into());
    };
    if let (Some(expected), Some(path)) = (earlier.get(stage::CARD), read(stage::CARD, console)?) {
        let found = lowchurn_distill::sha256_of_file(&path)?;
        let is_ours = files.iter().any(|file| file.path == stage::CARD && file.sha256 == found);
        if found != *expected && !is_ours && !args.force {
            return Err(Usage(format!(
                "{repo}: its README.md was changed since it was published; keep it with --card FILE (a copy of it), or write over it \
                 with --force"
            ))
            .into());
        }
    }
    let gone = earlier.into_keys().filter(|path| is_new(path) && there.file(path).is_some());
    Ok(gone.collect())
}

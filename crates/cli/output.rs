//! The folder of a run: whether it can be written, whose it is, that one process works in it, making room for a new run. And
//! single files, written and read.

use std::fs::{self, File, TryLockError};
use std::io::{Error, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use lowchurn_distill::{
    ADAPTER, behind_links, is_written_into, remove_checkpoints, write_json, write_with,
};
use lowchurn_models::TOKENIZER_FILES;
use serde_json::Value;

use crate::chosen;
use crate::failure::Usage;
use crate::rows::settings_of;
use crate::settings::Settings;

/// Refuses a folder that can't be written, before anything is downloaded or computed. Leaves nothing behind: a command
/// that fails for another reason has made no folder.
pub fn check(output: &Path) -> Result<()> {
    let there = output.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let try_it = || -> std::io::Result<()> {
        if !there.is_dir() {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{} is a file", there.display()),
            ));
        }
        let probe = there.join(format!(".lowchurn-{}", std::process::id()));
        fs::write(&probe, b"")?;
        fs::remove_file(&probe)
    };
    try_it().map_err(|error| {
        Usage(format!("{}: can't be written: {error}; choose another --output", output.display()))
            .into()
    })
}

/// The same of a single file. One folder for it is made; more of them that aren't there are a typo. What is there and is no
/// regular file, such as a pipe, has its own way of refusing.
pub fn check_file(flag: &str, path: &Path) -> Result<()> {
    if path.is_dir() {
        let path = path.display();
        return Err(Usage(format!("{flag} {path} is a folder; name a file in it")).into());
    }
    if is_written_into(path) {
        return Ok(());
    }
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("")).to_path_buf();
    let folder = parent(&behind_links(path));
    check(&folder)?;
    let above = parent(&folder);
    if !above.as_os_str().is_empty() && !above.exists() {
        let (path, above) = (path.display(), above.display());
        return Err(Usage(format!("{flag} {path}: there is no folder {above}")).into());
    }
    Ok(())
}

/// Writes a file that [`check_file`] let through, and makes its folder.
pub fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    make_folder(path)?;
    Ok(write_with(path, fill)?)
}

/// The folder of a file that is written next.
pub fn make_folder(path: &Path) -> Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => fs::create_dir_all(folder)
            .with_context(|| format!("{}: can't be made", folder.display())),
        None => Ok(()),
    }
}

/// Refuses a file to read that isn't there.
pub fn refuse_missing(path: &Path) -> Result<()> {
    match path.exists() {
        true => Ok(()),
        false => Err(Usage(format!("{}: there is no such file", path.display())).into()),
    }
}

/// Whether a run or an update made the folder. What `student` made has a record of what its weights had learnt, and no run.
pub fn is_run(folder: &Path) -> bool {
    let is_student = |run: Settings| {
        run != Settings::default()
            && Settings { seen: None, unrecorded: None, ..run } == Settings::default()
    };
    folder.join("run.toml").is_file() && !settings_of(folder).is_ok_and(is_student)
}

/// Refuses to write over a model that isn't a run's: the base itself, or one that was put there.
pub fn refuse_foreign(output: &Path, base: &Path) -> Result<()> {
    // Inside it too: the run removes its checkpoints, and the base may be one of them.
    if let (Ok(output), Ok(base)) = (output.canonicalize(), base.canonicalize())
        && base.starts_with(&output)
    {
        let output = output.display();
        return Err(Usage(format!(
            "the base model lies in {output}, which this run would write; choose another --output"
        ))
        .into());
    }
    let is_there = |name: &str| output.join(name).exists();
    if !is_run(output) && (is_there("config.json") || is_there("model.safetensors")) {
        let output = output.display();
        return Err(Usage(format!(
            "{output} holds a model that is no run's; choose another --output"
        ))
        .into());
    }
    Ok(())
}

/// Refuses to write a report over the one that a run's folder has: an update's verdict is there, and its next start reads it.
pub fn refuse_report_of_run(output: &Path) -> Result<()> {
    match is_run(output) {
        true => Err(Usage(format!(
            "--output {0} is a run's folder, whose own report this would write over; choose another, such as {0}/compare",
            output.display()
        ))
        .into()),
        false => Ok(()),
    }
}

/// Refuses to write predictions over the rows they are of, or over a file of the model they are from.
pub fn refuse_sources(output: &Path, rows: &[&Path], model: &Path) -> Result<()> {
    let shown = output.display();
    let is_output = |path: &Path| matches!((path.canonicalize(), output.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if rows.iter().any(|path| is_output(path)) {
        return Err(Usage(format!(
            "--output {shown} is the file that the rows are read from; choose another"
        ))
        .into());
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok();
    let name = output.file_name().map(|name| name.to_string_lossy().into_owned());
    let is_models = |name: &str| {
        let suffixes = [".safetensors", ".bin", ".index.json"];
        files().any(|file| file == name) || suffixes.iter().any(|suffix| name.ends_with(suffix))
    };
    if folder.is_some()
        && folder == model.canonicalize().ok()
        && name.is_some_and(|n| is_models(&n))
    {
        return Err(
            Usage(format!("--output {shown} is a file of the model; choose another")).into()
        );
    }
    Ok(())
}

/// Makes the folder and holds it: two runs in one would overwrite each other's checkpoints.
pub fn lock(output: &Path) -> Result<File> {
    fs::create_dir_all(output)
        .with_context(|| format!("{}: can't be written", output.display()))?;
    let path = output.join(".lock");
    let file =
        File::create(&path).with_context(|| format!("{}: can't be written", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Usage(format!("{}: another run is at work in this folder", output.display()))
                .into())
        }
        // Some file systems have no locks; going on without is what the user wants there.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Does what a run had no time for that was killed right after its release.
pub fn sweep(output: &Path, results: &Value, keeps_checkpoints: bool) -> Result<()> {
    if !keeps_checkpoints {
        remove_checkpoints(output, &[])?;
    }
    let _ = fs::remove_dir_all(output.join(".release.partial"));
    let path = output.join("all_results.json");
    if !path.exists() {
        write_json(&path, results)?;
    }
    Ok(())
}

/// What a run leaves at the top of its folder. Its manifest first, so that a kill in between leaves no half of it
/// believed; `run.toml`, by which the folder is known as a run's, last.
fn files() -> impl Iterator<Item = &'static str> {
    let own = [
        "metrics.jsonl",
        "trainer_state.json",
        "eval_results.json",
        "all_results.json",
        chosen::FILE,
        "report.json",
        "report.html",
        "report.md",
        "flips.jsonl",
        "update.json",
        "run.toml",
    ];
    let model = ["manifest.json", "model.safetensors", "config.json"];
    model.into_iter().chain(TOKENIZER_FILES).chain(own)
}

/// Where it is there.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: can't be removed", path.display()))
        }
        _ => Ok(()),
    }
}

/// With all that is in it, where it is there.
fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: can't be removed", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Removes what an earlier run left.
pub fn start_over(output: &Path) -> Result<()> {
    files().try_for_each(|name| remove_file(&output.join(name)))?;
    for name in ["tensorboard", ADAPTER, "candidates"] {
        remove_folder(&output.join(name))?;
    }
    Ok(remove_checkpoints(output, &[])?)
}

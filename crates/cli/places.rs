//! Where named things lie: `datasets/NAME.toml` and `models/NAME.toml`, in the working directory or, failing that, as they
//! were when the program was built.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_data::error::nearest;

use lowchurn_hub::{Hub, Listing, Origin, Repo};

use crate::console::Console;
use crate::failure::Usage;

// `DATASETS` and `MODELS`: (file stem, content) of each manifest, made by build.rs.
include!(concat!(env!("OUT_DIR"), "/manifests.rs"));

/// A manifest's text and the path it stands for.
pub struct Manifest {
    pub path: PathBuf,
    pub text: String,
}

/// The hub, as the environment says. Where HOME isn't set, as under some schedulers, it is the account's.
pub fn hub() -> Result<Hub> {
    let home = || std::env::home_dir()?.into_os_string().into_string().ok();
    let get = |name: &str| match name {
        "HOME" => home(),
        _ => std::env::var(name).ok(),
    };
    Ok(Hub::from_vars(&get)?)
}

/// The manifest of a task, or what there is instead.
pub fn task(name: &str) -> Result<Manifest> {
    match find("datasets", name, DATASETS)? {
        Some(manifest) => Ok(manifest),
        None => Err(unknown("task", name, "datasets", DATASETS)),
    }
}

/// The manifest of a known base checkpoint, if the name is one.
pub fn model(name: &str) -> Result<Option<Manifest>> {
    if name.contains(['/', '\\', '.']) {
        return Ok(None);
    }
    find("models", name, MODELS)
}

/// The error for a model that is neither a name, nor a folder, nor a hub id.
pub fn unknown_model(name: &str) -> anyhow::Error {
    unknown("model", name, "models", MODELS)
}

fn find(folder: &str, name: &str, built_in: &[(&str, &str)]) -> Result<Option<Manifest>> {
    let path = Path::new(folder).join(format!("{name}.toml"));
    if path.is_file() {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Usage(format!("{}: can't be read: {error}", path.display())))?;
        return Ok(Some(Manifest { path, text }));
    }
    let Some((_, text)) = built_in.iter().find(|(stem, _)| *stem == name) else { return Ok(None) };
    let manifest: toml::Table = text.parse().unwrap_or_default();
    if manifest.contains_key("files") {
        return Err(Usage(format!(
            "{name} lies in lowchurn's repository, in {folder}/{name}, and that isn't below this folder; \
             run in the repository's root, or give the path of the files"
        ))
        .into());
    }
    Ok(Some(Manifest { path, text: (*text).into() }))
}

fn unknown(kind: &str, name: &str, folder: &str, built_in: &[(&str, &str)]) -> anyhow::Error {
    let mut names: Vec<String> = built_in.iter().map(|(stem, _)| stem.to_string()).collect();
    let local = std::fs::read_dir(folder).into_iter().flatten().flatten();
    names.extend(local.filter_map(|entry| {
        let path = entry.path();
        let stem = path.file_stem()?.to_str()?.to_string();
        (path.extension()? == "toml").then_some(stem)
    }));
    names.sort();
    names.dedup();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known: {}", names.join(", ")),
    };
    Usage(format!(
        "there is no {kind} {name:?}; {hint} (or owner/name of the hub, or a path such as ./{name})"
    ))
    .into()
}

/// Says so where the hub wasn't asked or didn't answer.
pub fn tell_origin(listing: &Listing, repo: &Repo, console: &mut Console) {
    if listing.origin == Origin::Cache && !repo.is_at_commit() {
        console.say(&format!(
            "{}: the hub was not asked or didn't answer; using the cache",
            repo.id()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_gets_the_nearest_name() {
        let message = |name| task(name).map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            message("sst-2"),
            "there is no task \"sst-2\"; did you mean sst2? (or owner/name of the hub, or a path such as ./sst-2)"
        );
        assert!(message("qqqq").contains("known: ag_news, "));
        assert!(task("sst2").unwrap().text.contains("stanfordnlp/sst2"));
        assert!(model("minilm-l6").unwrap().is_some() && model("a/b").unwrap().is_none());
    }
}

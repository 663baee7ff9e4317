//! From the name of a model to a folder with its files, and what the manifest of a known one advises.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lowchurn_data::BatchSize;
use lowchurn_hub::{Hub, Kind, Listing, Repo};
use lowchurn_models::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, TOKENIZER_FILES, WEIGHTS_INDEX, shard_names,
};
use serde::Deserialize;

use crate::console::Console;
use crate::failure::Usage;
use crate::places::{self, tell_origin};
use crate::settings::Settings;
use crate::{adapter, chosen};

/// Where a model's files are, before any of them is fetched.
pub struct Base {
    /// As the user named it.
    pub name: String,
    pub advice: Settings,
    /// The manifest that the advice is from.
    pub advised_by: String,
    /// As its manifest says.
    pub licence: Option<String>,
    place: Place,
}

enum Place {
    Folder(PathBuf),
    Hub(Repo),
}

/// `models/NAME.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// A hub id, or
    hub: Option<String>,
    /// a folder next to the manifest.
    files: Option<String>,
    revision: Option<String>,
    #[expect(dead_code, reason = "for readers of the manifest")]
    parameters: Option<u64>,
    licence: Option<String>,
    learning_rate: Option<f64>,
    batch_size: Option<BatchSize>,
    epochs: Option<u32>,
    max_length: Option<usize>,
    #[expect(dead_code, reason = "for readers of the manifest")]
    note: Option<String>,
}

/// Tells a folder, a known name and a hub id apart. A folder that is there is that folder. `flag` is the one that the name was
/// typed with, for messages; empty where it stands alone.
pub fn find(flag: &str, name: &str) -> Result<Base> {
    let of = |place| Base {
        name: name.into(),
        advice: Settings::default(),
        advised_by: String::new(),
        licence: None,
        place,
    };
    let path = Path::new(name);
    if path.is_dir() {
        refuse_unfinished(flag, path)?;
    }
    let manifest = match places::model(name)? {
        Some(manifest) => Some(manifest),
        None => manifest_of(path),
    };
    if let Some(manifest) = manifest {
        let bad = |reason: String| Usage(format!("{}: {reason}", manifest.path.display()));
        let m: Manifest = toml::from_str(&manifest.text).map_err(|error| bad(error.to_string()))?;
        let place = match (m.hub, m.files) {
            (Some(id), None) => Place::Hub(Repo::parse(Kind::Model, &revised(&id, m.revision))?),
            (None, Some(folder)) => Place::Folder(manifest.path.with_file_name(folder)),
            _ => return Err(bad("expected either hub or files".into()).into()),
        };
        let advice = Settings {
            learning_rate: m.learning_rate,
            batch_size: m.batch_size,
            epochs: m.epochs,
            max_length: m.max_length,
            ..Settings::default()
        };
        let advised_by = manifest.path.display().to_string();
        return Ok(Base { advice, advised_by, licence: m.licence, ..of(place) });
    }
    if path.is_dir() {
        return Ok(of(Place::Folder(path.into())));
    }
    let typed = typed(flag, name);
    if name.starts_with(['.', '/', '~']) || name.contains('\\') {
        return Err(Usage(format!("{typed}: there is no such folder")).into());
    }
    if !name.contains('/') {
        return Err(places::unknown_model(name));
    }
    // Where the part before the slash is a folder here, or is where runs lie, nobody means an owner of the hub.
    let owner = name.split('/').next().unwrap_or(name);
    if owner == "runs" || Path::new(owner).is_dir() {
        return Err(Usage(format!("{typed}: there is no folder {name}")).into());
    }
    Ok(of(Place::Hub(Repo::parse(Kind::Model, name)?)))
}

fn typed(flag: &str, name: &str) -> String {
    format!("{flag} {name}").trim_start().to_string()
}

/// The manifest beside a folder that calls it its files.
fn manifest_of(folder: &Path) -> Option<places::Manifest> {
    let folder = folder.canonicalize().ok().filter(|folder| folder.is_dir())?;
    let entries = std::fs::read_dir(folder.parent()?).ok()?.flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "toml"));
    paths.sort();
    paths.into_iter().find_map(|path| {
        let text = std::fs::read_to_string(&path).ok()?;
        let files = toml::from_str::<Manifest>(&text).ok()?.files?;
        let is_it = path.with_file_name(files).canonicalize().ok()? == folder;
        is_it.then(|| places::Manifest { path: shorter(&path), text })
    })
}

/// Relative to the current folder where it is below it.
fn shorter(path: &Path) -> PathBuf {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    match here.as_ref().map(|here| path.strip_prefix(here)) {
        Ok(Ok(below)) => below.into(),
        _ => path.into(),
    }
}

/// A run's folder without a model at its top: several seeds, or a run or an update that isn't finished.
fn refuse_unfinished(flag: &str, folder: &Path) -> Result<()> {
    if folder.join("config.json").exists() {
        return Ok(());
    }
    let (seeds, checkpoints) = (numbered(folder, "seed-"), numbered(folder, "checkpoint-"));
    let candidates = folders(&folder.join("candidates"));
    let mut trained = checkpoints.clone();
    for candidate in &candidates {
        trained.extend(numbered(candidate, "checkpoint-"));
        trained.push(candidate.clone());
    }
    let is_model = |path: &&PathBuf| path.join("config.json").is_file();
    let (what, usable) = match () {
        () if !seeds.is_empty() => ("holds several seeds", seeds.iter().find(is_model)),
        () if !checkpoints.is_empty() => {
            ("is an unfinished run", trained.iter().rev().find(is_model))
        }
        () if !candidates.is_empty() => {
            ("is an unfinished update", trained.iter().rev().find(is_model))
        }
        () => return Ok(()),
    };
    let usable = match usable {
        Some(path) => format!("take one of its models, such as {}", path.display()),
        None => "finish it first, with the command that began it".into(),
    };
    let typed = typed(flag, &folder.display().to_string());
    Err(Usage(format!("{typed} {what}; {usable}")).into())
}

/// The folders in a folder, by name.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

/// Those called PREFIX and a number, by number.
fn numbered(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok();
    let mut found: Vec<(u64, PathBuf)> =
        folders(folder).into_iter().filter_map(|path| Some((number(&path)?, path))).collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

fn revised(id: &str, revision: Option<String>) -> String {
    revision.map_or(id.to_string(), |revision| format!("{id}@{revision}"))
}

impl Base {
    /// The folder with the model's files, fetched where they aren't here yet; of an adapter, one with it and its base as one
    /// model.
    pub fn folder(&self, hub: &Hub, console: &mut Console) -> Result<PathBuf> {
        let own = self.own_folder(hub, console)?;
        if adapter::is_adapter(&own) { adapter::merged(&own, hub, console) } else { Ok(own) }
    }

    /// The folder as it is.
    pub fn own_folder(&self, hub: &Hub, console: &mut Console) -> Result<PathBuf> {
        match &self.place {
            Place::Folder(path) if path.is_dir() => Ok(path.clone()),
            Place::Folder(path) => {
                Err(Usage(format!("{}: there is no such folder", path.display())).into())
            }
            Place::Hub(repo) => {
                let listing = hub.list(repo, &mut |event| console.hub(&event))?;
                tell_origin(&listing, repo, console);
                let wanted = wanted(&listing, &shards(repo, &listing, hub, console)?);
                Ok(hub.fetch(repo, &listing, &wanted, &mut |event| console.hub(&event))?)
            }
        }
    }

    /// The id on the hub, where it is one.
    pub fn hub_id(&self) -> Option<&str> {
        match &self.place {
            Place::Folder(_) => None,
            Place::Hub(repo) => Some(repo.id()),
        }
    }

    /// Puts more of the repository's files beside those of the model; nothing where the model is a folder.
    pub fn fetch_more(
        &self,
        is_wanted: fn(&str) -> bool,
        hub: &Hub,
        console: &mut Console,
    ) -> Result<()> {
        let Place::Hub(repo) = &self.place else { return Ok(()) };
        let listing = hub.list(repo, &mut |event| console.hub(&event))?;
        let paths = listing.files.iter().map(|file| file.path.clone());
        let wanted: Vec<String> = paths.filter(|path| is_wanted(path)).collect();
        if !wanted.is_empty() {
            hub.fetch(repo, &listing, &wanted, &mut |event| console.hub(&event))?;
        }
        Ok(())
    }

    /// Its README.md, where it has one.
    pub fn card(&self, hub: &Hub, console: &mut Console) -> Result<Option<String>> {
        let folder = match &self.place {
            Place::Folder(path) => path.clone(),
            Place::Hub(repo) => {
                let listing = hub.list(repo, &mut |event| console.hub(&event))?;
                if listing.file(CARD).is_none() {
                    return Ok(None);
                }
                hub.fetch(repo, &listing, &[CARD.into()], &mut |event| console.hub(&event))?
            }
        };
        let path = folder.join(CARD);
        if !path.is_file() {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&std::fs::read(path)?).into_owned()))
    }

    /// The name, with id and commit where the folder is one of the hub's cache.
    pub fn origin(&self, folder: &Path) -> String {
        match self.at_commit(folder) {
            Some(pinned) => format!("{} ({pinned})", self.name),
            None => self.name.clone(),
        }
    }

    /// A name that stays this model's: `owner/name@commit` where the folder is one of the hub's cache.
    pub fn pinned(&self, folder: &Path) -> String {
        self.at_commit(folder).unwrap_or_else(|| self.name.clone())
    }

    fn at_commit(&self, folder: &Path) -> Option<String> {
        let Place::Hub(repo) = &self.place else { return None };
        let is_snapshot = folder.parent().is_some_and(|parent| parent.ends_with("snapshots"));
        let commit = folder.file_name().filter(|_| is_snapshot)?;
        Some(format!("{}@{}", repo.id(), commit.to_string_lossy()))
    }

    /// For a dry run: files with sizes in bytes; none where the model is a folder.
    pub fn remote_files(&self, hub: &Hub, console: &mut Console) -> Result<Vec<(String, u64)>> {
        let Place::Hub(repo) = &self.place else { return Ok(Vec::new()) };
        let listing = hub.list(repo, &mut |event| console.hub(&event))?;
        let size = |path: String| {
            let size = listing.file(&path).map_or(0, |file| file.size);
            (format!("{} {path}", repo.id()), size)
        };
        let shards = shards(repo, &listing, hub, console)?;
        Ok(wanted(&listing, &shards).into_iter().map(size).collect())
    }
}

const CARD: &str = "README.md";

/// What a run says of itself: the next update reads here how the model was trained, and on which rows.
const RECORDS: [&str; 2] = ["run.toml", "manifest.json"];

/// What the index of weights in shards lists, for which it is fetched; nothing where they are in one file.
fn shards(repo: &Repo, listing: &Listing, hub: &Hub, console: &mut Console) -> Result<Vec<String>> {
    if !wanted(listing, &[]).iter().any(|name| name == WEIGHTS_INDEX) {
        return Ok(Vec::new());
    }
    let folder =
        hub.fetch(repo, listing, &[WEIGHTS_INDEX.into()], &mut |event| console.hub(&event))?;
    Ok(shard_names(&folder.join(WEIGHTS_INDEX))?)
}

/// The files of a model that are read: config, tokenizer, weights in the best form there is, and a run's records.
fn wanted(listing: &Listing, shards: &[String]) -> Vec<String> {
    let paths: Vec<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
    let has = |name: &str| paths.contains(&name);
    let mut wanted: Vec<String> = small().filter(|name| has(name)).map(|s| s.to_string()).collect();
    // Of others' repositories a file of such a name is something else.
    if RECORDS.iter().all(|name| has(name)) {
        wanted.extend(RECORDS.map(String::from));
        wanted.extend(has(chosen::FILE).then(|| chosen::FILE.to_string()));
    }
    if has("model.safetensors") {
        wanted.push("model.safetensors".into());
    } else if has(WEIGHTS_INDEX) {
        wanted.push(WEIGHTS_INDEX.into());
        wanted.extend_from_slice(shards);
    } else if has("pytorch_model.bin") {
        wanted.push("pytorch_model.bin".into());
    } else if has(ADAPTER_CONFIG) {
        wanted.extend([ADAPTER_CONFIG, ADAPTER_WEIGHTS].map(String::from));
    }
    wanted
}

/// All but the weights.
fn small() -> impl Iterator<Item = &'static str> {
    std::iter::once("config.json").chain(TOKENIZER_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowchurn_hub::{Origin, RemoteFile};

    fn check(files: &[&str], expected: &[&str]) {
        check_shards(files, &[], expected);
    }

    fn check_shards(files: &[&str], shards: &[&str], expected: &[&str]) {
        let file = |path: &&str| RemoteFile { path: path.to_string(), size: 1, digest: None };
        let files = files.iter().map(file).collect();
        let listing = Listing { commit: "0".repeat(40), files, origin: Origin::Hub };
        let shards: Vec<String> = shards.iter().map(|shard| shard.to_string()).collect();
        assert_eq!(wanted(&listing, &shards), expected);
    }

    #[test]
    fn the_best_form_of_the_weights_is_wanted() {
        let config = "config.json";
        check(
            &[config, "pytorch_model.bin", "model.safetensors", "tf_model.h5", "onnx/model.onnx"],
            &[config, "model.safetensors"],
        );
        // By the index: shards may have any name, and a file called like one may be something else.
        let shards = ["part-1.safetensors", "part-2.safetensors"];
        check_shards(
            &[config, "model-old.safetensors", WEIGHTS_INDEX, shards[0], shards[1]],
            &shards,
            &[config, WEIGHTS_INDEX, shards[0], shards[1]],
        );
        check(
            &[config, "vocab.txt", "pytorch_model.bin"],
            &[config, "vocab.txt", "pytorch_model.bin"],
        );
        check(
            &[config, "README.md", "manifest.json", "model.safetensors", "report.json", "run.toml"],
            &[config, "run.toml", "manifest.json", "model.safetensors"],
        );
        check(&[config, "manifest.json", "model.safetensors"], &[config, "model.safetensors"]);
        let adapter = ["adapter_config.json", "adapter_model.safetensors"];
        check(&[adapter[0], adapter[1], "README.md"], &adapter);
        check(
            &[config, adapter[0], adapter[1], "model.safetensors"],
            &[config, "model.safetensors"],
        );
    }

    /// Tests run in the repository's root.
    #[test]
    fn a_folder_brings_the_advice_of_its_manifest() {
        let (by_name, by_path) =
            (find("--model", "tiny").unwrap(), find("", "models/tiny").unwrap());
        assert_eq!(by_name.advice, by_path.advice);
        assert_eq!(by_path.advised_by, "models/tiny.toml");
        assert!(by_path.advice.learning_rate.is_some());
    }

    #[test]
    fn names_that_are_none() {
        let message = |flag, name| find(flag, name).map(|_| ()).unwrap_err().to_string();
        let typo = message("--model", "minilm-16");
        assert!(typo.contains("did you mean minilm-l6?"), "{typo}");
        assert_eq!(message("--base", "runs/x"), "--base runs/x: there is no folder runs/x");
        assert_eq!(message("", "./nowhere"), "./nowhere: there is no such folder");
    }
}

//! The licence of a release: the one that was given, else the base model's, by the names that the hub knows. None is made up.

use anyhow::{Context, Result};
use lowchurn_data::card::licenses;
use lowchurn_data::error::nearest;
use lowchurn_hub::Hub;

use crate::base;
use crate::console::Console;
use crate::failure::Usage;

/// The hub's names.
const KNOWN: [&str; 77] = [
    "apache-2.0",
    "mit",
    "openrail",
    "bigscience-openrail-m",
    "creativeml-openrail-m",
    "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m",
    "openrail++",
    "afl-3.0",
    "artistic-2.0",
    "bsl-1.0",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsd-3-clause-clear",
    "c-uda",
    "cc",
    "cc0-1.0",
    "cc-by-2.0",
    "cc-by-2.5",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc-by-nc-2.0",
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nd-4.0",
    "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "cdla-sharing-1.0",
    "cdla-permissive-1.0",
    "cdla-permissive-2.0",
    "wtfpl",
    "ecl-2.0",
    "epl-1.0",
    "epl-2.0",
    "etalab-2.0",
    "eupl-1.1",
    "eupl-1.2",
    "agpl-3.0",
    "gfdl",
    "gpl",
    "gpl-2.0",
    "gpl-3.0",
    "lgpl",
    "lgpl-2.1",
    "lgpl-3.0",
    "lgpl-lr",
    "isc",
    "h-research",
    "intel-research",
    "lppl-1.3c",
    "ms-pl",
    "apple-ascl",
    "apple-amlr",
    "mpl-2.0",
    "odc-by",
    "odbl",
    "osl-3.0",
    "postgresql",
    "ofl-1.1",
    "ncsa",
    "unlicense",
    "zlib",
    "pddl",
    "gemma",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "llama4",
    "other",
];

/// What a run was trained from, as far as a release says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// Hub id of the nearest model on the way back that has one.
    pub base_model: Option<String>,
    /// For the card: one, or several of which each applies.
    pub licences: Vec<String>,
    /// "given", or whose it is.
    pub from: String,
}

/// `names`: the models that the run was made from, the nearest first. A folder that is no longer there says nothing.
///
/// # Errors
/// A name that the hub doesn't know; no licence found, and none given.
pub fn find(
    given: Option<&str>,
    names: &[String],
    hub: &Hub,
    console: &mut Console,
) -> Result<Origin> {
    let mut origin = Origin::default();
    if let Some(given) = given {
        origin.licences = vec![known(given)?];
        origin.from = "given".into();
    }
    for name in names {
        let Ok(base) = base::find("", name) else { continue };
        if origin.base_model.is_none() {
            origin.base_model = base.hub_id().map(str::to_string);
        }
        if !origin.licences.is_empty() {
            continue;
        }
        let found = match &base.licence {
            Some(text) => vec![text.clone()],
            None => {
                let card = base.card(hub, console).with_context(|| {
                    format!("the licence of {name} can't be looked up; name it with --license")
                })?;
                let of_card = licenses(&card.unwrap_or_default());
                of_card.with_context(|| {
                    format!("the licence of {name} can't be read; name it with --license")
                })?
            }
        };
        let found: Vec<String> = found.iter().flat_map(|text| spelt(text)).collect();
        if !found.is_empty() && found.iter().all(|id| KNOWN.contains(&id.as_str())) {
            origin.licences = found;
            origin.from = name.clone();
        }
    }
    if origin.licences.is_empty() {
        let names = if names.is_empty() { "it".into() } else { names.join(" and ") };
        return Err(Usage(format!(
            "the licence isn't known: {names} names none that the hub knows; say which one applies with --license, such as \
             --license apache-2.0"
        ))
        .into());
    }
    Ok(origin)
}

fn known(given: &str) -> Result<String> {
    let id = given.to_lowercase();
    if KNOWN.contains(&id.as_str()) {
        return Ok(id);
    }
    let hint = match nearest(&id, KNOWN) {
        Some(near) => format!("did you mean {near}?"),
        None => {
            "such as apache-2.0, mit, cc-by-4.0, or other with the text in the repository".into()
        }
    };
    Err(Usage(format!("--license {given}: the hub knows no such licence; {hint}")).into())
}

/// `MIT OR Apache-2.0` as the hub writes it: mit, apache-2.0.
fn spelt(text: &str) -> Vec<String> {
    text.split(" OR ").map(|part| part.trim().to_lowercase()).filter(|id| !id.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_licences() {
        let check = |given: &str, expected: Result<&str, &str>| {
            let found = known(given).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check("apache-2.0", Ok("apache-2.0"));
        check("MIT", Ok("mit"));
        check(
            "apache-2",
            Err("--license apache-2: the hub knows no such licence; did you mean apache-2.0?"),
        );
        check(
            "ours",
            Err(
                "--license ours: the hub knows no such licence; such as apache-2.0, mit, cc-by-4.0, or other with the text in \
                 the repository",
            ),
        );
        check(
            "unknown",
            Err(
                "--license unknown: the hub knows no such licence; such as apache-2.0, mit, cc-by-4.0, or other \
                 with the text in the repository",
            ),
        );
        assert_eq!(spelt("MIT OR Apache-2.0"), ["mit", "apache-2.0"]);
    }

    /// Tests run in the repository's root.
    #[test]
    fn every_known_base_has_a_licence_that_the_hub_knows() {
        for entry in std::fs::read_dir("models").unwrap().map(|entry| entry.unwrap().path()) {
            let Some(name) = entry.file_name().unwrap().to_str().unwrap().strip_suffix(".toml")
            else {
                continue;
            };
            let licence = base::find("", name).unwrap().licence.unwrap_or_default();
            let found = spelt(&licence);
            assert!(!found.is_empty(), "{name}");
            assert!(found.iter().all(|id| KNOWN.contains(&id.as_str())), "{name}: {licence}");
        }
    }
}

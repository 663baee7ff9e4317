//! `student`: what a small model starts from, made of a large one without training: some of its layers, the word pieces that
//! texts need, or another size with no weights at all.

use std::path::Path;

use anyhow::{Context, Result};
use lowchurn_data::{Labels, NewClasses, trim_vocabulary};
use lowchurn_models::{Config, Cut, Sizes, copy_tokenizer, cut, resized, spread_layers};
use serde_json::{Value, json};

use crate::args::Student;
use crate::console::Console;
use crate::data::Wishes;
use crate::earlier::{Record, learnt_by};
use crate::failure::Usage;
use crate::progress::count;
use crate::reader::Reader;
use crate::settings::{self, Settings};
use crate::{base, output, places, signals};

pub fn student(args: &Student, console: &mut Console) -> Result<u8> {
    signals::listen()?;
    let hub = places::hub()?;
    let to = &args.output;
    output::check(to)?;
    if ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
        .iter()
        .any(|name| to.join(name).exists())
    {
        return Err(
            Usage(format!("{} holds a model; choose another --output", to.display())).into()
        );
    }
    let sizes = Sizes {
        hidden: args.width,
        layers: args.layers,
        heads: args.heads,
        intermediate: args.intermediate,
        positions: args.positions,
    };
    let is_resized = Sizes { layers: None, ..sizes } != Sizes::default();
    if !is_resized
        && args.layers.is_none()
        && args.init_layers.is_empty()
        && args.vocabulary.is_none()
    {
        return Err(Usage(
            "nothing to make smaller; give --init-layers, --layers, --vocabulary or --width".into(),
        )
        .into());
    }
    let from = base::find("", &args.model)?.folder(&hub, console)?;
    let config = Config::open(&from)?;
    let layers = layers(args, &config, is_resized)?;
    let trimmed = match args.vocabulary {
        Some(size) => {
            let texts = texts(&args.texts, &hub, console)?;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            Some(trim_vocabulary(&from, &texts, size)?)
        }
        None => None,
    };
    let words = trimmed.as_ref().map(|trimmed| trimmed.kept.clone());
    let learnt = if is_resized { Record::default() } else { learnt_by(&from)? };
    std::fs::create_dir_all(to).with_context(|| format!("{}: can't be written", to.display()))?;
    // Before the weights, which would be without it where this is killed.
    if learnt != Record::default() {
        let mut settings = Settings::default();
        learnt.behind(&mut settings);
        let record = settings::to_toml(&settings)?;
        lowchurn_distill::write_file(&to.join("run.toml"), record.as_bytes())?;
    }
    match is_resized {
        true => resized(&from, &sizes, words.as_deref(), to)?,
        false => cut(&from, &Cut { layers: layers.clone(), words }, to)?,
    }
    // Last: what can't be made is said before, and leaves nothing.
    match &trimmed {
        Some(trimmed) => {
            for (name, content) in &trimmed.files {
                lowchurn_distill::write_file(&to.join(name), content)?;
            }
        }
        None => copy_tokenizer(&from, to)?,
    }
    if let Some(positions) = args.positions {
        set_longest(to, positions)?;
    }
    tell(args, &config, layers.as_deref(), to, console)?;
    Ok(0)
}

fn layers(args: &Student, config: &Config, is_resized: bool) -> Result<Option<Vec<usize>>> {
    match args.layers {
        None if args.init_layers.is_empty() => Ok(None),
        None => Ok(Some(args.init_layers.clone())),
        Some(n) if n == 0 || n > config.layers && !is_resized => {
            let (model, there) = (&args.model, config.layers);
            Err(Usage(format!("--layers {n}: {model} has {there} layers; ask for 1 to {there}"))
                .into())
        }
        Some(n) => Ok(Some(spread_layers(n, config.layers))),
    }
}

fn texts(
    sources: &[String],
    hub: &lowchurn_hub::Hub,
    console: &mut Console,
) -> Result<Vec<String>> {
    let mut reader = Reader {
        wishes: Wishes::default(),
        labels: vec!["LABEL_0".into(), "LABEL_1".into()],
        map: Vec::new(),
        new_classes: NewClasses::Refused,
        said: Vec::new(),
        seen: Vec::new(),
        hub,
    };
    let mut texts = Vec::new();
    for source in sources {
        let part = reader.read(source, None, "train", Labels::Ignored, console)?;
        texts
            .extend(part.examples.into_iter().flat_map(|row| [Some(row.text), row.pair]).flatten());
    }
    Ok(texts)
}

/// Other programs cut texts to what the tokenizer says.
fn set_longest(to: &Path, positions: usize) -> Result<()> {
    let path = to.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(());
    }
    let mut config: serde_json::Map<String, Value> = serde_json::from_slice(&std::fs::read(&path)?)
        .with_context(|| format!("{}: not the JSON that was expected", path.display()))?;
    config.insert("model_max_length".into(), positions.into());
    Ok(lowchurn_distill::write_json(&path, &config)?)
}

fn tell(
    args: &Student,
    old: &Config,
    layers: Option<&[usize]>,
    to: &Path,
    console: &mut Console,
) -> Result<()> {
    let new = Config::open(to)?;
    let taken = match layers.filter(|_| new.hidden_size == old.hidden_size) {
        Some(layers) => {
            let list: Vec<String> = layers.iter().map(usize::to_string).collect();
            format!("layers {} of {}", list.join(", "), old.layers)
        }
        None => format!("{} layers", new.layers),
    };
    let weights = match to.join("model.safetensors").exists() {
        true => "",
        false => "; no weights: distil --student makes fresh ones",
    };
    console.tell(&format!(
        "{}: of {}, {taken}, {} wide, {} of {} words{weights}",
        to.display(),
        args.model,
        new.hidden_size,
        count(new.vocab_size as u64),
        count(old.vocab_size as u64),
    ))?;
    console.event(&json!({
        "event": "student", "output": to, "of": args.model, "layers": new.layers, "taken": layers,
        "width": new.hidden_size, "words": new.vocab_size,
    }));
    Ok(())
}

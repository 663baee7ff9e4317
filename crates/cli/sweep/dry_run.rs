//! `sweep --dry-run`: which settings would be trained with which seeds, and where. Reads the rows and scores nothing.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::setting::Setting;
use super::{is_done, made_from, place, read, rows_of};
use crate::args::Sweep;
use crate::console::Console;
use crate::dry_run::{self, Planned};
use crate::points::refuse_other_rows;
use crate::progress::count;
use crate::settings::Settings;

pub fn tell(
    args: &Sweep,
    typed: &Settings,
    settings: &[Setting],
    shard: Option<(usize, usize)>,
    (output, first): (&Path, u64),
    console: &mut Console,
) -> Result<u8> {
    let (mut at, mut n, mut n_there) = (0, 0, 0);
    for seed in (0..u64::from(args.seeds)).map(|n| first.saturating_add(n)) {
        let updating = read(args, typed, seed, console)?;
        refuse_other_rows(output, &rows_of(&updating), seed)?;
        let mut trainings = Vec::new();
        for setting in settings {
            at += 1;
            if shard.is_some_and(|(i, of)| at % of != i % of) {
                continue;
            }
            let upper = &setting.part.settings;
            let plan = updating.plan_with(upper, setting.method, setting.smoothing, Some(seed))?;
            let dir = place(output, &setting.folder(), seed);
            if is_done(&dir, &made_from(&updating, &plan, setting.init, console)?)? {
                n_there += 1;
                continue;
            }
            let (method, init, said) = (setting.method_name(), setting.init_name(), setting.said());
            let words = [&method, init, &said].map(str::to_string);
            let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
            let name = format!("{}, seed {seed}", words.join(" "));
            trainings.push(Planned { name, plan, init: setting.init, output: dir });
        }
        dry_run::of_updating(&updating, &trainings, console)?;
        n += trainings.len() as u64;
    }
    let there = match n_there {
        0 => String::new(),
        n => format!("; {} points are there already", count(n)),
    };
    let fewer = if args.drop_dominated { " at most" } else { "" };
    console.tell(&format!("trainings:{fewer} {}{there}", count(n)))?;
    console
        .event(&json!({ "event": "finished", "dry_run": true, "trainings": n, "there": n_there }));
    Ok(0)
}

//! The rows of a diagnosis: read once for both sides, without those that a side was trained on or whose class it lacks; and what a side
//! says of them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lowchurn_churn::{Logits, RowsOf};
use lowchurn_data::table::Format;
use lowchurn_data::{Example, Kind, Split, read_predictions};
use lowchurn_distill::{Event, predict};
use lowchurn_hub::Hub;

use crate::args::Diagnose;
use crate::console::Console;
use crate::device::Compute;
use crate::failure::Usage;
use crate::found::{self, Found};
use crate::progress::{Status, count};
use crate::sides::{self, Source};
use crate::{data, eval, facts, rows, seen};

/// Rows that both sides are asked about.
pub struct Rows {
    pub rows_of: RowsOf,
    pub name: String,
    pub sha256: String,
    /// Labels are indices into `labels`.
    pub examples: Vec<Example>,
    labels: Vec<String>,
    /// What was left out and why, for the report.
    pub notes: Vec<String>,
    /// Ids of these.
    left_out: HashSet<String>,
}

/// What the sides were trained on, as far as it is known.
pub struct Trained {
    pub teacher: Option<Split>,
    pub student: Option<Split>,
    /// Of records that can't be read.
    pub notes: Vec<String>,
}

impl Trained {
    pub fn of((teacher, student): (&Source, &Source), hub: &Hub, console: &mut Console) -> Trained {
        let mut notes = Vec::new();
        let of_student =
            student.model().and_then(|found| seen::train_of(found, hub, &mut notes, console));
        let others: Vec<&Found> =
            student.model().into_iter().filter(|_| of_student.is_some()).collect();
        let of_teacher = teacher
            .model()
            .and_then(|found| seen::train_of_old(found, &others, hub, &mut notes, console));
        Trained { teacher: of_teacher, student: of_student, notes }
    }
}

/// All rows of a split, with classes that either model has.
pub fn read(
    text: &str,
    split: Option<&str>,
    sources: [&Source; 2],
    args: &Diagnose,
    hub: &Hub,
    console: &mut Console,
) -> Result<Rows> {
    let data = data::open(text, hub, console)?;
    let split = eval::chosen_split(split, &data)?;
    let wishes = eval::wishes(&args.scoring, Kind::SingleLabel);
    let known = sides::known(&sources)?;
    let Split { name, sha256, examples, labels, .. } =
        facts::read_rows(&data, &split, &wishes, known.as_ref(), hub, console)?;
    let labels = labels.names().to_vec();
    let (notes, left_out) = (Vec::new(), HashSet::new());
    Ok(Rows { rows_of: RowsOf::Test, name, sha256, examples, labels, notes, left_out })
}

impl Rows {
    fn class(&self, row: &Example) -> Option<&str> {
        self.labels.get(row.label? as usize).map(String::as_str)
    }

    fn retain(&mut self, is_kept: &[bool]) {
        let mut kept = is_kept.iter();
        let left_out = &mut self.left_out;
        self.examples.retain(|row| {
            let is_kept = kept.next().copied().unwrap_or(true);
            if !is_kept {
                left_out.insert(row.id.clone());
            }
            is_kept
        });
    }

    fn note(&mut self, line: String, console: &mut Console) {
        console.say(&format!("{}: {line}", self.name));
        self.notes.push(format!("{}: {line}", self.name));
    }

    /// Leaves rows out whose true class one side can't say. `sides` are names and classes, the teacher's by the names that `map` gives
    /// them too.
    ///
    /// # Errors
    /// A class that is neither's: that is another name for one, or other data. Nothing left.
    pub fn leave_out_classes(
        &mut self,
        sides: [(&str, &[String]); 2],
        map: &[(String, String)],
        console: &mut Console,
    ) -> Result<()> {
        let [(teacher, of_teacher), (student, of_student)] = sides;
        let has = |labels: &[String], class: &str| labels.iter().any(|label| label == class);
        let is_teachers = |class: &str| {
            has(of_teacher, class)
                || map.iter().any(|(from, to)| to == class && has(of_teacher, from))
        };
        let is_students = |class: &str| {
            has(of_student, class)
                || map.iter().any(|(from, to)| from == class && has(of_student, to))
        };
        let unknown = self.classes(|class| !is_teachers(class) && !is_students(class));
        if !unknown.is_empty() {
            bail!(
                "{}: {} is no class of {teacher} ({}) nor of {student} ({}); write the rows with the models' names",
                self.name,
                unknown.join(", "),
                of_teacher.join(", "),
                of_student.join(", ")
            );
        }
        let n = self.examples.len();
        let by: [&dyn Fn(&str) -> bool; 2] = [&is_teachers, &is_students];
        for (name, is_known) in [teacher, student].into_iter().zip(by) {
            let classes = self.classes(|class| !is_known(class)).join(", ");
            if classes.is_empty() {
                continue;
            }
            let kept: Vec<bool> =
                self.examples.iter().map(|row| self.class(row).is_none_or(is_known)).collect();
            let lost = count(kept.iter().filter(|is| !**is).count() as u64);
            self.retain(&kept);
            let of = count(n as u64);
            if self.examples.is_empty() {
                bail!(
                    "{}: no row has a class that both models know; {name} lacks {classes}; give rows of other classes, or say what its \
                     own became with --label-map",
                    self.name
                );
            }
            let said = format!(
                "{lost} of {of} rows are of a class that {name} lacks ({classes}); they are left out"
            );
            self.note(said, console);
        }
        Ok(())
    }

    fn classes(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<&str> {
        let used: HashSet<&str> = self.examples.iter().filter_map(|row| self.class(row)).collect();
        let in_order = self.labels.iter().map(String::as_str);
        in_order.filter(|class| used.contains(class) && is_wanted(class)).collect()
    }

    /// Leaves rows out that a side was trained on. Where that is all of them they stay, and are called what they are.
    pub fn leave_out_seen(
        &mut self,
        (teacher, student): (&str, &str),
        trained: &Trained,
        console: &mut Console,
    ) {
        let n = self.examples.len();
        let (mut kept, mut lines) = (vec![true; n], Vec::new());
        for (name, train) in [(student, &trained.student), (teacher, &trained.teacher)] {
            let is_seen = self.is_seen(train.as_ref());
            let n_seen = is_seen.iter().filter(|is| **is).count();
            if n_seen > 0 {
                lines.push(seen::said(n_seen, n, name));
            }
            kept.iter_mut().zip(is_seen).for_each(|(kept, is)| *kept &= !is);
        }
        let is_any_new = kept.iter().any(|is| *is);
        if is_any_new {
            self.retain(&kept);
        } else {
            self.rows_of = RowsOf::Train;
        }
        for line in lines {
            let then = if is_any_new {
                "they are left out"
            } else {
                "no row is new to both, so these are called training rows"
            };
            self.note(format!("{line}; {then}"), console);
        }
    }

    /// Leaves rows out that the student wasn't trained on, where that is known.
    pub fn keep_seen(
        &mut self,
        student: &str,
        trained: &Trained,
        console: &mut Console,
    ) -> Result<()> {
        self.rows_of = RowsOf::Train;
        let Some(train) = &trained.student else { return Ok(()) };
        let kept = self.is_seen(Some(train));
        let n = self.examples.len();
        match kept.iter().filter(|is| **is).count() {
            0 => {
                return Err(Usage(format!(
                    "no row of {} has a text that {student} was trained on, which is {}; name those, or leave it out",
                    self.name, train.name
                ))
                .into());
            }
            n_seen if n_seen < n => {
                self.retain(&kept);
                self.note(
                    format!("{}; the others are left out", seen::said(n_seen, n, student)),
                    console,
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn is_seen(&self, train: Option<&Split>) -> Vec<bool> {
        let texts = train.map(seen::texts).unwrap_or_default();
        self.examples.iter().map(|row| texts.contains(&rows::text(row))).collect()
    }

    /// The same texts, as a set.
    pub fn has_the_texts_of(&self, other: &Rows) -> bool {
        let texts = |of: &Rows| -> HashSet<(String, String)> {
            let owned = |row| {
                let (text, pair) = rows::text(row);
                (text.to_string(), pair.to_string())
            };
            of.examples.iter().map(owned).collect()
        };
        texts(self) == texts(other)
    }

    /// With the classes of a model as it has them.
    pub fn examples_of(&self, labels: &[String]) -> Vec<Example> {
        let mut all = self.examples.clone();
        for row in &mut all {
            row.label = self.class(row).and_then(|class| index(labels, class));
        }
        all
    }
}

fn index(labels: &[String], class: &str) -> Option<u32> {
    labels.iter().position(|label| label == class).map(|at| at as u32)
}

/// The classes of a side, which of a file are those of its logits.
pub fn labels_of<'s>(source: &'s Source, file: Option<&'s Logits>) -> &'s [String] {
    source
        .model()
        .map(|found| &found.labels[..])
        .or(file.map(|file| &file.labels[..]))
        .unwrap_or_default()
}

/// The logits of a side that is a file.
pub fn of_file(source: &Source) -> Result<Option<Logits>> {
    match source {
        Source::Files { name, paths, .. } => Ok(Some(read_logits(name, paths)?)),
        Source::Model(..) => Ok(None),
    }
}

/// What a side says: a file what is in it, but for rows that were left out, and a model what it is asked.
pub fn says(
    source: &Source,
    file: Option<Logits>,
    rows: Option<&Rows>,
    args: &Diagnose,
    compute: &Compute,
    console: &mut Console,
) -> Result<Logits> {
    match (source.model(), file, rows) {
        (None, Some(file), None) => Ok(file),
        (None, Some(file), Some(rows)) => Ok(without(file, &rows.left_out)),
        (Some(found), _, Some(rows)) => {
            score(found, rows, args.scoring.batch_size, compute, console)
        }
        _ => {
            let name = source.model().map_or("", |found| &found.name);
            Err(Usage(format!("{name} is a model; say which rows to score it on")).into())
        }
    }
}

fn without(file: Logits, left_out: &HashSet<String>) -> Logits {
    let k = file.labels.len();
    let kept: Vec<usize> =
        (0..file.ids.len()).filter(|row| !left_out.contains(&file.ids[*row])).collect();
    Logits {
        ids: kept.iter().map(|row| file.ids[*row].clone()).collect(),
        gold: kept.iter().map(|row| file.gold[*row]).collect(),
        logits: kept.iter().flat_map(|row| file.logits[row * k..(row + 1) * k].to_vec()).collect(),
        ..file
    }
}

/// A model's logits on the rows.
pub fn score(
    found: &Found,
    rows: &Rows,
    batch_size: usize,
    compute: &Compute,
    console: &mut Console,
) -> Result<Logits> {
    let model = found::open_model(found, compute)?;
    let examples = rows.examples_of(&found.labels);
    let tokens = found::tokens_of(found, &model.config, &examples)?;
    if tokens.n_truncated > 0 {
        let (name, length) = (&found.name, found.max_length);
        let (n, of) = (count(tokens.n_truncated as u64), count(tokens.rows() as u64));
        console.say(&format!("{name} on {}: {n} of {of} rows cut at {length} tokens", rows.name));
    }
    let (start, n) = (Instant::now(), tokens.rows());
    let mut status = Status::new();
    status.evaluating = "scoring";
    let scored = predict(&model, &tokens, batch_size, &compute.device, &mut |done| {
        let event = Event::Evaluating { done, rows: n };
        status.show(&event, start.elapsed(), &console.terminal, &mut console.err);
    });
    status.end(&mut console.err);
    Ok(Logits {
        name: found.name.clone(),
        labels: found.labels.clone(),
        ids: examples.iter().map(|row| row.id.clone()).collect(),
        gold: examples.iter().map(|row| row.label).collect(),
        logits: scored?.logits,
    })
}

/// Predictions with logits, as `predict --logits` writes them.
fn read_logits(name: &str, paths: &[PathBuf]) -> Result<Logits> {
    let mut all = Logits { name: name.into(), ..Logits::default() };
    for path in paths {
        if Format::of(path)? != Format::JsonLines {
            bail!(
                "{}: logits are read from JSON lines, as lowchurn predict --logits writes them",
                path.display()
            );
        }
        for row in read_predictions(path)? {
            let labels: Vec<String> = row.scores.into_iter().map(|(label, _)| label).collect();
            if all.ids.is_empty() {
                all.labels = labels;
            } else if all.labels != labels {
                bail!(
                    "{}: row {:?} has scores of {}, and the rows before it of {}; a file is of one model",
                    path.display(),
                    row.id,
                    labels.join(", "),
                    all.labels.join(", ")
                );
            }
            let Some(logits) = row.logits else {
                bail!(
                    "{}: row {:?} has no logits, and probabilities are too coarse to tell how sure a model is; write them with \
                     lowchurn predict --logits",
                    path.display(),
                    row.id
                );
            };
            let class = |gold: String| {
                let at = all.labels.iter().position(|label| *label == gold);
                at.map(|at| at as u32).with_context(|| {
                    format!(
                        "{}: row {:?} has the true class {gold:?}, which isn't one of the model's ({})",
                        path.display(),
                        row.id,
                        all.labels.join(", ")
                    )
                })
            };
            all.gold.push(row.gold.map(class).transpose()?);
            all.ids.push(row.id);
            all.logits.extend(logits);
        }
    }
    if all.ids.is_empty() {
        bail!("{name}: no rows in it");
    }
    Ok(all)
}

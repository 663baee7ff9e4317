//! What is known of the rows of a comparison: texts, true classes and columns to slice by, from a data set or from the
//! prediction files themselves, by the ids of rows.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Result, bail};
use lowchurn_churn::{Answers, Pair, Predicted};
use lowchurn_data::{Columns, Error as DataError, Example, Kind, LabelSet, Labels, Split};
use lowchurn_hub::Hub;

use crate::args::Compare;
use crate::console::Console;
use crate::data::{self, Data, Wishes};
use crate::eval::chosen_split;
use crate::failure::Usage;
use crate::progress::count;
use crate::reader::{is_of_labels, numbers_as_places};
use crate::reporting::both_texts;
use crate::sides::{self, Source};
use crate::slices::{self, Slices};

#[derive(Default)]
pub struct Facts {
    /// As a report calls the rows.
    pub name: String,
    pub sha256: Option<String>,
    /// Whose ids must cover those of the predictions; empty where no data set was given.
    pub examples: Vec<Example>,
    /// Of the classes that the examples' indices point to.
    labels: Vec<String>,
    /// True classes of the examples by name.
    gold: Vec<Option<String>>,
    place: HashMap<String, usize>,
    /// Of prediction files that hold texts themselves.
    texts: Option<Slices>,
    slices: Vec<Slices>,
}

/// The rows of `--data`. `known` are the classes of the models, in whose order integers are read, and `kind` is their kind.
pub fn read(
    args: &Compare,
    text: &str,
    (known, kind): (Option<&LabelSet>, Option<Kind>),
    hub: &Hub,
    console: &mut Console,
) -> Result<Facts> {
    let data = data::open(text, hub, console)?;
    let split = chosen_split(args.split.as_deref(), &data)?;
    let columns = Columns {
        text: args.scoring.text_column.clone(),
        pair: args.scoring.pair_column.clone(),
        label: args.scoring.label_column.clone(),
        id: args.scoring.id_column.clone(),
    };
    let mut read =
        |columns: Columns| read_rows(&data, &split, &Wishes { columns, kind }, known, hub, console);
    let rows = match read(columns.clone()) {
        // Prediction files may call their ids otherwise than the data set does.
        Err(error) if is_missing_id(&error) && known.is_none() => {
            read(Columns { id: None, ..columns })?
        }
        rows => rows?,
    };
    let slices = slices::read(&data, &split, &rows.examples, &args.slice, hub, console)?;
    let name = |label: u32| rows.labels.names().get(label as usize).cloned();
    Ok(Facts {
        name: rows.name,
        sha256: Some(rows.sha256),
        gold: rows.examples.iter().map(|row| row.label.and_then(name)).collect(),
        place: rows.examples.iter().enumerate().map(|(at, row)| (row.id.clone(), at)).collect(),
        texts: None,
        slices: vec![slices],
        labels: rows.labels.names().to_vec(),
        examples: rows.examples,
    })
}

/// Rows whose classes are the models', else the data's own: those are aligned by name later on.
pub fn read_rows(
    data: &Data,
    split: &str,
    wishes: &Wishes,
    known: Option<&LabelSet>,
    hub: &Hub,
    console: &mut Console,
) -> Result<Split> {
    let first = data.read(split, wishes, Labels::IfPresent, known, hub, console);
    if let (Ok(rows), Some(known)) = (&first, known)
        && rows.labels == *known
        && let Some(said) = numbers_as_places(rows, (data, split), wishes, hub, console)
    {
        console.say(&format!("labels: {said}"));
    }
    let mut read = |labels: Labels, known: Option<&LabelSet>| {
        data.read(split, wishes, labels, known, hub, console)
    };
    let error = match first {
        Err(error) if known.is_some() && is_of_labels(&error) => error,
        Err(error) if known.is_none() => error,
        rows => return rows,
    };
    let own = if known.is_some() { read(Labels::IfPresent, None) } else { Err(error) };
    let own = match own {
        Err(own) => own,
        rows => return rows,
    };
    match own.chain().find_map(|cause| cause.downcast_ref::<DataError>()) {
        // A label set has two names at least; rows of one class need one, and unlabelled rows none.
        Some(DataError::TooFewLabels { names }) => {
            let mut names = names.clone();
            names.push("(no other)".into());
            read(Labels::IfPresent, Some(&LabelSet::new(names)?))
        }
        Some(DataError::NoLabels { .. }) => {
            let names = LabelSet::new(vec!["(none)".into(), "(no other)".into()])?;
            read(Labels::Ignored, Some(&names))
        }
        _ => Err(own),
    }
}

fn is_missing_id(error: &anyhow::Error) -> bool {
    let found = error.chain().find_map(|cause| cause.downcast_ref::<DataError>());
    matches!(found, Some(DataError::MissingColumn { role: "id", .. }))
}

/// Columns that hold texts where no name was given.
pub const TEXTS: [&str; 3] = ["text", "sentence", "content"];

/// What prediction files hold besides predictions: the first side that has a column is asked.
pub fn of_files(args: &Compare, sides: &[(&Source, &Predicted)]) -> Result<Facts> {
    let find = |role: &'static str, column: &str| -> Result<Option<(usize, Vec<String>)>> {
        for (at, (source, says)) in sides.iter().enumerate() {
            if let Some(values) = sides::column(source, role, column)?
                && values.len() == says.rows()
            {
                return Ok(Some((at, values)));
            }
        }
        Ok(None)
    };
    let by_id = |(at, values): (usize, Vec<String>), column: &str| {
        let ids = sides[at].1.ids.iter().map(String::as_str);
        Slices::new(ids, vec![(column.to_string(), values)])
    };
    let asked = args.scoring.text_column.as_deref();
    let mut texts = None;
    for column in asked.map_or(TEXTS.to_vec(), |column| vec![column]) {
        if texts.is_none() {
            texts = find("text", column)?.map(|found| by_id(found, column));
        }
    }
    if let (None, Some(column)) = (&texts, asked) {
        return Err(absent("text", column, sides));
    }
    let mut slices = Vec::new();
    for column in &args.slice {
        let found = find("slice", column)?.ok_or_else(|| absent("slice", column, sides))?;
        slices.push(by_id(found, column));
    }
    let name = sides.iter().map(|(_, says)| says.name.clone()).collect::<Vec<_>>().join(", ");
    Ok(Facts { name: format!("rows of {name}"), texts, slices, ..Facts::default() })
}

fn absent(role: &str, column: &str, sides: &[(&Source, &Predicted)]) -> anyhow::Error {
    let paths = sides.iter().flat_map(|(source, _)| source.files());
    let heads = paths.filter_map(|path| Some(lowchurn_data::table::head(path).ok()?.columns));
    let known: BTreeSet<String> = heads.flatten().collect();
    let near = lowchurn_data::error::nearest(column, known.iter().map(String::as_str));
    let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    anyhow::anyhow!(
        "no {role} column {column:?} in the prediction files (columns: {known}), and no --data to find it in{hint}"
    )
}

impl Facts {
    /// Gives a side the true classes of the data.
    pub fn judge(
        &self,
        side: &mut Predicted,
        other: &Predicted,
        label_map: &[(String, String)],
    ) -> Result<()> {
        let own = |id: &String| self.examples.get(*self.place.get(id)?);
        match side.answers {
            Answers::Classes => {}
            Answers::Sets { .. } => {
                let names = |row: &Example| -> Option<Vec<String>> {
                    let name = |label: u32| self.labels.get(label as usize).cloned();
                    row.classes().map(|set| set.into_iter().filter_map(name).collect())
                };
                let gold: Vec<Option<Vec<String>>> =
                    side.ids.iter().map(|id| own(id).and_then(names)).collect();
                *side = std::mem::take(side).with_gold_sets(&gold, &other.answers)?;
                return Ok(());
            }
            Answers::Values { .. } => {
                let gold: Vec<Option<f32>> =
                    side.ids.iter().map(|id| own(id).and_then(Example::value)).collect();
                *side = std::mem::take(side).with_gold_values(&gold);
                return Ok(());
            }
        }
        let gold: Vec<Option<&str>> =
            side.ids.iter().map(|id| self.gold.get(*self.place.get(id)?)?.as_deref()).collect();
        let names: BTreeSet<&str> = gold.iter().flatten().copied().collect();
        let is_known = |name: &&str| {
            [&side.labels, &other.labels]
                .into_iter()
                .any(|labels| labels.iter().any(|known| known == name))
        };
        // Where a side shows only the classes that it predicts, the data may well know more.
        let are_all_known = side.n_declared.is_some() && other.n_declared.is_some();
        let is_mapped = |name: &&str| label_map.iter().any(|(from, _)| from == name);
        let (known, unknown): (Vec<&str>, Vec<&str>) =
            names.into_iter().partition(|name| is_known(name) || is_mapped(name));
        if !unknown.is_empty() && (known.is_empty() || are_all_known) {
            let what = if known.is_empty() { "none of its classes" } else { "some of its classes" };
            let is = if known.is_empty() { "is a class" } else { "are no classes" };
            let (side_name, labels) = (&side.name, side.labels.join(", "));
            bail!(
                "{}: {what} ({}) {is} of {side_name} ({labels}); write them with the model's names",
                self.name,
                unknown.join(", ")
            );
        }
        sides::with_gold(side, &gold, &self.name, label_map)
    }

    /// The rows of a pair that the data set has.
    pub fn keep(&self, pair: Pair, is_partial: bool, console: &mut Console) -> Result<Pair> {
        if self.examples.is_empty() {
            return Ok(pair);
        }
        let is_known = |row: &u32| self.place.contains_key(&pair.ids[*row as usize]);
        let (kept, lost): (Vec<u32>, Vec<u32>) = (0..pair.rows() as u32).partition(is_known);
        if lost.is_empty() {
            return Ok(pair);
        }
        let named = lost.iter().take(3).map(|row| pair.ids[*row as usize].clone());
        let named = named.collect::<Vec<_>>().join(", ");
        let first = self.examples.first().map_or("", |row| row.id.as_str());
        if kept.is_empty() {
            bail!(
                "{} has no row with the id of a prediction (ids such as {first:?} and {named}); both need the same ids",
                self.name
            );
        }
        let n = count(lost.len() as u64);
        if !is_partial {
            bail!(
                "{} doesn't have {n} of the rows that were predicted ({named}); give the data that they are of, or leave \
                 them out with --allow-partial",
                self.name
            );
        }
        console.say(&format!("{n} predicted rows aren't in {} and are left out", self.name));
        Ok(pair.subset(&kept))
    }

    pub fn texts(&self, pair: &Pair) -> Option<Vec<String>> {
        if let Some(texts) = &self.texts {
            return texts.of(&pair.ids).into_iter().next().map(|(_, texts)| texts);
        }
        let text = |id: &String| self.example(id).map_or(String::new(), |row| both_texts(&row));
        (!self.examples.is_empty()).then(|| pair.ids.iter().map(text).collect())
    }

    /// (N,) the rows of a pair, of prediction files with their text alone; `None` where they have none.
    pub fn examples_of(&self, pair: &Pair) -> Option<Vec<Example>> {
        if !self.examples.is_empty() {
            return pair.ids.iter().map(|id| self.example(id)).collect();
        }
        let of = |(id, text): (&String, String)| Example {
            id: id.clone(),
            text,
            pair: None,
            label: None,
            target: None,
        };
        Some(pair.ids.iter().zip(self.texts(pair)?).map(of).collect())
    }

    pub fn slice_columns(&self, pair: &Pair) -> Vec<(String, Vec<String>)> {
        self.slices.iter().flat_map(|slices| slices.of(&pair.ids)).collect()
    }

    /// Training rows without those that are compared: a held-out row of the same source isn't its own neighbour.
    pub fn others(&self, train: Split) -> Split {
        let is_compared = |row: &Example| {
            let at = self.place.get(&row.id).copied();
            at.and_then(|at| self.examples.get(at)).is_some_and(|own| own.text == row.text)
        };
        let rows = train.examples.into_iter().filter(|row| !is_compared(row)).collect();
        Split { examples: rows, ..train }
    }

    /// A row of the data set.
    pub fn example(&self, id: &str) -> Option<Example> {
        self.examples.get(*self.place.get(id)?).cloned()
    }
}

/// Without a data set a model has nothing to be asked about.
pub fn refuse_models(sources: &[&Source]) -> Result<()> {
    match sources.iter().find_map(|source| source.model()) {
        Some(found) => Err(Usage(format!(
            "{} is a model; say which rows to compare on with --data",
            found.name
        ))
        .into()),
        None => Ok(()),
    }
}

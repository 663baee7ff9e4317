//! `diagnose --directions`: how far the weights of two runs have gone along the directions of what each layer reads, checkpoint by
//! checkpoint. The rows go through the model once, where both runs started.

use std::time::Instant;

use anyhow::{Context, Result};
use lowchurn_churn::{Directions, Layer, directions_said, geometric_mean};
use lowchurn_data::{Example, Rng, encode};
use lowchurn_distill::{Event, Way, directions, matched, readings, start_of, way};
use lowchurn_models::{Classifier, Head, is_head};

use crate::console::Console;
use crate::device::Compute;
use crate::failure::Usage;
use crate::found::{Found, encoder_of};
use crate::progress::Status;

/// Rows that the directions are taken from; more change them little.
const ROWS: usize = 1000;

/// The first `count` directions of each layer, from rows of the data that are drawn: files are often sorted by class.
pub fn of(
    (teacher, student): (&Found, &Found),
    examples: &[Example],
    count: usize,
    compute: &Compute,
    console: &mut Console,
) -> Result<Directions> {
    if count < 2 {
        return Err(Usage(format!("--directions {count}: expected at least 2")).into());
    }
    let (start, other) = (start_of(&teacher.folder)?, start_of(&student.folder)?);
    let open = |folder| Classifier::open(folder, Head::FromCheckpoint, &compute.device);
    let (model, _) = open(&start)?;
    let (second, _) = open(&other)?;
    for (name, one) in model.params.tensors().filter(|(name, _)| !is_head(name)) {
        let is_same = match second.params.0.get(name) {
            Some(two) if two.dims() == one.dims() => {
                one.flatten_all()?.to_vec1::<f32>()? == two.flatten_all()?.to_vec1::<f32>()?
            }
            _ => false,
        };
        if !is_same {
            return Err(Usage(format!(
                "--directions: {} and {} started from different weights ({name}); directions are comparable only of one base",
                teacher.name, student.name
            ))
            .into());
        }
    }
    let encoder = encoder_of(&model.config, &start)?;
    let tokens = encode(&encoder, &drawn(examples), teacher.max_length)?;
    let readings = readings(&model.config)?;
    let (begun, rows) = (Instant::now(), tokens.rows());
    let mut status = Status::new();
    status.evaluating = "directions";
    let found = directions(&model, &readings, &tokens, 64, &compute.device, &mut |done| {
        let event = Event::Evaluating { done, rows };
        status.show(&event, begun.elapsed(), &console.terminal, &mut console.err);
    });
    status.end(&mut console.err);
    let found = found?;
    let of_run = |model: &Found| -> Result<Way> {
        way(&model.folder, &readings, &found, count).with_context(|| model.name.clone())
    };
    let (told, says) = (of_run(teacher)?, of_run(student)?);
    let mut layers = Vec::new();
    for (at, (reading, eigen)) in readings.iter().zip(&found).enumerate() {
        let (teacher, student) = (told.along[at].clone(), says.along[at].clone());
        let of = |run: &[Vec<f64>], k: usize| -> Vec<[f64; 2]> {
            run.iter().filter_map(|c| Some([*c.first()?, *c.get(k)?])).collect()
        };
        let most = count.min(eigen.values.len());
        let ratios: Vec<Option<f64>> =
            (1..most).map(|k| matched(&of(&teacher, k), &of(&student, k), 1.0)?.ratio()).collect();
        let eigenvalues = eigen.values.iter().take(most).copied().collect();
        let ratio = geometric_mean(&ratios);
        layers.push(Layer {
            name: reading.name.clone(),
            eigenvalues,
            teacher,
            student,
            ratios,
            ratio,
        });
    }
    let width = found.iter().map(|eigen| eigen.values.len()).max().unwrap_or(0);
    let mut said = directions_said(&layers);
    if count > width {
        said += &format!("; of the {count} directions asked for there are {width}");
    }
    let used = count.min(width);
    if rows < used {
        said += &format!(
            "; {rows} rows span at most as many of the head's {used} directions, and the others are anyone's: give more rows, or ask for \
             fewer"
        );
    }
    Ok(Directions { teacher_steps: told.steps, student_steps: says.steps, layers, said })
}

/// [`ROWS`] of the rows at most, in their order, the same ones of the same number.
fn drawn(examples: &[Example]) -> Vec<Example> {
    let mut rows: Vec<u32> = (0..examples.len() as u32).collect();
    if rows.len() > ROWS {
        Rng::stream(0, "directions", 0).shuffle(&mut rows);
        rows.truncate(ROWS);
        rows.sort_unstable();
    }
    rows.into_iter().map(|row| examples[row as usize].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_sorted_by_class_are_drawn_from_all_of_it() {
        let example = |row: usize| Example {
            id: row.to_string(),
            text: String::new(),
            pair: None,
            label: None,
            target: None,
        };
        let of = |n: usize| -> Vec<usize> {
            let examples: Vec<Example> = (0..n).map(example).collect();
            drawn(&examples).iter().map(|row| row.id.parse().unwrap()).collect()
        };
        assert_eq!(of(7), (0..7).collect::<Vec<_>>());
        let found = of(25_000);
        assert_eq!(found.len(), ROWS);
        assert!(found.is_sorted());
        // Half of 1,000 to within five standard deviations, √250 = 16 each.
        let of_first_class = found.iter().filter(|row| **row < 12_500).count();
        assert!((421..=579).contains(&of_first_class), "{of_first_class}");
    }
}

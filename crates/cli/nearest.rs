//! Which training rows a model holds for alike: for each changed row the nearest ones by the vectors that go into the head.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use candle_core::Device;
use lowchurn_churn::Neighbour;
use lowchurn_data::{Example, Rng, Split, collate, eval_order};
use lowchurn_distill::Event;
use lowchurn_hub::Hub;
use lowchurn_models::{Classifier, Input};

use crate::console::Console;
use crate::data::{self, Wishes};
use crate::device::Compute;
use crate::found::{self, Found};
use crate::progress::{Status, count};
use crate::reporting::both_texts;

/// Changed rows that are looked up: the first ones, which are the negative flips that the model is surest of.
pub const MAX_FLIPS: usize = 200;
/// Training rows that are looked through; of more, a seeded sample.
pub const MAX_TRAIN: usize = 20_000;

const BATCH: usize = 64;

/// The `k` training rows with the highest cosine for each of the flips, by the number that comes with it.
///
/// Cost: one forward pass a flip and a training row, within the two limits above.
pub fn of(
    model: &Found,
    flips: &[(usize, Example)],
    train: &Split,
    k: usize,
    compute: &Compute,
    console: &mut Console,
) -> Result<BTreeMap<usize, Vec<Neighbour>>> {
    let flips = &flips[..flips.len().min(MAX_FLIPS)];
    if flips.is_empty() || k == 0 || train.examples.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut sample: Vec<u32> = (0..train.examples.len() as u32).collect();
    if sample.len() > MAX_TRAIN {
        Rng::stream(0, "nearest training rows", 0).shuffle(&mut sample);
        sample.truncate(MAX_TRAIN);
        sample.sort_unstable();
    }
    console.say(&format!(
        "nearest of {} training rows for {} changed rows",
        count(sample.len() as u64),
        count(flips.len() as u64)
    ));
    let classifier = found::open_model(model, compute)?;
    let device = &compute.device;
    let asked: Vec<Example> = flips.iter().map(|(_, row)| row.clone()).collect();
    let known: Vec<Example> =
        sample.iter().map(|row| train.examples[*row as usize].clone()).collect();
    let asked = vectors("reading changed rows", &classifier, model, &asked, device, console)?;
    let vectors = vectors("reading training rows", &classifier, model, &known, device, console)?;
    let neighbour = |(row, similarity): (usize, f32)| Neighbour {
        id: known[row].id.clone(),
        text: both_texts(&known[row]),
        label: shown(&known[row], train.labels.names()),
        similarity: f64::from(similarity),
    };
    let found = flips.iter().zip(&asked).map(|((at, _), vector)| {
        (*at, closest(vector, &vectors, k).into_iter().map(neighbour).collect())
    });
    Ok(found.collect())
}

/// What a row is trained to, for people.
fn shown(row: &Example, names: &[String]) -> Option<String> {
    let name = |label: u32| names.get(label as usize).cloned();
    match (row.classes(), row.value()) {
        (Some(set), _) => Some(set.into_iter().filter_map(name).collect::<Vec<_>>().join(" + ")),
        (None, Some(value)) => Some(format!("{value:.4}")),
        (None, None) => row.label.and_then(name),
    }
}

/// Rows and cosines of the k nearest, the nearest first and the first of equals; all vectors are of length 1.
fn closest(vector: &[f32], among: &[Vec<f32>], k: usize) -> Vec<(usize, f32)> {
    let dot = |other: &Vec<f32>| vector.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
    let mut all: Vec<(usize, f32)> = among.iter().map(dot).enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(k);
    all.into_iter().map(|(row, cosine)| (row, cosine.clamp(-1.0, 1.0))).collect()
}

/// (N, C) the vectors that the head turns into logits, at length 1. `phase` is what the line of progress calls it.
fn vectors(
    phase: &'static str,
    classifier: &Classifier,
    model: &Found,
    examples: &[Example],
    device: &Device,
    console: &mut Console,
) -> Result<Vec<Vec<f32>>> {
    let tokens = found::tokens_of(model, &classifier.config, examples)?;
    let (start, rows) = (Instant::now(), tokens.rows());
    let mut status = Status::new();
    status.evaluating = phase;
    let mut vectors = vec![Vec::new(); rows];
    let mut done = 0;
    for order in eval_order(&tokens.lengths(), BATCH) {
        let batch = collate(&tokens, &order, classifier.config.pad_token_id);
        let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, device)?;
        let (_, pooled) = classifier.pooled(&input)?; // (B, C)
        for (row, vector) in order.iter().zip(pooled.to_vec2::<f32>()?) {
            vectors[*row as usize] = normal(vector);
        }
        done += order.len();
        let event = Event::Evaluating { done, rows };
        status.show(&event, start.elapsed(), &console.terminal, &mut console.err);
    }
    status.end(&mut console.err);
    Ok(vectors)
}

fn normal(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    vector
}

/// Labelled rows, by any name of a data set; of several splits `train`.
pub fn read(text: &str, wishes: &Wishes, hub: &Hub, console: &mut Console) -> Result<Split> {
    let data = data::open(text, hub, console)?;
    let names = data.split_names();
    let first = match names.as_slice() {
        [only] => only.clone(),
        _ => "train".into(),
    };
    let split = data.split.clone().unwrap_or(first);
    data.read(&split, wishes, lowchurn_data::Labels::Required, None, hub, console)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first() {
        let among = [vec![1.0, 0.0], vec![0.0, 1.0], vec![-1.0, 0.0], vec![1.0, 0.0]];
        let of = |k| closest(&normal(vec![3.0, 4.0]), &among, k);
        assert_eq!(of(3), [(1, 0.8), (0, 0.6), (3, 0.6)]);
        assert_eq!(of(9).len(), 4);
        assert_eq!(normal(vec![0.0, 0.0]), [0.0, 0.0]);
    }
}

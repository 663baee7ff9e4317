//! Which way the weights of each layer have gone, along the eigendirections of what the layer reads: one pass over some rows for
//! the directions, then the weights alone of each checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::Device;
use lowchurn_data::{Encoded, collate, eval_order};
use lowchurn_kernels::awake;
use lowchurn_models::{
    Classifier, Config, Depth, Input, Mode, ModelType, Stored, Wanted, depth, is_head, matrices,
    parameter_shapes, read_safetensors, usual_targets,
};

use crate::checkpoint::{MODEL, checkpoints};
use crate::spectrum::{Eigen, add_second_moment, along, eigen};
use crate::states::known::texts_of;
use crate::{Error, Moment, Result};

/// A layer and the weights that read its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// `layer 0`, or `head`.
    pub name: String,
    /// Which hidden states it reads; `None` for the head, which reads the pooled vector.
    pub hidden: Option<usize>,
    /// Matrices (O, C) over the same C inputs.
    pub weights: Vec<String>,
}

/// What of a model reads something that is shown: the queries' and values' matrices of each layer (ModernBERT has a norm in
/// front of them, ALBERT uses one layer at every depth; of these the head alone), and the head.
pub fn readings(config: &Config) -> Result<Vec<Reading>> {
    let mut found = Vec::new();
    if !matches!(config.model_type, ModelType::ModernBert | ModelType::Albert) {
        let targets: Vec<String> =
            usual_targets(config.model_type).iter().map(|name| name.to_string()).collect();
        let all = matrices(config, &targets)?;
        for layer in 0..config.layers {
            let is_of = |name: &String| depth(config, name) == Depth::Layer(layer);
            let weights = all.iter().map(|matrix| matrix.name.clone()).filter(is_of).collect();
            found.push(Reading { name: format!("layer {layer}"), hidden: Some(layer), weights });
        }
    }
    let last = parameter_shapes(config)
        .into_iter()
        .filter(|(name, shape)| is_head(name) && shape.len() == 2);
    found.push(Reading {
        name: "head".into(),
        hidden: None,
        weights: last.map(|(name, _)| name).collect(),
    });
    Ok(found)
}

/// The directions of the inputs of each reading, over the tokens of the rows (the pooled vectors of the rows for the head), in
/// evaluation mode.
pub fn directions(
    model: &Classifier,
    readings: &[Reading],
    rows: &Encoded,
    batch_size: usize,
    device: &Device,
    on: &mut dyn FnMut(usize),
) -> Result<Vec<Eigen>> {
    let width = model.config.hidden_size;
    let wanted = Wanted {
        hidden: readings.iter().filter_map(|reading| reading.hidden).collect(),
        attention: BTreeSet::new(),
    };
    let mut sums = vec![(0usize, vec![0.0; width * width]); readings.len()];
    let mut n_done = 0;
    for order in eval_order(&rows.lengths(), batch_size) {
        let batch = collate(rows, &order, model.config.pad_token_id);
        let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, device)?;
        let states = awake(|| model.forward_states(&input, Mode::Eval, &wanted))?;
        for (reading, (n, sum)) in readings.iter().zip(&mut sums) {
            let read = match reading.hidden {
                Some(layer) => states.hidden.get(&layer),
                None => Some(&states.pooled),
            };
            let Some(read) = read else { continue };
            let values = read.flatten_all()?.to_vec1::<f32>()?; // (N·C)
            let values = match reading.hidden {
                Some(_) => of_tokens(values, &texts_of(&states.sequences), width),
                None => values,
            };
            *n += values.len() / width;
            add_second_moment(sum, &values, width);
        }
        n_done += order.len();
        on(n_done);
    }
    let mean = |(n, mut sum): (usize, Vec<f64>)| {
        sum.iter_mut().for_each(|x| *x /= n.max(1) as f64);
        eigen(&sum, width)
    };
    Ok(sums.into_iter().map(mean).collect())
}

/// Vectors of tokens alone: a device's batch has some of padding too.
fn of_tokens(values: Vec<f32>, texts: &[(usize, usize)], width: usize) -> Vec<f32> {
    if texts.iter().map(|(_, n)| n * width).sum::<usize>() == values.len() {
        return values;
    }
    let of = |&(start, n): &(usize, usize)| &values[start * width..(start + n) * width];
    texts.iter().flat_map(of).copied().collect()
}

/// A run's checkpoints: by update, how far each reading's weights are from where the run started, along its directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    pub steps: Vec<u64>,
    /// By reading, by step: ‖(W − W₀)·v_k‖ of the first `count` directions.
    pub along: Vec<Vec<Vec<f64>>>,
}

/// Where a run started: its checkpoint of before the first update.
///
/// # Errors
/// Where there is none: it wasn't asked to keep its checkpoints.
pub fn start_of(run: &Path) -> Result<PathBuf> {
    let all = checkpoints(run)?;
    match all.first() {
        Some((0, path)) if all.len() > 1 => Ok(path.clone()),
        _ => Err(Error::NoCheckpoints { run: run.into(), found: all.len() }),
    }
}

/// The last checkpoint that a run of `total` updates kept of before a moment, with its update; `None` where there is none of after the
/// first update.
pub fn last_before(run: &Path, at: Moment, total: u64) -> Result<Option<(u64, PathBuf)>> {
    let all = checkpoints(run)?;
    // A checkpoint has seen `step` updates, the last of which is number `step` − 1.
    let is_before = |step: u64| step > 0 && !at.is_past(step - 1, total);
    Ok(all.into_iter().rfind(|(step, _)| is_before(*step)))
}

/// See [`Way`]. Reads the weights of each checkpoint once.
pub fn way(run: &Path, readings: &[Reading], directions: &[Eigen], count: usize) -> Result<Way> {
    let start = weights(&start_of(run)?)?;
    let (mut steps, mut found) = (Vec::new(), vec![Vec::new(); readings.len()]);
    for (step, path) in checkpoints(run)? {
        let now = weights(&path)?;
        for ((reading, eigen), found) in readings.iter().zip(directions).zip(&mut found) {
            let mut moved = Vec::new();
            for name in &reading.weights {
                moved.extend(difference(name, &now, &start, eigen.values.len(), &path)?);
            }
            found.push(along(&moved, eigen, count));
        }
        steps.push(step);
    }
    Ok(Way { steps, along: found })
}

fn weights(checkpoint: &Path) -> Result<BTreeMap<String, Stored>> {
    Ok(read_safetensors(&checkpoint.join(MODEL))?)
}

fn difference(
    name: &str,
    now: &BTreeMap<String, Stored>,
    start: &BTreeMap<String, Stored>,
    width: usize,
    path: &Path,
) -> Result<Vec<f64>> {
    match (now.get(name), start.get(name)) {
        (Some(now), Some(start))
            if now.shape == start.shape && now.shape.last() == Some(&width) =>
        {
            let pairs = now.values.iter().zip(&start.values);
            Ok(pairs.map(|(now, start)| f64::from(*now) - f64::from(*start)).collect())
        }
        _ => Err(Error::OtherWeights { path: path.into(), name: name.into(), width }),
    }
}

#[cfg(test)]
mod tests {
    use lowchurn_kernels::Sequences;

    use super::*;

    #[test]
    fn padding_is_nobodys_input() {
        let lengths = [1, 3, 2];
        let padded = texts_of(&Sequences::padded(&lengths, 3).unwrap());
        let values: Vec<f32> = (0..18).map(|x| x as f32).collect(); // (3·3, 2)
        let expected = [0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].map(|x| x as f32);
        assert_eq!(of_tokens(values, &padded, 2), expected);
        let packed = texts_of(&Sequences::packed(&lengths, 3).unwrap());
        assert_eq!(of_tokens(expected.to_vec(), &packed, 2), expected);
    }
}

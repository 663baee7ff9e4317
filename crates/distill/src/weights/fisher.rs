//! How much each weight of a model matters to what it predicts: the diagonal of the empirical Fisher information, and the
//! file that keeps it. The file belongs to one set of weights and one choice of rows, and is refused with any other.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Tensor};
use lowchurn_data::{Encoded, Rng, collate};
use lowchurn_kernels::{Gradient, backward, log_softmax};
use lowchurn_models::{Classifier, Input, Mode, Params, write_safetensors};
use safetensors::SafeTensors;

use super::{FISHER, check_equal, shapes, shapes_of, values};
use crate::{Error, Predictions, Result};

/// F = mean over rows of (∂ log p(ŷ|x)/∂θ)², ŷ the class that the model predicts, divided by its own mean over all elements
/// of all tensors, so that the mean is 1 and a strength means the same for every model.
///
/// Diagonal empirical Fisher information at predicted labels, one row at a time (a batch would give the square of a sum),
/// without dropout: Schumann et al. 2024 (BCWI, EACL). `n_rows` of the rows are drawn by seed, all where there are no more;
/// labels aren't read. One forward and one backward pass a row; `on` is told how many rows are done, and `None` is said where
/// `stop` came first. On the CPU, in f32.
pub fn fisher(
    model: &Classifier,
    rows: &Encoded,
    n_rows: usize,
    seed: u64,
    device: &Device,
    stop: &AtomicBool,
    on: &mut dyn FnMut(usize),
) -> Result<Option<BTreeMap<String, Tensor>>> {
    let tracked = model.params.tensors().map(|(name, var)| (name.to_string(), var.clone()));
    let tracked: BTreeMap<String, Tensor> = tracked.collect();
    let zeros = |(name, var): (&str, &Tensor)| (name.to_string(), vec![0f32; var.elem_count()]);
    let mut sums: BTreeMap<String, Vec<f32>> = model.params.tensors().map(zeros).collect();
    let chosen = chosen(rows.rows(), n_rows, seed);
    if chosen.is_empty() {
        return Err(Error::NoFisherRows);
    }
    for (n_done, &row) in chosen.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let id = || rows.ids.get(row as usize).cloned().unwrap_or_default();
        let batch = collate(rows, &[row], model.config.pad_token_id);
        if batch.width == 0 {
            return Err(Error::EmptyRow { id: id() });
        }
        let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, device)?;
        let logits = model.forward_with(&tracked, &input, Mode::Eval)?; // (1, K)
        let predictions = Predictions { classes: logits.dim(1)?, logits: values(&logits)? };
        if predictions.logits.iter().any(|x| !x.is_finite()) {
            return Err(Error::NotFiniteLogits { id: id() });
        }
        let predicted = predictions.predicted(0) as usize;
        let log_p = log_softmax(&logits)?.narrow(1, predicted, 1)?.sum_all()?;
        let mut gradients = backward(&log_p)?;
        for (name, sums) in &mut sums {
            let Some(var) = model.params.0.get(name) else { continue }; // made from it above
            let Some(gradient) = gradients.remove(var)? else {
                return Err(Error::NoGradient { names: vec![name.clone()] });
            };
            add_squares(sums, &gradient)?;
        }
        on(n_done + 1);
    }
    let total: f64 = sums.values().flatten().map(|&sum| f64::from(sum)).sum();
    let scale = sums.values().map(Vec::len).sum::<usize>() as f64 / total;
    if !(scale.is_finite() && scale > 0.0) {
        return Err(Error::FlatFisher { n_rows: chosen.len() });
    }
    let mut fisher = BTreeMap::new();
    for (name, sums) in sums {
        let Some(var) = model.params.0.get(&name) else { continue };
        let scaled = sums.iter().map(|&sum| (f64::from(sum) * scale) as f32).collect();
        fisher.insert(name, Tensor::from_vec::<_, f32>(scaled, var.shape(), &Device::Cpu)?);
    }
    Ok(Some(fisher))
}

fn add_squares(sums: &mut [f32], gradient: &Gradient) -> Result<()> {
    let add = |(sum, g): (&mut f32, &f32)| *sum += g * g;
    match gradient {
        Gradient::Whole(tensor) => sums.iter_mut().zip(&values(tensor)?).for_each(add),
        Gradient::Host(host) => sums.iter_mut().zip(host.values()).for_each(add),
        Gradient::Rows(rows) => {
            let (_, c) = rows.shape();
            for (id, row) in rows.iter() {
                sums[id as usize * c..][..c].iter_mut().zip(row).for_each(add);
            }
        }
    }
    Ok(())
}

/// Which rows, in their own order: that of the sums.
fn chosen(n: usize, n_rows: usize, seed: u64) -> Vec<u32> {
    let mut chosen: Vec<u32> = (0..n as u32).collect();
    Rng::stream(seed, "fisher", 0).shuffle(&mut chosen);
    chosen.truncate(n_rows);
    chosen.sort_unstable();
    chosen
}

/// Writes the tensors with the fingerprint of the weights that they belong to. `rows` says of which rows they were made
/// (a hash, how many, the seed); it is compared as it is.
pub fn save_fisher(
    path: &Path,
    fisher: &BTreeMap<String, Tensor>,
    params: &Params,
    rows: &str,
) -> Result<()> {
    let fingerprint = params.fingerprint()?;
    let metadata = [("format", "pt"), (WEIGHTS, &fingerprint), (ROWS, rows)];
    let tensors = fisher.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(path, tensors, &metadata)?;
    Ok(())
}

const WEIGHTS: &str = "weights_sha256";
const ROWS: &str = "rows";

/// Reads what [`save_fisher`] wrote. Another model's, one of other rows, and numbers that are no squares are errors.
pub fn load_fisher(path: &Path, params: &Params, rows: &str) -> Result<BTreeMap<String, Tensor>> {
    let wrong = |reason: String| Error::FisherFile { path: path.into(), reason };
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
    let fingerprint = params.fingerprint()?;
    for (key, expected) in [(WEIGHTS, fingerprint.as_str()), (ROWS, rows)] {
        let found = header.metadata().as_ref().and_then(|all| all.get(key));
        if found.is_none_or(|found| found != expected) {
            let found = found.map_or("nothing", String::as_str);
            return Err(wrong(format!("it was made for {key} {found}, now {expected}")));
        }
    }
    let mut fisher = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != safetensors::Dtype::F32 {
            return Err(wrong(format!("{name} is {:?}, expected F32", view.dtype())));
        }
        let tensor = Tensor::from_raw_buffer(view.data(), DType::F32, view.shape(), &Device::Cpu)?;
        checked(name, &tensor)?;
        fisher.insert(name.to_string(), tensor);
    }
    check_equal(("the model", shapes(params)), (FISHER, shapes_of(&fisher)))?;
    Ok(fisher)
}

/// The numbers of a tensor of Fisher information, which are means of squares.
pub(super) fn checked(name: &str, fisher: &Tensor) -> Result<Vec<f32>> {
    let values = values(fisher)?;
    match values.iter().find(|f| !(0.0..f32::INFINITY).contains(*f)) {
        Some(&value) => Err(Error::FisherValue { name: name.into(), value }),
        None => Ok(values),
    }
}

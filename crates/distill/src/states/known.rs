//! Losses over tokens, worked out on the host a text at a time, and how they take part in the graph: their gradients are
//! found with their values, and handed out on the way back.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};
use lowchurn_kernels::Sequences;
use rayon::prelude::*;

/// A text's loss and its gradient by the text's rows (n·C).
pub(crate) struct OfText {
    pub value: f64,
    pub gradient: Vec<f32>,
}

/// A text's rows of a matrix (N, C) on the host, padding left out.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'x> {
    pub x: &'x [f32], // (n·c)
    pub n: usize,
    pub c: usize,
}

/// A matrix (N, C) on the host, and where each text's rows begin and how many they are.
pub(crate) struct OnHost {
    x: Vec<f32>,
    c: usize,
    texts: Vec<(usize, usize)>,
}

impl OnHost {
    pub(crate) fn of(x: &Tensor, texts: &[(usize, usize)]) -> Result<OnHost> {
        let (_, c) = x.dims2()?;
        let x = x.detach().to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?; // waits for the device
        Ok(OnHost { x, c, texts: texts.to_vec() })
    }

    pub(crate) fn text(&self, at: usize) -> Rows<'_> {
        let (start, n) = self.texts[at];
        Rows { x: &self.x[start * self.c..(start + n) * self.c], n, c: self.c }
    }
}

/// First row and number of tokens of each text, (B,).
pub(crate) fn texts_of(sequences: &Sequences) -> Vec<(usize, usize)> {
    let lengths = sequences.lengths().iter().map(|&n| n as usize);
    sequences.starts().iter().copied().zip(lengths).collect()
}

/// Every row a text of its own.
pub(crate) fn single_rows(b: usize) -> Vec<(usize, usize)> {
    (0..b).map(|row| (row, 1)).collect()
}

/// (B,) losses of a matrix (N, C) whose gradients are known. Each text is worked out by itself, so the bytes are the same for
/// any number of threads.
pub(crate) fn known(
    x: &Tensor,
    texts: &[(usize, usize)],
    of: impl Fn(usize) -> OfText + Sync + Send,
) -> Result<Tensor> {
    put_in(x, texts, in_parallel(texts.len(), of))
}

pub(crate) fn in_parallel<T: Send>(n: usize, of: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    (0..n).into_par_iter().map(of).collect()
}

/// The same for losses that were found already.
pub(crate) fn put_in(x: &Tensor, texts: &[(usize, usize)], found: Vec<OfText>) -> Result<Tensor> {
    let (n, c) = x.dims2()?;
    let mut gradient = vec![0f32; n * c];
    for ((start, n), of_text) in texts.iter().zip(&found) {
        let to = &mut gradient[start * c..(start + n) * c];
        if of_text.gradient.len() != to.len() {
            bail!(
                "a loss over tokens: a gradient of {}, rows of {}",
                of_text.gradient.len(),
                to.len()
            );
        }
        to.copy_from_slice(&of_text.gradient);
    }
    let values = found.iter().map(|of_text| of_text.value as f32).collect();
    let op = Known { values, gradient, texts: texts.to_vec(), c };
    // candle leads the gradient back to where x lies.
    x.to_device(&Device::Cpu)?.contiguous()?.apply_op1(op)?.to_device(x.device())
}

struct Known {
    values: Vec<f32>,   // (B,)
    gradient: Vec<f32>, // (N·C)
    texts: Vec<(usize, usize)>,
    c: usize,
}

impl CustomOp1 for Known {
    fn name(&self) -> &'static str {
        "loss over tokens"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.values.clone()), Shape::from(self.values.len())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = self.gradient.clone();
        for (&(start, n), factor) in self.texts.iter().zip(grad.to_vec1::<f32>()?) {
            dx[start * self.c..(start + n) * self.c].iter_mut().for_each(|dx| *dx *= factor);
        }
        Tensor::from_vec(dx, x.shape(), &Device::Cpu).map(Some)
    }
}

//! x·Wᵀ + b with the bias laid into the result before the product, and a backward pass without a transposed copy.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::backward::hand_over;
use crate::composed;
use crate::host::{BLOCK, host, is_fused, output, slice, tensor};
use crate::lanes::wide;
use crate::layer_norm::add_in_order;
use crate::matmul::{Onto, Threads, View, matmul};

/// x·Wᵀ + b. Shapes (.., I), (O, I), (O,) → (.., O).
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if !is_fused(x) || !is_fused(weight) {
        return composed::linear(x, weight, bias);
    }
    let (o, i) = weight.dims2()?;
    if x.dims().last() != Some(&i) || bias.is_some_and(|bias| bias.dims() != [o]) || i == 0 {
        bail!("linear: shapes {:?}, {:?}, {:?}", x.dims(), weight.dims(), bias.map(Tensor::dims));
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, Linear),
        None => x.apply_op2(&weight, Linear),
    }
}

struct Linear;

fn forward(
    x: &CpuStorage,
    x_layout: &Layout,
    weight: &CpuStorage,
    weight_layout: &Layout,
    bias: Option<&[f32]>,
) -> Result<(CpuStorage, Shape)> {
    let (x, weight) = (slice(x, x_layout)?, slice(weight, weight_layout)?);
    let (o, i) = weight_layout.shape().dims2()?;
    let n = x.len() / i;
    let mut y = Vec::new();
    let onto = match bias {
        Some(bias) => {
            y.reserve_exact(n * o);
            (0..n).for_each(|_| y.extend_from_slice(bias));
            Onto::Add
        }
        None => {
            y.resize(n * o, 0.0);
            Onto::Overwrite
        }
    };
    let (x_view, weight_view) = (View::rows_of(n, i), View::rows_of(o, i));
    matmul(&mut y, View::rows_of(n, o), onto, x, x_view, weight, weight_view.t(), Threads::All);
    let mut dims = x_layout.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = o;
    }
    Ok(output(y, &Shape::from(dims)))
}

/// dx = dy·W, dW = dyᵀ·x. A frozen operand costs nothing.
fn backward(
    x: &Tensor,
    weight: &Tensor,
    grad: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (o, i) = weight.dims2()?;
    let n = x.elem_count() / i;
    let (x_view, weight_view, grad_view) =
        (View::rows_of(n, i), View::rows_of(o, i), View::rows_of(n, o));
    let grad = host(grad)?;
    let dx = if x.track_op() {
        let mut dx = vec![0f32; n * i];
        let weight = host(weight)?;
        matmul(
            &mut dx,
            x_view,
            Onto::Overwrite,
            &grad,
            grad_view,
            &weight,
            weight_view,
            Threads::All,
        );
        Some(tensor(dx, x)?)
    } else {
        None
    };
    let dweight = if weight.track_op() {
        let mut dw = vec![0f32; o * i];
        let values = host(x)?;
        matmul(
            &mut dw,
            weight_view,
            Onto::Overwrite,
            &grad,
            grad_view.t(),
            &values,
            x_view,
            Threads::All,
        );
        hand_over(weight, tensor(dw, weight)?)?
    } else {
        None
    };
    Ok((dx, dweight))
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        forward(x, x_layout, weight, weight_layout, None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        backward(x, weight, &grad.contiguous()?)
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        forward(x, x_layout, weight, weight_layout, Some(slice(bias, bias_layout)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (dx, dweight) = backward(x, weight, &grad)?;
        let dbias = match bias.track_op() {
            true => hand_over(bias, tensor(column_sums(&host(&grad)?, bias.elem_count()), bias)?)?,
            false => None,
        };
        Ok((dx, dweight, dbias))
    }
}

/// Sum over rows of a matrix with c columns.
fn column_sums(x: &[f32], c: usize) -> Vec<f32> {
    let block = (4 * BLOCK).div_ceil(c) * c;
    let partials = x
        .par_chunks(block)
        .map(|x| {
            let mut sums = vec![0f32; c];
            add_rows(x, &mut sums);
            sums
        })
        .collect();
    add_in_order(partials, c)
}

wide! {
fn add_rows(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
}
}

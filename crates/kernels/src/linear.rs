//! x·Wᵀ + b with the bias laid into the result before the product, and a backward pass without a transposed copy.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use crate::affine::{column_sums, fill_rows};
use crate::backward::hand_over;
use crate::composed;
use crate::host::{host, is_fused, output, slice, tensor};
use crate::matmul::{Onto, View};
use crate::product::{Precision, product};

/// x·Wᵀ + b. Shapes (.., I), (O, I), (O,) → (.., O).
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    precision: Precision,
) -> Result<Tensor> {
    if !is_fused(x) || !is_fused(weight) {
        return composed::linear(x, weight, bias, precision);
    }
    let (o, i) = weight.dims2()?;
    if x.dims().last() != Some(&i) || bias.is_some_and(|bias| bias.dims() != [o]) || i == 0 {
        bail!("linear: shapes {:?}, {:?}, {:?}", x.dims(), weight.dims(), bias.map(Tensor::dims));
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, Linear(precision)),
        None => x.apply_op2(&weight, Linear(precision)),
    }
}

struct Linear(Precision);

impl Linear {
    fn forward(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (slice(x, x_layout)?, slice(weight, weight_layout)?);
        let (o, i) = weight_layout.shape().dims2()?;
        let n = x.len() / i;
        let mut y = vec![0f32; n * o];
        let onto = match bias {
            Some(bias) => {
                fill_rows(&mut y, bias);
                Onto::Add
            }
            None => Onto::Overwrite,
        };
        let x = self.0.left(x, View::rows_of(n, i));
        product(&mut y, onto, &x, &self.0.right(weight, View::rows_of(o, i).t()));
        let mut dims = x_layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = o;
        }
        Ok(output(y, &Shape::from(dims)))
    }

    /// dx = dy·W, dW = dyᵀ·x. A frozen operand costs nothing.
    fn backward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (o, i) = weight.dims2()?;
        let n = x.elem_count() / i;
        let (grad, grad_view) = (host(grad)?, View::rows_of(n, o));
        let dx = if x.track_op() {
            let (mut dx, weight) = (vec![0f32; n * i], host(weight)?);
            let weight = self.0.right(&weight, View::rows_of(o, i));
            product(&mut dx, Onto::Overwrite, &self.0.left(&grad, grad_view), &weight);
            Some(tensor(dx, x)?)
        } else {
            None
        };
        let dweight = if weight.track_op() {
            let (mut dw, values) = (vec![0f32; o * i], host(x)?);
            let values = self.0.right(&values, View::rows_of(n, i));
            product(&mut dw, Onto::Overwrite, &self.0.left(&grad, grad_view.t()), &values);
            hand_over(weight, tensor(dw, weight)?)?
        } else {
            None
        };
        Ok((dx, dweight))
    }
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
        self.forward(x, x_layout, weight, weight_layout, None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.backward(x, weight, &grad.contiguous()?)
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
        self.forward(x, x_layout, weight, weight_layout, Some(slice(bias, bias_layout)?))
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
        let (dx, dweight) = self.backward(x, weight, &grad)?;
        let dbias = match bias.track_op() {
            true => hand_over(bias, tensor(column_sums(&host(&grad)?, bias.elem_count()), bias)?)?,
            false => None,
        };
        Ok((dx, dweight, dbias))
    }
}

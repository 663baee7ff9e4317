//! One training step of a tiny layer, in the fast form and in the slow one. Knows nothing of models.

use candle_core::{Device, Tensor, Var};
use lowchurn_kernels::{self as kernels, AdamW, Gelu, Moments, Precision, composed};

/// A training step in the fast form on `device` and in the slow form on the CPU: the same parameters come out.
pub fn self_test(device: &Device) -> Result<(), String> {
    let told = |error: candle_core::Error| error.to_string();
    let fast = tiny_step(device, Form::Fast).map_err(told)?;
    let slow = tiny_step(&Device::Cpu, Form::Slow).map_err(told)?;
    let start = tiny_params().map(|(data, _)| data).concat();
    let far =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (error, moved) = (far(&fast, &slow), far(&fast, &start));
    match fast.iter().all(|x| x.is_finite())
        && fast.len() == slow.len()
        && error < 1e-3
        && moved > 1e-2
    {
        true => Ok(()),
        false => {
            Err(format!("after one step, parameters are off by {error:e} and moved by {moved:e}"))
        }
    }
}

enum Form {
    Fast,
    Slow,
}

const TINY: usize = 8;

/// Weight, bias, norm's weight, norm's bias: data and shape.
fn tiny_params() -> [(Vec<f32>, Vec<usize>); 4] {
    let wave =
        |n: usize, k: f32, offset: f32| (0..n).map(|i| offset + (i as f32 * k).sin()).collect();
    [
        (wave(TINY * TINY, 0.7, 0.0), vec![TINY, TINY]),
        (wave(TINY, 1.3, 0.0), vec![TINY]),
        (wave(TINY, 0.3, 1.5), vec![TINY]),
        (wave(TINY, 2.1, 0.0), vec![TINY]),
    ]
}

/// mean((gelu(norm(linear(x))) − y)²), its gradients, one AdamW update → the parameters, one after the other.
fn tiny_step(device: &Device, form: Form) -> candle_core::Result<Vec<f32>> {
    let params = tiny_params()
        .map(|(data, shape)| Var::from_tensor(&Tensor::from_vec(data, shape, device)?));
    let [w, b, g, h] = params;
    let params = [w?, b?, g?, h?];
    let [w, b, g, h] = &params;
    let wave = |k: f32| (0..TINY * 4).map(|i| (i as f32 * k).cos()).collect::<Vec<f32>>();
    let x = Tensor::from_vec(wave(0.9), (4, TINY), device)?;
    let y = Tensor::from_vec(wave(0.4), (4, TINY), device)?;
    let found = match form {
        Form::Fast => {
            let x = kernels::linear(&x, w, Some(b), Precision::F32)?;
            kernels::gelu(&kernels::layer_norm(&x, g, h, 1e-12)?, Gelu::Erf)?
        }
        Form::Slow => {
            let x = composed::linear(&x, w, Some(b), Precision::F32)?;
            composed::gelu(&composed::layer_norm(&x, g, h, 1e-12)?, Gelu::Erf)?
        }
    };
    let grads = (found - y)?.sqr()?.mean_all()?.backward()?;
    let update = AdamW {
        learning_rate: 0.05,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 1,
        gradient_scale: 1.0,
    };
    let mut all = Vec::new();
    for param in &params {
        let Some(grad) = grads.get(param) else {
            candle_core::bail!("a parameter has no gradient")
        };
        match form {
            Form::Fast => kernels::adamw(param, grad, &mut Moments::zeros(param)?, &update)?,
            Form::Slow => {
                // Of the first update the corrections undo the averages: m is the gradient, √v its size.
                let kept =
                    (param.as_tensor() * (1.0 - update.learning_rate * update.weight_decay))?;
                let step = (grad / (grad.abs()? + update.epsilon)?)?;
                param.set(&(kept - (step * update.learning_rate)?)?)?;
            }
        }
        all.extend(param.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_cpu_computes() {
        assert_eq!(self_test(&Device::Cpu), Ok(()));
    }
}

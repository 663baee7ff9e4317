//! Gradients of slow forms against central differences in f64.

use candle_core::{DType, Device, Tensor, Var};

use crate::twin::{Op, numbers, var};

/// Gradients of the slow form in f64 against central differences, for inputs of these shapes, within `tolerance`·(1 + |gradient|).
pub fn check_differences(name: &str, shapes: &[Vec<usize>], tolerance: f64, op: Op) {
    let in_f64 = |(at, shape): (usize, &Vec<usize>)| {
        Var::from_tensor(&var(shape, at as u32 + 1).to_dtype(DType::F64).unwrap()).unwrap()
    };
    let inputs: Vec<Var> = shapes.iter().enumerate().map(in_f64).collect();
    let loss = |values: &[Tensor]| {
        let y = op(values).unwrap();
        let w: Vec<f64> = numbers(y.elem_count(), 99).into_iter().map(f64::from).collect();
        (&y * Tensor::from_vec(w, y.shape(), &Device::Cpu).unwrap()).unwrap().sum_all().unwrap()
    };
    let tensors: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = loss(&tensors).backward().unwrap();
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    for (which, input) in inputs.iter().enumerate() {
        let (exact, base) = (flat(grads.get(input).unwrap()), flat(input));
        for (at, exact) in exact.iter().enumerate() {
            let moved = |h: f64| {
                let mut values = tensors.clone();
                let mut moved = base.clone();
                moved[at] += h;
                values[which] = Tensor::from_vec(moved, input.shape(), &Device::Cpu).unwrap();
                loss(&values).to_scalar::<f64>().unwrap()
            };
            let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let is_close = (numeric - exact).abs() < tolerance * (1.0 + exact.abs());
            assert!(is_close, "{name} input {which} at {at}: {numeric} {exact}");
        }
    }
}

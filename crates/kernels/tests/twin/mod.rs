//! A fast form against its slow twin: values, gradients, and bytes with other numbers of threads.

use candle_core::{Device, Result, Tensor, Var};
use lowchurn_kernels::backward;

/// Numbers in about [−2, 2] that repeat for a seed.
pub fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            (x as f32 / u32::MAX as f32 - 0.5) * 4.0
        })
        .collect()
}

pub fn var(shape: &[usize], seed: u32) -> Var {
    let n = shape.iter().product();
    Var::from_vec(numbers(n, seed), shape, &Device::Cpu).unwrap()
}

pub type Op<'a> = &'a (dyn Fn(&[Tensor]) -> Result<Tensor> + Sync);

/// Value and every input's gradient of Σ op(inputs)∘w, w fixed numbers.
fn run(inputs: &[Var], op: Op) -> Vec<Tensor> {
    let tensors: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
    let y = op(&tensors).unwrap();
    let w = Tensor::from_vec(numbers(y.elem_count(), 99), y.shape(), y.device()).unwrap();
    let mut grads = backward(&(&y * w).unwrap().sum_all().unwrap()).unwrap();
    let of = |v: &Var| {
        grads.remove(v).unwrap().expect("every input gets a gradient").to_tensor().unwrap()
    };
    std::iter::once(y.clone()).chain(inputs.iter().map(of)).collect()
}

pub fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference, relative to the largest magnitude of the slow form.
pub fn difference(fast: &Tensor, slow: &Tensor) -> f32 {
    assert_eq!(fast.dims(), slow.dims());
    let (fast, slow) = (flat(fast), flat(slow));
    let scale = slow.iter().fold(1e-3f32, |a, x| a.max(x.abs()));
    fast.iter().zip(&slow).fold(0f32, |a, (x, y)| a.max((x - y).abs())) / scale
}

pub fn check(name: &str, inputs: &[Var], fast: Op, slow: Op) {
    check_but(name, &[], inputs, fast, slow);
}

/// `of_rounding`: inputs whose gradient is zero in theory, so that only rounding is found. A key bias shifts all scores alike.
pub fn check_but(name: &str, of_rounding: &[usize], inputs: &[Var], fast: Op, slow: Op) {
    let (fast_all, slow_all) = (run(inputs, fast), run(inputs, slow));
    for (i, (f, s)) in fast_all.iter().zip(&slow_all).enumerate() {
        let is_rounding = i > 0 && of_rounding.contains(&(i - 1));
        let d = if is_rounding {
            1e-3 * difference(f, &f.zeros_like().unwrap())
        } else {
            difference(f, s)
        };
        assert!(d < 3e-6, "{name}: output {i} (0 the value, then gradients) is off by {d}");
    }
    same_bytes(name, inputs, fast, &fast_all);
}

/// The same with one scale for value and all gradients, their largest magnitude: for two forms of a graph in which some
/// gradients are differences of much larger numbers.
#[allow(dead_code, reason = "not every test file has such graphs")]
pub fn check_at_one_scale(name: &str, inputs: &[Var], fast: Op, slow: Op) {
    let (fast_all, slow_all) = (run(inputs, fast), run(inputs, slow));
    let largest = |x: &Tensor| flat(x).iter().fold(0f32, |a, x| a.max(x.abs()));
    let scale = slow_all.iter().map(largest).fold(0f32, f32::max);
    for (i, (f, s)) in fast_all.iter().zip(&slow_all).enumerate() {
        assert_eq!(f.dims(), s.dims());
        let d = largest(&(f - s).unwrap()) / scale;
        assert!(d < 3e-6, "{name}: output {i} (0 the value, then gradients) is off by {d}");
    }
    same_bytes(name, inputs, fast, &fast_all);
}

/// Bytes, not closeness: another number of threads must not change the order of a sum.
fn same_bytes(name: &str, inputs: &[Var], fast: Op, fast_all: &[Tensor]) {
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for (i, (f, again)) in fast_all.iter().zip(pool.install(|| run(inputs, fast))).enumerate() {
            assert!(flat(f) == flat(&again), "{name}: output {i} differs with {threads} threads");
        }
    }
}

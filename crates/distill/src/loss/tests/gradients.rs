//! Gradients against central differences of fourth order, in f64 on the row's own function: h = 3e-5, tolerance 1e-8
//! (rounding leaves 1e-11; a teacher's term on nearly equal z-scored logits bends so much that second order leaves 1e-7).
//! And the whole way through tensors against candle's autograd.

use candle_core::{D, DType, Device, Tensor, Var};
use lowchurn_data::Rng;
use lowchurn_kernels::log_softmax;

use super::{Case, assert_close, losses, numbers};
use crate::Method;
use crate::loss::row::{Row, row_loss};

const EVERY: [&str; 36] = [
    "retrain",
    "distil",
    "distil:temperature=3",
    "distil:temperature=0.5",
    "distil:divergence=reverse-kl",
    "distil:divergence=reverse-kl,temperature=2",
    "distil:divergence=js",
    "distil:divergence=js,temperature=2",
    "distil:divergence=logit-mse",
    "distil:divergence=mixed-label",
    "distil:divergence=standardised",
    "distil:divergence=standardised,temperature=1",
    "distil:divergence=decoupled",
    "distil:divergence=decoupled,temperature=4",
    "distil:rows=better,temperature=2",
    "distil:rows=old",
    "anchor",
    "anchor-rcp",
    "anchor-rcp:smoothed=true",
    "knn-smoothing",
    "focal:focus=all,temperature=2",
    "focal:focus=old-right",
    "focal:focus=new-wrong",
    "focal:focus=negative-flip",
    "inhibition",
    "inhibition:margin=0.2,power=3.5",
    "mixup",
    "bi-tempered",
    "bi-tempered:t1=0.3,t2=4",
    "bi-tempered:t1=1,t2=1",
    "bi-tempered:t1=0,t2=1.5",
    "bi-tempered:t1=0.5,t2=8",
    "confidence-penalty",
    "entropy-minimisation",
    "l2-old",
    "ewc",
];

/// A random row: logits of size 2, any label or none, some classes unknown, smoothing or none.
struct Drawn {
    student: Vec<f64>,
    teacher: Vec<f64>,
    known: Vec<bool>,
    label: Option<usize>,
    smoothing: f64,
    lambda: f64,
    is_old: bool,
    partner: (usize, f64),
}

impl Drawn {
    fn row(&self) -> Row<'_> {
        Row {
            logits: &self.student,
            label: self.label,
            class_weight: &[],
            label_smoothing: self.smoothing,
            lambda: self.lambda,
            teacher: Some((&self.teacher, &self.known)),
            is_old: self.is_old,
            partner: Some(self.partner),
        }
    }
}

fn drawn(seed: u64, has_label: bool) -> Drawn {
    let mut rng = Rng::stream(seed, "loss rows", 0);
    let classes = 2 + rng.below(5) as usize;
    let mut logits = || (0..classes).map(|_| 4.0 * rng.uniform() - 2.0).collect();
    let (student, teacher) = (logits(), logits());
    let all_known = rng.uniform() < 0.5;
    Drawn {
        student,
        teacher,
        known: (0..classes).map(|_| all_known || rng.uniform() < 0.7).collect(),
        label: has_label.then(|| rng.below(classes as u64) as usize),
        smoothing: if rng.uniform() < 0.5 { 0.0 } else { 0.2 },
        lambda: rng.uniform(),
        is_old: rng.uniform() < 0.5,
        partner: (rng.below(classes as u64) as usize, rng.uniform()),
    }
}

#[test]
fn of_every_method_and_divergence() {
    for name in EVERY {
        let method: Method = name.parse().unwrap();
        let mut size = 0.0;
        for seed in 0..200 {
            let has_label = !method.needs().teacher || seed % 5 > 0;
            let drawn = drawn(seed, has_label);
            let found = row_loss(&method, &drawn.row());
            let h = 3e-5;
            let moved = |k: usize, by: f64| {
                let mut logits = drawn.student.clone();
                logits[k] += by;
                row_loss(&method, &Row { logits: &logits, ..drawn.row() }).value
            };
            let slope = |k: usize, h: f64| (moved(k, h) - moved(k, -h)) / (2.0 * h);
            let expected: Vec<f64> = (0..drawn.student.len())
                .map(|k| (4.0 * slope(k, h) - slope(k, 2.0 * h)) / 3.0)
                .collect();
            assert_close(&found.gradient, &expected, 1e-8, &format!("{name} {seed}"));
            size += expected.iter().map(|g| g.abs()).sum::<f64>();
        }
        // 1e3 times what the tolerance could hide; a t2 of 8 leaves small gradients.
        assert!(size > 1e-2, "{name}: no gradient anywhere");
    }
}

/// The loss with candle's operations and gradients, in f64: slow, with a graph, one temperature for all rows.
fn twin(name: &str, case: &Case) -> (Vec<f64>, Vec<Vec<f64>>) {
    let shape = (case.students.len(), case.students[0].len());
    let flat = |rows: &[Vec<f64>]| rows.iter().flatten().copied().collect::<Vec<f64>>();
    let z = Var::from_vec(flat(&case.students), shape, &Device::Cpu).unwrap();
    let t = Tensor::from_vec(flat(&case.teachers), shape, &Device::Cpu).unwrap();
    let labels: Vec<u32> = case.labels.iter().map(|label| label.unwrap()).collect();
    let hard = crate::one_hot(&labels, shape.1, case.smoothing, &Device::Cpu).unwrap();
    let hard = hard.to_dtype(DType::F64).unwrap();
    let lambda = case.lambda;
    let sum = |x: Tensor| x.sum(D::Minus1).unwrap();
    let ce = |target: &Tensor| sum((log_softmax(&z).unwrap() * target).unwrap()).neg().unwrap();
    let p_at = |x: &Tensor, t: f64| log_softmax(&(x / t).unwrap()).unwrap();
    let kl = |a: &Tensor, b: &Tensor| sum((a.exp().unwrap() * (a - b).unwrap()).unwrap());
    let mixed =
        |term: Tensor| ((ce(&hard) * (1.0 - lambda)).unwrap() + (term * lambda).unwrap()).unwrap();
    let rows = match name {
        "retrain" => ce(&hard),
        "distil:temperature=2" => mixed((kl(&p_at(&t, 2.0), &p_at(&z, 2.0)) * 4.0).unwrap()),
        "distil:divergence=reverse-kl,temperature=2" => {
            mixed((kl(&p_at(&z, 2.0), &p_at(&t, 2.0)) * 4.0).unwrap())
        }
        "distil:divergence=js" => {
            let (p, q) = (p_at(&z, 1.0), p_at(&t, 1.0));
            let m = ((p.exp().unwrap() + q.exp().unwrap()).unwrap() / 2.0).unwrap().log().unwrap();
            mixed(((kl(&p, &m) + kl(&q, &m)).unwrap() / 2.0).unwrap())
        }
        "distil:divergence=mixed-label" => {
            let soft = p_at(&t, 1.0).exp().unwrap();
            ce(&((&hard * (1.0 - lambda)).unwrap() + (soft * lambda).unwrap()).unwrap())
        }
        "distil:divergence=standardised" => {
            let scores = |x: &Tensor| {
                let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap();
                let variance = centred.sqr().unwrap().sum_keepdim(D::Minus1).unwrap();
                let deviation = (variance / (shape.1 as f64 - 1.0)).unwrap().sqrt().unwrap();
                centred.broadcast_div(&(deviation + 1e-7).unwrap()).unwrap()
            };
            mixed((kl(&p_at(&scores(&t), 2.0), &p_at(&scores(&z), 2.0)) * 4.0).unwrap())
        }
        "confidence-penalty:beta=0.1" => {
            let p = p_at(&z, 1.0);
            (ce(&hard) + (sum((p.exp().unwrap() * p).unwrap()) * 0.1).unwrap()).unwrap()
        }
        _ => panic!("{name}"),
    };
    let grads = rows.sum_all().unwrap().backward().unwrap();
    (numbers(&rows).remove(0), numbers(grads.get(&z).unwrap()))
}

/// f32 outside, so 2e-6.
#[test]
fn equal_candles_own() {
    let mut rng = Rng::stream(1, "twin", 0);
    let mut rows = || -> Vec<Vec<f64>> {
        (0..40).map(|_| (0..5).map(|_| 6.0 * rng.uniform() - 3.0).collect()).collect()
    };
    let case = Case {
        students: rows(),
        teachers: rows(),
        labels: (0..40).map(|at| Some(at % 5)).collect(),
        smoothing: 0.1,
        lambda: 0.6,
        ..Case::default()
    };
    for name in [
        "retrain",
        "distil:temperature=2",
        "distil:divergence=reverse-kl,temperature=2",
        "distil:divergence=js",
        "distil:divergence=mixed-label",
        "distil:divergence=standardised",
        "confidence-penalty:beta=0.1",
    ] {
        let (found, found_gradients) = losses(name, &case);
        let (expected, gradients) = twin(name, &case);
        assert_close(&found, &expected, 2e-6, name);
        assert_close(&found_gradients.concat(), &gradients.concat(), 2e-6, name);
    }
}

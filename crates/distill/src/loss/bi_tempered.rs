//! The bi-tempered logistic loss (Amid et al., 1906.03361): bounded for outliers by t1 < 1, heavy-tailed by t2 > 1.

use super::term::{Term, dot, log_softmax};

/// Σ y·(log_t1 y − log_t1 p) − (y^(2−t1) − p^(2−t1))/(2 − t1), with log_t(u) = (u^(1−t) − 1)/(1 − t) and p the tempered softmax of t2.
///
/// Gradient d·p^(t2−t1) − e·Σ d·p^(t2−t1), with d = p − y and e = p^t2/Σ p^t2. t1 from 0 to 1, t2 from 1 up; at t1 = t2 = 1
/// it is KL(y ‖ p), for a one-hot y the cross-entropy.
pub fn bi_tempered(logits: &[f64], target: &[f64], t1: f64, t2: f64) -> Term {
    let log_p = log_tempered_softmax(logits, t2);
    let power = |exponent: f64| -> Vec<f64> {
        log_p.iter().map(|log_p| (exponent * log_p).exp()).collect()
    };
    let of_class = |(&y, &log_p): (&f64, &f64)| {
        // A class of no weight adds its bounded tail alone; log_t1 of zero needn't be finite.
        let pulled =
            if y > 0.0 { y * (tempered_log(y.ln(), t1) - tempered_log(log_p, t1)) } else { 0.0 };
        pulled - (y.powf(2.0 - t1) - ((2.0 - t1) * log_p).exp()) / (2.0 - t1)
    };
    let value = target.iter().zip(&log_p).map(of_class).sum();
    let slopes: Vec<f64> = log_p
        .iter()
        .zip(target)
        .map(|(log_p, y)| (log_p.exp() - y) * ((t2 - t1) * log_p).exp())
        .collect();
    let escort = power(t2);
    let along = dot(&slopes, &vec![1.0; slopes.len()]) / escort.iter().sum::<f64>();
    let gradient = slopes.iter().zip(&escort).map(|(slope, e)| slope - e * along).collect();
    Term { value, gradient }
}

/// log_t(u) from log u.
fn tempered_log(log_u: f64, t: f64) -> f64 {
    if t == 1.0 { log_u } else { ((1.0 - t) * log_u).exp_m1() / (1.0 - t) }
}

/// log of exp_t(zₖ − N), exp_t(u) = (1 + (1 − t)·u)^(1/(1−t)), where N makes the sum one.
///
/// The paper finds N by five rounds of a fixed point, which leaves 1e-5 at t = 2. The sum is convex and falls in N, so Newton's method from
/// N = max z comes from the left and never overshoots; it stops when N stops growing.
fn log_tempered_softmax(logits: &[f64], t: f64) -> Vec<f64> {
    if t == 1.0 {
        return log_softmax(logits, 1.0);
    }
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_p = |z: f64, n: f64| ((t - 1.0) * (n - (z - max))).ln_1p() / (1.0 - t);
    let mut n = 0.0;
    for _ in 0..200 {
        let (sum, slope) = logits.iter().fold((0.0, 0.0), |(sum, slope), &z| {
            let log_p = log_p(z, n);
            (sum + log_p.exp(), slope + (t * log_p).exp())
        });
        let next = n + (sum - 1.0) / slope;
        if next.is_nan() || next <= n {
            break;
        }
        n = next;
    }
    logits.iter().map(|&z| log_p(z, n)).collect()
}

//! What the teacher's term may measure, a row at a time: f(student's logits, teacher's logits) with its gradient.
//!
//! q is the teacher's and p the student's softmax at temperature T. T² stands on everything tempered, so that gradients keep their size
//! when T changes (Hinton et al., 1503.02531, section 2). All of it works on log-softmaxes: a class that the teacher all but rules out
//! has a large negative logarithm, never that of zero.

use super::term::{Term, dot, exp, log_softmax, log_sum_exp};

/// −Σ q·log p at T = 1; gradient p − q.
pub fn soft_cross_entropy(student: &[f64], teacher: &[f64]) -> Term {
    super::term::cross_entropy(student, &exp(&log_softmax(teacher, 1.0)))
}

/// T²·KL(q ‖ p); gradient T·(p − q).
pub fn kl(student: &[f64], teacher: &[f64], temperature: f64) -> Term {
    let (log_p, log_q) = (log_softmax(student, temperature), log_softmax(teacher, temperature));
    let value = log_p.iter().zip(&log_q).map(|(log_p, log_q)| log_q.exp() * (log_q - log_p)).sum();
    let gradient = log_p.iter().zip(&log_q).map(|(log_p, log_q)| log_p.exp() - log_q.exp());
    scaled(value, gradient.collect(), temperature)
}

/// T²·Σ c·q·log(q/p): each class of the target weighs c; gradient T·((Σ c·q)·p − c·q). With c = 1 it is `kl`.
pub fn weighted_kl(student: &[f64], teacher: &[f64], gains: &[f64], temperature: f64) -> Term {
    let (log_p, log_q) = (log_softmax(student, temperature), log_softmax(teacher, temperature));
    let weighted: Vec<f64> = gains.iter().zip(&log_q).map(|(c, log_q)| c * log_q.exp()).collect();
    let mass: f64 = weighted.iter().sum();
    let gap: Vec<f64> = log_q.iter().zip(&log_p).map(|(log_q, log_p)| log_q - log_p).collect();
    let gradient = log_p.iter().zip(&weighted).map(|(log_p, cq)| mass * log_p.exp() - cq);
    scaled(dot(&weighted, &gap), gradient.collect(), temperature)
}

/// T²·KL(p ‖ q); gradient T·p·(log(p/q) − KL).
pub fn reverse_kl(student: &[f64], teacher: &[f64], temperature: f64) -> Term {
    let (log_p, log_q) = (log_softmax(student, temperature), log_softmax(teacher, temperature));
    let gap: Vec<f64> = log_p.iter().zip(&log_q).map(|(log_p, log_q)| log_p - log_q).collect();
    let p = exp(&log_p);
    let value = dot(&p, &gap);
    scaled(value, centred_by(&p, &gap), temperature)
}

/// T²·(KL(p ‖ m) + KL(q ‖ m))/2 with m = (p + q)/2; gradient T·p·(u − Σ p·u), u = log(p/m)/2.
pub fn jensen_shannon(student: &[f64], teacher: &[f64], temperature: f64) -> Term {
    let (log_p, log_q) = (log_softmax(student, temperature), log_softmax(teacher, temperature));
    let pairs = || log_p.iter().zip(&log_q);
    let log_m: Vec<f64> =
        pairs().map(|(&a, &b)| log_sum_exp([a, b].into_iter()) - std::f64::consts::LN_2).collect();
    let half = |log: &[f64]| -> Vec<f64> {
        log.iter().zip(&log_m).map(|(log, log_m)| (log - log_m) / 2.0).collect()
    };
    let (p, u) = (exp(&log_p), half(&log_p));
    let value = dot(&p, &u) + dot(&exp(&log_q), &half(&log_q));
    scaled(value, centred_by(&p, &u), temperature)
}

/// ½‖z_s − z_t‖²; gradient z_s − z_t.
pub fn logit_mse(student: &[f64], teacher: &[f64]) -> Term {
    let gradient: Vec<f64> = student.iter().zip(teacher).map(|(s, t)| s - t).collect();
    Term { value: dot(&gradient, &gradient) / 2.0, gradient }
}

/// T²·KL between z-scored logits, (z − mean)/(1e-7 + std), std by n − 1 (Sun et al. 2024, logit standardisation).
/// Two classes always score ±0.7071.
pub fn standardised(student: &[f64], teacher: &[f64], temperature: f64) -> Term {
    if student.len() < 2 {
        return Term::zero(student.len()); // one class has no spread
    }
    let (scores, spread, deviation) = z_scores(student);
    let Term { value, gradient } = kl(&scores, &z_scores(teacher).0, temperature);
    let n = student.len() as f64;
    let mean = gradient.iter().sum::<f64>() / n;
    // The scores' share in how the deviation moves; equal logits don't move it.
    let along = if deviation > 0.0 { dot(&gradient, &scores) * spread / deviation } else { 0.0 };
    let back = |(g, score): (&f64, &f64)| (g - mean - along * score / (n - 1.0)) / spread;
    Term { value, gradient: gradient.iter().zip(&scores).map(back).collect() }
}

/// Scores, 1e-7 + std, std.
fn z_scores(logits: &[f64]) -> (Vec<f64>, f64, f64) {
    let n = logits.len() as f64;
    let mean = logits.iter().sum::<f64>() / n;
    let deviation = (logits.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let spread = 1e-7 + deviation;
    (logits.iter().map(|z| (z - mean) / spread).collect(), spread, deviation)
}

/// T²·(KL(b_q ‖ b_p) + 8·KL(q̂ ‖ p̂)): b the pair of target and rest, q̂ and p̂ the softmaxes over the rest
/// (Zhao et al. 2022, decoupled knowledge distillation, with their α = 1, β = 8).
/// Gradient T·(b_p − b_q) at the target, T·(8·(p̂ − q̂) − (b_p − b_q)·p̂) elsewhere.
pub fn decoupled(student: &[f64], teacher: &[f64], temperature: f64, target: usize) -> Term {
    const BETA: f64 = 8.0;
    let (log_p, log_q) = (log_softmax(student, temperature), log_softmax(teacher, temperature));
    let rest_of = |log: &[f64]| {
        log_sum_exp(log.iter().enumerate().filter(|(k, _)| *k != target).map(|(_, log)| *log))
    };
    let (rest_p, rest_q) = (rest_of(&log_p), rest_of(&log_q));
    if rest_p == f64::NEG_INFINITY {
        return Term::zero(student.len()); // one class
    }
    let (b_p, b_q) = (log_p[target].exp(), log_q[target].exp());
    let binary = b_q * (log_q[target] - log_p[target]) + rest_q.exp() * (rest_q - rest_p);
    let mut others = 0.0;
    let mut gradient = vec![0.0; student.len()];
    for (k, gradient) in gradient.iter_mut().enumerate() {
        if k == target {
            *gradient = b_p - b_q;
            continue;
        }
        let (log_p, log_q) = (log_p[k] - rest_p, log_q[k] - rest_q);
        others += log_q.exp() * (log_q - log_p);
        *gradient = BETA * (log_p.exp() - log_q.exp()) - (b_p - b_q) * log_p.exp();
    }
    scaled(binary + BETA * others, gradient, temperature)
}

/// Mean over classes of max(|z_s − z_t| − margin, 0)^power (Zhao et al. 2022, ELODI: logit difference inhibition).
pub fn inhibition(student: &[f64], teacher: &[f64], margin: f64, power: f64) -> Term {
    let n = student.len() as f64;
    let mut term = Term::zero(student.len());
    for ((gradient, s), t) in term.gradient.iter_mut().zip(student).zip(teacher) {
        let beyond = (s - t).abs() - margin;
        if beyond.is_nan() || beyond > 0.0 {
            term.value += beyond.powf(power) / n;
            *gradient = power * beyond.powf(power - 1.0) * (s - t).signum() / n;
        }
    }
    term
}

/// p·(u − Σ p·u): how Σ p·u moves with the logits where u itself adds nothing.
fn centred_by(p: &[f64], u: &[f64]) -> Vec<f64> {
    let mean = dot(p, u);
    p.iter().zip(u).map(|(p, u)| p * (u - mean)).collect()
}

/// T² on the value; one of the two T of the gradient is used up by z/T.
fn scaled(value: f64, gradient: Vec<f64>, temperature: f64) -> Term {
    let gradient = gradient.iter().map(|g| g * temperature).collect();
    Term { value: value * temperature * temperature, gradient }
}

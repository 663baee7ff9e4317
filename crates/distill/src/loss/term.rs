//! A loss of one row with its gradient, in f64, and the terms that need labels alone.

/// One row's loss, and its gradient with respect to the row's logits (K,).
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub value: f64,
    pub gradient: Vec<f64>,
}

impl Term {
    pub fn zero(classes: usize) -> Term {
        Term { value: 0.0, gradient: vec![0.0; classes] }
    }

    pub fn times(mut self, weight: f64) -> Term {
        self.value *= weight;
        self.gradient.iter_mut().for_each(|g| *g *= weight);
        self
    }

    pub fn plus(mut self, other: &Term) -> Term {
        self.value += other.value;
        self.gradient.iter_mut().zip(&other.gradient).for_each(|(a, b)| *a += b);
        self
    }
}

/// zₖ/T − log Σ exp(z/T). Not a number stays not a number; the step refuses it.
pub fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let log_sum = log_sum_exp(logits.iter().map(|z| z / temperature));
    logits.iter().map(|z| z / temperature - log_sum).collect()
}

/// log Σ exp(x); −∞ of nothing.
pub fn log_sum_exp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = x.clone().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY { max } else { max + x.map(|x| (x - max).exp()).sum::<f64>().ln() }
}

/// 1/(1 + e^−z).
pub fn sigmoid(z: f64) -> f64 {
    // Of −|z|, so that nothing overflows; not a number stays not a number.
    let small = (-z.abs()).exp();
    if z >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) }
}

/// log(1 + e^z) without overflow.
pub fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

pub fn exp(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x.exp()).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// 1 − s + s/K on the label and s/K elsewhere, as `one_hot`. (K,)
pub fn smoothed(label: usize, classes: usize, smoothing: f64) -> Vec<f64> {
    let low = smoothing / classes as f64;
    (0..classes).map(|k| if k == label { 1.0 - smoothing + low } else { low }).collect()
}

/// −Σ q·log p; gradient (Σ q)·p − q. The target's sum may lie below 1.
pub fn cross_entropy(logits: &[f64], target: &[f64]) -> Term {
    let log_p = log_softmax(logits, 1.0);
    let mass: f64 = target.iter().sum();
    let gradient = log_p.iter().zip(target).map(|(log_p, q)| mass * log_p.exp() - q).collect();
    Term { value: -dot(target, &log_p), gradient }
}

/// H(p) = −Σ p·log p; gradient −p·(log p + H).
pub fn entropy(logits: &[f64]) -> Term {
    let log_p = log_softmax(logits, 1.0);
    let p = exp(&log_p);
    let entropy = -dot(&p, &log_p);
    let gradient = p.iter().zip(&log_p).map(|(p, log_p)| -p * (log_p + entropy)).collect();
    Term { value: entropy, gradient }
}

//! What besides the labels a run is held against: a teacher's rows, the old weights, held-out rows for a churn budget.
//! And what a method draws for a batch.

use candle_core::Device;
use lowchurn_data::{Encoded, Rng};
use lowchurn_models::{Classifier, Config, Mix};

use crate::{
    Error, Groups, Method, Objective, OldWeights, Plan, Result, Shares, Steering, Teacher, Vectors,
    predict,
};

/// Nothing of it changes while a run goes on.
#[derive(Clone, Copy, Default)]
pub struct Guides<'g> {
    pub teacher: Option<&'g Teacher>,
    /// What takes the teacher's place in the loss, where the method is k-NN label smoothing; `train` makes it.
    pub neighbours: Option<&'g Teacher>,
    pub old_weights: Option<&'g OldWeights>,
    /// (N,) whether the old model was trained on the row.
    pub is_old: Option<&'g [bool]>,
    pub buffer: Option<&'g Buffer>,
    pub shown: Shown<'g>,
    /// Where a column makes the groups of the objective.
    pub groups: Option<&'g Groups>,
    /// Held-out rows on which a robust objective finds its worst class.
    pub steering: Option<&'g Steering>,
    /// What the objective knows of the rows; `train` takes it from them.
    pub shares: Option<&'g Shares>,
    /// The teacher's, where its own gradients are asked for.
    pub teacher_weights: Option<&'g OldWeights>,
    /// One vector for each row of the run, that the last layer reads; where it alone is trained. `train` makes them where they
    /// aren't given.
    pub features: Option<&'g Vectors>,
    /// The same of the rows to evaluate on.
    pub eval_features: Option<&'g Vectors>,
}

/// What a teacher shows besides its logits.
#[derive(Clone, Copy, Default)]
pub struct Shown<'g> {
    /// It is asked for its states in every update, in evaluation mode: a forward pass of its own size each.
    pub model: Option<&'g Classifier>,
    /// One vector for each row of the run.
    pub vectors: Option<&'g Vectors>,
}

/// Held-out rows with the old model's predictions, on which dual ascent measures churn. Labels aren't looked at.
pub struct Buffer {
    pub rows: Encoded,
    pub old: Vec<u32>,
}

impl<'g> Guides<'g> {
    /// Whose logits the loss is held against.
    pub fn followed(&self, method: &Method) -> Option<&'g Teacher> {
        match method {
            Method::KnnSmoothing { .. } => self.neighbours,
            _ => self.teacher,
        }
    }

    /// Whether everything is here that the method needs, and fits the rows.
    pub fn check(&self, method: &Method, rows: usize, classes: usize) -> Result<()> {
        let needs = method.needs();
        // Without a row churn would be 0 for ever, and the teacher never followed.
        let is_whole =
            |buffer: &Buffer| buffer.rows.rows() == buffer.old.len() && !buffer.old.is_empty();
        let is_here = [
            (needs.teacher, self.teacher.is_some(), "a teacher"),
            (needs.old_weights, self.old_weights.is_some(), "the old model's weights"),
            (
                needs.old_rows,
                self.is_old.is_some_and(|marks| marks.len() == rows),
                "to know which rows the old model has seen",
            ),
            (needs.buffer, self.buffer.is_some_and(is_whole), "held-out rows to measure churn on"),
        ];
        if let Some((_, _, what)) = is_here.iter().find(|(needed, here, _)| *needed && !here) {
            return Err(Error::MethodNeeds { method: method.name(), what });
        }
        if let Some(teacher) = self.teacher
            && (teacher.known.len() != classes || teacher.logits.len() != rows * classes)
        {
            let found = teacher.logits.len();
            return Err(Error::TeacherShape { found, rows, classes });
        }
        method.check(classes).map_err(|reason| Error::Method { reason })
    }

    /// Whether everything is here that the objective needs. `labels` are the student's.
    pub fn check_objective(&self, objective: &Objective, labels: &[String]) -> Result<()> {
        let Some(robust) = objective.robust() else { return Ok(()) };
        match self.steering {
            Some(steering) => steering.check(robust, labels, self.groups),
            None => Err(Error::Objective {
                reason: "objective robust needs held-out rows to find its worst class on".into(),
            }),
        }
    }
}

impl Shown<'_> {
    /// Whether everything is here that the plan's terms need, and fits the student.
    pub fn check(&self, plan: &Plan, student: &Config, rows: usize) -> Result<()> {
        let method = plan.method.name();
        let refuse = |reason: String| Err(Error::States { reason });
        let Some(terms) = plan.states else {
            return match plan.method.needs().states {
                true => refuse(format!(
                    "method {method} follows no logits: give a hidden, attention, relation or vector weight"
                )),
                false => Ok(()),
            };
        };
        if matches!(
            plan.method,
            Method::Mixup { .. } | Method::Mixout { .. } | Method::CoDistil { .. }
        ) {
            return refuse(format!(
                "method {method} changes what a student reads or is, and no states of a teacher belong to that; take distil"
            ));
        }
        match self.model {
            Some(teacher) => terms.check_models(student, &teacher.config)?,
            None if terms.is_on_tokens() => {
                let what =
                    "hidden, attention and relation weights need a teacher to ask for its states";
                return refuse(format!("{what}, and there is none; use lowchurn distil"));
            }
            None => {}
        }
        let is_whole =
            |vectors: &Vectors| vectors.width > 0 && vectors.values.len() == rows * vectors.width;
        if terms.vector_weight > 0.0 && !self.vectors.is_some_and(is_whole) {
            return refuse(
                "a vector weight needs a teacher's vector of each row; use lowchurn distil".into(),
            );
        }
        Ok(())
    }
}

impl Buffer {
    /// Share of rows on which the model predicts otherwise than the old one did.
    pub fn churn(&self, model: &Classifier, batch_size: usize, device: &Device) -> Result<f64> {
        let found = predict(model, &self.rows, batch_size, device, &mut |_| {})?;
        let changed =
            (0..found.rows()).filter(|&row| self.old.get(row) != Some(&found.predicted(row)));
        Ok(changed.count() as f64 / found.rows().max(1) as f64)
    }
}

/// Mixup's partner and share of each of `n` rows (Zhang et al. 2018), the same for the same plan and update.
pub fn mix_of(plan: &Plan, alpha: f64, step: u64, micro: usize, n: usize) -> Mix {
    let mut rng = Rng::stream(plan.seed, "mixup", step << 16 | micro as u64);
    let mut partner: Vec<u32> = (0..n as u32).collect();
    rng.shuffle(&mut partner);
    let share = (0..n).map(|_| beta(alpha, &mut rng) as f32).collect();
    Mix { partner, share }
}

/// A draw from Beta(α, α). To α = 1 by Jöhnk's method in logarithms, where a small α doesn't underflow. It takes some 4^α tries,
/// so above that G/(G + G') of two gamma draws.
fn beta(alpha: f64, rng: &mut Rng) -> f64 {
    if alpha > 1.0 {
        let (x, y) = (gamma(alpha, rng), gamma(alpha, rng));
        return x / (x + y);
    }
    loop {
        let mut draw = || (1.0 - rng.uniform()).ln() / alpha; // of (0, 1]
        let (x, y) = (draw(), draw());
        let max = x.max(y);
        let log_sum = max + ((x - max).exp() + (y - max).exp()).ln();
        if log_sum <= 0.0 {
            return (x - log_sum).exp();
        }
    }
}

/// A draw from Gamma(α)/(α − 1/3), for α ≥ 1 (Marsaglia & Tsang 2000): of ten tries nine or more are taken. Without the factor
/// no α overflows, and the ratio of two is the same.
fn gamma(alpha: f64, rng: &mut Rng) -> f64 {
    let d = alpha - 1.0 / 3.0;
    loop {
        let x = rng.normal();
        let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
        if v > 0.0 && (1.0 - rng.uniform()).ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            return v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same for the same update, so that a resume mixes as the run that was stopped; another for any other.
    #[test]
    fn partners_and_shares_are_a_function_of_the_update() {
        let plan = Plan::default_with(crate::SelectBy::Accuracy);
        let mix = |plan: &Plan, step, micro| {
            let mix = mix_of(plan, 0.4, step, micro, 16);
            assert!(mix.share.iter().all(|share| (0.0..=1.0).contains(share)));
            let mut partners = mix.partner.clone();
            partners.sort_unstable();
            assert_eq!(partners, (0..16).collect::<Vec<u32>>());
            (mix.partner, mix.share)
        };
        let first = mix(&plan, 3, 0);
        assert_eq!(first, mix(&plan, 3, 0));
        let other = Plan { seed: 1, ..plan.clone() };
        for found in [mix(&plan, 4, 0), mix(&plan, 3, 1), mix(&other, 3, 0)] {
            assert_ne!(first, found);
        }
    }

    /// Beta(α, α) has mean 1/2 and variance 1/(4(2α + 1)).
    #[test]
    fn beta_has_its_moments() {
        for alpha in [0.1, 0.5, 1.0, 1.01, 3.0, 32.0, 1e6] {
            let mut rng = Rng::stream(1, "beta", 0);
            let draws: Vec<f64> = (0..40_000).map(|_| beta(alpha, &mut rng)).collect();
            assert!(draws.iter().all(|x| (0.0..=1.0).contains(x)));
            let mean = draws.iter().sum::<f64>() / 40_000.0;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 40_000.0;
            assert!((mean - 0.5).abs() < 0.01, "{alpha}: {mean}");
            let expected = 0.25 / (2.0 * alpha + 1.0);
            assert!((variance / expected - 1.0).abs() < 0.03, "{alpha}: {variance} {expected}");
        }
        let mut rng = Rng::stream(1, "beta", 0);
        assert_eq!(beta(f64::MAX, &mut rng), 0.5);
    }
}

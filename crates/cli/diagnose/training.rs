//! What the folders of two runs say of how the student was trained, as far as advice depends on it.

use lowchurn_churn::{Taught, Temperature, Training};
use lowchurn_distill::{Divergence, Lambda, Method, Moment, kept_update, last_before};

use crate::found::Found;
use crate::rows::settings_of;
use crate::settings::{self, Settings};

/// Nothing of predictions, of other programs' models, and of a record that can't be read.
pub fn of(teacher: Option<&Found>, student: Option<&Found>) -> Training {
    let settings = |found: Option<&Found>| {
        found.and_then(|found| settings_of(&found.folder).ok()).unwrap_or_default()
    };
    let (of_teacher, of_student) = (settings(teacher), settings(student));
    Training {
        taught: taught(&of_student, student.and_then(kept)),
        student_epochs: epochs(&of_student),
        teacher_epochs: epochs(&of_teacher),
    }
}

/// Where nothing could have stopped the run earlier.
fn epochs(run: &Settings) -> Option<u32> {
    run.epochs.filter(|_| run.max_steps.is_none() && run.patience.unwrap_or(0) == 0)
}

fn method(run: &Settings) -> Option<Method> {
    run.method.as_ref().and_then(|_| settings::method(run).ok())
}

/// The update whose weights a run kept, and how many there were to be.
fn kept(found: &Found) -> Option<(u64, u64)> {
    kept_update(&found.folder).ok().flatten().filter(|(step, _)| *step > 0)
}

fn taught(run: &Settings, kept: Option<(u64, u64)>) -> Taught {
    let Some(method) = method(run) else { return Taught::Unknown };
    // Of k-NN smoothing the teacher says who is near, and what λ weighs are labels.
    let is_led = !matches!(method, Method::KnnSmoothing { .. });
    let Some(lambda) = method.lambda().filter(|_| is_led) else {
        return Taught::Alone(method.name().into());
    };
    let last_lambda = match lambda {
        Lambda::Constant(value) => Some(value),
        Lambda::Budget { .. } => None,
        schedule => kept.map(|(step, total)| schedule.at(step - 1, total, 0.0)),
    };
    let reduction = run.variance_reduction.unwrap_or_default();
    let held = match &method {
        _ if !reduction.is_none() => Some(format!("variance reduction {reduction} holds T at 1")),
        Method::Distil { divergence: Divergence::LogitMse, .. } => {
            Some("divergence logit-mse has no T".into())
        }
        Method::Distil { divergence: Divergence::MixedLabel, .. } => {
            Some("divergence mixed-label holds T at 1".into())
        }
        Method::Distil { .. } | Method::Focal { .. } => None,
        other => Some(format!("method {} has no T", other.name())),
    };
    Taught::By { last_lambda, temperature: held.map_or(Temperature::Free, Temperature::Held) }
}

/// A loss that was to be switched in the middle.
pub struct Switched {
    pub at: Moment,
    /// λ before and after.
    pub lambdas: (f64, f64),
    /// Of how many updates, and which one's weights are there, where that is before the switch.
    pub total: Option<u64>,
    pub ahead_of: Option<u64>,
}

pub fn switched(student: &Found) -> Option<Switched> {
    let run = settings_of(&student.folder).ok()?;
    let Lambda::Switch { before, after, at } = method(&run)?.lambda()? else { return None };
    let kept = kept(student);
    let total = kept.map(|(_, total)| total);
    let is_from_the_start = total.is_some_and(|total| at.is_past(0, total));
    let ahead_of = kept.filter(|(step, total)| !at.is_past(step - 1, *total)).map(|kept| kept.0);
    (!is_from_the_start).then_some(Switched { at, lambdas: (before, after), total, ahead_of })
}

impl Switched {
    /// The student as it was before, with the number of updates that it had seen, where that checkpoint was kept.
    pub fn before(&self, student: &Found) -> Option<(u64, Found)> {
        let (step, folder) = last_before(&student.folder, self.at, self.total?).ok()??;
        let name = format!("{} after {step} updates", student.name);
        Some((step, Found { name, folder, ..student.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_says_decides_what_can_be_advised() {
        let check = |method: &str, reduction: Option<&str>, expected: Taught| {
            let run = Settings {
                method: Some(method.into()),
                variance_reduction: reduction.map(|name| name.parse().unwrap()),
                ..Settings::default()
            };
            assert_eq!(taught(&run, Some((40, 40))), expected, "{method}");
        };
        let by = |last_lambda: Option<f64>, held: Option<&str>| Taught::By {
            last_lambda,
            temperature: held.map_or(Temperature::Free, |why| Temperature::Held(why.into())),
        };
        check("retrain", None, Taught::Alone("retrain".into()));
        check("knn-smoothing", None, Taught::Alone("knn-smoothing".into()));
        check("mixup", None, Taught::Alone("mixup".into()));
        check("distil:lambda=0.3,temperature=4", None, by(Some(0.3), None));
        check("distil:lambda=1..0@75%", None, by(Some(0.0), None));
        check("distil:lambda=1..0", None, by(Some(0.0), None));
        check("distil:lambda=churn<=0.02", None, by(None, None));
        check(
            "distil:lambda=0.5",
            Some("unbiased"),
            by(Some(0.5), Some("variance reduction unbiased holds T at 1")),
        );
        check(
            "distil:lambda=0.5,divergence=logit-mse",
            None,
            by(Some(0.5), Some("divergence logit-mse has no T")),
        );
        check("anchor:lambda=0.5", None, by(Some(0.5), Some("method anchor has no T")));
        assert_eq!(taught(&Settings::default(), None), Taught::Unknown);
        // The best weights may be of before the switch, and where that isn't known neither is λ.
        let run = Settings { method: Some("distil:lambda=1..0@75%".into()), ..Settings::default() };
        assert_eq!(taught(&run, Some((20, 40))), by(Some(1.0), None));
        assert_eq!(taught(&run, None), by(None, None));
    }

    #[test]
    fn passes_count_where_nothing_stops_them() {
        let run = Settings { epochs: Some(3), ..Settings::default() };
        assert_eq!(epochs(&run), Some(3));
        assert_eq!(epochs(&Settings { max_steps: Some(9), ..run.clone() }), None);
        assert_eq!(epochs(&Settings { patience: Some(2), ..run }), None);
        assert_eq!(epochs(&Settings::default()), None);
    }
}

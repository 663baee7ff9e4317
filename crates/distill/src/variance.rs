//! Less noise in the update's gradient: another gradient of the same rows, at fixed weights θ, taken off it. Safaryan, Peste and
//! Alistarh 2023, 2305.17581, whose code has these rules (papers.md 8.3).
//!
//! With f the mean loss of the labels, B the rows of the update and x the student's weights:
//!
//!   kd         the gradient of the method itself, (1 − λ)·CE + λ·KL: for a linear model at T = 1 the same as `modified`
//!   modified   ∇f_B(x) − λ·∇f_B(θ), θ the teacher's weights
//!   unbiased   ∇f_B(x) − λ·∇f_B(θ) + λ·∇f(θ), with the gradient over all rows, taken once: its mean is ∇f(x) for any teacher
//!   svrg       the same with θ a snapshot of the student, renewed every so many epochs, and no teacher
//!
//! θ is in evaluation mode, so what dropout adds to the student's own gradient stays. An update costs a second forward and
//! backward pass, and each new θ with a full gradient a pass over all rows, which a signal doesn't interrupt.

mod line;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use lowchurn_data::{Batch, Encoded, collate, eval_order};
use lowchurn_kernels::{Gradient, awake, backward};
use lowchurn_models::{Classifier, Config, Input, Mode, Params, is_head, parameter_shapes};
use serde::{Deserialize, Serialize};

use crate::loss::{Against, row_losses};
use crate::{
    Divergence, Error, Grads, Guides, Method, OldWeights, Plan, Result, State, TeacherRows,
};

/// Written `none`, `kd`, `modified`, `unbiased`, `svrg` or `svrg:start=2,every=2,lambda=1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VarianceReduction {
    #[default]
    None,
    Kd,
    Modified,
    Unbiased,
    /// Plain before epoch `start` (0 for the first); from there a new snapshot every so many epochs.
    Svrg {
        start: u64,
        every: u64,
        lambda: f64,
    },
}

/// The fixed weights θ, and what is known of them.
pub struct Control {
    /// Those that the student is trained in too, with gradients.
    pub weights: Params,
    /// All of them, by name.
    tensors: BTreeMap<String, Tensor>,
    /// ∇f(θ).
    pub full: Option<BTreeMap<String, Tensor>>,
}

impl VarianceReduction {
    pub fn is_none(&self) -> bool {
        *self == VarianceReduction::None
    }

    /// Whether a second gradient is taken.
    pub fn has_control(self) -> bool {
        !matches!(self, VarianceReduction::None | VarianceReduction::Kd)
    }

    /// Whether θ are a teacher's weights.
    pub fn needs_teacher_weights(self) -> bool {
        matches!(self, VarianceReduction::Modified | VarianceReduction::Unbiased)
    }

    /// Refuses a plan whose other settings give this no meaning, and says what to take.
    pub fn check(self, plan: &Plan) -> Result<()> {
        let refuse = |reason: String| Err(Error::Reduction { reason });
        let method = &plan.method;
        if self.is_none() {
            return Ok(());
        }
        if self.has_control() && !plan.objective.is_standard() {
            return refuse(format!(
                "variance reduction {self} is for the mean loss of all rows, and the objective is {}; leave one of them out",
                plan.objective.name()
            ));
        }
        if self.has_control() && plan.batch_size.rows().is_none() {
            return refuse(format!(
                "variance reduction {self} is for updates of as many rows each, and batch_size is {}; give it as a number of rows",
                plan.batch_size
            ));
        }
        if self.has_control() && (plan.lora_rank.is_some() || plan.states.is_some()) {
            return refuse(format!(
                "variance reduction {self} is for the labels' loss of ordinary weights: leave out lora_rank, and weights of a \
                 teacher's states"
            ));
        }
        match (self, method) {
            (VarianceReduction::Svrg { .. }, Method::Retrain) => Ok(()),
            (VarianceReduction::Svrg { .. }, _) => refuse(format!(
                "variance reduction {self} is for method retrain, and the method is {method}: its control is the student's own \
                 snapshot; take modified or unbiased with a teacher"
            )),
            (
                _,
                Method::Distil {
                    temperature: 1.0,
                    divergence: Divergence::Kl | Divergence::MixedLabel,
                    rows: TeacherRows::All,
                    ..
                },
            ) => Ok(()),
            (_, _) => refuse(format!(
                "variance reduction {self} is for method distil with divergence kl or mixed-label at temperature 1 on all rows, and \
                 the method is {method}"
            )),
        }
    }

    /// λ of the control in an update, given the method's.
    pub(crate) fn weight(self, of_method: Option<f64>) -> f64 {
        match self {
            VarianceReduction::Svrg { lambda, .. } => lambda,
            _ => of_method.unwrap_or(0.0),
        }
    }

    /// Whether a snapshot of the student is due before update `step` (0 for the first).
    fn is_due(self, step: u64, per_epoch: u64) -> bool {
        let VarianceReduction::Svrg { start, every, .. } = self else { return false };
        let epoch = step / per_epoch.max(1);
        step.is_multiple_of(per_epoch.max(1))
            && epoch >= start
            && (epoch - start).is_multiple_of(every)
    }
}

impl Control {
    /// Of tensors in the names and shapes of the student's; those that stand still have no gradient.
    pub(crate) fn of(
        weights: &BTreeMap<String, Tensor>,
        full: Option<BTreeMap<String, Tensor>>,
        state: &State,
    ) -> Result<Control> {
        let (mut reached, mut tensors) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in weights {
            let tensor = match state.trained.reached.0.contains_key(name) {
                true => {
                    let var = Var::from_tensor(&tensor.copy()?.detach())?;
                    let tensor = var.as_tensor().clone();
                    reached.insert(name.clone(), var);
                    tensor
                }
                false => tensor.copy()?.detach(),
            };
            tensors.insert(name.clone(), tensor);
        }
        Ok(Control { weights: Params(reached), tensors, full })
    }

    /// Logits (B, K) at θ with a graph that leads to it, of the last layer alone where the student's vectors are given.
    pub(crate) fn logits(
        &self,
        model: &Classifier,
        input: &Input,
        vectors: Option<&Tensor>,
    ) -> Result<Tensor> {
        match vectors {
            Some(vectors) => Ok(Classifier::last_layer(&self.tensors, vectors)?),
            None => Ok(model.forward_with(&self.tensors, input, Mode::Eval)?),
        }
    }

    /// λ·∇f(θ), where it is known.
    pub(crate) fn full_times(&self, lambda: f64) -> Result<Grads> {
        let mut grads = Grads::default();
        for (name, full) in self.full.iter().flatten() {
            grads.0.insert(name.clone(), Gradient::Whole((full * lambda)?));
        }
        Ok(grads)
    }
}

/// Makes θ and its full gradient where the next update needs them and doesn't have them.
pub fn renew_control(
    plan: &Plan,
    guides: &Guides,
    rows: &Encoded,
    per_epoch: u64,
    state: &mut State,
) -> Result<()> {
    let reduction = plan.variance_reduction;
    let teacher = guides.teacher_weights.filter(|_| reduction.needs_teacher_weights());
    let is_new = match teacher {
        Some(_) => state.control.is_none(),
        None => {
            reduction.is_due(state.step, per_epoch) && state.progress.control_at != Some(state.step)
        }
    };
    if !is_new {
        return Ok(());
    }
    state.settle()?;
    let control = match teacher {
        Some(teacher) => Control::of(&teacher.params, None, state)?,
        None => Control::of(&OldWeights::copy_of(&state.model.params)?.params, None, state)?,
    };
    let needs_full = reduction != VarianceReduction::Modified;
    let full =
        if needs_full { Some(full_gradient(plan, guides, rows, &control, state)?) } else { None };
    state.control = Some(Control { full, ..control });
    state.progress.control_at = Some(state.step);
    Ok(())
}

/// What is read from a checkpoint: θ where it was the student's, and the full gradient.
pub(crate) fn from_saved(
    plan: &Plan,
    guides: &Guides,
    saved: BTreeMap<String, Tensor>,
    state: &State,
) -> Result<Control> {
    let part = |prefix: &str| -> BTreeMap<String, Tensor> {
        let of = |(name, tensor): (&String, &Tensor)| {
            Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))
        };
        saved.iter().filter_map(of).collect()
    };
    let full = (plan.variance_reduction != VarianceReduction::Modified).then(|| part(FULL));
    match guides.teacher_weights.filter(|_| plan.variance_reduction.needs_teacher_weights()) {
        Some(teacher) => Control::of(&teacher.params, full, state),
        None => Control::of(&part(THETA), full, state),
    }
}

/// Names and tensors of a checkpoint's file; a teacher's weights are in its own folder.
pub(crate) fn to_save(plan: &Plan, control: &Control) -> Vec<(String, Tensor)> {
    let is_snapshot = !plan.variance_reduction.needs_teacher_weights();
    let theta = control.tensors.iter().filter(|_| is_snapshot);
    let theta = theta.map(|(name, tensor)| (format!("{THETA}{name}"), tensor.detach()));
    let full = control.full.iter().flatten();
    theta.chain(full.map(|(name, tensor)| (format!("{FULL}{name}"), tensor.clone()))).collect()
}

const THETA: &str = "theta.";
const FULL: &str = "full.";

/// ∇f(θ) over all rows, in a fixed order. Costs a forward and a backward pass of each row.
pub(crate) fn full_gradient(
    plan: &Plan,
    guides: &Guides,
    rows: &Encoded,
    control: &Control,
    state: &State,
) -> Result<BTreeMap<String, Tensor>> {
    let (model, device) = (&state.model, state.device());
    let mut grads = Grads::default();
    for order in eval_order(&rows.lengths(), plan.eval_batch_size) {
        let batch = collate(rows, &order, model.config.pad_token_id);
        let input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, &device)?;
        let vectors = guides.vectors_of(&batch, &device)?;
        awake(|| -> Result<()> {
            let logits = control.logits(model, &input, vectors.as_ref())?; // (B, K)
            let losses = label_losses(plan, rows, &batch, &logits)?; // (B,)
            let mean = (losses.sum_all()? / rows.rows() as f64)?;
            grads.add(&control.weights, &mut backward(&mean)?)
        })?;
    }
    let tensor = |(name, grad): (&String, &Gradient)| Ok((name.clone(), grad.to_tensor()?));
    grads.0.iter().map(tensor).collect()
}

/// The labels' loss of each row, (B,), as the student's own.
pub(crate) fn label_losses(
    plan: &Plan,
    rows: &Encoded,
    batch: &Batch,
    logits: &Tensor,
) -> Result<Tensor> {
    let labels: Vec<Option<u32>> =
        batch.rows.iter().map(|&row| rows.labels[row as usize]).collect();
    let against = Against {
        labels: &labels,
        targets: &rows.targets.of_rows(&batch.rows),
        class_weight: &plan.class_weight,
        label_smoothing: plan.label_smoothing,
        lambda: 0.0,
        teacher: None,
        is_old: None,
        mix: None,
    };
    row_losses(&Method::Retrain, logits, &against)
}

impl Guides<'_> {
    /// The vectors (B, C) that the last layer reads, where they were made once for all.
    pub(crate) fn vectors_of(&self, batch: &Batch, device: &Device) -> Result<Option<Tensor>> {
        let Some(features) = self.features else { return Ok(None) };
        let values: Vec<f32> =
            batch.rows.iter().flat_map(|&row| features.of(row as usize)).copied().collect();
        Ok(Some(Tensor::from_vec(values, (batch.rows.len(), features.width), device)?))
    }
}

/// Whether a teacher's weights can be θ, as far as configs tell, whatever the classes.
pub fn check_teacher(
    reduction: VarianceReduction,
    teacher: &Config,
    student: &Config,
) -> Result<()> {
    if !reduction.needs_teacher_weights() {
        return Ok(());
    }
    let shapes = |config: &Config| -> BTreeMap<String, Vec<usize>> {
        parameter_shapes(config).into_iter().filter(|(name, _)| !is_head(name)).collect()
    };
    refuse_other_shapes(reduction, &shapes(teacher), &shapes(student))?;
    let (theirs, own) = (teacher.heads, student.heads);
    if theirs != own {
        let reason = format!("it has {theirs} attention heads, the student {own}");
        return Err(Error::OtherArchitecture { name: reduction.to_string(), reason });
    }
    Ok(())
}

fn refuse_other_shapes(
    reduction: VarianceReduction,
    teacher: &BTreeMap<String, Vec<usize>>,
    student: &BTreeMap<String, Vec<usize>>,
) -> Result<()> {
    let refuse =
        |reason: String| Err(Error::OtherArchitecture { name: reduction.to_string(), reason });
    for (name, expected) in student {
        match teacher.get(name) {
            None => return refuse(format!("it has no {name}")),
            Some(found) if found != expected => {
                return refuse(format!(
                    "its {name} has shape {found:?}, the student's {expected:?}"
                ));
            }
            Some(_) => {}
        }
    }
    match teacher.keys().find(|name| !student.contains_key(*name)) {
        Some(name) => refuse(format!("the student has no {name}")),
        None => Ok(()),
    }
}

/// Whether θ can be the teacher's: the student's names and shapes, labels in every row, and, where the last layer alone is
/// trained, the student's encoder.
pub(crate) fn check_control(
    plan: &Plan,
    guides: &Guides,
    rows: &Encoded,
    state: &State,
) -> Result<()> {
    let reduction = plan.variance_reduction;
    reduction.check(plan)?;
    if let Some(row) =
        rows.labels.iter().position(Option::is_none).filter(|_| reduction.has_control())
    {
        return Err(Error::Unlabelled { id: rows.ids[row].clone() });
    }
    if !reduction.needs_teacher_weights() {
        return Ok(());
    }
    let Some(teacher) = guides.teacher_weights else {
        return Err(Error::MethodNeeds {
            method: "distil",
            what: "the teacher's weights for its variance reduction",
        });
    };
    let shapes =
        |tensors: &mut dyn Iterator<Item = (&String, &Tensor)>| -> BTreeMap<String, Vec<usize>> {
            tensors.map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect()
        };
    let own = &state.model.params.0;
    let own = shapes(&mut own.iter().map(|(name, var)| (name, var.as_tensor())));
    refuse_other_shapes(reduction, &shapes(&mut teacher.params.iter()), &own)?;
    if guides.features.is_none() {
        return Ok(());
    }
    for (name, var) in &state.model.params.0 {
        let Some(tensor) =
            teacher.params.get(name).filter(|_| !state.trained.reached.0.contains_key(name))
        else {
            continue;
        };
        let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        if flat(tensor)? != flat(var)? {
            let reason = format!(
                "the last layer alone is trained, and the teacher's {name} isn't the student's: it has to be a probe of the same \
                 encoder"
            );
            return Err(Error::OtherArchitecture { name: reduction.to_string(), reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lowchurn_data::BatchSize;

    use super::*;
    use crate::{Objective, SelectBy};

    #[test]
    fn written_and_read() {
        for text in ["none", "kd", "modified", "unbiased", "svrg:start=0,every=1,lambda=0.5"] {
            assert_eq!(text.parse::<VarianceReduction>().unwrap().to_string(), text);
        }
        let plain = "svrg".parse::<VarianceReduction>().unwrap();
        assert_eq!(plain.to_string(), "svrg:start=2,every=2,lambda=1");
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<VarianceReduction>().unwrap_err(), expected);
        };
        for text in ["", "saga"] {
            check(text, &format!("{text:?} is no variance reduction; {}", line::EXPECTED));
        }
        check("svrg:every=0", "svrg: every is \"0\", expected at least 1 epoch");
        check("svrg:lambda=2", "svrg: lambda is \"2\", expected a number from 0 to 1");
        check("svrg:start=x", "svrg: start is \"x\", expected an epoch, 0 for the first");
        check("svrg:zz=1", "svrg: unknown setting zz; it takes start, every, lambda");
        check("kd:lambda=1", "kd: unknown setting lambda; it takes none");
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let check = |reduction: &str, method: &str, lora: Option<usize>| {
            let plan = Plan {
                method: method.parse().unwrap(),
                lora_rank: lora,
                ..Plan::default_with(SelectBy::Loss)
            };
            let said = reduction.parse::<VarianceReduction>().unwrap().check(&plan);
            said.err().map(|error| error.to_string()).unwrap_or_default()
        };
        for reduction in ["none", "kd", "modified", "unbiased"] {
            assert_eq!(check(reduction, "distil:lambda=0.3", None), "");
            assert_eq!(check(reduction, "distil:divergence=mixed-label", None), "");
        }
        assert_eq!(check("svrg", "retrain", None), "");
        assert_eq!(check("none", "focal", None), "");
        assert_eq!(
            check("svrg", "distil:lambda=0.5", None),
            "variance reduction svrg:start=2,every=2,lambda=1 is for method retrain, and the method is \
             distil:lambda=0.5,temperature=1,divergence=kl,rows=all: its control is the student's own snapshot; take modified or unbiased with a teacher"
        );
        for method in
            ["retrain", "distil:temperature=2", "distil:divergence=js", "distil:rows=better"]
        {
            let line = method.parse::<Method>().unwrap();
            assert_eq!(
                check("modified", method, None),
                format!(
                    "variance reduction modified is for method distil with divergence kl or mixed-label at temperature 1 on all \
                     rows, and the method is {line}"
                )
            );
        }
        let balanced = Plan {
            method: "distil".parse().unwrap(),
            objective: "balanced".parse().unwrap(),
            ..Plan::default_with(SelectBy::Loss)
        };
        assert_eq!(
            VarianceReduction::Modified.check(&balanced).unwrap_err().to_string(),
            "variance reduction modified is for the mean loss of all rows, and the objective is balanced; leave one of them out"
        );
        let batch_size = BatchSize::Tokens(512);
        let of_tokens = Plan { objective: Objective::Standard, batch_size, ..balanced };
        assert_eq!(
            VarianceReduction::Unbiased.check(&of_tokens).unwrap_err().to_string(),
            "variance reduction unbiased is for updates of as many rows each, and batch_size is tokens:512; give it as a number of rows"
        );
        assert_eq!(VarianceReduction::Kd.check(&of_tokens).err().map(|e| e.to_string()), None);
        assert_eq!(
            check("unbiased", "distil", Some(4)),
            "variance reduction unbiased is for the labels' loss of ordinary weights: leave out lora_rank, and weights of a \
             teacher's states"
        );
    }

    #[test]
    fn snapshots_are_taken_at_the_starts_of_epochs() {
        let svrg = "svrg:start=2,every=3".parse::<VarianceReduction>().unwrap();
        let due: Vec<u64> = (0..60).filter(|&step| svrg.is_due(step, 5)).collect();
        assert_eq!(due, [10, 25, 40, 55]);
    }
}

//! What can be refused of a run before anything of it is computed or written.

use lowchurn_models::Config;

use crate::variance::check_control;
use crate::{Error, Measuring, Method, Outputs, Plan, Result, Run, Shares, State, check_trained};

/// [`crate::train`] begins with it, and whoever makes a folder for the run asks before. Gives what the objective knows of the rows.
pub fn check(run: &Run, state: &State) -> Result<Option<Shares>> {
    let (plan, labels) = (&run.provenance.plan, state.model.labels());
    plan.check_values()?;
    check_rows(run, &state.model.config)?;
    run.guides.check(&plan.method, run.train.rows(), labels.len())?;
    run.guides.check_objective(&plan.objective, labels)?;
    if let (Ok(dir), Ok(base)) = (run.dir.canonicalize(), run.tokenizer_from.canonicalize())
        && dir == base
    {
        return Err(Error::OverBase { path: run.dir.into() });
    }
    refuse_twins(plan, state)?;
    check_trained(plan, &state.model.config)?;
    run.guides.shown.check(plan, &state.model.config, run.train.rows())?;
    check_control(plan, &run.guides, run.train, state)?;
    if let Some(lambda) = plan.method.lambda() {
        lambda.check(plan.total_steps(&run.train.lengths()))?;
    }
    Shares::of(plan, run.train, &run.guides, labels)
}

/// What [`crate::gradient_noise`] can't measure.
pub(crate) fn check_gradients(measuring: &Measuring) -> Result<()> {
    let &Measuring { student, teacher, rows, batches, lambda, .. } = measuring;
    let refuse = |reason: String| Err(Error::Method { reason });
    if batches.len() < 2 {
        return refuse(format!(
            "gradients need at least two batches, and there are {}",
            batches.len()
        ));
    }
    if let Some(row) = rows.labels.iter().position(Option::is_none) {
        return Err(Error::Unlabelled { id: rows.ids[row].clone() });
    }
    if !(0.0..=1.0).contains(&lambda) {
        return refuse(format!("λ is {lambda}, expected a number from 0 to 1"));
    }
    if let Some(class) = teacher.known.iter().position(|known| !known) {
        let name = student.labels().get(class).cloned().unwrap_or_default();
        return refuse(format!(
            "gradients: the teacher doesn't know the student's class {name:?}; take one that was trained on all of them"
        ));
    }
    Ok(())
}

/// Two students of the same weights get the same gradients, unless dropout tells them apart.
fn refuse_twins(plan: &Plan, state: &State) -> Result<()> {
    let (Method::CoDistil { .. }, Some(peer)) = (plan.method, &state.peer) else { return Ok(()) };
    let dropouts = match plan.dropout {
        Some(p) => vec![p as f32],
        None => state.model.config.dropouts(),
    };
    if dropouts.iter().any(|p| *p > 0.0)
        || state.model.params.fingerprint()? != peer.model.params.fingerprint()?
    {
        return Ok(());
    }
    let reason = "co-distil: both students start from the same weights, and without dropout they stay the same; set \
                  dropout above 0, or start cold, where each has a head of its own";
    Err(Error::Method { reason: reason.into() })
}

/// What would otherwise stop the run hours later: rows that can't be learnt from, or not by this model.
fn check_rows(run: &Run, config: &Config) -> Result<()> {
    if run.train.rows() == 0 {
        return Err(Error::NothingToTrainOn);
    }
    let needs = run.provenance.plan.method.needs();
    let has_teacher = needs.teacher || needs.states;
    let unlabelled = run.train.labels.iter().position(Option::is_none);
    if let Some(row) = unlabelled.filter(|_| !has_teacher) {
        return Err(Error::Unlabelled { id: run.train.ids[row].clone() });
    }
    if run.eval.is_some_and(|rows| rows.labels.iter().all(Option::is_none)) {
        return Err(Error::NothingToEvaluate);
    }
    let classes = config.labels.len();
    let (plan, outputs) = (&run.provenance.plan, Outputs::of(config)?);
    outputs.check(plan, classes)?;
    for rows in [Some(run.train), run.eval].into_iter().flatten() {
        if rows.targets.kind() != outputs.kind && rows.labels.iter().any(Option::is_some) {
            let (model, rows) = (outputs.kind.name(), rows.targets.kind().name());
            return Err(Error::OtherKind { model, rows });
        }
        for row in 0..rows.rows() {
            let width = rows.length(row);
            if width == 0 {
                return Err(Error::EmptyRow { id: rows.ids[row].clone() });
            }
            config.check_width(width)?;
            if let Some(label) = rows.labels[row].filter(|label| *label as usize >= classes) {
                return Err(Error::LabelIndex { row, label, classes });
            }
        }
    }
    Ok(())
}

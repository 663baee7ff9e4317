//! One update: forward, one loss a row, one division, backward, clip, AdamW. A function of state and batches.

mod counts;
mod seen;

use candle_core::{Device, Tensor};
use lowchurn_data::{Batch, Encoded, Kind, Rng};
use lowchurn_kernels::{Gradients, Keys, backward};
use lowchurn_models::{Depth, Input, Mode, States, depth};

use self::counts::counts_of;
use self::seen::{Seen, see};
use crate::loss::{Against, Shape, TeacherLogits, co_distil_rows, shaped_losses};
use crate::state::{Peer, Projections};
use crate::states::{Followed, StateTerms};
use crate::weights::{Pull, add_pull};
use crate::{
    Error, Grads, Guides, Method, Optimizer, Plan, Result, Shown, State, Teacher, Trained,
    clip_factor,
};

/// What an update saw, as sums over its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepReport {
    pub loss_sum: f64,
    /// Of the rows with a label.
    pub n_correct: u64,
    pub n_rows: u64,
    /// Rows without a label, which follow the teacher alone.
    pub n_unlabelled: u64,
    /// Real tokens, padding left out.
    pub n_tokens: u64,
    pub learning_rate: f64,
    /// Before clipping.
    pub gradient_norm: f64,
    /// The teacher's weight, where there is a teacher.
    pub lambda: Option<f64>,
    /// Rows on which the student predicts what the teacher does.
    pub n_agreed: u64,
    /// Of the rows; nothing is right or agreed on in a regression.
    pub kind: Kind,
}

/// One optimizer update of `total`; `micro` are the batches accumulated into it. Costs a pass over the whole table of words
/// that [`step_deferring`] doesn't.
pub fn step(
    state: &mut State,
    plan: &Plan,
    rows: &Encoded,
    guides: &Guides,
    micro: &[Batch],
    total: u64,
    device: &Device,
) -> Result<StepReport> {
    let report = step_deferring(state, plan, rows, guides, micro, total, device)?;
    state.settle()?;
    Ok(report)
}

/// The same numbers, but words that the batches don't hold miss their update until [`State::settle`] or a batch with them.
pub fn step_deferring(
    state: &mut State,
    plan: &Plan,
    rows: &Encoded,
    guides: &Guides,
    micro: &[Batch],
    total: u64,
    device: &Device,
) -> Result<StepReport> {
    let mut keys = Keys::new(Rng::stream(plan.seed, "dropout", state.step).next_u64());
    let n: usize = micro.iter().map(|batch| batch.rows.len()).sum(); // the only divisor of a loss that is trained on
    let lambda = plan.method.lambda().map(|l| l.at(state.step, total, state.progress.multiplier));
    match plan.method {
        Method::Mixout { .. } | Method::L2ToOld { .. } | Method::Ewc { .. } => state.settle()?, // they read all weights
        _ if state.control.as_ref().is_some_and(|control| control.full.is_some()) => {
            state.settle()?
        } // it moves all words
        _ => state.catch_up(micro)?,
    }
    let shape = shape_of(state, plan, guides, lambda.unwrap_or(0.0))?;
    let weight = plan.variance_reduction.weight(lambda);
    let update = Update { plan, rows, guides, n, lambda, weight, shape, device };
    let mut sums = Sums::default();
    for (at, batch) in micro.iter().enumerate() {
        update.add(state, (at, batch), &mut keys, &mut sums)?;
    }
    let Sums { seen, mut grads, peers, projected, controls } = sums;
    if state.step == 0 {
        refuse_missing_gradients(state, plan, &grads)?;
    }
    if let Some(control) = &state.control {
        grads.merge(controls)?;
        grads.merge(control.full_times(weight)?)?;
    }
    if let (Some(pull), Some(old)) = (pull_of(plan.method), guides.old_weights) {
        // On the matrices that the model uses, so before adapters' factors get their gradients.
        add_pull(&mut grads, &state.model.params, old, pull)?;
        state.trained.keep_reached(&mut grads);
    }
    let (at, rate) = (state.step, plan.learning_rate_at(state.step, total));
    let apply = |mut grads: Grads, trained: &Trained, optimizer: &mut Optimizer| {
        trained.lead_to_factors(&mut grads)?;
        let norm = grads.norm()?;
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "gradient norm", step: at + 1 });
        }
        let scale = clip_factor(norm, plan.max_grad_norm);
        optimizer.apply(trained, &grads, plan, at, rate, scale)?;
        trained.set_matrices()?;
        Ok(norm)
    };
    let gradient_norm = apply(grads, &state.trained, &mut state.optimizer)?;
    if let Some(Peer { trained, optimizer, .. }) = &mut state.peer {
        apply(peers, trained, optimizer)?;
    }
    if let Some(Projections { params, optimizer }) = &mut state.projections {
        apply(projected, &Trained::whole(params), optimizer)?;
    }
    state.step += 1;
    let kind = rows.targets.kind();
    Ok(StepReport { n_rows: n as u64, lambda, kind, learning_rate: rate, gradient_norm, ..seen })
}

/// What all batches of an update share.
struct Update<'u> {
    plan: &'u Plan,
    rows: &'u Encoded,
    guides: &'u Guides<'u>,
    /// Rows of all of them.
    n: usize,
    lambda: Option<f64>,
    /// Of the control's gradient.
    weight: f64,
    shape: Shape,
    device: &'u Device,
}

/// What they add up to.
#[derive(Default)]
struct Sums {
    /// Without what is known of all batches together.
    seen: StepReport,
    grads: Grads,
    peers: Grads,
    projected: Grads,
    controls: Grads,
}

impl Update<'_> {
    /// A batch's loss and gradients; `at` is its place among those of the update.
    fn add(
        &self,
        state: &State,
        (at, batch): (usize, &Batch),
        keys: &mut Keys,
        sums: &mut Sums,
    ) -> Result<()> {
        let Update { plan, rows, guides, shape, .. } = self;
        let labels = labels_of(rows, batch, state.model.labels().len(), plan.method)?;
        let targets = rows.targets.of_rows(&batch.rows);
        let seen = see(state, plan, guides, (at, batch), keys, self.device)?;
        let classes = seen.logits.dim(1)?;
        let followed = guides.followed(&plan.method);
        let teacher = followed.map(|teacher| rows_of(teacher, batch, classes));
        let is_old: Option<Vec<bool>> = guides
            .is_old
            .map(|is_old| batch.rows.iter().map(|&row| is_old[row as usize]).collect());
        let against = Against {
            labels: &labels,
            targets: &targets,
            class_weight: &plan.class_weight,
            label_smoothing: plan.label_smoothing,
            lambda: self.lambda.unwrap_or(0.0),
            teacher: match (&teacher, followed) {
                (Some(logits), Some(teacher)) => {
                    Some(TeacherLogits { logits, known: &teacher.known })
                }
                _ => None,
            },
            is_old: is_old.as_deref(),
            mix: seen.input.mix.as_ref().map(|mix| (&mix.partner[..], &mix.share[..])),
        };
        let loss = losses_of(state, plan, guides, &seen, &against, shape, keys)?.sum_all()?;
        let means = &mut sums.seen;
        means.loss_sum += f64::from(loss.to_scalar::<f32>()?); // waits for the device
        means.n_unlabelled += labels.iter().filter(|label| label.is_none()).count() as u64;
        let (n_correct, n_agreed) = counts_of(&seen, &labels, &targets, followed)?;
        means.n_correct += n_correct;
        means.n_agreed += n_agreed;
        means.n_tokens += batch.lengths.iter().map(|&length| u64::from(length)).sum::<u64>();
        if !means.loss_sum.is_finite() {
            return Err(Error::NotFinite { what: "loss", step: state.step + 1 });
        }
        let mean = |sum: Tensor| sum / self.n as f64;
        let mut found: Gradients = backward(&mean(loss)?)?;
        sums.grads.add(&state.model.params, &mut found)?;
        if let Some(peer) = &state.peer {
            sums.peers.add(&peer.model.params, &mut found)?;
        }
        if let Some(projections) = &state.projections {
            sums.projected.add(&projections.params, &mut found)?;
        }
        if let Some(control) = &state.control {
            let logits = control.logits(&state.model, &seen.input, seen.vectors.as_ref())?; // (B, K)
            let losses = shaped_losses(&method_of_rows(state, plan), &logits, &against, shape)?; // (B,)
            let taken_off = mean((losses.sum_all()? * -self.weight)?)?;
            sums.controls.add(&control.weights, &mut backward(&taken_off)?)?;
        }
        Ok(())
    }
}

/// Where a control's gradient is taken off, both are of the labels' loss alone.
fn method_of_rows(state: &State, plan: &Plan) -> Method {
    match state.control {
        Some(_) => Method::Retrain,
        None => plan.method,
    }
}

/// What each row of a batch costs, (B,).
fn losses_of(
    state: &State,
    plan: &Plan,
    guides: &Guides,
    seen: &Seen,
    against: &Against,
    shape: &Shape,
    keys: &mut Keys,
) -> Result<Tensor> {
    let Seen { batch, input, logits, .. } = seen;
    let losses = match (&plan.method, &state.peer) {
        (Method::CoDistil { beta, warmup }, Some(peer)) => {
            let rising = ((state.step + 1) as f64 / (warmup + 1) as f64).min(1.0);
            let others = peer.model.forward(input, Mode::Train(keys))?; // (B, K)
            co_distil_rows(logits, &others, against, beta * rising)?
        }
        (Method::CoDistil { .. }, None) => {
            let (method, what) = (plan.method.name(), "a second student");
            return Err(Error::MethodNeeds { method, what });
        }
        _ => shaped_losses(&method_of_rows(state, plan), logits, against, shape)?,
    }; // (B,)
    let losses = match (shape, guides.groups) {
        (Shape::Groups(gains), Some(groups)) => {
            let gain = |&row: &u32| gains[groups.of_row[row as usize] as usize] as f32;
            let gains: Vec<f32> = batch.rows.iter().map(gain).collect();
            (losses * Tensor::from_vec(gains, batch.rows.len(), logits.device())?)? // (B,)
        }
        _ => losses,
    };
    match (plan.states, &seen.states) {
        (Some(terms), Some(states)) => {
            Ok((losses + state_losses(&terms, state, &guides.shown, batch, input, states)?)?)
        }
        _ => Ok(losses),
    }
}

/// Invariant of the first update: a tensor without a gradient would stay as it is without a word.
fn refuse_missing_gradients(state: &State, plan: &Plan, grads: &Grads) -> Result<()> {
    let mut names = match plan.method {
        // Its first mask may put all of a small tensor, such as the bias of two classes, at its old values.
        Method::Mixout { .. } => grads.absent(&state.trained.reached),
        _ => grads.missing(&state.trained.reached)?,
    };
    if plan.method.needs().states {
        // Labels lead through the whole model; states end below its head, and relations within its last layer.
        let last = Depth::Layer(state.model.config.layers.saturating_sub(1));
        names.retain(|name| depth(&state.model.config, name) < last);
    }
    if names.is_empty() { Ok(()) } else { Err(Error::NoGradient { names }) }
}

/// What the objective does to the losses of this update.
fn shape_of(state: &State, plan: &Plan, guides: &Guides, lambda: f64) -> Result<Shape> {
    match (plan.objective.is_standard(), guides.shares) {
        (true, _) => Ok(Shape::Plain),
        (false, Some(shares)) => {
            Ok(shares.shape(&plan.objective, &state.progress.log_weights, lambda))
        }
        (false, None) => {
            let name = plan.objective.name();
            let reason = format!("objective {name} needs the shares of the rows; train takes them");
            Err(Error::Objective { reason })
        }
    }
}

/// What pulls the weights to the old ones.
fn pull_of(method: Method) -> Option<Pull> {
    match method {
        Method::L2ToOld { strength } => Some(Pull::L2 { strength }),
        Method::Ewc { strength, .. } => Some(Pull::Ewc { strength }),
        _ => None,
    }
}

/// What the student's states cost against those that the teacher shows, (B,).
fn state_losses(
    terms: &StateTerms,
    state: &State,
    shown: &Shown,
    batch: &Batch,
    input: &Input,
    student: &States,
) -> Result<Tensor> {
    let config = &state.model.config;
    let teacher = match shown.model.filter(|_| terms.is_on_tokens()) {
        Some(teacher) => {
            let wanted = terms.wanted_of_teacher(config, &teacher.config);
            Some((&teacher.config, teacher.forward_states(input, Mode::Eval, &wanted)?))
        }
        None => None,
    };
    let vectors: Option<Vec<f32>> =
        shown.vectors.filter(|_| terms.vector_weight > 0.0).map(|vectors| {
            batch.rows.iter().flat_map(|&row| vectors.of(row as usize)).copied().collect()
        }); // (B·C)
    terms.losses(&Followed {
        config,
        student,
        teacher: teacher.as_ref().map(|(config, states)| (*config, states)),
        vectors: vectors.as_deref(),
        projections: state.projections.as_ref().map(|projections| &projections.params),
    })
}

/// The teacher's logits (B·K) for the rows of a batch.
fn rows_of(teacher: &Teacher, batch: &Batch, classes: usize) -> Vec<f32> {
    let mut logits = Vec::with_capacity(batch.rows.len() * classes);
    for &row in &batch.rows {
        logits.extend_from_slice(teacher.logits_of(row as usize));
    }
    logits
}

/// Labels (B,) of a batch; a row without one is for methods with a teacher only.
fn labels_of(
    rows: &Encoded,
    batch: &Batch,
    classes: usize,
    method: Method,
) -> Result<Vec<Option<u32>>> {
    let label = |&row: &u32| {
        let row = row as usize;
        match rows.labels.get(row).copied().flatten() {
            Some(label) if label as usize >= classes => {
                Err(Error::LabelIndex { row, label, classes })
            }
            None if !method.needs().teacher && !method.needs().states => {
                Err(Error::Unlabelled { id: rows.ids.get(row).cloned().unwrap_or_default() })
            }
            label => Ok(label),
        }
    };
    batch.rows.iter().map(label).collect()
}

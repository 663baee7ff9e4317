//! A batch as the model reads it.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use lowchurn_data::Batch;
use lowchurn_kernels::Keys;
use lowchurn_models::{Classifier, Input, Mode, States, is_head};

use crate::guides::mix_of;
use crate::weights::mixout;
use crate::{Guides, Method, Plan, Result, State};

/// A batch as the model has read it.
pub(super) struct Seen<'b> {
    pub batch: &'b Batch,
    pub input: Input,
    /// (B, C) Where they are known already, and the last layer alone was asked.
    pub vectors: Option<Tensor>,
    /// (B, K), with a graph.
    pub logits: Tensor,
    pub states: Option<States>,
}

/// The forward pass; `at` is the batch's place among those of the update.
pub(super) fn see<'b>(
    state: &State,
    plan: &Plan,
    guides: &Guides,
    (at, batch): (usize, &'b Batch),
    keys: &mut Keys,
    device: &Device,
) -> Result<Seen<'b>> {
    let mut input = Input::new(&batch.tokens, &batch.types, &batch.lengths, batch.width, device)?;
    if let Method::Mixup { alpha } = plan.method {
        input.mix = Some(mix_of(plan, alpha, state.step, at, batch.rows.len()));
    }
    let vectors = guides.vectors_of(batch, device)?; // (B, C)
    let (logits, states) = match &vectors {
        Some(vectors) => (last_layer(state, vectors)?, None),
        None => forward(state, plan, guides, &input, keys)?,
    }; // (B, K)
    Ok(Seen { batch, input, vectors, logits, states })
}

/// Logits (B, K) with a graph, and states where the plan follows a teacher's; mixout's logits go through weights of which a
/// share stands at its old value.
fn forward(
    state: &State,
    plan: &Plan,
    guides: &Guides,
    input: &Input,
    keys: &mut Keys,
) -> Result<(Tensor, Option<States>)> {
    match (plan.method, guides.old_weights, plan.states) {
        (Method::Mixout { p }, Some(old), _) => {
            let params = &state.model.params;
            let mixed = state.trained.with_the_rest_still(mixout(params, old, p, keys)?, params);
            Ok((state.model.forward_with(&mixed, input, Mode::Train(keys))?, None))
        }
        (_, _, Some(terms)) => {
            let wanted = terms.wanted_of_student(&state.model.config);
            let states = state.model.forward_states(input, Mode::Train(keys), &wanted)?;
            Ok((states.logits.clone(), Some(states)))
        }
        _ => Ok((state.model.forward(input, Mode::Train(keys))?, None)),
    }
}

/// Logits (B, K) of vectors (B, C) that are known already, with a graph to the last layer.
fn last_layer(state: &State, vectors: &Tensor) -> Result<Tensor> {
    let tensors = state.model.params.tensors().filter(|(name, _)| is_head(name));
    let tensors: BTreeMap<String, Tensor> =
        tensors.map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
    Ok(Classifier::last_layer(&tensors, vectors)?)
}

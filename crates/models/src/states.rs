//! What a forward pass can show besides its logits: hidden states, and queries, keys and values of chosen layers.
//!
//! The encoder is one operation that shows nothing of its inside, so it is cut where something is wanted; queries, keys and
//! values are made a second time there, from the layer's input, which costs those three products again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_core::Tensor;
use lowchurn_kernels::{self as kernels, Affine, Half, Precision, Sequences};

use crate::{Error, Result};

/// What to keep of a forward pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Hidden states: 0 is what the embeddings give, n what the n-th layer gives; the last one after a norm behind all layers.
    pub hidden: BTreeSet<usize>,
    /// Queries, keys and values of these layers, from 0.
    pub attention: BTreeSet<usize>,
}

/// What a forward pass gave.
#[derive(Clone, Debug)]
pub struct States {
    pub logits: Tensor, // (B, K)
    /// What the head reads, before its dropout.
    pub pooled: Tensor, // (B, C)
    /// By their numbers, (N, C) each.
    pub hidden: BTreeMap<usize, Tensor>,
    pub attention: BTreeMap<usize, Attended>,
    /// Which of the N rows are whose.
    pub sequences: Arc<Sequences>,
}

/// Queries, keys and values of a layer, all heads, (N, C) each.
#[derive(Clone, Debug)]
pub struct Attended {
    pub query: Tensor,
    pub key: Tensor,
    pub value: Tensor,
}

/// What was kept on the way.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) hidden: BTreeMap<usize, Tensor>,
    pub(crate) attention: BTreeMap<usize, Attended>,
}

impl Wanted {
    pub fn is_empty(&self) -> bool {
        self.hidden.is_empty() && self.attention.is_empty()
    }
}

/// Which rows the head reads.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Rows {
    All,
    /// Each text's first token.
    First,
}

/// The halves applied in their order, two a layer, (N, C) → (N, C) or first rows (B, C), and what was wanted on the way.
pub(crate) fn encode(
    x: &Tensor,
    sequences: &Arc<Sequences>,
    halves: Vec<Half>,
    rows: Rows,
    wanted: &Wanted,
    precision: Precision,
) -> Result<(Tensor, Kept)> {
    let mut kept = Kept::default();
    let layers = halves.len() / 2;
    let asked = wanted.hidden.last().copied().max(wanted.attention.last().map(|layer| layer + 1));
    if let Some(asked) = asked.filter(|asked| *asked > layers) {
        return Err(Error::NoLayer { asked, layers });
    }
    let (mut x, mut waiting) = (x.clone(), Vec::new());
    for (layer, pair) in halves.chunks(2).enumerate() {
        if wanted.hidden.contains(&layer) || wanted.attention.contains(&layer) {
            x = applied(&x, sequences, std::mem::take(&mut waiting), precision)?;
        }
        if wanted.hidden.contains(&layer) {
            kept.hidden.insert(layer, x.clone());
        }
        if wanted.attention.contains(&layer) {
            kept.attention.insert(layer, attended(&x, pair, precision)?);
        }
        waiting.extend_from_slice(pair);
    }
    if wanted.hidden.contains(&layers) {
        x = applied(&x, sequences, std::mem::take(&mut waiting), precision)?;
        kept.hidden.insert(layers, x.clone());
    }
    let x = match rows {
        Rows::All => applied(&x, sequences, waiting, precision)?,
        Rows::First => kernels::encoder_of_first_rows(&x, sequences, waiting, precision)?,
    };
    Ok((x, kept))
}

/// The halves as one operation; none of them is none.
fn applied(
    x: &Tensor,
    sequences: &Arc<Sequences>,
    halves: Vec<Half>,
    precision: Precision,
) -> Result<Tensor> {
    match halves.is_empty() {
        true => Ok(x.clone()),
        false => Ok(kernels::encoder(x, sequences, halves, precision)?),
    }
}

fn attended(x: &Tensor, layer: &[Half], precision: Precision) -> Result<Attended> {
    match layer.first() {
        Some(Half::Attention(half, _)) => {
            let of = |part: &Affine| kernels::linear(x, &part.weight, Some(&part.bias), precision);
            Ok(Attended { query: of(&half.query)?, key: of(&half.key)?, value: of(&half.value)? })
        }
        // As they are before they are turned by their positions.
        Some(Half::RotaryAttention(half, _)) => {
            let x = match &half.norm {
                Some(norm) => norm.of(x)?,
                None => x.clone(),
            };
            let all = kernels::linear(&x, &half.together, None, precision)?; // (N, 3·C)
            let c = all.dim(1)? / 3;
            let of = |part: usize| all.narrow(1, part * c, c);
            Ok(Attended { query: of(0)?, key: of(1)?, value: of(2)? })
        }
        _ => Err(Error::NoAttentionStates),
    }
}

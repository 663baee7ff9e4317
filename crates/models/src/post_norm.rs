//! The encoder that BERT and its relatives share: tables of words, positions and types → blocks with the norm after the
//! sum → a head of two layers on the first token. What differs between them stands in their layouts.

use candle_core::Tensor;
use lowchurn_kernels::{
    self as kernels, Activation, Affine, AttentionDropout, FeedForward, Gelu, Half, Precision,
    Relation, RelativeBias, SelfAttention,
};

use crate::layers::{Named, affine, dropout, linear, mixed};
use crate::layout::{BIAS_BUCKETS, BlockNames, HeadActivation, HeadNames, Layout, Site};
use crate::states::{Kept, Rows, encode};
use crate::{Config, Input, Mode, Result, States, Wanted};

pub(crate) struct PostNorm {
    embeddings: Embeddings,
    /// Those with parameters of their own.
    blocks: Vec<Block>,
    /// The blocks as they are applied.
    order: Vec<usize>,
    head: Head,
}

/// E is C but for models that project.
struct Embeddings {
    word: Tensor,               // (V, E)
    position: Tensor,           // (P, E)
    token_type: Option<Tensor>, // (types, E)
    norm: Affine,
    projection: Option<Affine>, // E → C
}

/// Both halves of an encoder block.
pub(crate) struct Block {
    attention: SelfAttention,
    feed_forward: FeedForward,
    names: &'static BlockNames,
}

struct Head {
    dense: Affine,
    last: Affine,
    names: &'static HeadNames,
}

impl PostNorm {
    pub(crate) fn new(layout: &'static Layout, config: &Config, named: Named) -> Result<PostNorm> {
        let layers = layout.layer_names(config);
        let relation = match layout.relative_bias {
            Some(name) => Relation::Bias(RelativeBias {
                table: named(&format!("{}{name}", layout.prefix))?,
                buckets: BIAS_BUCKETS,
            }),
            None => Relation::None,
        };
        let block = |layer: &String| {
            Ok(Block::new(&layout.block, layer, config, named)?.related(relation.clone()))
        };
        Ok(PostNorm {
            embeddings: Embeddings::new(layout, config, named)?,
            blocks: layers.iter().map(block).collect::<Result<_>>()?,
            order: layout.layer_order(config),
            head: Head {
                dense: affine(named, layout.head.dense)?,
                last: affine(named, layout.head.last)?,
                names: &layout.head,
            },
        })
    }

    /// Logits (B, K), what goes into the last layer (B, C), before its dropout, and what is wanted besides.
    pub(crate) fn forward(
        &self,
        config: &Config,
        input: &Input,
        mut mode: Mode,
        precision: Precision,
        wanted: &Wanted,
    ) -> Result<States> {
        let mode = &mut mode;
        let x = self.embeddings.forward(config, input, mode, precision)?; // (N, C)
        let (x, sequences) = mixed(x, input)?;
        let halves = self.halves(config, mode);
        let (first, Kept { hidden, attention }) =
            encode(&x, &sequences, halves, Rows::First, wanted, precision)?; // (B, C)
        let (logits, pooled) = self.head.forward(config, first, mode)?;
        Ok(States { logits, pooled, hidden, attention, sequences })
    }

    /// The blocks in their order, two halves each.
    fn halves(&self, config: &Config, mode: &mut Mode) -> Vec<Half> {
        let blocks = self.order.iter().map(|&at| &self.blocks[at]);
        blocks.flat_map(|block| block.halves(config, mode)).collect()
    }
}

impl Embeddings {
    fn new(layout: &Layout, config: &Config, named: Named) -> Result<Embeddings> {
        let table =
            |name: &str| named(&format!("{}embeddings.{name}_embeddings.weight", layout.prefix));
        Ok(Embeddings {
            word: table("word")?,
            position: table("position")?,
            token_type: match config.type_vocab_size {
                0 => None,
                _ => Some(table("token_type")?),
            },
            norm: affine(named, &format!("{}embeddings.LayerNorm", layout.prefix))?,
            projection: match layout.projection(config) {
                Some(name) => Some(affine(named, &name)?),
                None => None,
            },
        })
    }

    /// projection(dropout(norm(word + type + position))), (N, C).
    fn forward(
        &self,
        config: &Config,
        input: &Input,
        mode: &mut Mode,
        precision: Precision,
    ) -> Result<Tensor> {
        let mut x = kernels::embedding(&self.word, &input.ids)?; // (N, E)
        if let Some(table) = &self.token_type {
            x = kernels::add(&x, &kernels::embedding(table, &input.types_for(config)?)?)?;
        }
        let positions = kernels::embedding(&self.position, &input.positions_for(config)?)?;
        let x = kernels::add(&x, &positions)?;
        let x = kernels::layer_norm(&x, &self.norm.weight, &self.norm.bias, config.layer_norm_eps)?;
        let dropped = mode.dropout(config.hidden_dropout);
        let x = kernels::dropout_rows(&x, &input.sequences, dropped)?;
        match &self.projection {
            Some(Affine { weight, bias }) => {
                Ok(kernels::linear(&x, weight, Some(bias), precision)?) // (N, C)
            }
            None => Ok(x),
        }
    }
}

impl Block {
    pub(crate) fn new(
        names: &'static BlockNames,
        layer: &str,
        config: &Config,
        named: Named,
    ) -> Result<Block> {
        let part = |part: &str| affine(named, &format!("{layer}.{part}"));
        let eps = config.layer_norm_eps;
        Ok(Block {
            attention: SelfAttention {
                query: part(names.query)?,
                key: part(names.key)?,
                value: part(names.value)?,
                output: part(names.output)?,
                norm: part(names.attention_norm)?,
                eps,
                heads: config.heads,
                relation: Relation::None,
            },
            feed_forward: FeedForward {
                inner: part(names.inner)?,
                outer: part(names.outer)?,
                norm: part(names.norm)?,
                eps,
                activation: config.activation,
            },
            names,
        })
    }

    /// The same with terms of relative position in its scores.
    pub(crate) fn related(mut self, relation: Relation) -> Block {
        self.attention.relation = relation;
        self
    }

    pub(crate) fn query_and_key(&self) -> (&Affine, &Affine) {
        (&self.attention.query, &self.attention.key)
    }

    pub(crate) fn halves(&self, config: &Config, mode: &mut Mode) -> [Half; 2] {
        let mut at = |site: Site, p: f32| match site {
            Site::Dropped => mode.dropout(p),
            Site::Kept => None,
        };
        let dropped = AttentionDropout {
            probabilities: at(Site::Dropped, config.attention_dropout),
            output: at(self.names.output_dropout, config.hidden_dropout),
            relation: match self.attention.relation {
                Relation::Disentangled(_) => at(Site::Dropped, config.hidden_dropout),
                Relation::None | Relation::Bias(_) => None,
            },
        };
        let outer = at(self.names.outer_dropout, config.hidden_dropout);
        [
            Half::Attention(self.attention.clone(), dropped),
            Half::FeedForward(self.feed_forward.clone(), outer),
        ]
    }
}

impl Head {
    /// First tokens (B, C) → logits (B, K) and what the last layer makes them of (B, C).
    fn forward(&self, config: &Config, x: Tensor, mode: &mut Mode) -> Result<(Tensor, Tensor)> {
        let p = config.classifier_dropout;
        let x = match self.names.first_dropout {
            Site::Dropped => dropout(x, p, mode)?,
            Site::Kept => x,
        };
        let x = linear(&x, &self.dense)?;
        let pooled = match self.names.activation {
            HeadActivation::Tanh => kernels::tanh(&x)?,
            HeadActivation::Gelu => Activation::Gelu(Gelu::Erf).of(&x)?,
            HeadActivation::Relu => Activation::Relu.of(&x)?,
        };
        let dropped = dropout(pooled.clone(), p, mode)?;
        Ok((linear(&dropped, &self.last)?, pooled))
    }
}

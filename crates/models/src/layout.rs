//! What a family of encoders calls its tensors: one table an architecture, from which the roles of a checkpoint's tensors,
//! the parameters' names and shapes, and their depths follow.

use lowchurn_kernels::Buckets;

use crate::{Config, Details, albert};

/// The names of an encoder with post-norm blocks and a head on the first token.
pub(crate) struct Layout {
    /// Stands before all names of the encoder; base models are saved without it.
    pub(crate) prefix: &'static str,
    /// How names of the encoder go on behind the prefix.
    pub(crate) parts: &'static [&'static str],
    /// How names go on, or begin, that belong to another task's head.
    pub(crate) other_heads: &'static [&'static str],
    pub(crate) projection: Projection,
    /// Of layer n: `prefix`, this, a dot, n.
    pub(crate) layers: &'static str,
    pub(crate) block: BlockNames,
    /// A table of biases on attention scores by distance, one for all layers, behind the prefix: (`BIAS_BUCKETS`, H).
    pub(crate) relative_bias: Option<&'static str>,
    pub(crate) head: HeadNames,
}

/// MPNet, the one that has such a table, takes 32 rows up to a distance of 128 whatever its config says.
pub(crate) const BIAS_BUCKETS: Buckets = Buckets::BothSides { rows: 32, farthest: 128 };

/// The linear layer from the width of the tables to that of the layers, behind the prefix.
pub(crate) enum Projection {
    None,
    WhereSizesDiffer(&'static str),
    Always(&'static str),
}

/// Behind a layer's own name.
pub(crate) struct BlockNames {
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) output: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) inner: &'static str,
    pub(crate) outer: &'static str,
    pub(crate) norm: &'static str,
    /// What dropout does with what comes out of attention, and of the feed-forward layer.
    pub(crate) output_dropout: Site,
    pub(crate) outer_dropout: Site,
}

/// Whether the original has dropout somewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    Dropped,
    Kept,
}

/// dropout → dense → activation → dropout → last; whole names.
pub(crate) struct HeadNames {
    pub(crate) dense: &'static str,
    pub(crate) activation: HeadActivation,
    pub(crate) last: &'static str,
    /// What dropout does before `dense`; before `last` it is always there.
    pub(crate) first_dropout: Site,
}

#[derive(Clone, Copy)]
pub(crate) enum HeadActivation {
    Tanh,
    Gelu,
    Relu,
}

/// What a tensor of a published checkpoint is to a model.
pub(crate) enum Role {
    /// A parameter, by its canonical name, if the model has it.
    Parameter(String),
    /// A head for another task.
    OtherHead,
    /// A constant that old versions of transformers stored.
    Constant,
}

/// Where in the model a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Below all layers, or shared by all that attend: embeddings, their projection, tables of relative positions.
    Embedding,
    /// Of the layer with this index from below; all of ALBERT's shared layers are 0.
    Layer(usize),
    /// The last layer and what stands between it and the encoder: pooler, dense.
    Head,
}

impl Layout {
    /// Base models are saved without the prefix, TensorFlow's converts have `gamma` and `beta`.
    pub(crate) fn role(&self, name: &str) -> Role {
        let stem = name.strip_prefix(self.prefix).unwrap_or(name);
        let is_one_of = |starts: &[&str]| starts.iter().any(|start| stem.starts_with(start));
        if is_one_of(self.other_heads) {
            return Role::OtherHead;
        }
        if ["embeddings.position_ids", "embeddings.token_type_ids"].contains(&stem) {
            return Role::Constant;
        }
        if !is_one_of(self.parts) {
            return Role::Parameter(name.into());
        }
        let stem = match (stem.strip_suffix("LayerNorm.gamma"), stem.strip_suffix("LayerNorm.beta"))
        {
            (Some(layer), _) => format!("{layer}LayerNorm.weight"),
            (_, Some(layer)) => format!("{layer}LayerNorm.bias"),
            _ => stem.into(),
        };
        Role::Parameter(format!("{}{stem}", self.prefix))
    }

    /// Name and shape of each parameter, with K classes.
    pub(crate) fn shapes(&self, config: &Config, classes: usize) -> Vec<(String, Vec<usize>)> {
        let &Config { hidden_size: c, embedding_size: e, intermediate_size: f, .. } = config;
        let (prefix, block) = (self.prefix, &self.block);
        let mut shapes = Vec::new();
        let mut add = |name: String, shape: &[usize]| shapes.push((name, shape.to_vec()));
        let mut add_pair = |name: String, weight: &[usize]| {
            add(format!("{name}.weight"), weight);
            add(format!("{name}.bias"), &weight[..1]);
        };
        for layer in self.layer_names(config) {
            for name in [block.query, block.key, block.value, block.output] {
                add_pair(format!("{layer}.{name}"), &[c, c]);
            }
            add_pair(format!("{layer}.{}", block.inner), &[f, c]);
            add_pair(format!("{layer}.{}", block.outer), &[c, f]);
            add_pair(format!("{layer}.{}", block.attention_norm), &[c]);
            add_pair(format!("{layer}.{}", block.norm), &[c]);
        }
        if let Some(projection) = self.projection(config) {
            add_pair(projection, &[c, e]);
        }
        add_pair(format!("{prefix}embeddings.LayerNorm"), &[e]);
        add_pair(self.head.dense.into(), &[c, c]);
        add_pair(self.head.last.into(), &[classes, c]);
        if let Some(name) = self.relative_bias {
            add(format!("{prefix}{name}"), &[BIAS_BUCKETS.rows(), config.heads]);
        }
        let positions = config.first_position + config.max_positions;
        add(format!("{prefix}embeddings.word_embeddings.weight"), &[config.vocab_size, e]);
        add(format!("{prefix}embeddings.position_embeddings.weight"), &[positions, e]);
        if config.type_vocab_size > 0 {
            let types = config.type_vocab_size;
            add(format!("{prefix}embeddings.token_type_embeddings.weight"), &[types, e]);
        }
        shapes
    }

    /// The layers that have parameters of their own.
    pub(crate) fn layer_names(&self, config: &Config) -> Vec<String> {
        match &config.details {
            Details::Albert(groups) => albert::layer_names(groups),
            _ => {
                (0..config.layers).map(|n| format!("{}{}.{n}", self.prefix, self.layers)).collect()
            }
        }
    }

    /// Which of them follow each other.
    pub(crate) fn layer_order(&self, config: &Config) -> Vec<usize> {
        match &config.details {
            Details::Albert(groups) => albert::layer_order(groups, config.layers),
            _ => (0..config.layers).collect(),
        }
    }

    /// The projection's name, if the model has one.
    pub(crate) fn projection(&self, config: &Config) -> Option<String> {
        match self.projection {
            Projection::WhereSizesDiffer(_) if config.embedding_size == config.hidden_size => None,
            Projection::None => None,
            Projection::WhereSizesDiffer(name) | Projection::Always(name) => {
                Some(format!("{}{name}", self.prefix))
            }
        }
    }

    pub(crate) fn depth(&self, config: &Config, name: &str) -> Depth {
        let is_of =
            |layer: &str| name.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'));
        if !name.starts_with(self.prefix) || is_of(self.head.dense) {
            return Depth::Head;
        }
        let at = self.layer_names(config).iter().position(|layer| is_of(layer));
        match (at, &config.details) {
            (None, _) => Depth::Embedding,
            (Some(_), Details::Albert(_)) => Depth::Layer(0),
            (Some(n), _) => Depth::Layer(n),
        }
    }
}

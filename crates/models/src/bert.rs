//! BERT for sequence classification, as Devlin et al. 2019 (arXiv 1810.04805) and transformers'
//! `BertForSequenceClassification` have it: embeddings → encoder → pooler on the first token → head.

use candle_core::Tensor;
use lowchurn_kernels::{
    self as kernels, Affine, AttentionDropout, FeedForward, Half, Precision, SelfAttention,
};

use crate::layers::{Named, affine, dropout, linear, mixed};
use crate::{Config, Input, Mode, Result};

pub(crate) struct Bert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    pooler: Affine,
    classifier: Affine,
}

struct Embeddings {
    word: Tensor,       // (V, C)
    position: Tensor,   // (P, C)
    token_type: Tensor, // (types, C)
    norm: Affine,
}

struct Layer {
    attention: SelfAttention,
    feed_forward: FeedForward,
}

/// What a tensor of a published checkpoint is to this model.
pub(crate) enum Role {
    /// A parameter, by its canonical name, if the model has it.
    Parameter(String),
    /// A head for another task.
    OtherHead,
    /// A constant that old versions of transformers stored.
    Constant,
}

/// Base models are saved without the `bert.` prefix, TensorFlow's converts have `gamma` and `beta`.
pub(crate) fn role(name: &str) -> Role {
    if name.starts_with("cls.") {
        return Role::OtherHead;
    }
    let stem = name.strip_prefix("bert.").unwrap_or(name);
    if ["embeddings.position_ids", "embeddings.token_type_ids"].contains(&stem) {
        return Role::Constant;
    }
    if !["embeddings.", "encoder.", "pooler."].iter().any(|part| stem.starts_with(part)) {
        return Role::Parameter(name.into());
    }
    let stem = match (stem.strip_suffix("LayerNorm.gamma"), stem.strip_suffix("LayerNorm.beta")) {
        (Some(layer), _) => format!("{layer}LayerNorm.weight"),
        (_, Some(layer)) => format!("{layer}LayerNorm.bias"),
        _ => stem.into(),
    };
    Role::Parameter(format!("bert.{stem}"))
}

/// The parameters that a base model may lack: a new head may start from fresh ones.
pub(crate) fn may_be_fresh(name: &str) -> bool {
    name.starts_with("bert.pooler.") || name.starts_with(HEAD)
}

pub(crate) const HEAD: &str = "classifier.";

/// Name and shape of each parameter, with K classes.
pub(crate) fn shapes(config: &Config, classes: usize) -> Vec<(String, Vec<usize>)> {
    let (c, i) = (config.hidden_size, config.intermediate_size);
    let mut shapes = Vec::new();
    let mut add = |name: String, shape: &[usize]| shapes.push((name, shape.to_vec()));
    let mut add_pair = |prefix: String, weight: &[usize]| {
        add(format!("{prefix}.weight"), weight);
        add(format!("{prefix}.bias"), &weight[..1]);
    };
    for n in 0..config.layers {
        let layer = format!("bert.encoder.layer.{n}");
        add_pair(format!("{layer}.attention.self.query"), &[c, c]);
        add_pair(format!("{layer}.attention.self.key"), &[c, c]);
        add_pair(format!("{layer}.attention.self.value"), &[c, c]);
        add_pair(format!("{layer}.attention.output.dense"), &[c, c]);
        add_pair(format!("{layer}.attention.output.LayerNorm"), &[c]);
        add_pair(format!("{layer}.intermediate.dense"), &[i, c]);
        add_pair(format!("{layer}.output.dense"), &[c, i]);
        add_pair(format!("{layer}.output.LayerNorm"), &[c]);
    }
    add_pair("bert.embeddings.LayerNorm".into(), &[c]);
    add_pair("bert.pooler.dense".into(), &[c, c]);
    add_pair("classifier".into(), &[classes, c]);
    add("bert.embeddings.word_embeddings.weight".into(), &[config.vocab_size, c]);
    add("bert.embeddings.position_embeddings.weight".into(), &[config.max_positions, c]);
    add("bert.embeddings.token_type_embeddings.weight".into(), &[config.type_vocab_size, c]);
    shapes
}

impl Bert {
    pub(crate) fn new(config: &Config, named: Named) -> Result<Bert> {
        let layers = (0..config.layers).map(|n| Layer::new(config, named, n));
        Ok(Bert {
            embeddings: Embeddings {
                word: named("bert.embeddings.word_embeddings.weight")?,
                position: named("bert.embeddings.position_embeddings.weight")?,
                token_type: named("bert.embeddings.token_type_embeddings.weight")?,
                norm: affine(named, "bert.embeddings.LayerNorm")?,
            },
            layers: layers.collect::<Result<_>>()?,
            pooler: affine(named, "bert.pooler.dense")?,
            classifier: affine(named, "classifier")?,
        })
    }

    /// Logits (B, K) and the pooled vectors (B, C), before their dropout.
    pub(crate) fn forward(
        &self,
        config: &Config,
        input: &Input,
        mut mode: Mode,
        precision: Precision,
    ) -> Result<(Tensor, Tensor)> {
        let mode = &mut mode;
        let x = self.embeddings.forward(config, input, mode)?; // (N, C)
        let (x, sequences) = mixed(x, input)?;
        let halves = self.layers.iter().flat_map(|layer| layer.halves(config, mode)).collect();
        let x = kernels::encoder(&x, &sequences, halves, precision)?;
        let b = sequences.lengths().len();
        let starts: Vec<u32> = sequences.starts()[..b].iter().map(|&start| start as u32).collect();
        let first = x.index_select(&Tensor::from_vec(starts, b, x.device())?, 0)?; // (B, C), the tokens [CLS]
        let pooled = kernels::tanh(&linear(&first, &self.pooler)?)?;
        let dropped = dropout(pooled.clone(), config.classifier_dropout, mode)?;
        Ok((linear(&dropped, &self.classifier)?, pooled))
    }
}

impl Embeddings {
    fn forward(&self, config: &Config, input: &Input, mode: &mut Mode) -> Result<Tensor> {
        let words = kernels::embedding(&self.word, &input.ids)?; // (N, C)
        let positions = kernels::embedding(&self.position, &input.positions)?;
        let types = kernels::embedding(&self.token_type, &input.types)?;
        let x = kernels::add(&kernels::add(&words, &types)?, &positions)?;
        let Affine { weight, bias } = &self.norm;
        let x = kernels::layer_norm(&x, weight, bias, config.layer_norm_eps)?;
        Ok(kernels::dropout_rows(&x, &input.sequences, mode.dropout(config.hidden_dropout))?)
    }
}

impl Layer {
    fn new(config: &Config, named: Named, n: usize) -> Result<Layer> {
        let part = |part: &str| affine(named, &format!("bert.encoder.layer.{n}.{part}"));
        let eps = config.layer_norm_eps;
        Ok(Layer {
            attention: SelfAttention {
                query: part("attention.self.query")?,
                key: part("attention.self.key")?,
                value: part("attention.self.value")?,
                output: part("attention.output.dense")?,
                norm: part("attention.output.LayerNorm")?,
                eps,
                heads: config.heads,
            },
            feed_forward: FeedForward {
                inner: part("intermediate.dense")?,
                outer: part("output.dense")?,
                norm: part("output.LayerNorm")?,
                eps,
                activation: config.activation,
            },
        })
    }

    fn halves(&self, config: &Config, mode: &mut Mode) -> [Half; 2] {
        let dropped = AttentionDropout {
            probabilities: mode.dropout(config.attention_dropout),
            output: mode.dropout(config.hidden_dropout),
        };
        let attention = Half::Attention(self.attention.clone(), dropped);
        [
            attention,
            Half::FeedForward(self.feed_forward.clone(), mode.dropout(config.hidden_dropout)),
        ]
    }
}

//! BERT for sequence classification, as Devlin et al. 2019 (arXiv 1810.04805) and transformers'
//! `BertForSequenceClassification` have it: embeddings → encoder → pooler on the first token → head.

use candle_core::Tensor;
use lowchurn_kernels as kernels;

use crate::layers::{LayerNorm, Linear, Named, activate, dropout, mixed};
use crate::{Config, Input, Mode, Result};

pub(crate) struct Bert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    pooler: Linear,
    classifier: Linear,
}

struct Embeddings {
    word: Tensor,       // (V, C)
    position: Tensor,   // (P, C)
    token_type: Tensor, // (types, C)
    norm: LayerNorm,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear, // C → intermediate_size
    output: Linear,       // intermediate_size → C
    output_norm: LayerNorm,
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
                norm: LayerNorm::new(named, "bert.embeddings.LayerNorm", config.layer_norm_eps)?,
            },
            layers: layers.collect::<Result<_>>()?,
            pooler: Linear::new(named, "bert.pooler.dense")?,
            classifier: Linear::new(named, "classifier")?,
        })
    }

    /// Logits (B, K) and the pooled vectors (B, C), before their dropout.
    pub(crate) fn forward(
        &self,
        config: &Config,
        input: &Input,
        mut mode: Mode,
    ) -> Result<(Tensor, Tensor)> {
        let mode = &mut mode;
        let x = self.embeddings.forward(config, input, mode)?; // (B, T, C)
        let (mut x, lengths) = mixed(x, input)?;
        for layer in &self.layers {
            x = layer.forward(config, &x, &lengths, mode)?;
        }
        let first = x.narrow(1, 0, 1)?.squeeze(1)?; // (B, C), the token [CLS]
        let pooled = kernels::tanh(&self.pooler.forward(&first)?)?;
        let dropped = dropout(pooled.clone(), config.classifier_dropout, mode)?;
        Ok((self.classifier.forward(&dropped)?, pooled))
    }
}

impl Embeddings {
    fn forward(&self, config: &Config, input: &Input, mode: &mut Mode) -> Result<Tensor> {
        let (b, t) = input.ids.dims2()?;
        let positions = Tensor::arange(0, t as u32, input.ids.device())?.broadcast_as((b, t))?;
        let words = kernels::embedding(&self.word, &input.ids)?; // (B, T, C)
        let positions = kernels::embedding(&self.position, &positions.contiguous()?)?;
        let types = kernels::embedding(&self.token_type, &input.types)?;
        let x = self.norm.forward(&kernels::add(&kernels::add(&words, &types)?, &positions)?)?;
        dropout(x, config.hidden_dropout, mode)
    }
}

impl Layer {
    fn new(config: &Config, named: Named, n: usize) -> Result<Layer> {
        let linear = |part: &str| Linear::new(named, &format!("bert.encoder.layer.{n}.{part}"));
        let eps = config.layer_norm_eps;
        let norm =
            |part: &str| LayerNorm::new(named, &format!("bert.encoder.layer.{n}.{part}"), eps);
        Ok(Layer {
            query: linear("attention.self.query")?,
            key: linear("attention.self.key")?,
            value: linear("attention.self.value")?,
            attention_output: linear("attention.output.dense")?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear("intermediate.dense")?,
            output: linear("output.dense")?,
            output_norm: norm("output.LayerNorm")?,
        })
    }

    /// (B, T, C) → (B, T, C)
    fn forward(
        &self,
        config: &Config,
        x: &Tensor,
        lengths: &[u32],
        mode: &mut Mode,
    ) -> Result<Tensor> {
        let (q, k, v) = (self.query.forward(x)?, self.key.forward(x)?, self.value.forward(x)?);
        let dropped = mode.dropout(config.attention_dropout);
        let attended = kernels::attention(&q, &k, &v, lengths, config.heads, dropped)?;
        let attended = self.attention_output.forward(&attended)?;
        let attended = dropout(attended, config.hidden_dropout, mode)?;
        let x = self.attention_norm.forward(&kernels::add(&attended, x)?)?;

        let inner = activate(&self.intermediate.forward(&x)?, config.activation)?; // (B, T, intermediate_size)
        let output = dropout(self.output.forward(&inner)?, config.hidden_dropout, mode)?;
        self.output_norm.forward(&kernels::add(&output, &x)?)
    }
}

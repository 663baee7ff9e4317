//! ModernBERT (Warner et al. 2024, arXiv 2412.13663), as transformers' `ModernBertForSequenceClassification`: rotary positions
//! and no others, layers that attend to all or within a window, norms in front, gated feed-forward layers, no biases, and a
//! head of two layers on the first token or on the mean of all.

use std::sync::Arc;

use candle_core::Tensor;
use lowchurn_kernels::{
    self as kernels, Activation, Affine, AttentionDropout, GatedFeedForward, Gelu, Half, PreNorm,
    Precision, Reach, Rotary, RotaryAttention,
};
use serde_json::Value;

use crate::config::{ClassifierDropout, Dialect, TokenTypes};
use crate::keys::{Keys, SIZES};
use crate::layers::{Named, affine, dropout, linear, mixed};
use crate::layout::{Depth, Role};
use crate::states::{Kept, Rows, encode};
use crate::{Config, Details, Input, Mode, Result, States, Wanted, bert};

/// What a config.json says beyond other encoders'.
#[derive(Clone, Debug, PartialEq)]
pub struct Modern {
    /// Of each layer.
    pub attention: Vec<LayerAttention>,
    /// Places from a token to the farthest that it attends to in a local layer.
    pub reach: usize,
    pub global_theta: f64,
    pub local_theta: f64,
    pub pooling: Pooling,
    pub head_activation: Activation,
    pub head_bias: HeadBias,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerAttention {
    Global,
    Local,
}

/// What the head is given of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    First,
    Mean,
}

/// Whether the head's first layer has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadBias {
    With,
    Without,
}

impl Modern {
    /// `layer_types` of a model that keeps these layers: each stays of its kind, wherever it stands now.
    pub(crate) fn layer_types(&self, layers: &[usize]) -> Value {
        let kept = layers.iter().filter_map(|&layer| self.attention.get(layer));
        let kind = |attention: &LayerAttention| match attention {
            LayerAttention::Global => "full_attention",
            LayerAttention::Local => "sliding_attention",
        };
        kept.map(kind).collect()
    }
}

pub(crate) const DIALECT: Dialect = Dialect {
    activation: ("hidden_activation", Activation::Gelu(Gelu::Erf)),
    hidden_dropout: ("mlp_dropout", 0.0),
    attention_dropout: ("attention_dropout", 0.0),
    classifier_dropout: ClassifierDropout::Or("classifier_dropout", 0.0),
    token_types: TokenTypes::None,
    pad_token_id: 50_283,
    layer_norm_eps: (Some("norm_eps"), 1e-5),
    ..bert::DIALECT
};

pub(crate) fn modern(keys: &Keys, layers: usize, c: usize, heads: usize) -> Result<Modern> {
    for bias in ["attention_bias", "mlp_bias", "norm_bias"] {
        keys.only(bias, false.into())?;
    }
    if !(c / heads).is_multiple_of(2) {
        let expected = format!("an even number of channels in each head of {c} in all");
        return Err(keys.wrong("num_attention_heads", &heads, &expected));
    }
    // `hidden_dropout` is one number.
    let (embedding, mlp) =
        (keys.dropout("embedding_dropout", 0.0)?, keys.dropout("mlp_dropout", 0.0)?);
    if embedding != mlp {
        let expected = format!("the same as mlp_dropout, {mlp}");
        return Err(keys.wrong("embedding_dropout", &embedding, &expected));
    }
    Ok(Modern {
        attention: attention(keys, layers)?,
        reach: keys.size_or("local_attention", SIZES, 128)? / 2,
        global_theta: theta(keys, "full_attention", "global_rope_theta", 160_000.0)?,
        local_theta: theta(keys, "sliding_attention", "local_rope_theta", 10_000.0)?,
        pooling: match keys.get("classifier_pooling").map(|value| (value.as_str(), value)) {
            None | Some((Some("cls"), _)) => Pooling::First,
            Some((Some("mean"), _)) => Pooling::Mean,
            Some((_, other)) => return Err(keys.wrong("classifier_pooling", other, "cls or mean")),
        },
        head_activation: keys.activation("classifier_activation", Activation::Gelu(Gelu::Erf))?,
        head_bias: match keys.get("classifier_bias").map(|value| (value.as_bool(), value)) {
            None | Some((Some(false), _)) => HeadBias::Without,
            Some((Some(true), _)) => HeadBias::With,
            Some((None, other)) => {
                return Err(keys.wrong("classifier_bias", other, "true or false"));
            }
        },
    })
}

/// Newer files list the layers' kinds, older ones say that every nth is global.
fn attention(keys: &Keys, layers: usize) -> Result<Vec<LayerAttention>> {
    const KINDS: &str = "full_attention or sliding_attention";
    let Some(value) = keys.get("layer_types") else {
        let every = keys.size_or("global_attn_every_n_layers", SIZES, 3)?;
        let of = |layer: usize| match layer.is_multiple_of(every) {
            true => LayerAttention::Global,
            false => LayerAttention::Local,
        };
        return Ok((0..layers).map(of).collect());
    };
    let listed = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if listed.len() != layers {
        let expected = format!("{layers} times {KINDS}, one a layer");
        return Err(keys.wrong("layer_types", value, &expected));
    }
    let of = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(LayerAttention::Global),
        Some("sliding_attention") => Ok(LayerAttention::Local),
        _ => Err(keys.wrong("layer_types", kind, KINDS)),
    };
    listed.iter().map(of).collect()
}

/// The base of the rotary angles of one kind of layer: `rope_parameters` of transformers 5, or the older key.
fn theta(keys: &Keys, kind: &str, old_key: &str, default: f64) -> Result<f64> {
    const PLAIN: &str = "nothing: only plain rotary positions are supported";
    const BY_KIND: &str = "objects by the names full_attention and sliding_attention";
    if let Some(found) = keys.get("rope_scaling") {
        return Err(keys.wrong("rope_scaling", found, PLAIN));
    }
    // Versions of transformers differ in what null means here.
    if keys.raw.get(old_key).is_some_and(Value::is_null) {
        return Err(keys.wrong(old_key, &"null", "a number, such as 10000.0"));
    }
    let old = keys.number(old_key, 1.0..=1e15, default)?;
    let Some(all) = keys.get("rope_parameters") else { return Ok(old) };
    let wrong = || keys.wrong("rope_parameters", all, BY_KIND);
    let by_kind = all.as_object().ok_or_else(wrong)?;
    if by_kind.keys().any(|key| !["full_attention", "sliding_attention"].contains(&key.as_str())) {
        return Err(wrong());
    }
    let Some(of_kind) = by_kind.get(kind).filter(|value| !value.is_null()) else { return Ok(old) };
    let of_kind = Keys { path: keys.path, raw: of_kind.as_object().ok_or_else(wrong)? };
    of_kind.only("rope_type", "default".into())?;
    of_kind.number("rope_theta", 1.0..=1e15, old)
}

pub(crate) fn of(config: &Config) -> Result<&Modern> {
    match &config.details {
        Details::ModernBert(modern) => Ok(modern),
        _ => Err(candle_core::Error::msg(
            "modernbert: a config without this architecture's details",
        ))?,
    }
}

/// What this is of a published tensor. The encoder is also saved without `model.`; the head of a masked language model has
/// the layers in front of ours.
pub(crate) fn role(name: &str) -> Role {
    let stem = name.strip_prefix("model.").unwrap_or(name);
    if ["decoder.", "qa_outputs."].iter().any(|head| name.starts_with(head)) {
        return Role::OtherHead;
    }
    match ["embeddings.", "layers.", "final_norm."].iter().any(|part| stem.starts_with(part)) {
        true => Role::Parameter(format!("model.{stem}")),
        false => Role::Parameter(name.into()),
    }
}

/// Name and shape of each parameter, with K classes.
pub(crate) fn shapes(config: &Config, classes: usize) -> Vec<(String, Vec<usize>)> {
    let (c, f) = (config.hidden_size, config.intermediate_size);
    let mut shapes = Vec::new();
    let mut add = |name: &str, shape: &[usize]| shapes.push((name.to_string(), shape.to_vec()));
    add("model.embeddings.tok_embeddings.weight", &[config.vocab_size, c]);
    add("model.embeddings.norm.weight", &[c]);
    for n in 0..config.layers {
        let mut add = |part: &str, shape: &[usize]| add(&format!("model.layers.{n}.{part}"), shape);
        if n > 0 {
            add("attn_norm.weight", &[c]);
        }
        add("attn.Wqkv.weight", &[3 * c, c]);
        add("attn.Wo.weight", &[c, c]);
        add("mlp_norm.weight", &[c]);
        add("mlp.Wi.weight", &[2 * f, c]);
        add("mlp.Wo.weight", &[c, f]);
    }
    add("model.final_norm.weight", &[c]);
    add("head.dense.weight", &[c, c]);
    if matches!(&config.details, Details::ModernBert(modern) if modern.head_bias == HeadBias::With)
    {
        add("head.dense.bias", &[c]);
    }
    add("head.norm.weight", &[c]);
    add("classifier.weight", &[classes, c]);
    add("classifier.bias", &[classes]);
    shapes
}

/// The norm behind the last layer counts as that layer's.
pub(crate) fn depth(config: &Config, name: &str) -> Depth {
    if name.starts_with("model.final_norm.") {
        return Depth::Layer(config.layers - 1);
    }
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
    match layer.and_then(|n| n.parse().ok()) {
        Some(n) => Depth::Layer(n),
        None if name.starts_with("model.") => Depth::Embedding,
        None => Depth::Head,
    }
}

pub(crate) struct ModernBert {
    modern: Modern,
    words: Tensor, // (V, C)
    norm: PreNorm,
    layers: Vec<Layer>,
    final_norm: PreNorm,
    dense: Tensor,              // (C, C)
    dense_bias: Option<Tensor>, // (C,)
    head_norm: PreNorm,
    classifier: Affine,
}

struct Layer {
    attention: LayerAttention,
    attention_norm: Option<PreNorm>, // none in the first: the embeddings' is in front of it
    together: Tensor,                // (3·C, C)
    output: Tensor,                  // (C, C)
    feed_forward: GatedFeedForward,
}

impl ModernBert {
    pub(crate) fn new(config: &Config, named: Named) -> Result<ModernBert> {
        let modern = of(config)?;
        let norm = |name: &str| -> Result<PreNorm> {
            Ok(PreNorm { weight: named(&format!("{name}.weight"))?, eps: config.layer_norm_eps })
        };
        let layer = |(n, &attention): (usize, &LayerAttention)| -> Result<Layer> {
            let part = |part: &str| format!("model.layers.{n}.{part}");
            Ok(Layer {
                attention,
                attention_norm: if n > 0 { Some(norm(&part("attn_norm"))?) } else { None },
                together: named(&part("attn.Wqkv.weight"))?,
                output: named(&part("attn.Wo.weight"))?,
                feed_forward: GatedFeedForward {
                    norm: norm(&part("mlp_norm"))?,
                    inner: named(&part("mlp.Wi.weight"))?,
                    outer: named(&part("mlp.Wo.weight"))?,
                    activation: config.activation,
                },
            })
        };
        Ok(ModernBert {
            words: named("model.embeddings.tok_embeddings.weight")?,
            norm: norm("model.embeddings.norm")?,
            layers: modern.attention.iter().enumerate().map(layer).collect::<Result<_>>()?,
            final_norm: norm("model.final_norm")?,
            dense: named("head.dense.weight")?,
            dense_bias: match modern.head_bias {
                HeadBias::With => Some(named("head.dense.bias")?),
                HeadBias::Without => None,
            },
            head_norm: norm("head.norm")?,
            classifier: affine(named, "classifier")?,
            modern: modern.clone(),
        })
    }

    /// Logits (B, K) and what goes into the last layer (B, C), before its dropout.
    pub(crate) fn forward(
        &self,
        config: &Config,
        input: &Input,
        mut mode: Mode,
        precision: Precision,
        wanted: &Wanted,
    ) -> Result<States> {
        let mode = &mut mode;
        let x = self.norm.of(&kernels::embedding(&self.words, &input.ids)?)?; // (N, C)
        let dropped = mode.dropout(config.hidden_dropout);
        let (x, sequences) = mixed(kernels::dropout_rows(&x, &input.sequences, dropped)?, input)?;
        let halves = self.halves(config, sequences.width(), mode)?;
        let rows = match self.modern.pooling {
            Pooling::First => Rows::First,
            Pooling::Mean => Rows::All,
        };
        let (x, mut kept) = encode(&x, &sequences, halves, rows, wanted, precision)?;
        if let Some(last) = kept.hidden.get_mut(&config.layers) {
            *last = self.final_norm.of(last)?; // what others call the last hidden state
        }
        let x = self.final_norm.of(&x)?;
        let of_text = match self.modern.pooling {
            Pooling::First => x, // (B, C)
            Pooling::Mean => kernels::mean_of_texts(&x, &sequences)?,
        };
        let x = kernels::linear(&of_text, &self.dense, self.dense_bias.as_ref(), Precision::F32)?;
        let pooled = self.head_norm.of(&self.modern.head_activation.of(&x)?)?;
        let dropped = dropout(pooled.clone(), config.classifier_dropout, mode)?;
        let (logits, Kept { hidden, attention }) = (linear(&dropped, &self.classifier)?, kept);
        Ok(States { logits, pooled, hidden, attention, sequences })
    }

    /// Two halves a layer, for texts of up to `width` tokens.
    fn halves(&self, config: &Config, width: usize, mode: &mut Mode) -> Result<Vec<Half>> {
        let d = config.hidden_size / config.heads;
        let angles = |theta: f64| Rotary::new(theta, d, width).map(Arc::new);
        let (global, local) = (angles(self.modern.global_theta)?, angles(self.modern.local_theta)?);
        let mut halves = Vec::with_capacity(2 * self.layers.len());
        for layer in &self.layers {
            let (reach, angles) = match layer.attention {
                LayerAttention::Global => (Reach::All, &global),
                LayerAttention::Local => (Reach::Within(self.modern.reach), &local),
            };
            let attention = RotaryAttention {
                norm: layer.attention_norm.clone(),
                together: layer.together.clone(),
                output: layer.output.clone(),
                heads: config.heads,
                reach,
                angles: angles.clone(),
            };
            let dropped = AttentionDropout {
                probabilities: mode.dropout(config.attention_dropout),
                output: mode.dropout(config.attention_dropout),
                ..AttentionDropout::default()
            };
            halves.push(Half::RotaryAttention(attention, dropped));
            let dropped = mode.dropout(config.hidden_dropout);
            halves.push(Half::GatedFeedForward(layer.feed_forward.clone(), dropped));
        }
        Ok(halves)
    }
}

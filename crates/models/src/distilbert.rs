//! DistilBERT (Sanh et al. 2019, arXiv 1910.01108), as transformers' `DistilBertForSequenceClassification`: BERT without
//! token types and pooler. Its config.json has words of its own, and nothing is dropped behind attention's output layer.

use crate::bert;
use crate::config::{ClassifierDropout, Dialect, TokenTypes};
use crate::layout::{BlockNames, HeadActivation, HeadNames, Layout, Site};

pub(crate) const DIALECT: Dialect = Dialect {
    hidden_size: "dim",
    layers: "n_layers",
    heads: "n_heads",
    intermediate_size: "hidden_dim",
    activation: ("activation", bert::DIALECT.activation.1),
    hidden_dropout: ("dropout", 0.1),
    attention_dropout: ("attention_dropout", 0.1),
    classifier_dropout: ClassifierDropout::Or("seq_classif_dropout", 0.2),
    token_types: TokenTypes::None,
    layer_norm_eps: (None, 1e-12),
    ..bert::DIALECT
};

pub(crate) const LAYOUT: Layout = Layout {
    prefix: "distilbert.",
    parts: &["embeddings.", "transformer."],
    other_heads: &["vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs."],
    layers: "transformer.layer",
    block: BlockNames {
        query: "attention.q_lin",
        key: "attention.k_lin",
        value: "attention.v_lin",
        output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        inner: "ffn.lin1",
        outer: "ffn.lin2",
        norm: "output_layer_norm",
        output_dropout: Site::Kept,
        outer_dropout: Site::Dropped,
    },
    head: HeadNames {
        dense: "pre_classifier",
        activation: HeadActivation::Relu,
        last: "classifier",
        first_dropout: Site::Kept,
    },
    ..bert::LAYOUT
};

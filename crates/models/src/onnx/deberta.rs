//! DeBERTa-v2 and -v3 as operators; see `deberta.rs` for what they compute.

use super::attention::{Disentangled, Scores, block};
use super::graph::{Graph, Name};
use super::post_norm::positions;
use super::{IDS, TYPES};
use crate::Config;
use crate::deberta::own_projections;
use crate::deberta::{Deberta, LAYOUT, POSITIONS, PROJECTION, RelativeTerms, TABLE, TABLE_NORM};

/// Logits (B, K).
pub(crate) fn deberta(graph: &mut Graph, config: &Config, details: &Deberta) -> Name {
    let mut x = embeddings(graph, config, details); // (B, T, C)
    let mask = graph.mask();
    let terms = details.terms.map(|terms| relative(graph, config, terms));
    let scores = match &terms {
        Some(terms) => Scores::Disentangled(terms, &mask),
        None => Scores::Added(&mask),
    };
    for layer in LAYOUT.layer_names(config) {
        x = block(graph, &LAYOUT.block, &layer, config, &x, &scores);
    }
    let x = graph.first_tokens(&x); // (B, C)
    let x = graph.head_linear(&x, LAYOUT.head.dense, true);
    let x = graph.activation(&x, details.pooler_activation);
    graph.head_linear(&x, LAYOUT.head.last, true)
}

/// norm(projection(word + position + type)), (B, T, C).
fn embeddings(graph: &mut Graph, config: &Config, details: &Deberta) -> Name {
    let words = graph.parameter("deberta.embeddings.word_embeddings.weight");
    let mut x = graph.gather(&words, IDS, 0);
    if details.has_positions {
        let positions = positions(graph, POSITIONS, config);
        x = graph.add(&x, &positions);
    }
    if config.type_vocab_size > 0 {
        let types = graph.parameter("deberta.embeddings.token_type_embeddings.weight");
        let types = graph.gather(&types, TYPES, 0);
        x = graph.add(&x, &types);
    }
    if config.embedding_size != config.hidden_size {
        x = graph.linear_without_bias(&x, PROJECTION);
    }
    graph.norm(&x, "deberta.embeddings.LayerNorm", config.layer_norm_eps)
}

fn relative(graph: &mut Graph, config: &Config, terms: RelativeTerms) -> Disentangled {
    let table = graph.parameter(TABLE);
    let table = match terms.is_normed {
        true => graph.norm(&table, TABLE_NORM, config.layer_norm_eps),
        false => table,
    };
    let rows = graph.buckets(terms.buckets, config.max_positions);
    let [own_key, own_query] = own_projections(Some(terms));
    let shared = |has: bool, name: &'static str| (terms.is_shared && has).then_some(name);
    Disentangled {
        table,
        rows_of_keys: graph.transpose(&rows, &[1, 0]),
        rows,
        key: own_key.or(shared(terms.has_keys, LAYOUT.block.key)),
        query: own_query.or(shared(terms.has_queries, LAYOUT.block.query)),
    }
}

//! Low-rank adapters: which matrices of an architecture may have one, and the matrix that the model uses in their place.
//! Hu et al. 2021, 2106.09685.

use candle_core::Tensor;

use crate::{Config, Depth, Error, ModelType, Result, depth, parameter_shapes};

/// A matrix that may have an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Of the parameter.
    pub name: String,
    /// (O, I)
    pub shape: (usize, usize),
}

/// The modules that get an adapter where none are named: queries and values, as Hu et al. found best for few parameters.
/// PEFT chooses the same where it chooses: for BERT, RoBERTa, XLM-RoBERTa, ELECTRA and DeBERTa.
pub fn usual_targets(model_type: ModelType) -> &'static [&'static str] {
    match model_type {
        ModelType::DistilBert => &["q_lin", "v_lin"],
        ModelType::Mpnet => &["q", "v"],
        ModelType::DebertaV2 => &["query_proj", "value_proj"],
        // Queries, keys and values are one matrix.
        ModelType::ModernBert => &["Wqkv"],
        ModelType::Bert
        | ModelType::Roberta
        | ModelType::XlmRoberta
        | ModelType::Camembert
        | ModelType::Electra
        | ModelType::Albert => &["query", "value"],
    }
}

/// The matrices of the encoder's layers whose module is called by one of `targets`: the module's whole name, or its end behind
/// a dot, as PEFT reads them. A target that matches nothing is an error that lists the modules that there are.
pub fn matrices(config: &Config, targets: &[String]) -> Result<Vec<Matrix>> {
    let all: Vec<Matrix> = parameter_shapes(config)
        .into_iter()
        .filter(|(name, _)| matches!(depth(config, name), Depth::Layer(_)))
        .filter_map(|(name, shape)| match (module(&name), &shape[..]) {
            (Some(_), &[o, i]) => Some(Matrix { name, shape: (o, i) }),
            _ => None,
        })
        .collect();
    let is_of = |matrix: &Matrix, target: &str| {
        let module = module(&matrix.name).unwrap_or_default();
        module == target || module.strip_suffix(target).is_some_and(|rest| rest.ends_with('.'))
    };
    for target in targets {
        if target.is_empty() || !all.iter().any(|matrix| is_of(matrix, target)) {
            let mut known: Vec<String> = all.iter().map(|matrix| in_layer(&matrix.name)).collect();
            known.sort();
            known.dedup();
            return Err(Error::NoTarget { target: target.clone(), known });
        }
    }
    let is_wanted = |matrix: &Matrix| targets.iter().any(|target| is_of(matrix, target));
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// W + scale·B·A, with B (O, r) and A (r, I) → (O, I).
pub fn adapted(w: &Tensor, a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor> {
    Ok((w + (b.matmul(a)? * scale)?)?)
}

/// The module of a weight, as PEFT names it.
pub(crate) fn module(name: &str) -> Option<&str> {
    name.strip_suffix(".weight")
}

/// What a module is called within its layer: `attention.self.query`.
fn in_layer(name: &str) -> String {
    let parts: Vec<&str> = module(name).unwrap_or(name).split('.').collect();
    let number = parts.iter().rposition(|part| part.parse::<usize>().is_ok());
    parts[number.map_or(0, |at| at + 1)..].join(".")
}

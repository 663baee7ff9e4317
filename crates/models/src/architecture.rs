//! The one place where a model type decides what happens: everything else asks here.

use lowchurn_kernels::Precision;

use crate::config::Dialect;
use crate::deberta::DebertaV2;
use crate::layers::Named;
use crate::layout::{Depth, Layout, Role};
use crate::modernbert::ModernBert;
use crate::onnx::{self, Graph, Name};
use crate::post_norm::PostNorm;
use crate::{Config, Input, Mode, ModelType, Result, States, Wanted};
use crate::{albert, bert, deberta, distilbert, electra, modernbert, mpnet, roberta};

/// A network with its tensors.
pub(crate) enum Arch {
    PostNorm(PostNorm),
    DebertaV2(DebertaV2),
    ModernBert(ModernBert),
}

pub(crate) fn dialect(model_type: ModelType) -> &'static Dialect {
    match model_type {
        ModelType::Bert => &bert::DIALECT,
        ModelType::DistilBert => &distilbert::DIALECT,
        ModelType::Roberta | ModelType::XlmRoberta | ModelType::Camembert => &roberta::DIALECT,
        ModelType::Electra => &electra::DIALECT,
        ModelType::Mpnet => &mpnet::DIALECT,
        ModelType::Albert => &albert::DIALECT,
        ModelType::DebertaV2 => &deberta::DIALECT,
        ModelType::ModernBert => &modernbert::DIALECT,
    }
}

/// How the network is built.
enum Family {
    PostNorm(&'static Layout),
    DebertaV2,
    ModernBert,
}

fn family(model_type: ModelType) -> Family {
    match model_type {
        ModelType::Bert => Family::PostNorm(&bert::LAYOUT),
        ModelType::DistilBert => Family::PostNorm(&distilbert::LAYOUT),
        ModelType::Roberta | ModelType::XlmRoberta | ModelType::Camembert => {
            Family::PostNorm(&roberta::LAYOUT)
        }
        ModelType::Electra => Family::PostNorm(&electra::LAYOUT),
        ModelType::Mpnet => Family::PostNorm(&mpnet::LAYOUT),
        ModelType::Albert => Family::PostNorm(&albert::LAYOUT),
        ModelType::DebertaV2 => Family::DebertaV2,
        ModelType::ModernBert => Family::ModernBert,
    }
}

/// The network as ONNX's operators; gives the name of its logits (B, K).
pub(crate) fn graph(config: &Config, graph: &mut Graph) -> Result<Name> {
    match family(config.model_type) {
        Family::PostNorm(layout) => Ok(onnx::post_norm(graph, layout, config)),
        Family::DebertaV2 => Ok(onnx::deberta(graph, config, deberta::of(config))),
        Family::ModernBert => onnx::modernbert(graph, config, modernbert::of(config)?),
    }
}

/// What a tensor of a published checkpoint is.
pub(crate) fn role(config: &Config, name: &str) -> Role {
    match family(config.model_type) {
        Family::PostNorm(layout) => layout.role(name),
        Family::DebertaV2 => deberta::role(config, name),
        Family::ModernBert => modernbert::role(name),
    }
}

/// Name and shape of each parameter, with as many classes as there are labels.
pub fn shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    match family(config.model_type) {
        Family::PostNorm(layout) => layout.shapes(config, config.labels.len()),
        Family::DebertaV2 => deberta::shapes(config, config.labels.len()),
        Family::ModernBert => modernbert::shapes(config, config.labels.len()),
    }
}

/// Where in the model a parameter stands, for whoever freezes some or trains them at rates of their own.
pub fn depth(config: &Config, name: &str) -> Depth {
    match family(config.model_type) {
        Family::PostNorm(layout) => layout.depth(config, name),
        Family::DebertaV2 => deberta::LAYOUT.depth(config, name),
        Family::ModernBert => modernbert::depth(config, name),
    }
}

impl Arch {
    pub(crate) fn new(config: &Config, named: Named) -> Result<Arch> {
        match family(config.model_type) {
            Family::PostNorm(layout) => Ok(Arch::PostNorm(PostNorm::new(layout, config, named)?)),
            Family::DebertaV2 => Ok(Arch::DebertaV2(DebertaV2::new(config, named)?)),
            Family::ModernBert => Ok(Arch::ModernBert(ModernBert::new(config, named)?)),
        }
    }

    /// Logits (B, K), what goes into the head (B, C), and what is wanted besides.
    pub(crate) fn forward(
        &self,
        config: &Config,
        input: &Input,
        mode: Mode,
        precision: Precision,
        wanted: &Wanted,
    ) -> Result<States> {
        input.check(config)?;
        match self {
            Arch::PostNorm(model) => model.forward(config, input, mode, precision, wanted),
            Arch::DebertaV2(model) => model.forward(config, input, mode, precision, wanted),
            Arch::ModernBert(model) => model.forward(config, input, mode, precision, wanted),
        }
    }
}

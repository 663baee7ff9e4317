//! Values of flags that clap can't read by itself.

use lowchurn_data::Kind;
use lowchurn_distill::{OptimizerName, Schedule, SelectBy, Threshold};
use lowchurn_kernels::Precision;
use serde_json::Value;

pub(super) fn parse_schedule(text: &str) -> Result<Schedule, String> {
    serde_json::from_value(Value::from(text))
        .map_err(|_| "expected linear, cosine or constant".into())
}

pub(super) fn parse_optimizer(text: &str) -> Result<OptimizerName, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| "expected adamw or sgd".into())
}

pub(super) fn parse_bf16(text: &str) -> Result<Precision, String> {
    match text {
        "true" => Ok(Precision::Bf16),
        "false" => Ok(Precision::F32),
        _ => Err("expected true or false".into()),
    }
}

pub(super) fn parse_select_by(text: &str) -> Result<SelectBy, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| {
        "expected accuracy, f1, macro_f1, matthews, pearson, spearman, worst_class or loss".into()
    })
}

pub(super) fn parse_kind(text: &str) -> Result<Kind, String> {
    text.parse().map_err(|error: lowchurn_data::Error| error.to_string())
}

pub(super) fn parse_threshold(text: &str) -> Result<Threshold, String> {
    text.parse()
}

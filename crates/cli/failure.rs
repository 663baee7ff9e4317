//! From an error to words and an exit code.

use std::fmt;
use std::io::ErrorKind;

use anyhow::Error;
use serde_json::json;

use crate::console::Console;

pub const USAGE: u8 = 2;
pub const DATA: u8 = 3;
pub const NUMERICS: u8 = 5;
pub const INTERRUPTED: u8 = 130;

/// Something that was asked for in a way that can't be done.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Tells the error and gives its exit code.
pub fn report(error: &Error, console: &mut Console) -> u8 {
    let code = exit_code(error);
    // A reader that went away (`| head`) is no failure.
    if is_closed_pipe(error) {
        return 0;
    }
    let message = message(error);
    console.say(&format!("error: {message}"));
    console.event(&json!({ "event": "failed", "error": message, "exit_code": code }));
    code
}

/// What happened and why; most errors say their cause themselves, which is once enough.
fn message(error: &Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !message.contains(&cause) {
            let colon = if message.is_empty() { "" } else { ": " };
            message = format!("{message}{colon}{cause}");
        }
    }
    if is_no_room(error) {
        return message + "; make room there, or write elsewhere, and give the same command again";
    }
    match error.chain().find_map(|cause| cause.downcast_ref::<lowchurn_data::Error>()) {
        Some(lowchurn_data::Error::UnclearColumn { role: "label", .. }) => {
            message + ": --label-column NAME"
        }
        Some(lowchurn_data::Error::UnclearColumn { .. }) => message + ": --text-column NAME",
        _ => message,
    }
}

fn exit_code(error: &Error) -> u8 {
    use lowchurn_distill::Error as Distill;
    if is_no_room(error) {
        return USAGE;
    }
    for cause in error.chain() {
        if cause.is::<Usage>() {
            return USAGE;
        }
        if let Some(error) = cause.downcast_ref::<lowchurn_hub::Error>() {
            return error.exit_code();
        }
        if let Some(error) = cause.downcast_ref::<lowchurn_data::Error>() {
            return data_code(error);
        }
        if let Some(error) = cause.downcast_ref::<lowchurn_churn::Error>() {
            return churn_code(error);
        }
        match cause.downcast_ref::<Distill>() {
            Some(
                Distill::PlanValue { .. }
                | Distill::BatchSize { .. }
                | Distill::OtherRun { .. }
                | Distill::LambdaRange { .. }
                | Distill::Reduction { .. },
            ) => return USAGE,
            Some(
                Distill::FreezeLayers { .. }
                | Distill::AllFrozen { .. }
                | Distill::NoBiases
                | Distill::TargetsFrozen { .. }
                | Distill::Rank { .. }
                | Distill::Models(lowchurn_models::Error::NoTarget { .. }),
            ) => return USAGE,
            Some(Distill::NotFinite { .. } | Distill::NotFiniteLogits { .. }) => return NUMERICS,
            Some(Distill::NoGradient { .. } | Distill::Tensor(_)) => return NUMERICS,
            Some(Distill::Data(error)) => return data_code(error),
            Some(_) => return DATA,
            None => {}
        }
    }
    DATA
}

/// What was asked for is usage; what was found in the files is data.
fn data_code(error: &lowchurn_data::Error) -> u8 {
    use lowchurn_data::Error as Data;
    match error {
        Data::BadSource { .. }
        | Data::FolderWord { .. }
        | Data::BadSplitExpression { .. }
        | Data::UnknownSplit { .. }
        | Data::UnknownMetric { .. }
        | Data::BadFraction { .. }
        | Data::UnknownConfig { .. }
        | Data::ConfigNeeded { .. }
        | Data::UnknownKind { .. }
        | Data::MetricOfKind { .. } => USAGE,
        _ => DATA,
    }
}

/// The same of comparisons: limits, thresholds and label maps are asked for, everything else is found.
fn churn_code(error: &lowchurn_churn::Error) -> u8 {
    use lowchurn_churn::Error as Churn;
    match error {
        Churn::Data(error) => data_code(error),
        Churn::MapUnknown { .. }
        | Churn::MapTwice { .. }
        | Churn::ThresholdLabel { .. }
        | Churn::ThresholdOutside { .. }
        | Churn::ThresholdWithoutScores { .. }
        | Churn::ConfidenceOutside { .. }
        | Churn::QuantileOutside { .. }
        | Churn::ToleranceNeeded { .. }
        | Churn::Tolerance { .. }
        | Churn::KindsDiffer { .. }
        | Churn::BudgetEmpty
        | Churn::BudgetShare { .. }
        | Churn::BudgetGain { .. }
        | Churn::BudgetConfidence { .. }
        | Churn::BudgetRows { .. }
        | Churn::BudgetSlices { .. }
        | Churn::BudgetClasses { .. } => USAGE,
        _ => DATA,
    }
}

/// A full disk, or less than all of it where there is a limit.
fn is_no_room(error: &Error) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    is_of(error, &[StorageFull, QuotaExceeded, FileTooLarge])
}

fn is_closed_pipe(error: &Error) -> bool {
    is_of(error, &[ErrorKind::BrokenPipe])
}

fn is_of(error: &Error, kinds: &[ErrorKind]) -> bool {
    let found = |cause: &std::io::Error| kinds.contains(&cause.kind());
    error.chain().any(|cause| cause.downcast_ref().is_some_and(found))
}

//! What is written as one line of text, with the flags that may stand beside it put into it.

use anyhow::Result;
use lowchurn_distill::{Method, Objective};

use super::Settings;
use crate::failure::Usage;

/// The method with `lambda` and `temperature` put into it where they stand by themselves.
pub fn method(s: &Settings) -> Result<Method> {
    let line = s.method.clone().unwrap_or_else(|| Method::Retrain.to_string());
    let lambda = s.lambda.as_ref().map(|lambda| format!("lambda={lambda}"));
    let temperature = s.temperature.map(|t| format!("temperature={t}"));
    Ok(with(line, [lambda, temperature]).parse::<Method>().map_err(Usage)?)
}

/// The objective with `worst_class_weight` and `group_by`, likewise.
pub fn objective(s: &Settings) -> Result<Objective> {
    let weight = s.worst_class_weight.map(|weight| format!("weight={weight}"));
    let group_by = s.group_by.as_ref().map(|column| format!("group-by={column}"));
    if s.objective.is_none() && (weight.is_some() || group_by.is_some()) {
        let said = "worst-class-weight and group-by say something of an objective, and none is set; take --objective robust";
        return Err(Usage(said.into()).into());
    }
    if let Some(column) = s.group_by.as_ref().filter(|column| column.contains(',')) {
        return Err(Usage(format!(
            "group-by {column:?}: expected the name of a column without a comma"
        ))
        .into());
    }
    let line = s.objective.clone().unwrap_or_else(|| Objective::Standard.to_string());
    Ok(with(line, [weight, group_by]).parse::<Objective>().map_err(Usage)?)
}

fn with(mut line: String, settings: [Option<String>; 2]) -> String {
    for setting in settings.into_iter().flatten() {
        let mark = if line.contains(':') { ',' } else { ':' };
        line = format!("{line}{mark}{setting}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_put_into_the_objective() {
        let of = |objective: Option<&str>, weight, group_by: Option<&str>| {
            let settings = Settings {
                objective: objective.map(String::from),
                worst_class_weight: weight,
                group_by: group_by.map(String::from),
                ..Settings::default()
            };
            objective_line(&settings)
        };
        fn objective_line(settings: &Settings) -> Result<String, String> {
            objective(settings).map(|found| found.to_string()).map_err(|error| error.to_string())
        }
        assert_eq!(of(None, None, None), Ok("standard".into()));
        let found = of(Some("robust:step=1"), Some(0.5), Some("airline")).unwrap();
        assert!(
            found.starts_with("robust:weight=0.5,base=balanced,form=weights,step=1,"),
            "{found}"
        );
        assert!(found.ends_with(",group-by=airline"), "{found}");
        let said = "worst-class-weight and group-by say something of an objective, and none is set; take --objective robust";
        assert_eq!(of(None, Some(0.5), None), Err(said.into()));
        assert_eq!(of(None, None, Some("x")), Err(said.into()));
        let said = "balanced: unknown setting weight; it takes group-by, form";
        assert_eq!(of(Some("balanced"), Some(0.5), None), Err(said.into()));
        let said = "robust: weight is set twice";
        assert_eq!(of(Some("robust:weight=1"), Some(0.5), None), Err(said.into()));
        let said = "group-by \"a,b\": expected the name of a column without a comma";
        assert_eq!(of(Some("robust"), None, Some("a,b")), Err(said.into()));
    }
}

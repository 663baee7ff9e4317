//! What is written as one line of text, with the flags that may stand beside it put into it. What doesn't go together is told by
//! the names of the flags.

use anyhow::Result;
use lowchurn_distill::{Lambda, Method, Objective};

use super::Settings;
use crate::failure::Usage;

/// The method with `lambda` and `temperature` put into it where they stand by themselves.
pub fn method(s: &Settings) -> Result<Method> {
    let line = s.method.clone().unwrap_or_else(|| Method::Retrain.to_string());
    let plain: Method = line.parse().map_err(Usage)?;
    let (all, name) = (plain.to_string(), plain.name());
    let refuse = |said: String| -> Result<Method> { Err(Usage(said).into()) };
    let mut full = line.clone();
    if let Some(lambda) = &s.lambda {
        let typed = match lambda.parse() {
            Ok(Lambda::Switch { at, .. }) => format!("--switch-at {at}, or --lambda {lambda},"),
            _ => format!("--lambda {lambda}"),
        };
        if !all.contains("lambda=") {
            return refuse(format!(
                "{typed} says how much a teacher weighs, and method {name} has no λ; leave it out, or take a method that follows a \
                 teacher, such as distil"
            ));
        }
        if lambda.contains(',') {
            return refuse(format!(
                "--lambda {lambda}: expected one value, without a comma; numbers have a point, such as 0.5"
            ));
        }
        full = with(&full, "lambda", lambda, &typed)?;
    }
    if let Some(temperature) = s.temperature {
        let typed = format!("--temperature {temperature}");
        if !all.contains("temperature=") {
            return refuse(format!(
                "{typed} is for methods distil and focal, and the method is {name}; leave it out"
            ));
        }
        full = with(&full, "temperature", &temperature.to_string(), &typed)?;
    }
    Ok(full.parse::<Method>().map_err(Usage)?)
}

/// The objective with `worst_class_weight` and `group_by`, likewise.
pub fn objective(s: &Settings) -> Result<Objective> {
    let refuse = |said: String| -> Result<Objective> { Err(Usage(said).into()) };
    let is_beside = s.worst_class_weight.is_some() || s.group_by.is_some();
    if s.objective.is_none() && is_beside {
        return refuse(
            "worst-class-weight and group-by say something of an objective, and none is set; take --objective robust".into(),
        );
    }
    let line = s.objective.clone().unwrap_or_else(|| Objective::Standard.to_string());
    let plain: Objective = line.parse().map_err(Usage)?;
    let name = plain.name();
    let mut full = line.clone();
    if let Some(weight) = s.worst_class_weight {
        let typed = format!("--worst-class-weight {weight}");
        if plain.robust().is_none() {
            return refuse(format!(
                "{typed} is for objective robust, and the objective is {name}; leave it out, or take --objective robust"
            ));
        }
        full = with(&full, "weight", &weight.to_string(), &typed)?;
    }
    if let Some(column) = &s.group_by {
        let typed = format!("--group-by {column}");
        if column.contains(',') {
            return refuse(format!("{typed}: expected the name of a column without a comma"));
        }
        if !matches!(plain, Objective::Balanced { .. } | Objective::Robust(_)) {
            return refuse(format!(
                "{typed} is for objectives balanced and robust, and the objective is {name}; leave it out, or take one of them"
            ));
        }
        full = with(&full, "group-by", column, &typed)?;
    }
    Ok(full.parse::<Objective>().map_err(Usage)?)
}

/// The line with a setting more, which it must not have already.
fn with(line: &str, key: &str, value: &str, typed: &str) -> Result<String> {
    let settings = line.split_once(':').map_or("", |(_, settings)| settings);
    let mut keys =
        settings.split(',').filter_map(|setting| Some(setting.split_once('=')?.0.trim()));
    if keys.any(|known| known == key) {
        return Err(Usage(format!(
            "{typed} beside {line}: {key} is set twice; leave one of them out, or type the whole line"
        ))
        .into());
    }
    let mark = if line.contains(':') { ',' } else { ':' };
    Ok(format!("{line}{mark}{key}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_put_into_the_method() {
        let of = |method: Option<&str>, lambda: Option<&str>, temperature| {
            let settings = Settings {
                method: method.map(String::from),
                lambda: lambda.map(String::from),
                temperature,
                ..Settings::default()
            };
            self::method(&settings)
                .map(|found| found.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(of(None, None, None), Ok("retrain".into()));
        assert_eq!(
            of(Some("distil"), Some("1..0@5"), Some(2.0)),
            Ok("distil:lambda=1..0@5,temperature=2,divergence=kl,rows=all".into())
        );
        let refused = |method, lambda, temperature, expected: &str| {
            assert_eq!(of(method, lambda, temperature), Err(expected.into()));
        };
        refused(
            None,
            Some("1..0@5"),
            None,
            "--switch-at 5, or --lambda 1..0@5, says how much a teacher weighs, and method retrain has no λ; leave it out, or take a \
             method that follows a teacher, such as distil",
        );
        refused(
            Some("knn-smoothing"),
            Some("0.5"),
            None,
            "--lambda 0.5 says how much a teacher weighs, and method knn-smoothing has no λ; leave it out, or take a method that \
             follows a teacher, such as distil",
        );
        refused(
            Some("distil"),
            Some("0,5"),
            None,
            "--lambda 0,5: expected one value, without a comma; numbers have a point, such as 0.5",
        );
        refused(
            Some("anchor"),
            None,
            Some(2.0),
            "--temperature 2 is for methods distil and focal, and the method is anchor; leave it out",
        );
        refused(
            Some("distil:lambda=0.3"),
            Some("0.5"),
            None,
            "--lambda 0.5 beside distil:lambda=0.3: lambda is set twice; leave one of them out, or type the whole line",
        );
        refused(
            Some("distill"),
            Some("0.5"),
            None,
            "unknown method \"distill\"; did you mean distil?",
        );
    }

    #[test]
    fn flags_are_put_into_the_objective() {
        let of = |objective: Option<&str>, weight, group_by: Option<&str>| {
            let settings = Settings {
                objective: objective.map(String::from),
                worst_class_weight: weight,
                group_by: group_by.map(String::from),
                ..Settings::default()
            };
            let found = self::objective(&settings);
            found.map(|found| found.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(of(None, None, None), Ok("standard".into()));
        let found = of(Some("robust:step=1"), Some(0.5), Some("airline")).unwrap();
        assert!(
            found.starts_with("robust:weight=0.5,base=balanced,form=weights,step=1,"),
            "{found}"
        );
        assert!(found.ends_with(",group-by=airline"), "{found}");
        let refused = |objective, weight, group_by, expected: &str| {
            assert_eq!(of(objective, weight, group_by), Err(expected.into()));
        };
        let said = "worst-class-weight and group-by say something of an objective, and none is set; take --objective robust";
        refused(None, Some(0.5), None, said);
        refused(None, None, Some("x"), said);
        for name in ["balanced", "standard"] {
            let said = format!(
                "--worst-class-weight 0.5 is for objective robust, and the objective is {name}; leave it out, or take --objective \
                 robust"
            );
            refused(Some(name), Some(0.5), None, &said);
        }
        refused(
            Some("ada-margin"),
            None,
            Some("x"),
            "--group-by x is for objectives balanced and robust, and the objective is ada-margin; leave it out, or take one of them",
        );
        refused(
            Some("robust:weight=1"),
            Some(0.5),
            None,
            "--worst-class-weight 0.5 beside robust:weight=1: weight is set twice; leave one of them out, or type the whole line",
        );
        let said = "--group-by a,b: expected the name of a column without a comma";
        refused(Some("robust"), None, Some("a,b"), said);
    }
}

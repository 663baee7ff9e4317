//! Which settings a sweep trains: methods × grids × starts × parts of the model.

use anyhow::Result;
use lowchurn_distill::{Divergence, Method};

use super::part::{Part, parts};
use crate::args::{Init, Sweep};
use crate::failure::Usage;
use crate::grid;
use crate::settings::Settings;
use crate::updating::starts_fresh;

/// One setting, without its seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub method: Method,
    pub smoothing: Option<f64>,
    pub init: Init,
    pub part: Part,
}

impl Setting {
    /// As it is called in tables and plots.
    pub fn method_name(&self) -> String {
        match self.smoothing {
            Some(_) => "label-smoothing".into(),
            None => self.method.name().into(),
        }
    }

    /// Where a method has its own start, the flag's makes no other.
    fn is_as(&self, other: &Setting) -> bool {
        let of = |setting: &Setting| (setting.method, setting.smoothing, setting.init_name());
        of(self) == of(other) && self.part == other.part
    }

    /// Whether it is the retrain that the others are held against.
    pub fn is_plain_retrain(&self) -> bool {
        self.method == Method::Retrain && self.smoothing.is_none() && self.part == Part::default()
    }

    /// What tells it apart from other settings of its method, without what is at its default.
    pub fn said(&self) -> String {
        let of_method = self.said_of_method();
        [of_method.as_str(), &self.part.said].join(" ").trim().to_string()
    }

    fn said_of_method(&self) -> String {
        if let Some(smoothing) = self.smoothing {
            return format!("α {smoothing}");
        }
        let line = self.method.to_string();
        let default =
            self.method.name().parse::<Method>().map(|d| d.to_string()).unwrap_or_default();
        let usual: Vec<&str> = keys(&default).collect();
        let is_lambda = |key: &&str| key.starts_with("lambda=");
        let kept = keys(&line).filter(|key| is_lambda(key) || !usual.contains(key));
        let said = |key: &str| match key.split_once('=') {
            Some(("lambda", value)) => format!("λ {value}"),
            Some(("temperature", value)) => format!("T {value}"),
            Some((name, value)) => format!("{name} {value}"),
            None => key.to_string(),
        };
        kept.map(said).collect::<Vec<_>>().join(" ")
    }

    pub fn init_name(&self) -> &'static str {
        match self.method {
            Method::ShrinkPerturb { .. } => "",
            _ => self.init.name(),
        }
    }

    /// Whether its weights start from an encoder and not from the deployed model's.
    pub fn needs_encoder(&self) -> bool {
        self.init == Init::Cold || starts_fresh(&self.method)
    }

    pub fn folder(&self) -> String {
        let name = format!("{} {} {}", self.method_name(), self.init_name(), self.said());
        let plain = |c: char| match c {
            'λ' => "l".to_string(),
            'α' => "a".to_string(),
            // `1..0@50%` and `1..0@50` are two schedules.
            '%' => "pc".to_string(),
            c if c.is_ascii_alphanumeric() || c == '.' => c.to_string(),
            _ => "-".to_string(),
        };
        let name: String = name.chars().map(plain).collect();
        name.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
    }
}

fn keys(line: &str) -> impl Iterator<Item = &str> {
    line.split_once(':').map_or("", |(_, keys)| keys).split(',').filter(|key| !key.is_empty())
}

/// All settings, each once, in the order of the flags.
///
/// `plan` is the plan file with the flags over it: its method, λ and temperature count where a sweep's own flags aren't typed.
pub fn settings(args: &Sweep, plan: &Settings) -> Result<Vec<Setting>> {
    let methods = match (&args.method[..], &plan.method) {
        ([], Some(method)) => vec![method.clone()],
        ([], None) => vec!["retrain".into(), "distil".into()],
        (typed, _) => typed.to_vec(),
    };
    let lambdas = match (&args.lambda, &plan.lambda) {
        // A plan may have a schedule, too, which the method reads.
        (None, plan @ Some(text)) => {
            grid_of("lambda", plan, (0.0, 1.0)).unwrap_or_else(|_| vec![text.clone()])
        }
        (typed, _) => grid_of("--lambda", typed, (0.0, 1.0))?,
    };
    let temperature = args.temperature.clone().or(plan.temperature.map(|t| t.to_string()));
    let temperatures = grid_of("--temperature", &temperature, (f64::MIN_POSITIVE, f64::MAX))?;
    let smoothings = values("--smoothing", &args.smoothing, (0.0, 1.0))?;
    let parts = parts(&args.trained, plan)?;
    let mut all: Vec<Setting> = Vec::new();
    let mut add = |setting: Setting| {
        let is_there = all.iter().any(|known| known.is_as(&setting));
        if !is_there {
            all.push(setting);
        }
    };
    for line in &methods {
        let plain: Method = line.parse().map_err(Usage)?;
        for method in spread(line, &plain, &lambdas, &temperatures)? {
            for &init in &args.init {
                for part in &parts {
                    add(Setting { method, smoothing: None, init, part: part.clone() });
                }
            }
        }
    }
    for smoothing in smoothings {
        for &init in &args.init {
            for part in &parts {
                let (method, part) = (Method::Retrain, part.clone());
                add(Setting { method, smoothing: Some(smoothing), init, part });
            }
        }
    }
    Ok(all)
}

/// The values of a grid; none where it wasn't typed.
fn values(flag: &str, text: &Option<String>, bounds: (f64, f64)) -> Result<Vec<f64>> {
    text.as_deref().map_or(Ok(Vec::new()), |text| grid::grid(flag, text, bounds))
}

/// As a method's line has them.
fn grid_of(flag: &str, text: &Option<String>, bounds: (f64, f64)) -> Result<Vec<String>> {
    Ok(values(flag, text, bounds)?.iter().map(f64::to_string).collect())
}

/// A method at every λ and T of the grids that it has and doesn't set itself. Without a grid it keeps its own default.
fn spread(
    line: &str,
    plain: &Method,
    lambdas: &[String],
    temperatures: &[String],
) -> Result<Vec<Method>> {
    // They have one, but no other.
    let is_exact_at_one = matches!(
        plain,
        Method::Distil { divergence: Divergence::MixedLabel | Divergence::LogitMse, .. }
    );
    let has = |key: &str| keys(&plain.to_string()).any(|known| known.starts_with(key));
    let sets = |key: &str| keys(line).any(|known| known.trim().starts_with(key));
    let mut lines = vec![line.to_string()];
    for (key, values) in [("lambda=", lambdas), ("temperature=", temperatures)] {
        let is_fixed = key == "temperature=" && is_exact_at_one;
        if has(key) && !sets(key) && !is_fixed && !values.is_empty() {
            let with = |line: &String, value: &String| {
                let mark = if line.contains(':') { ',' } else { ':' };
                format!("{line}{mark}{key}{value}")
            };
            lines =
                lines.iter().flat_map(|line| values.iter().map(move |v| with(line, v))).collect();
        }
    }
    lines.iter().map(|line| Ok(line.parse::<Method>().map_err(Usage)?)).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Verb};

    #[test]
    fn a_setting_is_said_as_it_was_typed() {
        let said = |line: &str| {
            let method = line.parse().unwrap();
            Setting { method, smoothing: None, init: Init::Cold, part: Part::default() }.said()
        };
        assert_eq!(said("distil:lambda=0.3,temperature=2"), "λ 0.3 T 2");
        assert_eq!(said("distil:lambda=churn<=0.05"), "λ churn<=0.05~5@25");
        assert_eq!(said("anchor-rcp:lambda=0.8,eta=0.6"), "λ 0.8 eta 0.6");
        assert_eq!(said("retrain"), "");
    }

    #[test]
    fn settings_are_there_once_and_each_in_a_folder_of_its_own() {
        let lists = |line: &str, plan: Option<&str>| {
            let words = format!("lowchurn sweep --base b --new n {line}");
            let Verb::Sweep(args) = Args::parse_from(words.split(' ')).verb else { panic!() };
            let plan = Settings { lambda: plan.map(String::from), ..Settings::default() };
            let all = settings(&args, &plan).map_err(|error| error.to_string())?;
            Ok::<_, String>(all.iter().map(Setting::folder).collect::<Vec<_>>())
        };
        let percent = "--init cold --method distil:lambda=1..0@50% --method distil:lambda=1..0@50";
        assert_eq!(
            lists(percent, None).unwrap(),
            ["distil-cold-l-1..0-50pc", "distil-cold-l-1..0-50"]
        );
        // From either start it is one training.
        let shrink = "--method shrink-perturb --method shrink-perturb:shrink=0.4";
        assert_eq!(lists(shrink, None).unwrap().len(), 1, "{:?}", lists(shrink, None));
        assert_eq!(
            lists("--init cold --method distil", Some("1..0@50%")).unwrap(),
            ["distil-cold-l-1..0-50pc"]
        );
        let two = lists("--init cold --method distil", Some("0.1,0.3")).unwrap();
        assert_eq!(two, ["distil-cold-l-0.1", "distil-cold-l-0.3"]);
    }

    #[test]
    fn grids_are_for_what_was_typed_and_can_be_set() {
        let check = |line: &str, lambdas: &[f64], temperatures: &[f64], expected: &[&str]| {
            let plain = line.parse().unwrap();
            let texts = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>();
            let found = spread(line, &plain, &texts(lambdas), &texts(temperatures)).unwrap();
            let expected: Vec<Method> = expected.iter().map(|line| line.parse().unwrap()).collect();
            assert_eq!(found, expected, "{line}");
        };
        let two = &[1.0, 4.0];
        check("distil", &[], &[], &["distil"]);
        check(
            "distil:divergence=standardised",
            &[],
            &[],
            &["distil:divergence=standardised,temperature=2"],
        );
        check("distil:lambda=0.3", &[0.5, 0.8], &[], &["distil:lambda=0.3"]);
        check("anchor", &[0.5, 0.8], two, &["anchor:lambda=0.5", "anchor:lambda=0.8"]);
        check("focal", &[], two, &["focal:temperature=1", "focal:temperature=4"]);
        check("distil:temperature=3", &[], two, &["distil:temperature=3"]);
        for divergence in ["mixed-label", "logit-mse"] {
            let line = format!("distil:divergence={divergence}");
            check(&line, &[], two, &[&line]);
        }
        check("retrain", &[0.5], two, &["retrain"]);
    }
}

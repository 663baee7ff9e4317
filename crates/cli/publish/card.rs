//! The model card: what the hub reads of a release, and what people do. Facts in, text out; nothing is measured here.

use lowchurn_churn::{Certificate, Rate, Report, markdown_cell};
use lowchurn_data::Source;
use lowchurn_distill::Scores;
use serde::Serialize;
use serde_json::{Value, json};

use crate::places;
use crate::publish::licence::Origin;
use crate::publish::measured::{Cast, percent};
use crate::publish::run::{Gate, Run};
use crate::reporting::check_lines;

/// All that a card says.
pub struct Told<'a> {
    /// `owner/name`.
    pub id: &'a str,
    pub run: &'a Run,
    pub origin: &'a Origin,
    pub cast: Option<&'a Cast>,
    /// Published although the gate didn't pass.
    pub is_forced: bool,
    pub has_texts: bool,
    pub has_table: bool,
}

/// YAML between two lines `---`, then Markdown.
pub fn card(told: &Told) -> String {
    format!("---\n{}---\n\n{}", front_matter(told), body(told))
}

/// A data set as the hub knows it.
#[derive(Clone, Debug, Default, PartialEq)]
struct DataSet {
    /// `owner/name`, where it is one of the hub's.
    id: Option<String>,
    name: String,
    config: Option<String>,
}

fn data_set(text: &str) -> DataSet {
    let source = match Source::parse(text) {
        Ok((Source::Task { name }, _)) => {
            let task = places::task(&name).ok();
            let task = task.and_then(|m| lowchurn_data::Task::parse(&m.text, &m.path).ok());
            match task.map(|task| task.source) {
                Some(source @ Source::Hub { .. }) => Some(source),
                _ => return DataSet { name, ..DataSet::default() },
            }
        }
        other => other.ok().map(|(source, _)| source),
    };
    match source {
        Some(Source::Hub { id, config, .. }) => DataSet { name: text.into(), id: Some(id), config },
        _ => {
            // Where a file lies, or lay, is nobody's business.
            let name = text.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or(text);
            DataSet { name: name.into(), ..DataSet::default() }
        }
    }
}

/// (type of the hub, name for people, value)
fn metrics(scores: &Scores) -> Vec<(&'static str, &'static str, f64)> {
    let all = [
        ("accuracy", "Accuracy", scores.accuracy),
        ("f1", "F1", scores.f1),
        ("f1", "F1 macro", scores.macro_f1),
        ("matthews_correlation", "Matthews correlation", scores.matthews),
        ("pearsonr", "Pearson correlation", scores.pearson),
        ("spearmanr", "Spearman correlation", scores.spearman),
    ];
    let known = all.into_iter().filter_map(|(id, name, value)| Some((id, name, value?)));
    known.filter(|(.., value)| value.is_finite()).collect()
}

fn front_matter(told: &Told) -> String {
    let Told { run, origin, .. } = told;
    let sources = [run.settings.data.clone()].into_iter().flatten();
    let sources = sources.chain(run.settings.new.iter().flatten().map(|new| new.data.clone()));
    let sets: Vec<DataSet> = sources.map(|text| data_set(&text)).collect();
    let mut ids: Vec<String> = sets.iter().filter_map(|set| set.id.clone()).collect();
    ids.sort();
    ids.dedup();
    let mut out = String::new();
    match origin.licences.as_slice() {
        [one] => out += &format!("license: {}\n", scalar(one)),
        many => out += &list("license", many),
    }
    out += "library_name: transformers\npipeline_tag: text-classification\n";
    out += &list("tags", &["lowchurn".into(), "text-classification".into()]);
    if let Some(base) = &origin.base_model {
        out += &format!("base_model: {}\nbase_model_relation: finetune\n", scalar(base));
    }
    if !ids.is_empty() {
        out += &list("datasets", &ids);
    }
    let entries = results(told);
    let mut names: Vec<String> = entries.iter().map(|entry| entry.id.clone()).collect();
    names.retain(|id| !id.starts_with("churn") && !id.starts_with("negative"));
    names.dedup();
    if !names.is_empty() {
        out += &list("metrics", &names);
    }
    if !entries.is_empty() {
        out += &format!("model-index:\n- name: {}\n  results:\n", scalar(name_of(told.id)));
        let set = set_of_results(told, sets.first());
        out += "  - task:\n      type: text-classification\n      name: Text Classification\n    dataset:\n";
        for (key, value) in set {
            out += &format!("      {key}: {}\n", scalar(&value));
        }
        out += "    metrics:\n";
        for entry in entries {
            out += &format!(
                "    - type: {}\n      name: {}\n      value: {}\n",
                scalar(&entry.id),
                scalar(&entry.name),
                json!(entry.value)
            );
            if !entry.args.is_null() {
                // JSON on one line is YAML too.
                out += &format!("      args: {}\n", entry.args);
            }
        }
    }
    out
}

/// A measured number, as the model index has it.
#[derive(Serialize)]
pub struct Entry {
    #[serde(rename = "type")]
    id: String,
    name: String,
    value: f64,
    args: Value,
}

/// On one set of rows: a report's where there is one, else those of the run's evaluation.
pub fn results(told: &Told) -> Vec<Entry> {
    let Some(report) = &told.run.report else {
        let scores = told.run.scores.iter().flat_map(metrics);
        let entry = |(id, name, value): (&str, &str, f64)| Entry {
            id: id.into(),
            name: name.into(),
            value,
            args: Value::Null,
        };
        return scores.map(entry).collect();
    };
    let all = &report.comparison.all;
    let confidence = report.certificate.as_ref().map_or(0.95, |made| made.confidence);
    let entry = |id: &str, name: String, rate: &Option<Rate>, old: bool| {
        let rate = rate.as_ref().filter(|rate| rate.value.is_finite())?;
        let mut args = json!({
            "low": rate.interval.low, "high": rate.interval.high, "rows": rate.of, "confidence": confidence,
        });
        if old {
            args["against"] = json!(report.old.name);
            args["against_sha256"] = json!(report.old.sha256);
        }
        Some(Entry { id: id.into(), name, value: rate.value, args })
    };
    let right = match report.comparison.answers.right().as_str() {
        "accuracy" => "accuracy",
        _ => "exact_match",
    };
    let old = &report.old.name;
    [
        entry(right, report.comparison.answers.right(), &all.accuracy_new, false),
        entry("churn", format!("Churn vs {old}"), &all.churn, true),
        entry("negative_flip_rate", format!("Negative flips vs {old}"), &all.nfr, true),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn set_of_results(told: &Told, set: Option<&DataSet>) -> Vec<(&'static str, String)> {
    let rows = rows_of_results(told);
    let set = set.cloned().unwrap_or_default();
    let id = set.id.clone().unwrap_or_else(|| match set.name.is_empty() {
        true => "rows".into(),
        false => set.name.clone(),
    });
    let mut all = vec![("type", id), ("name", rows.clone())];
    all.extend(set.config.map(|config| ("config", config)));
    // `sst2:validation (owner/name@commit)`
    let split = rows.split_once(':').map(|(_, rest)| rest.split(' ').next().unwrap_or(rest));
    all.extend(split.map(|split| ("split", split.to_string())));
    let commit = rows.rsplit_once('@').map(|(_, rest)| rest.trim_end_matches(')').to_string());
    all.extend(commit.map(|commit| ("revision", commit)));
    all
}

/// As the run or the report calls the rows that its numbers are of.
pub fn rows_of_results(told: &Told) -> String {
    match &told.run.report {
        Some(report) => report.data.clone(),
        None => {
            let eval = told.run.manifest["provenance"]["eval"].as_str().unwrap_or_default();
            if eval.is_empty() { "evaluation rows".into() } else { eval.into() }
        }
    }
}

fn name_of(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

/// A word as it is, anything else in JSON's quotes, which are YAML's too.
fn scalar(text: &str) -> String {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    let means_something = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    match is_word && !means_something.contains(&text.to_lowercase().as_str()) {
        true => text.to_string(),
        false => json!(text).to_string(),
    }
}

fn list(key: &str, values: &[String]) -> String {
    let lines: String = values.iter().map(|value| format!("- {}\n", scalar(value))).collect();
    format!("{key}:\n{lines}")
}

fn body(told: &Told) -> String {
    let Told { id, run, origin, cast, .. } = told;
    let labels: Vec<String> = run.model.labels.iter().map(|name| cell(name)).collect();
    let mut out = format!("# {}\n\n", name_of(id));
    out += &format!(
        "A text classifier ({}), trained with lowchurn. Labels: {}.\n",
        run.model.outputs.kind.name(),
        labels.join(", ")
    );
    let licences = origin.licences.join(", ");
    out += &match origin.from.as_str() {
        "given" => format!("Licence: {licences}.\n"),
        from => format!("Licence: {licences}, that of {}.\n", code(from)),
    };
    out += "\n## Intended use\n\nTexts like those that it was trained on, and the labels above; of others its scores say nothing.\n";
    out += "\n## Use\n\n```python\nfrom transformers import pipeline\n\n";
    out += &format!("classify = pipeline(\"text-classification\", model=\"{id}\")\n");
    out += "classify(\"...\")\n```\n\n";
    out += &format!("or without Python: `lowchurn predict --model {id} --data rows.csv`. ");
    out += &format!(
        "Rows were cut at {} tokens in training and measuring; serve with the same length.\n",
        run.model.max_length
    );
    out += &trained_on(told);
    out += &procedure(run);
    out += &measured(told);
    if let Some(report) = &run.report {
        out += &compared(told, report);
    }
    if let Some(cast) = cast {
        out += &format!(
            "\n## Stored as {}\n\nRounding the weights was measured before publishing. {}. The largest difference of a logit is {:.2e}. \
             Numbers and verdicts above are of the weights before that.\n",
            cast.dtype,
            cell(&cast.said()),
            cast.largest_difference
        );
    }
    out += "\n## Limits\n\nNumbers above are of the rows they name, and intervals cover the choice of rows, not a drift of what comes \
            in. Served with other numerics (another number format, another GELU, another length) some predictions change.\n";
    out += "\n## Made of\n\n| what | |\n|---|---|\n";
    for (key, value) in run.provenance() {
        out += &format!("| {} | {} |\n", code(&key), code(&value));
    }
    out += "\nThe same lines stand in the metadata of `model.safetensors`, and `manifest.json` has the hash of every file here.\n";
    out
}

fn trained_on(told: &Told) -> String {
    let provenance = &told.run.manifest["provenance"];
    let text = |key: &str| provenance[key].as_str().filter(|text| !text.is_empty());
    let mut out = "\n## Training data\n\n".to_string();
    match text("train") {
        Some(train) => out += &format!("{}.", code(train)),
        None => out += "As the models say that it was made of, below.",
    }
    if let Some(eval) = text("eval").filter(|eval| *eval != "none") {
        out += &format!(" Evaluated on {}.", code(eval));
    }
    if told.has_table {
        out += " `teacher/` holds this model's logits of the rows it was trained on, for the next update.";
    }
    out + "\n"
}

fn procedure(run: &Run) -> String {
    let mut out = "\n## Procedure\n\n".to_string();
    let provenance = &run.manifest["provenance"];
    if let (Some(base), Some(teacher)) =
        (provenance["base"].as_str(), provenance["teacher"][0].as_str())
    {
        let (base, teacher) = (code(base), code(teacher));
        out += &format!("The student started from {base} and followed the teacher {teacher}.\n\n");
    }
    out += "| setting | |\n|---|---|\n";
    let plan = &provenance["plan"];
    let rows = plan.as_object().into_iter().flatten();
    for (key, value) in rows {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        out += &format!("| {} | {} |\n", code(key), code(&value));
    }
    if plan.is_null() {
        let repair = &run.manifest["repair"];
        for key in ["chosen", "alpha", "temperature"] {
            if !repair[key].is_null() {
                out +=
                    &format!("| {key} | {} |\n", cell(repair[key].to_string().trim_matches('"')));
            }
        }
    }
    out + "\n`run.toml` is the whole plan; `training_args.json` has it under the names of transformers.\n"
}

fn measured(told: &Told) -> String {
    let run = told.run;
    let Some(scores) = &run.scores else { return String::new() };
    let mut out =
        format!("\n## Results\n\nOn {}, {} rows:\n\n", code(&rows_of_scores(run)), scores.rows);
    out += "| metric | |\n|---|---|\n";
    for (_, name, value) in metrics(scores) {
        out += &format!("| {name} | {value:.4} |\n");
    }
    out + &format!("| loss | {:.4} |\n", scores.loss)
}

fn rows_of_scores(run: &Run) -> String {
    run.manifest["provenance"]["eval"].as_str().unwrap_or("the run's evaluation rows").to_string()
}

fn compared(told: &Told, report: &Report) -> String {
    let all = &report.comparison.all;
    let mut out = format!(
        "\n## Compared with the previous release\n\nAgainst {}, on {}, {} rows, {} with a label:\n\n| | |\n|---|---|\n",
        code(&report.old.name),
        code(&report.data),
        report.rows,
        all.flips.labelled
    );
    let right = report.comparison.answers.right();
    let lines = [
        (format!("{right}, before"), percent(&all.accuracy_old)),
        (format!("{right}, now"), percent(&all.accuracy_new)),
        ("churn: predictions that changed".into(), percent(&all.churn)),
        ("negative flips: was right, is wrong".into(), percent(&all.nfr)),
        ("positive flips: was wrong, is right".into(), percent(&all.pfr)),
    ];
    for (name, value) in lines {
        out += &value.map_or(String::new(), |value| format!("| {name} | {value} |\n"));
    }
    out += "\nIn brackets: exact intervals at 95 %.\n";
    out += &match (&told.run.gate, told.is_forced) {
        (Gate::Judged(certificate), false) => checks(certificate),
        (Gate::Judged(certificate), true) => format!(
            "\n**The gate did not pass; this release was published all the same, by `--force`.**\n{}",
            checks(certificate)
        ),
        (_, true) => "\n**No limit was set for what may change; this release was published without a gate, by `--force`.**\n".into(),
        (_, false) => String::new(),
    };
    out += "\n`report.html` shows every slice and flip";
    out += if told.has_texts { ".\n" } else { ", by the ids of rows and without their texts.\n" };
    out
}

fn checks(certificate: &Certificate) -> String {
    let lines = check_lines(certificate);
    let lines: Vec<String> =
        lines.iter().map(|line| format!("- {}\n", cell(line.trim()))).collect();
    format!("\nGate:\n\n{}", lines.concat())
}

fn cell(text: &str) -> String {
    markdown_cell(text)
}

/// Names and values as code where they are plain, so that they can be read and copied as they are.
fn code(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b" ._/:[]=,@()%+-".contains(&b);
    match !text.is_empty() && text.trim() == text && text.bytes().all(is_plain) {
        true => format!("`{text}`"),
        false => cell(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_words_or_quoted() {
        let check = |text: &str, expected: &str| assert_eq!(scalar(text), expected);
        check("apache-2.0", "apache-2.0");
        check("stanfordnlp/sst2", "stanfordnlp/sst2");
        check("no", "\"no\"");
        check("2.0", "\"2.0\"");
        check("a: b", "\"a: b\"");
        check("x\"\n---\ny", "\"x\\\"\\n---\\ny\"");
        check("", "\"\"");
        check("- x", "\"- x\"");
    }

    /// Tests run in the repository's root.
    #[test]
    fn data_sets_by_the_hubs_names() {
        let sst2 = data_set("sst2");
        assert_eq!(
            (sst2.id.as_deref(), sst2.config.as_deref()),
            (Some("stanfordnlp/sst2"), Some("default"))
        );
        assert_eq!(data_set("tickets:later[:9]").id, None);
        assert_eq!(data_set("nyu-mll/glue:cola").id.as_deref(), Some("nyu-mll/glue"));
        assert_eq!(data_set("/home/me/secret/rows.csv").name, "rows.csv");
    }
}

//! The report as Markdown, short enough for a comment on a pull request.

use crate::format::{self, count, cut, gain, markdown_cell, percent, percent_or_none, rate, rows};
use crate::html::{amount, bounds, limit, rows_chose, sentence};
use crate::{Certificate, Cosines, Flip, FlipKind, GradientNoise, Report, Slice, of_batches};

const FLIPS_SHOWN: usize = 10;
const SLICES_SHOWN: usize = 3;
const CHECKS_SHOWN: usize = 9;
const RELEASES_SHOWN: usize = 5;
const TEXT_SHOWN: usize = 100;

/// The verdict, what changed, where, and the worst rows, in fewer than 60 lines whatever the report holds.
pub fn markdown(report: &Report) -> String {
    let mut out = match &report.certificate {
        Some(certificate) => verdict(certificate),
        None => {
            "### lowchurn: not gated\n\nNo budget was given, so nothing is judged.\n".to_string()
        }
    };
    out.push_str(&format!(
        "\n{} → {} on {}, {}{}\n",
        code(&report.old.name, 60),
        code(&report.new.name, 60),
        code(&report.data, 60),
        rows(report.rows),
        history(report)
    ));
    if let Some(said) = rows_chose(report) {
        out.push_str(&format!("\n{}\n", markdown_cell(&said)));
    }
    out.push_str(&measures(report));
    out.push_str(&slices(&report.comparison.slices));
    out.push_str(&flips(report));
    out
}

/// Churn of the newest release against the earlier ones, and how many rows go to and fro: on the line of the rows, for there
/// is no room for another.
fn history(report: &Report) -> String {
    let Some(history) = &report.history else { return String::new() };
    let newest = history.releases.len().saturating_sub(1);
    let earlier = history.since.iter().rev().filter(|since| since.new == newest);
    let churn: Vec<String> = earlier
        .take(RELEASES_SHOWN)
        .map(|since| {
            let name = history.releases.get(since.old).map_or("", |release| release.name.as_str());
            format!(
                "{} since {}",
                percent_or_none(since.churn.map(|rate| rate.value)),
                code(name, 60)
            )
        })
        .collect();
    format!(
        "; churn {}; {} changed twice or more over {} releases, {} of them back to the oldest one's answer",
        churn.join(", "),
        rows(history.n_flip_flops),
        history.releases.len(),
        count(history.n_back)
    )
}

fn verdict(certificate: &Certificate) -> String {
    let mut out = format!(
        "### lowchurn: {}\n\n{}\n\n| check | verdict | limit | observed | bounds | rows |\n|---|---|--:|--:|--:|--:|\n",
        certificate.verdict.word(),
        markdown_cell(&sentence(certificate)),
    );
    // What isn't passed comes first, in case not all have room.
    let mut checks: Vec<_> = certificate.checks.iter().collect();
    checks.sort_by_key(|check| check.verdict == crate::Verdict::Pass);
    for check in checks.iter().take(CHECKS_SHOWN) {
        out.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} of {} |\n",
            cell(&check.name, 60),
            check.verdict.word(),
            limit(check),
            amount(check, check.observed),
            bounds(check),
            count(check.count),
            count(check.of)
        ));
    }
    if checks.len() > CHECKS_SHOWN {
        out.push_str(&format!(
            "\n{} more checks are in report.json.\n",
            checks.len() - CHECKS_SHOWN
        ));
    }
    out
}

fn measures(report: &Report) -> String {
    let all = &report.comparison.all;
    let right = report.comparison.answers.right();
    let gain_of = if report.comparison.answers.is_classes() { "accuracy gain" } else { "gain" };
    let mut out = format!(
        "\n| measure | value (interval) |\n|---|---|\n| churn | {} |\n| negative flips (NFR) | {} |\n| positive flips (PFR) | {} |\n| {right}, old | {} |\n| {right}, new | {} |\n| {gain_of} | {} |\n",
        rate(&all.churn),
        rate(&all.nfr),
        rate(&all.pfr),
        rate(&all.accuracy_old),
        rate(&all.accuracy_new),
        gain(&all.accuracy_gain),
        right = cell(&right, 60),
    );
    for (name, old, new) in report.comparison.answers.scores() {
        let (old, new) = (format::number(old), format::number(new));
        out.push_str(&format!("| {name}, old → new | {old} → {new} |\n"));
    }
    if let Some(diagnosis) = &report.diagnosis {
        let said = diagnosis.parts.iter().flat_map(|part| {
            let gaps = part.class_gaps.as_ref().map(|gaps| gaps.said.as_str());
            [part.said.as_str()].into_iter().chain(gaps)
        });
        let switch = diagnosis.switch.as_ref().map(|switch| switch.said.as_str());
        let said = said.chain(switch).chain([diagnosis.advice.as_str()]).map(str::to_string);
        let said: Vec<String> = said.chain(diagnosis.gradients.as_ref().map(gradients)).collect();
        out.push_str(&format!("| student and teacher | {} |\n", markdown_cell(&said.join(". "))));
    }
    out.push_str(&worst_classes(report));
    if let Some(floor) = &report.comparison.seed_floor {
        out.push_str(&format!("| seed floor | {} |\n", rate(&Some(*floor))));
    }
    if let Some(ratio) = report.comparison.churn_ratio {
        out.push_str(&format!(
            "| churn ÷ that of a plain retrain | {} |\n",
            format::number(Some(ratio))
        ));
    }
    out
}

/// The whole model's, in the same cell as there is no room for another line; report.html has its parts and a histogram.
fn gradients(noise: &GradientNoise) -> String {
    let mut said = vec![format!(
        "gradients of the student: {} batches, {} of {}, λ {}",
        count(noise.batches),
        rows(noise.rows),
        noise.data,
        noise.lambda
    )];
    let shown = |value| of_batches(value, noise.batches);
    said.extend(noise.parts.first().map(|all| {
        format!(
            "variance {:.2e} of E‖a‖² {:.2e}; λ̂ {} (centred {}), ρ² {}; left {} at λ, {} at the best",
            all.variance,
            all.square,
            shown(all.lambda_hat),
            shown(all.lambda_hat_centred),
            shown(all.rho2_centred),
            shown(all.left),
            shown(all.left_at_best)
        )
    }));
    let of = [
        ("labels’ gradient and distillation’s", &noise.label_cosines),
        ("distillation’s and that with the teacher’s own", &noise.cosines),
    ];
    for (name, cosines) in of {
        said.extend(Cosines::of(cosines).map(|found| {
            format!(
                "cosine of the {name}, least, median and most of {} batches: {:.3}, {:.3}, {:.3}",
                count(cosines.len() as u64),
                found.least,
                found.median,
                found.most
            )
        }));
    }
    said.extend(noise.said.iter().cloned());
    said.join(". ")
}

/// Lowest recalls and the highest NFR of a class.
fn worst_classes(report: &Report) -> String {
    let comparison = &report.comparison;
    let mut out = String::new();
    let side = |worst: &Option<(String, f64)>| {
        worst.as_ref().map_or(format::NONE.to_string(), |(label, recall)| {
            format!("{} ({})", percent(*recall), cell(label, 40))
        })
    };
    if comparison.worst_class_old.is_some() || comparison.worst_class_new.is_some() {
        let (old, new) = (side(&comparison.worst_class_old), side(&comparison.worst_class_new));
        out.push_str(&format!("| recall of the worst class, old → new | {old} → {new} |\n"));
    }
    let Some(worst) = &comparison.worst_classes else { return out };
    if let Some(k) = worst.k {
        let (old, new) =
            (percent_or_none(worst.mean_recall_old), percent_or_none(worst.mean_recall_new));
        out.push_str(&format!(
            "| mean recall of the {k} worst classes, old → new | {old} → {new} |\n"
        ));
    }
    if worst.nfr.is_some() {
        out.push_str(&format!("| highest NFR of a class | {} |\n", side(&worst.nfr)));
    }
    out
}

fn slices(slices: &[Slice]) -> String {
    if slices.is_empty() {
        return String::new();
    }
    let mut out = "\n| worst slices | rows | churn | NFR |\n|---|--:|--:|--:|\n".to_string();
    for slice in slices.iter().take(SLICES_SHOWN) {
        out.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            cell(&slice.name, 60),
            count(slice.measured.flips.rows),
            rate(&slice.measured.churn),
            percent_or_none(slice.measured.nfr.map(|nfr| nfr.value))
        ));
    }
    out
}

/// The negative flips of which the new model is most sure.
fn flips(report: &Report) -> String {
    if report.n_flips == 0 {
        return "\nNo prediction changed.\n".to_string();
    }
    let mut negative: Vec<&Flip> =
        report.flips.iter().filter(|flip| flip.kind == FlipKind::Negative).collect();
    if negative.is_empty() {
        return format!(
            "\n{} changed; no negative flip among those listed.\n",
            rows(report.n_flips)
        );
    }
    let sure = |flip: &Flip| flip.new_score.filter(|score| score.is_finite()).unwrap_or(0.0);
    negative.sort_by(|a, b| sure(b).total_cmp(&sure(a)));
    let shown = negative.len().min(FLIPS_SHOWN);
    let all = report.comparison.all.flips.negative.max(negative.len() as u64);
    let mut out = format!(
        "\n<details><summary>{shown} of {} negative flips</summary>\n\n| row | true | old | new |\n|---|---|---|---|\n",
        count(all)
    );
    for flip in negative.iter().take(FLIPS_SHOWN) {
        let scored = |label: &str, score: Option<f64>| {
            let score =
                score.filter(|score| score.is_finite()).map(|score| format!(" {}", percent(score)));
            cell(label, 40) + &score.unwrap_or_default()
        };
        out.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            code(flip.text.as_deref().unwrap_or(&flip.id), TEXT_SHOWN),
            cell(flip.gold.as_deref().unwrap_or(format::NONE), 40),
            scored(&flip.old, flip.old_score),
            scored(&flip.new, flip.new_score)
        ));
    }
    out + "\n</details>\n"
}

/// A text of the data, cut and without power.
fn cell(text: &str, limit: usize) -> String {
    markdown_cell(&cut(text.trim(), limit))
}

fn code(text: &str, limit: usize) -> String {
    format!("<code>{}</code>", cell(text, limit))
}

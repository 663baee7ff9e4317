//! What of a plan can't take effect, in words. A setting that does nothing leaves the bytes of a run that never had it, and whoever
//! asked for it would believe that it did.

use crate::{
    Base, Error, Lambda, Moment, Objective, OptimizerName, Plan, Result, Robust, Schedule,
    VarianceReduction,
};

/// Refuses what does nothing in any run, however long.
pub(crate) fn refuse_idle(plan: &Plan) -> Result<()> {
    let reduction = plan.variance_reduction;
    if let Objective::Robust(Robust { weight: 0.0, base: Base::Standard, .. }) = &plan.objective {
        let reason = "objective robust with weight 0 and base=standard is the standard one, whatever goes wrong on held-out rows; \
                      raise the weight, or leave the objective out";
        return Err(Error::Objective { reason: reason.into() });
    }
    if let VarianceReduction::Svrg { lambda: 0.0, .. } = reduction {
        let reason = format!(
            "variance reduction {reduction} takes 0 times the snapshot's gradient off, so it changes nothing; raise its lambda, or \
             leave it out"
        );
        return Err(Error::Reduction { reason });
    }
    let Some(lambda) = plan.method.lambda() else { return Ok(()) };
    if reduction.has_control() && lambda.is_zero() {
        let reason = format!(
            "variance reduction {reduction} takes λ times the gradient at the teacher's weights off, and λ is {lambda}: it would cost \
             a second pass and change nothing; raise λ, or leave it out"
        );
        return Err(Error::Reduction { reason });
    }
    let Lambda::Switch { before, after, at } = lambda else { return Ok(()) };
    let (when, value) = match at {
        Moment::Step(0) | Moment::Share(0.0) => ("before the first update", after),
        Moment::Share(1.0) => ("after the last update", before),
        Moment::Step(_) | Moment::Share(_) => return Ok(()),
    };
    let reason = format!(
        "λ {lambda} switches {when}, so it is {value} in all of them; write {value}, or take another moment"
    );
    Err(Error::Method { reason })
}

/// What can't take effect in a run of `total` updates, `per_epoch` of them in an epoch, and what of the theory doesn't hold in it;
/// a sentence each.
pub fn remarks(plan: &Plan, total: u64, per_epoch: u64) -> Vec<String> {
    let said = [
        of_objective(plan, total),
        plan.method.lambda().and_then(|lambda| of_lambda(lambda, total)),
        of_snapshots(plan.variance_reduction, total, per_epoch),
        of_theory(plan),
    ];
    said.into_iter().flatten().collect()
}

fn of_objective(plan: &Plan, total: u64) -> Option<String> {
    let robust = plan.objective.robust()?;
    if robust.weight == 0.0 {
        return Some(
            "objective robust with weight 0 is the balanced one: what goes wrong on held-out rows weighs nothing".into(),
        );
    }
    let every = robust.every;
    let even = match robust.base {
        Base::Balanced => "as of objective balanced",
        Base::Standard => "and nothing steers",
    };
    (every >= total).then(|| {
        format!(
            "objective robust looks at held-out rows every {}, and the run has {total}: its weights stay even, {even}; take a lower \
             every=, or more updates",
            updates(every)
        )
    })
}

fn of_lambda(lambda: Lambda, total: u64) -> Option<String> {
    let (n, stays) = (updates(total), lambda.at(0, total, 0.0));
    match lambda {
        Lambda::Switch { after, at, .. } if at.is_past(0, total) => Some(format!(
            "λ {lambda} switches before the first of {n}: it is {after} in all of them; take a later moment"
        )),
        Lambda::Switch { at, .. } if !at.is_past(total.saturating_sub(1), total) => Some(format!(
            "λ {lambda} doesn't switch in {n}: it is {stays} in all of them; take an earlier moment, or more updates"
        )),
        Lambda::Geometric { every, factor, .. } if every >= total && factor != 1.0 => {
            Some(format!(
                "λ {lambda} is multiplied every {}, and the run has {total}: it stays {stays}; multiply more often, or take more \
                 updates",
                updates(every)
            ))
        }
        Lambda::Budget { every, .. } if every >= total => Some(format!(
            "λ {lambda} measures churn every {}, and the run has {total}: it stays 0, and the teacher is never followed; measure \
             more often, or take more updates",
            updates(every)
        )),
        _ => None,
    }
}

fn of_snapshots(reduction: VarianceReduction, total: u64, per_epoch: u64) -> Option<String> {
    let VarianceReduction::Svrg { start, .. } = reduction else { return None };
    let epochs = total.div_ceil(per_epoch.max(1));
    (start >= epochs).then(|| {
        format!(
            "variance reduction {reduction} takes its first snapshot before epoch {start}, counted from 0, and the run has {epochs}: \
             nothing is taken off; take a lower start=, or more epochs"
        )
    })
}

fn of_theory(plan: &Plan) -> Option<String> {
    if !plan.variance_reduction.has_control() {
        return None;
    }
    let schedule = match plan.schedule {
        Schedule::Linear => Some("a linear schedule"),
        Schedule::Cosine => Some("a cosine schedule"),
        Schedule::Constant => None,
    };
    let others = [
        (plan.optimizer == OptimizerName::AdamW).then_some("AdamW"),
        schedule,
        (plan.warmup_steps > 0).then_some("a warm-up"),
        (plan.max_grad_norm > 0.0).then_some("clipped gradients"),
    ];
    let others: Vec<&str> = others.into_iter().flatten().collect();
    (!others.is_empty()).then(|| {
        format!(
            "variance reduction {}: its theory is of plain SGD at a constant rate, and this run has {}; --optimizer sgd --schedule \
             constant --warmup-steps 0 --max-grad-norm 0 is what it speaks of",
            plan.variance_reduction,
            others.join(", ")
        )
    })
}

fn updates(n: u64) -> String {
    format!("{n} update{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SelectBy;

    fn plan(method: &str, objective: &str, reduction: &str) -> Plan {
        Plan {
            method: method.parse().unwrap(),
            objective: objective.parse().unwrap(),
            variance_reduction: reduction.parse().unwrap(),
            optimizer: OptimizerName::Sgd,
            schedule: Schedule::Constant,
            max_grad_norm: 0.0,
            ..Plan::default_with(SelectBy::Accuracy)
        }
    }

    #[test]
    fn what_does_nothing_in_any_run_is_refused() {
        let check = |method: &str, objective: &str, reduction: &str, expected: &str| {
            let found = plan(method, objective, reduction).check();
            let said = found.err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(said, expected, "{method} {objective} {reduction}");
        };
        check(
            "retrain",
            "robust:weight=0,base=standard",
            "none",
            "objective robust with weight 0 and base=standard is the standard one, whatever goes wrong on held-out rows; raise the \
             weight, or leave the objective out",
        );
        check("retrain", "robust:weight=0", "none", "");
        check("retrain", "robust:base=standard", "none", "");
        check(
            "distil:lambda=0",
            "standard",
            "unbiased",
            "variance reduction unbiased takes λ times the gradient at the teacher's weights off, and λ is 0: it would cost a second \
             pass and change nothing; raise λ, or leave it out",
        );
        check("distil:lambda=0..0.5", "standard", "unbiased", "");
        check("distil:lambda=0", "standard", "kd", "");
        check(
            "retrain",
            "standard",
            "svrg:start=0,lambda=0",
            "variance reduction svrg:start=0,every=2,lambda=0 takes 0 times the snapshot's gradient off, so it changes nothing; raise \
             its lambda, or leave it out",
        );
        check("retrain", "standard", "svrg:start=0", "");
        let throughout = |lambda: &str, when: &str, value: u8| {
            let said = format!(
                "λ {lambda} switches {when}, so it is {value} in all of them; write {value}, or take another moment"
            );
            check(&format!("distil:lambda={lambda}"), "standard", "none", &said);
        };
        throughout("1..0@0", "before the first update", 0);
        throughout("0..1@0%", "before the first update", 1);
        throughout("1..0@100%", "after the last update", 1);
        check("distil:lambda=1..0@1", "standard", "none", "");
    }

    #[test]
    fn what_can_not_take_effect_is_said() {
        // Four epochs of five updates.
        let check = |method: &str, objective: &str, reduction: &str, expected: &str| {
            let said = remarks(&plan(method, objective, reduction), 20, 5);
            let expected: Vec<&str> =
                Some(expected).filter(|text| !text.is_empty()).into_iter().collect();
            assert_eq!(said, expected, "{method} {objective} {reduction}");
        };
        check("retrain", "standard", "none", "");
        check("retrain", "robust:every=19", "none", "");
        check(
            "retrain",
            "robust",
            "none",
            "objective robust looks at held-out rows every 50 updates, and the run has 20: its weights stay even, as of objective \
             balanced; take a lower every=, or more updates",
        );
        check(
            "retrain",
            "robust:every=20,base=standard",
            "none",
            "objective robust looks at held-out rows every 20 updates, and the run has 20: its weights stay even, and nothing \
             steers; take a lower every=, or more updates",
        );
        check(
            "retrain",
            "robust:weight=0,every=2",
            "none",
            "objective robust with weight 0 is the balanced one: what goes wrong on held-out rows weighs nothing",
        );
        check("distil:lambda=1..0@19", "standard", "none", "");
        check(
            "distil:lambda=1..0@20",
            "standard",
            "none",
            "λ 1..0@20 doesn't switch in 20 updates: it is 1 in all of them; take an earlier moment, or more updates",
        );
        check(
            "distil:lambda=1..0@99%",
            "standard",
            "none",
            "λ 1..0@99% doesn't switch in 20 updates: it is 1 in all of them; take an earlier moment, or more updates",
        );
        check(
            "distil:lambda=1..0@2%",
            "standard",
            "none",
            "λ 1..0@2% switches before the first of 20 updates: it is 0 in all of them; take a later moment",
        );
        check("distil:lambda=0.5*0.9@19", "standard", "none", "");
        check(
            "distil:lambda=0.5*0.9@20",
            "standard",
            "none",
            "λ 0.5*0.9@20 is multiplied every 20 updates, and the run has 20: it stays 0.5; multiply more often, or take more updates",
        );
        check("distil:lambda=churn<=0.02~5@19", "standard", "none", "");
        check(
            "distil:lambda=churn<=0.02",
            "standard",
            "none",
            "λ churn<=0.02~5@25 measures churn every 25 updates, and the run has 20: it stays 0, and the teacher is never followed; \
             measure more often, or take more updates",
        );
        check("retrain", "standard", "svrg:start=3", "");
        check(
            "retrain",
            "standard",
            "svrg:start=4",
            "variance reduction svrg:start=4,every=2,lambda=1 takes its first snapshot before epoch 4, counted from 0, and the run \
             has 4: nothing is taken off; take a lower start=, or more epochs",
        );
    }

    /// What is said can't take effect doesn't, and what isn't said does: asked of the functions that the run asks.
    #[test]
    fn what_is_said_is_so() {
        let every_text =
            ["1..0@0%", "1..0@3", "1..0@7", "1..0@30%", "1..0@99%", "0.5*0.9@6", "0.5*0.9@9"];
        for lambda in every_text.map(|text| text.parse::<Lambda>().unwrap()) {
            for total in 1..12 {
                let first = lambda.at(0, total, 0.0);
                let is_flat = (1..total).all(|step| lambda.at(step, total, 0.0) == first);
                assert_eq!(of_lambda(lambda, total).is_some(), is_flat, "{lambda} {total}");
            }
        }
    }

    #[test]
    fn theory_that_does_not_hold_is_said() {
        let sgd = plan("distil", "standard", "unbiased");
        assert_eq!(remarks(&sgd, 20, 5), Vec::<String>::new());
        let usual = Plan {
            optimizer: OptimizerName::AdamW,
            schedule: Schedule::Linear,
            warmup_steps: 3,
            max_grad_norm: 1.0,
            ..sgd.clone()
        };
        assert_eq!(
            remarks(&usual, 20, 5),
            [
                "variance reduction unbiased: its theory is of plain SGD at a constant rate, and this run has AdamW, a linear schedule, a \
              warm-up, clipped gradients; --optimizer sgd --schedule constant --warmup-steps 0 --max-grad-norm 0 is what it speaks of"
            ]
        );
        let clipped = Plan { max_grad_norm: 1.0, ..sgd };
        assert!(remarks(&clipped, 20, 5)[0].contains("this run has clipped gradients; "));
        let kd = Plan { variance_reduction: VarianceReduction::Kd, ..usual };
        assert_eq!(remarks(&kd, 20, 5), Vec::<String>::new());
    }
}

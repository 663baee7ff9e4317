//! Methods that act on weights alone: interpolation of an old and a new model, soups, shrink-and-perturb, and how far two
//! models are apart. Pure functions of parameters, computed in f64 and rounded once; refuses models whose tensors differ.
//!
//! The new model's head may have more classes than the old one's, appended behind: those rows have no old value and are
//! taken from the new model as they are.

mod fisher;
mod mixout;
mod pull;

pub use fisher::{fisher, load_fisher, save_fisher};
pub use mixout::mixout;
pub use pull::{OldWeights, Pull, add_pull};

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use lowchurn_models::{Params, is_head};

use crate::{Error, Result};

/// θ = α·θ_old + (1 − α)·θ_new for every tensor, norms included; α = 0 gives the new bytes, α = 1 the old ones.
///
/// Backward-compatible weight interpolation of Schumann et al. 2024 (BCWI, EACL). The new model should have been trained
/// from the old one: between models of different starts the line leads through bad ones.
///
/// # Errors
/// [`Error::PlanValue`] of an α outside 0..1; [`Error::WeightNames`] and [`Error::WeightShape`] of models that don't fit
/// together. The new head may have further classes.
pub fn interpolate(old: &Params, new: &Params, alpha: f64) -> Result<Params> {
    check_range("alpha", alpha, 1.0, "a number from 0 to 1")?;
    combine(old, new, |_, old, new| {
        if alpha == 1.0 {
            new.copy_from_slice(old); // not by arithmetic, which loses the sign of a zero
        } else if alpha > 0.0 {
            set_each(old, new, |_, old, new| alpha * old + (1.0 - alpha) * new);
        }
        Ok(())
    })
}

/// θ = (α·F·θ_old + (1 − α)·θ_new)/(α·F + 1 − α), element by element, F the old model's [`fisher()`] information; α = 0 gives
/// the new bytes, α = 1 the old ones, also where F = 0. Schumann et al. 2024 (BCWI, EACL).
pub fn interpolate_fisher(
    old: &Params,
    new: &Params,
    fisher: &BTreeMap<String, Tensor>,
    alpha: f64,
) -> Result<Params> {
    check_range("alpha", alpha, 1.0, "a number from 0 to 1")?;
    check_equal(("the old model", shapes(old)), (FISHER, shapes_of(fisher)))?;
    combine(old, new, |name, old, new| {
        if alpha == 1.0 {
            new.copy_from_slice(old);
        } else if alpha > 0.0 {
            let fisher = fisher.get(name).map(|f| fisher::checked(name, f));
            let fisher = fisher.transpose()?.unwrap_or_default();
            set_each(old, new, |i, old, new| {
                let weight = alpha * f64::from(fisher[i]);
                (weight * old + (1.0 - alpha) * new) / (weight + (1.0 - alpha))
            });
        }
        Ok(())
    })
}

/// θ = the mean of the models' tensors, summed in the given order. Wortsman et al. 2022, 2203.05482 (uniform soup).
/// Refuses no model at all, and heads of different sizes.
pub fn soup(models: &[&Params]) -> Result<Params> {
    let [first, others @ ..] = models else { return Err(Error::EmptySoup) };
    for (n, other) in others.iter().enumerate() {
        let name = format!("model {}", n + 2);
        check_equal(("model 1", shapes(first)), (&name, shapes(other)))?;
    }
    let mut mean = BTreeMap::new();
    for (name, var) in &first.0 {
        let mut sums = vec![-0f64; var.elem_count()]; // 0 − 0 = 0 would lose the sign of a zero
        for model in models {
            let Some(var) = model.0.get(name) else { continue }; // checked above
            sums.iter_mut().zip(values(var)?).for_each(|(sum, x)| *sum += f64::from(x));
        }
        let values = sums.iter().map(|sum| (sum / models.len() as f64) as f32).collect();
        mean.insert(name.clone(), Var::from_vec::<_, f32>(values, var.shape(), var.device())?);
    }
    Ok(Params(mean))
}

/// θ = shrink·θ_old + perturb·θ_fresh, θ_fresh newly drawn weights; (1, 0) is a warm start and (0, 1) a cold one.
/// Ash and Adams 2020, 1910.08475. Rows of new classes are the fresh ones as they are.
pub fn shrink_perturb(old: &Params, fresh: &Params, shrink: f64, perturb: f64) -> Result<Params> {
    check_range("shrink", shrink, f64::MAX, "a number of at least 0")?;
    check_range("perturb", perturb, f64::MAX, "a number of at least 0")?;
    combine(old, fresh, |_, old, fresh| {
        set_each(old, fresh, |_, old, fresh| shrink * old + perturb * fresh);
        Ok(())
    })
}

/// √Σ (θ_old − θ_new)² over the rows that both models have.
pub fn distance(old: &Params, new: &Params) -> Result<f64> {
    check_grown(shapes(old), shapes(new))?;
    let mut sum = 0.0;
    for (old, new) in old.0.values().zip(new.0.values()) {
        let squares = values(old)?.into_iter().zip(values(new)?);
        sum += squares.map(|(a, b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>();
    }
    Ok(sum.sqrt())
}

/// `each` turns the new model's values into what is wanted, given the old ones; it sees the rows that both have.
fn combine(
    old: &Params,
    new: &Params,
    each: impl Fn(&str, &[f32], &mut [f32]) -> Result<()>,
) -> Result<Params> {
    check_grown(shapes(old), shapes(new))?;
    let mut combined = BTreeMap::new();
    for ((name, old), new) in old.0.iter().zip(new.0.values()) {
        let (old_values, mut new_values) = (values(old)?, values(new)?);
        each(name, &old_values, &mut new_values[..old_values.len()])?;
        combined.insert(name.clone(), Var::from_vec(new_values, new.shape(), new.device())?);
    }
    Ok(Params(combined))
}

/// What messages call it.
const FISHER: &str = "the Fisher information";

fn set_each(old: &[f32], new: &mut [f32], value: impl Fn(usize, f64, f64) -> f64) {
    for (i, (old, new)) in old.iter().zip(new).enumerate() {
        *new = value(i, f64::from(*old), f64::from(*new)) as f32;
    }
}

/// A copy of a tensor's numbers on the host, row after row.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
}

fn check_range(key: &'static str, value: f64, most: f64, expected: &'static str) -> Result<()> {
    match (0.0..=most).contains(&value) {
        true => Ok(()),
        false => Err(Error::PlanValue { key, value: value.to_string(), expected }),
    }
}

/// Shapes by tensor name.
type Shapes<'s> = BTreeMap<&'s str, &'s [usize]>;

fn shapes(params: &Params) -> Shapes<'_> {
    params.tensors().map(|(name, tensor)| (name, tensor.dims())).collect()
}

fn shapes_of(tensors: &BTreeMap<String, Tensor>) -> Shapes<'_> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims())).collect()
}

/// The same names and shapes.
fn check_equal(a: (&str, Shapes), b: (&str, Shapes)) -> Result<()> {
    check_tensors(a, b, |_, a, b| a == b)
}

/// The same names and shapes; but for a head, which may have further rows in the new model.
fn check_grown(old: Shapes, new: Shapes) -> Result<()> {
    check_tensors(("the old model", old), ("the new model", new), |name, old, new| {
        old == new || is_head(name) && is_grown(old, new)
    })
}

fn is_grown(old: &[usize], new: &[usize]) -> bool {
    match (old, new) {
        ([n_old, old @ ..], [n_new, new @ ..]) => n_old <= n_new && old == new,
        _ => false,
    }
}

fn check_tensors(
    (a, a_shapes): (&str, Shapes),
    (b, b_shapes): (&str, Shapes),
    fits: impl Fn(&str, &[usize], &[usize]) -> bool,
) -> Result<()> {
    let only = |these: &Shapes, others: &Shapes| -> Vec<String> {
        these.keys().filter(|name| !others.contains_key(*name)).map(|&name| name.into()).collect()
    };
    let (only_a, only_b) = (only(&a_shapes, &b_shapes), only(&b_shapes, &a_shapes));
    if !only_a.is_empty() || !only_b.is_empty() {
        return Err(Error::WeightNames { a: a.into(), only_a, b: b.into(), only_b });
    }
    for ((&name, &a_shape), &b_shape) in a_shapes.iter().zip(b_shapes.values()) {
        if !fits(name, a_shape, b_shape) {
            let (name, a, b) = (name.into(), a.into(), b.into());
            let (a_shape, b_shape) = (a_shape.to_vec(), b_shape.to_vec());
            return Err(Error::WeightShape { name, a, a_shape, b, b_shape });
        }
    }
    Ok(())
}

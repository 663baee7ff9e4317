//! AdamW on a table of which a batch reads a few rows: the others' update, which their zero gradient leaves to decay and
//! moments, is put off until they are needed. Then they get all that they missed in one visit, number by number what the
//! update of the whole table does ([`adamw`], the slow twin).

use candle_core::{Result, Var, bail};
use rayon::prelude::*;

use crate::Rows;
use crate::adamw::{AdamW, Moments, Numbers, adamw, flushed, lend, update_block, update_number};
use crate::lanes::{LANES, wide};

/// Updates that some rows of a table have yet to get.
#[derive(Default)]
pub struct Missed {
    /// First to last, since all rows had all.
    updates: Vec<Numbers>,
    /// For each row, how many of `updates` it has had; empty before the first.
    n_had: Vec<u32>,
    /// For each row, whether its moments may be anything but zero.
    has_moments: Vec<bool>,
}

/// With so many updates put off, all rows get theirs: what is kept stays small, and a visit to all rows is rare.
const MOST_MISSED: usize = 256;

/// [`adamw`] with a table's gradient in rows. Only they are updated now, the others by [`catch_up`] or [`settle`].
///
/// A row of the gradient that isn't up to date is an error: the forward pass has read what it shouldn't have.
pub fn adamw_rows(param: &Var, grad: &Rows, moments: &mut Moments, update: &AdamW) -> Result<()> {
    let (n_rows, c) = param.dims2()?;
    if grad.shape() != (n_rows, c) {
        bail!("adamw: parameter {:?} and gradient {:?}", param.dims(), grad.shape());
    }
    let Moments::Host { m, v, missed } = moments else {
        return adamw(param, &grad.to_tensor()?, moments, update);
    };
    missed.prepare(n_rows, c, m, v)?;
    let n_updates = missed.updates.len() as u32;
    let is_behind = |id: &&u32| missed.n_had[**id as usize] != n_updates;
    if let Some(id) = grad.ids().iter().find(is_behind) {
        bail!(
            "adamw: row {id} has a gradient, but not all updates from before; catch_up comes before the forward pass"
        )
    }
    let numbers = Numbers::of(update);
    lend(param, |param| {
        let rows = rows_of(param, grad.ids(), c).into_iter().zip(grad.iter());
        let moments = rows_of(m, grad.ids(), c).into_iter().zip(rows_of(v, grad.ids(), c));
        let work: Vec<_> = rows.zip(moments).collect();
        work.into_par_iter()
            .for_each(|((param, (_, grad)), (m, v))| update_block(param, grad, m, v, numbers));
        Ok(())
    })?;
    missed.updates.push(numbers);
    for &id in grad.ids() {
        (missed.n_had[id as usize], missed.has_moments[id as usize]) = (n_updates + 1, true);
    }
    if !is_plain(&numbers) {
        missed.has_moments.fill(true);
    }
    if missed.updates.len() >= MOST_MISSED { settle(param, moments) } else { Ok(()) }
}

/// Gives rows the updates that they missed: to be called with all that a forward pass is going to read, in any order.
/// An id outside the table is an error.
pub fn catch_up(param: &Var, moments: &mut Moments, ids: &[u32]) -> Result<()> {
    let Moments::Host { m, v, missed } = moments else { return Ok(()) };
    if missed.updates.is_empty() {
        return Ok(());
    }
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    if let Some(id) = ids.last().filter(|&&id| id as usize >= missed.n_had.len()) {
        bail!("adamw: row {id} of a table of {} rows", missed.n_had.len());
    }
    missed.replay(param, m, v, ids)
}

/// Gives all rows the updates that they missed: to be called before anything else reads parameter or moments.
pub fn settle(param: &Var, moments: &mut Moments) -> Result<()> {
    let Moments::Host { m, v, missed } = moments else { return Ok(()) };
    if missed.updates.is_empty() {
        return Ok(());
    }
    missed.replay(param, m, v, (0..missed.n_had.len() as u32).collect())?;
    missed.updates.clear();
    missed.n_had.fill(0);
    Ok(())
}

impl Missed {
    /// Whether every row has had every update.
    pub fn is_none(&self) -> bool {
        self.updates.is_empty()
    }

    fn prepare(&mut self, n_rows: usize, c: usize, m: &[f32], v: &[f32]) -> Result<()> {
        if m.len() != n_rows * c || v.len() != n_rows * c {
            bail!("adamw: {} parameters, {} and {} moments", n_rows * c, m.len(), v.len());
        }
        if self.n_had.is_empty() {
            let is_any = |row: &[f32]| row.iter().any(|x| x.to_bits() != 0); // −0 is something
            let rows = m.par_chunks(c.max(1)).zip(v.par_chunks(c.max(1)));
            self.has_moments = rows.map(|(m, v)| is_any(m) || is_any(v)).collect();
            self.n_had = vec![0; n_rows];
        }
        Ok(())
    }

    /// `ids` sorted, distinct and in the table.
    fn replay(&mut self, param: &Var, m: &mut [f32], v: &mut [f32], ids: Vec<u32>) -> Result<()> {
        let (_, c) = param.dims2()?;
        let n_updates = self.updates.len() as u32;
        // Without moments and decay an update changes nothing; such rows aren't even looked at.
        let is_decaying = self.updates.iter().any(|update| update.keep != 1.0);
        let is_waiting =
            |row: usize| self.n_had[row] < n_updates && (is_decaying || self.has_moments[row]);
        let waiting: Vec<u32> = ids.iter().copied().filter(|&id| is_waiting(id as usize)).collect();
        let limits = limits_of(&self.updates);
        lend(param, |param| {
            let rows = rows_of(param, &waiting, c).into_iter().zip(&waiting);
            let moments = rows_of(m, &waiting, c).into_iter().zip(rows_of(v, &waiting, c));
            let work: Vec<_> = rows.zip(moments).collect();
            work.into_par_iter().for_each(|((param, &id), (m, v))| {
                let n_had = self.n_had[id as usize] as usize;
                let missed = &self.updates[n_had..];
                match self.has_moments[id as usize] {
                    true => replay_row(param, m, v, missed, &limits[n_had..]),
                    false => decay_row(param, missed),
                }
            });
            Ok(())
        })?;
        ids.iter().for_each(|&id| self.n_had[id as usize] = n_updates);
        Ok(())
    }
}

/// The rows of these ids, which are sorted, distinct and in the table.
fn rows_of<'t>(mut rest: &'t mut [f32], ids: &[u32], c: usize) -> Vec<&'t mut [f32]> {
    let mut next = 0; // the first row of `rest`
    let mut take = |&id: &u32| {
        let (_, from_row) = std::mem::take(&mut rest).split_at_mut((id as usize - next) * c);
        let (row, after) = from_row.split_at_mut(c);
        (rest, next) = (after, id as usize + 1);
        row
    };
    ids.iter().map(&mut take).collect()
}

/// All updates on one row, its gradient zero: in full until none of them can move the parameters, then the moments alone.
fn replay_row(
    param: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    mut updates: &[Numbers],
    mut limits: &[Limits],
) {
    while let Some(limit) = limits.first() {
        if updates.len() >= WORTH_A_LOOK && is_still(param, m, v, limit) {
            decay_row(param, updates);
            return decay_moments(m, v, updates);
        }
        let n = updates.len().min(BETWEEN_LOOKS);
        replay_in_full(param, m, v, &updates[..n]);
        (updates, limits) = (&updates[n..], &limits[n..]);
    }
}

/// A look costs about what an update in full does.
const WORTH_A_LOOK: usize = 8;
const BETWEEN_LOOKS: usize = 16;

wide! {
/// A register's width at a time, so that memory is visited once.
fn replay_in_full(param: &mut [f32], m: &mut [f32], v: &mut [f32], updates: &[Numbers]) {
    let ((param, param_end), (m, m_end), (v, v_end)) =
        (param.as_chunks_mut::<LANES>(), m.as_chunks_mut::<LANES>(), v.as_chunks_mut::<LANES>());
    for ((param, m), v) in param.iter_mut().zip(m).zip(v) {
        for update in updates {
            for lane in 0..LANES {
                update_number(&mut param[lane], 0.0, &mut m[lane], &mut v[lane], update);
            }
        }
    }
    for update in updates {
        for ((param, m), v) in param_end.iter_mut().zip(&mut *m_end).zip(&mut *v_end) {
            update_number(param, 0.0, m, v, update);
        }
    }
}
}

/// What an update and those after it do at most without a gradient.
#[derive(Clone, Copy)]
struct Limits {
    /// Largest rate, smallest correction and ε.
    rate: f32,
    correction: f32,
    epsilon: f32,
    /// v and |p| fall to no less than this share of what they are; half of it, for what rounding does.
    share_of_v: f32,
    share_of_p: f32,
    /// What [`is_still`] rests on holds for sensible numbers only.
    is_plain: bool,
}

/// One for each update.
fn limits_of(updates: &[Numbers]) -> Vec<Limits> {
    let mut limit = Limits {
        rate: 0.0,
        correction: f32::INFINITY,
        epsilon: f32::INFINITY,
        share_of_v: 0.5,
        share_of_p: 0.5,
        is_plain: true,
    };
    let mut limits: Vec<Limits> = updates
        .iter()
        .rev()
        .map(|n| {
            limit = Limits {
                rate: limit.rate.max(n.rate),
                correction: limit.correction.min(n.inverse_sqrt_correction2),
                epsilon: limit.epsilon.min(n.epsilon),
                share_of_v: limit.share_of_v * n.beta2,
                share_of_p: limit.share_of_p * n.keep,
                is_plain: limit.is_plain && is_plain(n),
            };
            limit
        })
        .collect();
    limits.reverse();
    limits
}

/// Whether zero moments stay +0 without a gradient and take +0 from the parameter, and others only shrink.
fn is_plain(n: &Numbers) -> bool {
    let is_share = |x: f32| (0.0..=1.0).contains(&x) && x.is_sign_positive();
    let is_positive = |x: f32| x.is_finite() && x.is_sign_positive();
    [n.beta1, n.beta2, n.keep].into_iter().all(is_share)
        && [n.scale, n.rate, n.inverse_sqrt_correction2, n.epsilon].into_iter().all(is_positive)
        && n.epsilon > 0.0
}

wide! {
/// Whether x − d rounds to x in all these updates, x = p·keep and d = m/(√v·c + ε)·rate.
///
/// Rounding keeps order, so the d of the largest |m|, which is that of now, and the smallest v, c and ε is none less than
/// any to come. A float's neighbours are at least 2⁻²⁴ of it away, as long as it is far above the smallest normal number,
/// so less than 2⁻²⁵ is rounded away; 2⁻²⁶ here, for what was rounded in coming to it. And x − 0 is x.
fn is_still(param: &[f32], m: &[f32], v: &[f32], limits: &Limits) -> bool {
    const SHARE: f32 = 1.0 / (1 << 26) as f32;
    let mut n_moving = 0u32;
    for ((&param, &m), &v) in param.iter().zip(m).zip(v) {
        let v = flushed(v * limits.share_of_v);
        let most = m.abs() / (v.sqrt() * limits.correction + limits.epsilon) * limits.rate;
        let least = param.abs() * limits.share_of_p;
        let is_still = (m == 0.0 && most == 0.0) || (least > 1e-25 && most <= least * SHARE);
        n_moving += u32::from(!is_still);
    }
    n_moving == 0 && limits.is_plain
}
}

wide! {
/// p·keep − 0 is p·keep.
fn decay_row(param: &mut [f32], updates: &[Numbers]) {
    for update in updates.iter().filter(|update| update.keep != 1.0) {
        param.iter_mut().for_each(|param| *param *= update.keep);
    }
}
}

wide! {
fn decay_moments(m: &mut [f32], v: &mut [f32], updates: &[Numbers]) {
    for update in updates {
        m.iter_mut().for_each(|m| *m = flushed(*m * update.beta1));
        v.iter_mut().for_each(|v| *v = flushed(*v * update.beta2));
    }
}
}

//! Two models whose answers are sets of labels: labels by name, then the sets that occur as the classes of the pair.

use std::collections::HashMap;

use super::{Labels, align_labels};
use crate::answers::set_name;
use crate::{Answers, PairAnswers, Predicted, Result};

/// The classes of the pair, which are sets, and what they are made of. A label that the new model lacks stops unless it is
/// mapped, as with classes; the sets themselves need no partner.
pub(super) fn align(
    old: &Predicted,
    new: &Predicted,
    map: &[(String, String)],
) -> Result<(Labels, PairAnswers)> {
    // The labels by themselves, as the classes of a model that can say them all.
    let single = |side: &Predicted| {
        let labels = match &side.answers {
            Answers::Sets { names, .. } => names.clone(),
            _ => Vec::new(),
        };
        let (name, n_declared) = (side.name.clone(), Some(labels.len()));
        Predicted { name, labels, n_declared, ..Predicted::default() }
    };
    let single = align_labels(&single(old), &single(new), map)?;
    let (mut members, mut place) = (Vec::<Vec<u32>>::new(), HashMap::<Vec<u32>, u32>::new());
    let mut add = |side: &Predicted, of: &[u32]| -> Vec<u32> {
        let Answers::Sets { members: own, .. } = &side.answers else { return Vec::new() };
        let moved = |set: &Vec<u32>| {
            let mut set: Vec<u32> = set.iter().map(|label| of[*label as usize]).collect();
            set.sort_unstable();
            set.dedup();
            *place.entry(set.clone()).or_insert_with(|| {
                members.push(set);
                members.len() as u32 - 1
            })
        };
        own.iter().map(moved).collect()
    };
    let of_old = add(old, &single.of_old);
    let n_old = of_old.iter().max().map_or(0, |most| *most as usize + 1);
    let of_new = add(new, &single.of_new);
    let names = members.iter().map(|set| set_name(&single.names, set)).collect();
    let answers = PairAnswers::Sets { names: single.names, members };
    Ok((Labels { names, n_old, of_old, of_new, said: single.said }, answers))
}

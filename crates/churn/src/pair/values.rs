//! Two models whose answers are numbers: those of the rows that both have.

use crate::{Answers, Error, PairAnswers, Predicted, Result};

/// (old, new) rows of each pair. Nothing where the answers are classes.
pub(super) fn of_rows(
    old: &Predicted,
    new: &Predicted,
    both: &[(u32, u32)],
) -> Result<PairAnswers> {
    let (
        Answers::Values { predicted: of_old, gold: old_gold, tolerance },
        Answers::Values { predicted: of_new, gold: new_gold, .. },
    ) = (&old.answers, &new.answers)
    else {
        return Ok(PairAnswers::Classes);
    };
    let mut gold = Vec::with_capacity(both.len());
    for (in_old, in_new) in both {
        let (one, other) = (old_gold[*in_old as usize], new_gold[*in_new as usize]);
        if let (Some(first), Some(second)) = (one, other)
            && first != second
        {
            return Err(Error::GoldDisagrees {
                id: old.ids[*in_old as usize].clone(),
                old_name: old.name.clone(),
                new_name: new.name.clone(),
                old: first.to_string(),
                new: second.to_string(),
            });
        }
        gold.push(one.or(other));
    }
    Ok(PairAnswers::Values {
        old: both.iter().map(|(row, _)| of_old[*row as usize]).collect(),
        new: both.iter().map(|(_, row)| of_new[*row as usize]).collect(),
        gold,
        tolerance: *tolerance,
    })
}

/// Those of some rows.
pub(super) fn subset(answers: &PairAnswers, rows: &[usize]) -> PairAnswers {
    let PairAnswers::Values { old, new, gold, tolerance } = answers else { return answers.clone() };
    PairAnswers::Values {
        old: rows.iter().map(|row| old[*row]).collect(),
        new: rows.iter().map(|row| new[*row]).collect(),
        gold: rows.iter().map(|row| gold[*row]).collect(),
        tolerance: *tolerance,
    }
}

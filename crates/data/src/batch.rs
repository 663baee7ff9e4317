//! Which rows go together, in which order, and the padded integer arrays of one batch.
//!
//! Order is a pure function of lengths, batch size, seed and epoch. Refuses nothing: rows come from the same `Encoded`.

use crate::batch_size::BatchSize;
use crate::encode::Encoded;
use crate::rng::Rng;

/// B rows padded to the longest of them, T tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Indices into the `Encoded` the batch was made from, (B,).
    pub rows: Vec<u32>,
    /// T: the length of the longest row.
    pub width: usize,
    /// (B·T), row-major, padded on the right.
    pub tokens: Vec<u32>,
    /// (B·T) segment ids, 0 where padded.
    pub types: Vec<u32>,
    /// (B,) tokens of each row that are not padding.
    pub lengths: Vec<u32>,
}

/// Most batches that are sorted by length together: wide enough for little padding, short enough to stay random.
const MEGA_BATCHES: usize = 100;

/// The batches of one epoch: every row exactly once, each batch of rows of like length, in random order. Each epoch has as
/// many batches as the others.
///
/// With a number of rows, rows are shuffled, cut into mega-batches of up to 100 batches (fewer for small sets, so that there
/// are at least four and rows don't meet the same neighbours every epoch), sorted by length inside each, cut into batches,
/// and the batches are shuffled. With a number of tokens all rows are sorted together, those of one length in random order:
/// were they not, an epoch would have more or fewer batches than the next. A batch size of 0 counts as 1.
pub fn epoch_order(lengths: &[u32], batch_size: BatchSize, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
    let mut rng = Rng::stream(seed, "epoch order", epoch);
    let mut rows: Vec<u32> = (0..lengths.len() as u32).collect();
    rng.shuffle(&mut rows);
    let together = match batch_size {
        BatchSize::Rows(n) => {
            let n = n.max(1);
            (rows.len() / n.saturating_mul(4)).clamp(1, MEGA_BATCHES).saturating_mul(n)
        }
        BatchSize::Tokens(_) => rows.len().max(1),
    };
    let mut batches = Vec::new();
    for mega in rows.chunks_mut(together) {
        mega.sort_by_key(|row| lengths[*row as usize]); // stable: ties stay shuffled
        cut(mega, lengths, batch_size, |batch| batches.push(batch.to_vec()));
    }
    let mut order: Vec<u32> = (0..batches.len() as u32).collect();
    rng.shuffle(&mut order);
    order.iter().map(|at| std::mem::take(&mut batches[*at as usize])).collect()
}

/// Cuts rows, shortest first, into batches as large as may be.
fn cut(rows: &[u32], lengths: &[u32], batch_size: BatchSize, mut batch: impl FnMut(&[u32])) {
    let mut start = 0;
    for (at, row) in rows.iter().enumerate() {
        if !batch_size.holds(at + 1 - start, lengths[*row as usize]) {
            batch(&rows[start..at]);
            start = at;
        }
    }
    if start < rows.len() {
        batch(&rows[start..]);
    }
}

/// How many batches [`epoch_order`] makes of rows of these lengths.
pub fn batches_per_epoch(lengths: &[u32], batch_size: BatchSize) -> usize {
    if let BatchSize::Rows(n) = batch_size {
        return lengths.len().div_ceil(n.max(1));
    }
    let mut rows: Vec<u32> = (0..lengths.len() as u32).collect();
    rows.sort_unstable_by_key(|row| lengths[*row as usize]);
    let mut n = 0;
    cut(&rows, lengths, batch_size, |_| n += 1);
    n
}

/// Of one batch that nothing is learnt from, with its padding: long texts come in fewer rows than asked for.
const EVAL_TOKENS: usize = 1 << 16;

/// All rows sorted by length, longest first so that the batch that needs most memory comes first. A batch size of 0 counts as 1; a
/// batch of several rows has 65,536 tokens at most.
pub fn eval_order(lengths: &[u32], batch_size: usize) -> Vec<Vec<u32>> {
    let mut rows: Vec<u32> = (0..lengths.len() as u32).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(lengths[*row as usize]));
    let (mut batches, mut rest) = (Vec::new(), &rows[..]);
    while let Some(longest) = rest.first() {
        let most = EVAL_TOKENS / (lengths[*longest as usize] as usize).max(1);
        let (batch, others) = rest.split_at(batch_size.min(most).clamp(1, rest.len()));
        batches.push(batch.to_vec());
        rest = others;
    }
    batches
}

/// Pads the given rows of `encoded` on the right with `pad_id`. Panics on a row that isn't there.
pub fn collate(encoded: &Encoded, rows: &[u32], pad_id: u32) -> Batch {
    let lengths: Vec<u32> = rows.iter().map(|row| encoded.length(*row as usize) as u32).collect();
    let width = lengths.iter().copied().max().unwrap_or(0) as usize;
    let mut tokens = vec![pad_id; rows.len() * width];
    let mut types = vec![0; rows.len() * width];
    for (at, row) in rows.iter().enumerate() {
        let start = at * width;
        let own = encoded.tokens_of(*row as usize);
        tokens[start..start + own.len()].copy_from_slice(own);
        for (to, from) in types[start..].iter_mut().zip(encoded.types_of(*row as usize)) {
            *to = u32::from(*from);
        }
    }
    Batch { rows: rows.to_vec(), width, tokens, types, lengths }
}

/// Share of the padded positions among all positions of the batches, 0 without any.
pub fn padding_share(lengths: &[u32], batches: &[Vec<u32>]) -> f64 {
    let (mut real, mut all) = (0u64, 0u64);
    for batch in batches {
        let of = |row: &u32| u64::from(lengths[*row as usize]);
        real += batch.iter().map(of).sum::<u64>();
        all += batch.iter().map(of).max().unwrap_or(0) * batch.len() as u64;
    }
    if all == 0 { 0.0 } else { 1.0 - real as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_texts_are_scored_in_fewer_rows() {
        let lengths: Vec<u32> = [vec![8192; 9], vec![1024; 65], vec![100_000], vec![3; 2]].concat();
        let sizes: Vec<usize> = eval_order(&lengths, 64).iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 8, 8, 60]); // 65,536 / 8,192 is 8; the ninth has seven of 1,024 beside it
    }

    proptest! {
        #[test]
        fn orders_are_permutations(
            lengths in prop::collection::vec(0u32..80, 0..700), batch_size in 0usize..40, seed: u64, epoch in 0u64..3,
        ) {
            let of_rows = epoch_order(&lengths, BatchSize::Rows(batch_size), seed, epoch);
            for batches in [of_rows, eval_order(&lengths, batch_size)] {
                let mut rows: Vec<u32> = batches.concat();
                rows.sort_unstable();
                prop_assert_eq!(rows, (0..lengths.len() as u32).collect::<Vec<_>>());
                prop_assert!(batches.iter().all(|batch| !batch.is_empty() && batch.len() <= batch_size.max(1)));
                prop_assert_eq!(batches.len(), lengths.len().div_ceil(batch_size.max(1)));
                prop_assert!((0.0..1.0).contains(&padding_share(&lengths, &batches)));
            }
        }

        #[test]
        fn a_budget_of_tokens_is_kept_and_used(
            lengths in prop::collection::vec(1u32..80, 0..700), budget in 0usize..900, seed: u64, epoch in 0u64..3,
        ) {
            let size = BatchSize::Tokens(budget);
            let batches = epoch_order(&lengths, size, seed, epoch);
            let mut rows: Vec<u32> = batches.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len() as u32).collect::<Vec<_>>());
            prop_assert_eq!(batches.len(), batches_per_epoch(&lengths, size));
            let tokens = |batch: &[u32], more: usize, longest: u32| (batch.len() + more) * longest as usize;
            let of = |batch: &[u32]| -> Vec<u32> { batch.iter().map(|row| lengths[*row as usize]).collect() };
            let mut by_length: Vec<_> = batches.iter().map(|batch| (of(batch), batch)).collect();
            by_length.sort_by_key(|(of, batch)| (of[0], of[of.len() - 1], std::cmp::Reverse(batch.len())));
            for (of_batch, batch) in &by_length {
                let longest = *of_batch.iter().max().expect("no batch is empty");
                prop_assert!(batch.len() == 1 || tokens(batch, 0, longest) <= budget);
            }
            for pair in by_length.windows(2) {
                // Not one row of the next batch would have gone into this one.
                let next = pair[1].0[0];
                prop_assert!(*pair[0].0.iter().max().expect("as above") <= next);
                prop_assert!(tokens(pair[0].1, 1, next) > budget);
            }
        }

        #[test]
        fn collate_keeps_every_token(
            texts in prop::collection::vec(prop::collection::vec((1u32..900, 0u8..2), 0..20), 1..20), pad_id in 0u32..3,
        ) {
            let mut encoded = Encoded { offsets: vec![0], ..Encoded::default() };
            for text in &texts {
                encoded.tokens.extend(text.iter().map(|(token, _)| token));
                encoded.types.extend(text.iter().map(|(_, kind)| kind));
                encoded.offsets.push(encoded.tokens.len());
                encoded.ids.push(String::new());
                encoded.labels.push(None);
            }
            let rows: Vec<u32> = (0..texts.len() as u32).rev().collect();
            let batch = collate(&encoded, &rows, pad_id);
            prop_assert_eq!(batch.tokens.len(), rows.len() * batch.width);
            for (at, row) in rows.iter().enumerate() {
                let (length, start) = (batch.lengths[at] as usize, at * batch.width);
                let back: Vec<(u32, u8)> = (start..start + length)
                    .map(|at| (batch.tokens[at], batch.types[at] as u8))
                    .collect();
                prop_assert_eq!(&back, &texts[*row as usize]);
                let rest = start + length..start + batch.width;
                prop_assert!(batch.tokens[rest.clone()].iter().all(|token| *token == pad_id));
                prop_assert!(batch.types[rest].iter().all(|kind| *kind == 0));
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let lengths: Vec<u32> = (0..1000).map(|row| row % 37).collect();
        for size in [BatchSize::Rows(16), BatchSize::Tokens(300)] {
            let order = |seed, epoch| epoch_order(&lengths, size, seed, epoch);
            assert_eq!(order(1, 0), order(1, 0));
            assert_ne!(order(1, 0), order(1, 1));
            assert_ne!(order(1, 0), order(2, 0));
        }
    }

    #[test]
    fn tokens_are_counted_with_their_padding() {
        let check = |budget: usize, expected: &[&[u32]]| {
            let lengths = [5, 2, 9, 2, 3, 5];
            let mut found = epoch_order(&lengths, BatchSize::Tokens(budget), 1, 0);
            found.iter_mut().for_each(|batch| batch.sort_unstable());
            found.sort_unstable();
            assert_eq!(found, expected, "{budget}");
        };
        check(9, &[&[0], &[1, 3, 4], &[2], &[5]]);
        check(10, &[&[0, 5], &[1, 3, 4], &[2]]);
        check(17, &[&[0, 5], &[1, 3, 4], &[2]]);
        check(25, &[&[0, 1, 3, 4, 5], &[2]]);
        check(54, &[&[0, 1, 2, 3, 4, 5]]);
        check(1, &[&[0], &[1], &[2], &[3], &[4], &[5]]);
    }

    #[test]
    fn padding_is_counted() {
        let check = |lengths: &[u32], batches: &[Vec<u32>], share: f64| {
            assert_eq!(padding_share(lengths, batches), share);
        };
        check(&[], &[], 0.0);
        check(&[4, 4], &[vec![0, 1]], 0.0);
        check(&[1, 3], &[vec![0, 1]], 1.0 - 4.0 / 6.0);
        check(&[1, 3], &[vec![0], vec![1]], 0.0);
    }
}

//! Where the tokens of a batch's texts lie among the rows of a tensor (N, C).

use candle_core::{Result, bail};

/// The texts of a batch, B of them, the longest T tokens long.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequences {
    lengths: Vec<u32>,
    width: usize,
    is_packed: bool,
    starts: Vec<usize>,
    places: Vec<u32>,
}

impl Sequences {
    /// Text after text without padding: N is the number of real tokens. Nothing is computed for padding.
    pub fn packed(lengths: &[u32], width: usize) -> Result<Sequences> {
        Sequences::new(lengths, width, true)
    }

    /// T rows for each text: N = B·T. What devices with one kernel for a whole batch want.
    pub fn padded(lengths: &[u32], width: usize) -> Result<Sequences> {
        Sequences::new(lengths, width, false)
    }

    fn new(lengths: &[u32], width: usize, is_packed: bool) -> Result<Sequences> {
        if let Some(length) = lengths.iter().find(|&&n| n == 0 || n as usize > width) {
            bail!("sequences: a text of length {length} in a batch {width} wide");
        }
        if lengths.len().checked_mul(width).is_none_or(|n| n > u32::MAX as usize) {
            bail!(
                "sequences: {} texts of {width} tokens are too many for one batch",
                lengths.len()
            );
        }
        let (mut starts, mut places) = (vec![0], Vec::new());
        for (text, &length) in lengths.iter().enumerate() {
            let n_rows = if is_packed { length as usize } else { width };
            places.extend((0..n_rows).map(|token| (text * width + token) as u32));
            starts.push(places.len());
        }
        Ok(Sequences { lengths: lengths.to_vec(), width, is_packed, starts, places })
    }

    /// Tokens of each text, (B,).
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// T.
    pub fn width(&self) -> usize {
        self.width
    }

    pub fn is_packed(&self) -> bool {
        self.is_packed
    }

    /// N.
    pub fn rows(&self) -> usize {
        self.places.len()
    }

    /// The row at which each text begins, and N: (B + 1,).
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Where each row would lie in the padded layout, (N,). Dropout counts by it, so that both layouts drop the same.
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// The first row of each text, where it lies: B texts of one token.
    pub fn first_rows(&self) -> Sequences {
        let b = self.lengths.len();
        Sequences {
            lengths: vec![1; b],
            width: self.width,
            is_packed: true,
            starts: (0..=b).collect(),
            places: (0..b).map(|text| (text * self.width) as u32).collect(),
        }
    }

    /// Each text's first row, (N, C) → (B, C).
    pub(crate) fn take_first_rows(&self, x: &[f32], first: &mut [f32]) {
        let c = x.len() / self.rows().max(1);
        for (first, start) in first.chunks_exact_mut(c.max(1)).zip(&self.starts) {
            first.copy_from_slice(&x[start * c..][..c]);
        }
    }

    /// The way back: zeros but for each text's first row, (B, C) → (N, C).
    pub(crate) fn put_first_rows(&self, first: &[f32], x: &mut [f32]) {
        let c = x.len() / self.rows().max(1);
        x.fill(0.0);
        for (first, start) in first.chunks_exact(c.max(1)).zip(&self.starts) {
            x[start * c..][..c].copy_from_slice(first);
        }
    }

    /// A text's rows of a matrix with c columns, for each text.
    pub(crate) fn split<'x>(&self, mut x: &'x mut [f32], c: usize) -> Vec<&'x mut [f32]> {
        let mut parts = Vec::with_capacity(self.lengths.len());
        for pair in self.starts.windows(2) {
            let (part, rest) = x.split_at_mut((pair[1] - pair[0]) * c);
            parts.push(part);
            x = rest;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_layouts() {
        let packed = Sequences::packed(&[2, 3, 1], 3).unwrap();
        assert_eq!(packed.starts(), [0, 2, 5, 6]);
        assert_eq!(packed.places(), [0, 1, 3, 4, 5, 6]);
        let padded = Sequences::padded(&[2, 3, 1], 3).unwrap();
        assert_eq!(padded.starts(), [0, 3, 6, 9]);
        assert_eq!(padded.places(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let error = |lengths: &[u32], width| Sequences::packed(lengths, width).unwrap_err();
        assert!(error(&[3, 0], 3).to_string().contains("a text of length 0 in a batch 3 wide"));
        assert!(error(&[4], 3).to_string().contains("a text of length 4 in a batch 3 wide"));
        assert!(error(&[1; 3], 1 << 31).to_string().contains("too many for one batch"));
    }
}

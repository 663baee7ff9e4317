//! One batch on a device, checked, and what a forward pass is for. Knows no texts: tokenising is done elsewhere.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use lowchurn_kernels::{Dropout, Keys, Sequences};

use crate::{Config, Error, Result};

/// A batch of B texts of at most T tokens. On the CPU its N rows are the tokens alone, elsewhere N = B·T with padding.
#[derive(Clone, Debug)]
pub struct Input {
    pub ids: Tensor,       // (N,) u32
    pub types: Tensor,     // (N,) u32
    pub positions: Tensor, // (N,) u32, from 0 in each text
    /// Which rows are whose.
    pub sequences: Arc<Sequences>,
    /// Rows to mix with each other after the embedding layer; nothing of it where `None`, as `new` leaves it.
    pub mix: Option<Mix>,
    /// `ids` on the host, (N,).
    tokens: Vec<u32>,
    largest_id: Largest,
    largest_type: Largest,
}

/// Mixup: each row becomes `share` of itself and 1 − `share` of its partner, after the embedding layer with its norm and
/// dropout. The mixed row is as long as the longer of those that have a share in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// (B,) a row of the same batch for each row.
    pub partner: Vec<u32>,
    /// (B,) from 0 to 1.
    pub share: Vec<f32>,
}

/// Train draws one dropout key a site from the given stream; Eval drops nothing and builds no graph.
pub enum Mode<'k> {
    Eval,
    Train(&'k mut Keys),
}

/// The largest number of a batch and where it stands; enough to check all of them without asking the device.
#[derive(Clone, Copy, Debug)]
struct Largest {
    value: u32,
    index: usize,
}

impl Input {
    /// `tokens` and `types` hold B·`width` numbers, row after row, already padded with any id of the vocabulary.
    pub fn new(
        tokens: &[u32],
        types: &[u32],
        lengths: &[u32],
        width: usize,
        device: &Device,
    ) -> Result<Input> {
        let rows = lengths.len();
        let (Some(largest_id), Some(largest_type), true) = (
            largest(tokens),
            largest(types),
            tokens.len() == types.len() && rows.checked_mul(width) == Some(tokens.len()),
        ) else {
            let (tokens, types) = (tokens.len(), types.len());
            return Err(Error::BatchSize { rows, width, tokens, types });
        };
        // A row without a token would be an average over nothing.
        let bad_length = |&length: &u32| length == 0 || length as usize > width;
        if let Some(row) = lengths.iter().position(bad_length) {
            return Err(Error::BatchLength { row, length: lengths[row], width });
        }
        let sequences = match device {
            Device::Cpu => Sequences::packed(lengths, width)?,
            _ => Sequences::padded(lengths, width)?,
        };
        let rows_of = |of: &dyn Fn(usize) -> u32| -> Vec<u32> {
            sequences.places().iter().map(|&place| of(place as usize)).collect()
        };
        let on_device = |rows: Vec<u32>| Tensor::from_vec(rows, sequences.rows(), device);
        let tokens = rows_of(&|place| tokens[place]);
        Ok(Input {
            ids: on_device(tokens.clone())?,
            types: on_device(rows_of(&|place| types[place]))?,
            positions: on_device(rows_of(&|place| (place % width) as u32))?,
            tokens,
            sequences: Arc::new(sequences),
            mix: None,
            largest_id,
            largest_type,
        })
    }

    /// Whether the model has a row for each id, type and position of the batch, and the batch one for each that is mixed in.
    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        let width = self.sequences.width();
        let &Config { vocab_size, type_vocab_size, .. } = config;
        let at = |largest: Largest| (largest.index / width, largest.index % width, largest.value);
        config.check_width(width)?;
        if self.largest_id.value as usize >= vocab_size {
            let (row, column, id) = at(self.largest_id);
            return Err(Error::TokenId { row, column, id, vocab_size });
        }
        if config.reads_types() && self.largest_type.value as usize >= type_vocab_size {
            let (row, column, id) = at(self.largest_type);
            return Err(Error::TokenType { row, column, id, type_vocab_size });
        }
        self.mix.as_ref().map_or(Ok(()), |mix| mix.check(self.sequences.lengths().len()))
    }

    /// The rows of the type table, (N,).
    pub(crate) fn types_for(&self, config: &Config) -> Result<Tensor> {
        if config.reads_types() { Ok(self.types.clone()) } else { Ok(self.types.zeros_like()?) }
    }

    /// The rows of the position table, (N,).
    ///
    /// Behind a padding token's position p, they are p + 1, p + 2 and so on over the tokens that aren't the padding token; one
    /// within a text stands at p and isn't counted. So fairseq has it (`make_positions`), and transformers after it.
    pub(crate) fn positions_for(&self, config: &Config) -> Result<Tensor> {
        let Some(padding) = config.first_position.checked_sub(1) else {
            return Ok(self.positions.clone());
        };
        let padding = padding as u32;
        let mut positions = Vec::with_capacity(self.tokens.len());
        for pair in self.sequences.starts().windows(2) {
            let mut last = padding;
            positions.extend(self.tokens[pair[0]..pair[1]].iter().map(|&token| {
                last += u32::from(token != padding);
                if token == padding { padding } else { last }
            }));
        }
        Ok(Tensor::from_vec(positions, self.tokens.len(), self.ids.device())?)
    }
}

impl Mix {
    fn check(&self, rows: usize) -> Result<()> {
        let (partners, shares) = (self.partner.len(), self.share.len());
        if (partners, shares) != (rows, rows) {
            return Err(Error::MixSize { rows, partners, shares });
        }
        if let Some(row) = self.partner.iter().position(|&partner| partner as usize >= rows) {
            return Err(Error::MixPartner { row, partner: self.partner[row], rows });
        }
        if let Some(row) = self.share.iter().position(|share| !(0.0..=1.0).contains(share)) {
            return Err(Error::MixShare { row, share: self.share[row] });
        }
        Ok(())
    }
}

impl Mode<'_> {
    /// What one dropout site does. A key is taken even where p is 0, so that no site's mask depends on another's p.
    pub(crate) fn dropout(&mut self, p: f32) -> Option<Dropout> {
        match self {
            Mode::Eval => None,
            Mode::Train(keys) => {
                let key = keys.next();
                (p > 0.0).then_some(Dropout { p, key })
            }
        }
    }
}

fn largest(numbers: &[u32]) -> Option<Largest> {
    let all = numbers.iter().enumerate().map(|(index, &value)| Largest { value, index });
    all.max_by_key(|largest| largest.value)
}

//! Working memory that is used again: a step asks for the same sizes in each update, and fresh memory costs a pass of zeros
//! and a page fault every 4 KiB.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Free vectors of all sizes; a step uses a few dozen.
static FREE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// n numbers of what came before: whoever takes one writes before reading.
pub struct Buffer {
    all: Vec<f32>,
    n: usize,
}

impl Buffer {
    /// The smallest free vector that is large enough and not wasteful, else a new one.
    pub fn of(n: usize) -> Buffer {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(_, all): &(usize, &Vec<f32>)| all.len() >= n && all.len() <= 2 * n + 1024;
        let found = free.iter().enumerate().filter(fits).min_by_key(|(_, all)| all.len());
        let all = match found.map(|(at, _)| at) {
            Some(at) => free.swap_remove(at),
            None => {
                drop(free);
                vec![0.0; n]
            }
        };
        Buffer { all, n }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.all);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(all);
        // Batches of ever other widths leave sizes behind that nobody asks for again: the oldest go.
        if free.len() > MOST_FREE {
            free.remove(0);
        }
    }
}

/// More than a step of a twelve-layer model has at once.
const MOST_FREE: usize = 256;

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.all[..self.n]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.all[..self.n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_as_long_as_asked_for() {
        for n in [0, 1, 5, 5000, 4000] {
            let mut buffer = Buffer::of(n);
            buffer.fill(2.0);
            assert_eq!(buffer.len(), n);
            assert_eq!(buffer.iter().sum::<f32>(), 2.0 * n as f32);
        }
    }
}

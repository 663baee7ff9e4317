//! Working memory that is used again: a step asks for the same sizes in each update, and fresh memory costs a pass of zeros
//! and a page fault every 4 KiB.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Free vectors by size, each size one of [`size_class`].
static FREE: Mutex<BTreeMap<usize, Vec<Vec<f32>>>> = Mutex::new(BTreeMap::new());

/// n numbers of what came before: whoever takes one writes before reading.
#[derive(Debug)]
pub struct Buffer {
    all: Vec<f32>,
    n: usize,
}

/// The size to ask for: up to a quarter more, so that batches of like widths share their memory.
fn size_class(n: usize) -> usize {
    let step = (n.max(1024).next_power_of_two() / 8).max(1);
    n.max(1024).next_multiple_of(step)
}

impl Buffer {
    pub fn of(n: usize) -> Buffer {
        let size = size_class(n);
        let found = FREE.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&size).and_then(Vec::pop);
        Buffer { all: found.unwrap_or_else(|| vec![0.0; size]), n }
    }

    pub fn from_slice(x: &[f32]) -> Buffer {
        let mut buffer = Buffer::of(x.len());
        buffer.copy_from_slice(x);
        buffer
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        Buffer::from_slice(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.all);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).entry(all.len()).or_default().push(all);
    }
}

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
    fn sizes_are_few_and_not_wasteful() {
        for n in [0, 1, 1024, 1025, 165_120, 660_480, 11_720_448] {
            let size = size_class(n);
            assert!(size >= n && size <= (n + n / 4).max(1024), "{n} {size}");
        }
    }

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

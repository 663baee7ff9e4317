//! Working memory that is used again: a step asks for the same sizes in each update, and fresh memory costs a pass of zeros
//! and a page fault every 4 KiB.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), n_free: 0, n_used: 0, n_most: 0 });

/// Free vectors, the one that came back last at the end; and counts of numbers.
struct Pool {
    free: Vec<Vec<f32>>,
    n_free: usize,
    n_used: usize,
    /// Ever used at once. No more is held, however the sizes of batches change.
    n_most: usize,
}

/// n numbers of what came before: whoever takes one writes before reading.
#[derive(Debug)]
pub struct Buffer {
    all: Vec<f32>,
    start: usize,
    n: usize,
}

/// Numbers in a cache line: a vector that lies across two costs two loads.
const LINE: usize = 16;

/// How much longer than asked for a vector may be.
const MOST_TIMES: usize = 2;

/// The size to ask for: up to an eighth more, so that batches of like widths share their memory.
fn size_class(n: usize) -> usize {
    let n = n.max(1024);
    n.next_multiple_of(n.next_power_of_two() / 16)
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// The smallest free vector of at least `size` numbers, of equals the one that came back last, which may still be in a
    /// cache. What a long batch needed serves shorter ones too; with no limit, small requests took up a third of the memory.
    fn take(&mut self, size: usize) -> Option<Vec<f32>> {
        let mut best: Option<(usize, usize)> = None; // where, how long
        for (at, all) in self.free.iter().enumerate().rev() {
            if all.len() == size {
                best = Some((at, size));
                break;
            }
            if (size..=MOST_TIMES * size).contains(&all.len())
                && best.is_none_or(|(_, length)| all.len() < length)
            {
                best = Some((at, all.len()));
            }
        }
        let all = self.free.remove(best?.0);
        self.n_free -= all.len();
        self.n_used += all.len();
        Some(all)
    }

    /// Makes room for a new vector: those go that nobody has asked for the longest.
    fn make_room(&mut self, size: usize) {
        self.n_used += size;
        self.n_most = self.n_most.max(self.n_used);
        let mut n_gone = 0;
        for all in &self.free {
            if self.n_used + self.n_free <= self.n_most {
                break;
            }
            self.n_free -= all.len();
            n_gone += 1;
        }
        self.free.drain(..n_gone);
    }

    fn give_back(&mut self, all: Vec<f32>) {
        self.n_used -= all.len();
        self.n_free += all.len();
        self.free.push(all);
    }
}

impl Buffer {
    pub fn of(n: usize) -> Buffer {
        let size = size_class(n + LINE);
        let mut pool = pool();
        let all = pool.take(size);
        if all.is_none() {
            pool.make_room(size);
        }
        drop(pool);
        let all = all.unwrap_or_else(|| vec![0.0; size]);
        let start = all.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        Buffer { all, start, n }
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
        pool().give_back(std::mem::take(&mut self.all));
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.all[self.start..][..self.n]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.all[self.start..][..self.n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_few_and_not_wasteful() {
        for n in [0, 1, 1024, 1025, 165_120, 660_480, 11_720_448] {
            let size = size_class(n);
            assert!(size >= n && size <= (n + n / 8).max(1024), "{n} {size}");
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

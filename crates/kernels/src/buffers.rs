//! Working memory that is used again: pieces of a few large blocks, which are kept. Fresh memory costs a page fault and a pass
//! of zeros, and batches of ever new sizes would ask for some at each update.

#![expect(
    clippy::single_range_in_vec_init,
    reason = "what is free is a list of ranges, often of one"
)]

use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

static POOL: Mutex<Pool> = Mutex::new(Pool { blocks: Vec::new() });

struct Pool {
    blocks: Vec<Block>,
}

/// Memory for good, and which of its numbers nobody has.
struct Block {
    start: NonNull<f32>,
    /// In their order; no two touch.
    free: Vec<Range<usize>>,
}

#[expect(unsafe_code, reason = "a pointer to memory of the whole program")]
// SAFETY: a block is never freed, and who may touch which of its numbers is written down under the lock.
unsafe impl Send for Block {}

/// n numbers of what came before: whoever takes one writes before reading.
#[derive(Debug)]
pub struct Buffer {
    start: NonNull<f32>,
    n: usize,
    block: usize,
    place: Range<usize>,
}

#[expect(unsafe_code, reason = "a pointer to numbers that it alone has")]
// SAFETY: it owns its numbers as a Vec does.
unsafe impl Send for Buffer {}
#[expect(unsafe_code, reason = "a pointer to numbers that it alone has")]
// SAFETY: as above; shared, they are only read.
unsafe impl Sync for Buffer {}

/// Numbers in a cache line: a vector that lies across two costs two loads.
const LINE: usize = 16;

/// Numbers of a block unless a single request is larger: 16 MiB, of which the system gives what is touched.
const BLOCK: usize = 4 << 20;

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// The start of the smallest free piece that is large enough, so that large ones stay whole.
    fn take(&mut self, size: usize) -> (usize, Range<usize>) {
        let pieces = self.blocks.iter().enumerate().flat_map(|(block, of)| {
            of.free.iter().enumerate().map(move |(at, piece)| (piece.len(), block, at))
        });
        let Some((_, block, at)) = pieces.filter(|&(length, ..)| length >= size).min() else {
            self.blocks.push(Block::new(size.max(BLOCK)));
            return self.take(size);
        };
        let free = &mut self.blocks[block].free;
        let place = free[at].start..free[at].start + size;
        free[at].start = place.end;
        if free[at].is_empty() {
            free.remove(at);
        }
        (block, place)
    }

    /// Joins the piece with its free neighbours.
    fn give_back(&mut self, block: usize, place: Range<usize>) {
        let free = &mut self.blocks[block].free;
        let at = free.partition_point(|piece| piece.end < place.start);
        let joined = free[at..].iter().take_while(|piece| piece.start <= place.end).count();
        let start =
            free[at..at + joined].first().map_or(place.start, |piece| piece.start.min(place.start));
        let end = free[at..at + joined].last().map_or(place.end, |piece| piece.end.max(place.end));
        free.splice(at..at + joined, [start..end]);
    }
}

impl Block {
    fn new(size: usize) -> Block {
        let memory = Vec::leak(vec![0f32; size + LINE]);
        let start = memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        Block { start: NonNull::from(&mut memory[start..]).cast(), free: vec![0..size] }
    }
}

impl Buffer {
    #[expect(unsafe_code, reason = "numbers by a pointer")]
    pub fn of(n: usize) -> Buffer {
        let size = n.max(1).next_multiple_of(LINE);
        let mut pool = pool();
        let (block, place) = pool.take(size);
        // SAFETY: the place lies inside the block.
        let start = unsafe { pool.blocks[block].start.add(place.start) };
        Buffer { start, n, block, place }
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
        pool().give_back(self.block, self.place.clone());
    }
}

impl Deref for Buffer {
    type Target = [f32];

    #[expect(unsafe_code, reason = "numbers by a pointer")]
    fn deref(&self) -> &[f32] {
        // SAFETY: its n numbers lie in its place of the block, have been written (zeros at first), and nobody else has them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.n) }
    }
}

impl DerefMut for Buffer {
    #[expect(unsafe_code, reason = "numbers by a pointer")]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.n) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_as_long_as_asked_for() {
        for n in [0, 1, 5, 5000, 4000, BLOCK + 1] {
            let mut buffer = Buffer::of(n);
            buffer.fill(2.0);
            assert_eq!(buffer.len(), n);
            assert!(n > 5000 || buffer.iter().sum::<f32>() == 2.0 * n as f32);
            assert_eq!(buffer.as_ptr().align_offset(LINE * size_of::<f32>()), 0);
        }
    }

    #[test]
    fn what_comes_back_is_joined_with_its_neighbours() {
        let mut pool = Pool { blocks: vec![Block::new(64)] };
        let taken: Vec<_> = (0..4).map(|_| pool.take(16).1).collect();
        assert_eq!(taken, [0..16, 16..32, 32..48, 48..64]);
        for (back, free) in
            [(1, vec![16..32]), (3, vec![16..32, 48..64]), (2, vec![16..64]), (0, vec![0..64])]
        {
            pool.give_back(0, taken[back].clone());
            assert_eq!(pool.blocks[0].free, free);
        }
    }

    #[test]
    fn the_smallest_piece_that_fits_is_taken() {
        let mut pool = Pool { blocks: vec![Block::new(64), Block::new(32)] };
        assert_eq!(pool.take(32), (1, 0..32));
        assert_eq!(pool.take(48), (0, 0..48));
        assert_eq!(pool.take(16), (0, 48..64));
        assert_eq!(pool.take(16), (2, 0..16)); // a new block
        assert_eq!(pool.blocks[2].free, [16..BLOCK]);
    }

    /// Threads that write into their own buffers at the same time never see each other's numbers.
    #[test]
    fn nobody_has_anybody_elses_numbers() {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for i in 0..500 {
                        let mut buffer = Buffer::of(1 + (i * 37 + thread * 101) % 3000);
                        let mark = (thread * 1000 + i) as f32;
                        buffer.fill(mark);
                        kept.push((buffer, mark));
                        if i % 3 == 0 {
                            kept.swap_remove(i % kept.len());
                        }
                        for (buffer, mark) in &kept {
                            assert!(
                                [buffer[0], buffer[buffer.len() - 1]].iter().all(|x| x == mark)
                            );
                        }
                    }
                });
            }
        });
    }
}

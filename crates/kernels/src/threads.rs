//! How a program that computes is set up: one thread pool instead of two, all work on it, and memory that is kept.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::Yield;

/// Stack of a thread of the pool: candle's backward pass goes as deep as the graph.
const STACK_BYTES: usize = 16 << 20;

/// Runs `f`, and all that it computes, on rayon's threads; to be called first in `main`. From any other thread a product
/// makes its caller wait by spinning, beside as many threads as there are cores.
///
/// Where this is still the process's only thread, candle's own pool for elementwise operations is kept from starting: its
/// threads spin while they wait, and took a fifth of a step's time on two busy cores.
pub fn on_the_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    keep_candles_pool_off();
    keep_freed_memory();
    // An error means that the pool is there already, with what stack its maker wanted.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(STACK_BYTES).build_global();
    rayon::scope(|_| f())
}

/// Runs `f` while the pool's other threads look for work without falling asleep. A step hands out some hundred pieces of work of
/// a tenth of a millisecond each; to wake a thread costs as much, and on a shared host a core that sleeps is given away.
pub fn awake<R>(f: impl FnOnce() -> R) -> R {
    // One at a time: two that look for work for each other could wait for each other.
    static IS_ON: AtomicBool = AtomicBool::new(false);
    if IS_ON.swap(true, Ordering::Acquire) {
        return f();
    }
    let is_done = AtomicBool::new(false);
    let caller = rayon::current_thread_index();
    rayon::in_place_scope(|scope| {
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(|_| {
                // The caller itself may find this while it waits for others, and must not stay here; nor may a thread that
                // did so in the middle of a piece of work that others wait for, hence the end to patience.
                let mut n_idle = 0;
                while rayon::current_thread_index() != caller
                    && n_idle < PATIENCE
                    && !is_done.load(Ordering::Acquire)
                {
                    match rayon::yield_now() {
                        Some(Yield::Executed) => n_idle = 0,
                        _ => {
                            (0..SPINS).for_each(|_| std::hint::spin_loop());
                            n_idle += 1;
                        }
                    }
                }
            });
        }
        let _end = End(&is_done, &IS_ON);
        f()
    })
}

/// Between two looks for work: about a microsecond.
const SPINS: usize = 32;
/// Looks in vain before a thread may sleep after all: some milliseconds.
const PATIENCE: usize = 5000;

/// Ends the watch, also where `f` panics.
struct End<'a>(&'a AtomicBool, &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.store(false, Ordering::Release);
    }
}

/// Tells mimalloc, where it is the program's allocator, to keep freed pages for a second: a step frees some megabytes and asks
/// for them again at once, and a page that comes back costs a fault and 4 KiB of zeros. Kept for good, they were 5 % more memory.
#[expect(unsafe_code, reason = "the option has a C interface only")]
fn keep_freed_memory() {
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15; // `mi_option_purge_delay`, which the crate doesn't name
    const MILLISECONDS: std::ffi::c_long = 1000;
    // SAFETY: the call stores a number; any thread may do so at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) };
}

#[expect(unsafe_code, reason = "candle takes the size of its pool from the environment only")]
fn keep_candles_pool_off() {
    const VARIABLE: &str = "CANDLE_NUM_THREADS";
    // Linux lists a process's threads; elsewhere nobody can tell, and candle's pool stays.
    let n_threads = std::fs::read_dir("/proc/self/task").map_or(usize::MAX, Iterator::count);
    if n_threads == 1 && std::env::var_os(VARIABLE).is_none() {
        // SAFETY: there is no other thread that could read the environment meanwhile.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    fn sum(n: u64) -> u64 {
        (0..n).into_par_iter().map(|x| x % 7).sum()
    }

    /// From within a pool and from outside, several at once, nested, and after a panic: it ends and gives what `f` gives.
    #[test]
    fn awake_always_ends() {
        let expected = sum(100_000);
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for _ in 0..50 {
                assert_eq!(pool.install(|| awake(|| sum(100_000))), expected);
                assert_eq!(pool.install(|| awake(|| awake(|| sum(100_000)))), expected);
            }
            let both =
                pool.install(|| rayon::join(|| awake(|| sum(100_000)), || awake(|| sum(100_000))));
            assert_eq!(both, (expected, expected));
            let fall = || pool.install(|| awake(|| panic!("on purpose")));
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fall));
            assert!(panicked.is_err());
            assert_eq!(pool.install(|| awake(|| sum(100_000))), expected);
        }
        assert_eq!(awake(|| sum(100_000)), expected);
    }
}

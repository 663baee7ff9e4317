//! How a program that computes is set up: one thread pool instead of two, all work on it, and memory that is kept.

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

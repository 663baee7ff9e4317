//! One thread pool instead of two.

/// Keeps candle's own pool for elementwise operations from starting. Its threads spin while they wait; beside rayon's, which
/// all work of this crate runs on, they took a fifth of a step's time on two busy cores.
///
/// To be called at the start of `main`, before any other thread. A number that the user has set stays.
#[expect(unsafe_code, reason = "candle takes the size of its pool from the environment only")]
pub fn use_one_thread_pool() {
    const VARIABLE: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: the caller promises that no other thread runs yet that could read the environment.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}

/// Stack of a thread of the pool: candle's backward pass goes as deep as the graph.
const STACK_BYTES: usize = 16 << 20;

/// Runs `f`, and all that it computes, on rayon's threads. From any other thread a product makes its caller wait by
/// spinning, beside as many threads as there are cores.
pub fn on_the_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    // An error means that the pool is there already, with what stack its maker wanted.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(STACK_BYTES).build_global();
    rayon::scope(|_| f())
}

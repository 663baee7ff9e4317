//! First Ctrl-C or SIGTERM: finish the update, save, say how to go on. Second: quit at once. Before there is anything to
//! save, the first quits too.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::failure::INTERRUPTED;

/// Set by the first signal while training.
pub static STOP: AtomicBool = AtomicBool::new(false);
static IS_TRAINING: AtomicBool = AtomicBool::new(false);

pub fn listen() -> Result<()> {
    let on_signal = || {
        let is_second = STOP.swap(true, Ordering::SeqCst);
        if is_second || !IS_TRAINING.load(Ordering::SeqCst) {
            #[expect(clippy::exit, reason = "the signal handler's thread can't return an exit code")]
            std::process::exit(i32::from(INTERRUPTED));
        }
    };
    ctrlc::set_handler(on_signal).context("signal handler")
}

/// From here on there is something to save.
pub fn training_begins() {
    IS_TRAINING.store(true, Ordering::SeqCst);
}

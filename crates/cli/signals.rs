//! First Ctrl-C or SIGTERM: finish the update, save, say how to go on. Second: quit at once. Before there is anything to
//! save, the first quits too. SIGHUP stays as it was inherited: under nohup a run outlives its terminal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Once};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::INTERRUPTED;

/// Set by the first signal while training. Before training it is set already, and a signal that finds it set quits.
pub static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

pub fn listen() -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // In this order: the one that sets the flag must not be the one that quits.
        flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(&STOP))
            .and_then(|_| flag::register(signal, Arc::clone(&STOP)))
            .context("signal handler")?;
    }
    Ok(())
}

/// From here on there is something to save. Only the first call counts: a stop between two seeds isn't forgotten.
pub fn work_begins() {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| STOP.store(false, Ordering::SeqCst));
}

/// What the user typed, for a shell, without the flag that would start over.
pub fn command_that_goes_on() -> String {
    let typed = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let kept = typed.filter(|word| word != "--fresh" && word != "--overwrite_output_dir");
    kept.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// In single quotes where a shell would read more into a word: zsh takes `train[:200]` for a pattern.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
        check("--max-steps=3", "--max-steps=3");
        check("train[:200]", "'train[:200]'");
        check("my run", "'my run'");
        check("it's", r"'it'\''s'");
        check("", "''");
    }
}

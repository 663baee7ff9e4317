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
            #[expect(
                clippy::exit,
                reason = "the signal handler's thread can't return an exit code"
            )]
            std::process::exit(i32::from(INTERRUPTED));
        }
    };
    ctrlc::set_handler(on_signal).context("signal handler")
}

/// From here on there is something to save.
pub fn training_begins() {
    IS_TRAINING.store(true, Ordering::SeqCst);
}

/// What the user typed, for a shell, without the flag that would start over.
pub fn command_that_goes_on() -> String {
    let typed = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let kept = typed.filter(|word| word != "--fresh" && word != "--overwrite_output_dir");
    kept.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// In single quotes where a shell would read more into a word: zsh takes `train[:200]` for a pattern.
fn quoted(word: &str) -> String {
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

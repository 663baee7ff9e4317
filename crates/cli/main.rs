//! The program: one command line, one short function a verb, one exit code. Everything that prints, reads the
//! environment or the clock is in this crate.

mod args;
mod console;
mod failure;

mod base;
mod data;
mod device;
mod output;
mod places;
mod record;
mod settings;
mod signals;

mod doctor;
mod dry_run;
mod eval;
mod finetune;
mod predict;

mod machine;
mod progress;
mod tensorboard;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Verb};
use crate::console::Console;

// candle allocates and frees large blocks all the time; glibc gives each back to the system at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    let mut console = Console::of_process(args.json);
    let done = match args.verb {
        Verb::Finetune(verb) => finetune::finetune(&verb, &mut console),
        Verb::Eval(verb) => eval::eval(verb, &mut console),
        Verb::Predict(verb) => predict::predict(verb, &mut console),
        Verb::Doctor => doctor::run(&mut console),
        Verb::Completions { shell } => args::completions(shell, &mut console),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(failure::report(&error, &mut console)),
    }
}

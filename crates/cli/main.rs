//! The program: one command line, one short function a verb, one exit code. Everything that prints, reads the
//! environment or the clock is in this crate.

mod args;
mod console;
mod failure;

mod adapter;
mod base;
mod chosen;
mod data;
mod device;
mod output;
mod places;
mod record;
mod settings;
mod signals;

mod agnostic;
mod distil;
mod doctor;
mod dry_run;
mod earlier;
mod eval;
mod finetune;
mod found;
mod job;
mod kinds;
mod predict;
mod probe;
mod reader;
mod recipe;
mod rows;
mod shipped;
mod shows;
mod steering;
mod student;
mod training;
mod updating;

mod between;
mod certification;
mod golden;
mod grid;
mod information;
mod points;
mod sweep;
mod sweep_report;
mod update;
mod update_record;
mod update_report;

mod compare;
mod diagnose;
mod directions;
mod export;
mod facts;
mod gate;
mod gradients;
mod history;
mod nearest;
mod post_shift;
mod publish;
mod repair;
mod reporting;
mod seen;
mod served;
mod sides;
mod slices;

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
    keep_quiet_about_caught_panics();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    let mut console = Console::of_process(args.json);
    let done = lowchurn_kernels::on_the_pool(|| run(args.verb, &mut console));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(failure::report(&error, &mut console)),
    }
}

fn run(verb: Verb, console: &mut Console) -> anyhow::Result<u8> {
    match verb {
        Verb::Finetune(verb) => finetune::finetune(&verb, console),
        Verb::Sweep(verb) => sweep::sweep(&verb, console),
        Verb::Update(verb) => update::update(&verb, console),
        Verb::Repair(verb) => repair::repair(&verb, console),
        Verb::PostShift(verb) => post_shift::post_shift(&verb, console),
        Verb::Distil(verb) => distil::distil(&verb, console),
        Verb::Student(verb) => student::student(&verb, console),
        Verb::Compare(verb) => compare::compare(&verb, console),
        Verb::Diagnose(verb) => diagnose::diagnose(&verb, console),
        Verb::History(verb) => history::history(&verb, console),
        Verb::Gate(verb) => gate::gate(&verb, console),
        Verb::Publish(verb) => publish::publish(&verb, console),
        Verb::Eval(verb) => eval::eval(verb, console),
        Verb::Predict(verb) => predict::predict(verb, console),
        Verb::Export(verb) => export::export(&verb, console),
        Verb::Doctor => doctor::run(console),
        Verb::Completions { shell } => args::completions(shell, console),
        Verb::Man { folder } => args::man(&folder, console),
    }
}

/// The parquet reader panics on some damaged files. `lowchurn_data` catches that and says which file it is; a backtrace on
/// top would only hide it.
fn keep_quiet_about_caught_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|at| at.file().contains("parquet-")) {
            usual(panic);
        }
    }));
}

//! A million rows of predictions: read both files, align, compare; time and peak memory, for JSON lines and for CSV.
//!
//!     cargo bench -p lowchurn-churn --bench million            # or with a number of rows behind --
//!
//! Each format runs in a process of its own, so that its peak is its own. Times stand next to a plain read of the same bytes
//! in the same process, because absolute numbers of shared machines say little.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::fmt::Write as _;
use std::io::{BufWriter, Error, Result, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use lowchurn_churn::{Asked, Names, Pair, Predicted, Unmatched, compare};
use lowchurn_data::Rng;

// The program's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LABELS: [&str; 3] = ["negative", "neutral", "positive"];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.as_slice() {
        [old, new] => measure(Path::new(old), Path::new(new)),
        _ => {
            let rows = args.first().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
            let folder = tempfile::tempdir()?;
            for suffix in ["jsonl", "csv"] {
                let path = |name: &str| folder.path().join(format!("{name}.{suffix}"));
                let (old, new) = (path("old"), path("new"));
                write(&old, rows, 0)?;
                write(&new, rows, 1)?;
                let done = Command::new(std::env::current_exe()?).arg(&old).arg(&new).status()?;
                if !done.success() {
                    return Err(Error::other("the measuring process failed"));
                }
            }
            Ok(())
        }
    }
}

fn measure(old: &Path, new: &Path) -> Result<()> {
    let start = Instant::now();
    let bytes = std::fs::read(old)?.len() + std::fs::read(new)?.len();
    let plain = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let read = |path: &Path| Predicted::read(path, &Names::default()).map_err(Error::other);
    let (first, second) = (read(old)?, read(new)?);
    let reading = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let pair = Pair::align(&first, &second, &[], Unmatched::Refuse).map_err(Error::other)?;
    let aligning = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let is_new: Vec<bool> = (0..pair.rows()).map(|row| row % 3 == 0).collect();
    let columns =
        [("shop".to_owned(), (0..pair.rows()).map(|row| format!("shop {}", row % 50)).collect())];
    let thresholds = [("positive".to_owned(), 0.9)];
    let asked = Asked {
        is_new_row: Some(&is_new),
        slice_columns: &columns,
        thresholds: &thresholds,
        ..Asked::default()
    };
    let said = compare(&pair, &asked).map_err(Error::other)?;
    let comparing = start.elapsed().as_secs_f64();
    let (rows, total) = (pair.rows(), reading + aligning + comparing);
    println!(
        "{}: {rows} rows, 2 files of {} MB in all: read {reading:.2} s, align {aligning:.2} s, compare {comparing:.2} s ({} \
         slices), {total:.2} s in all, {:.0} rows/s, {:.1} times a plain read of the bytes; peak {} MiB",
        old.extension().unwrap_or_default().display(),
        bytes / 1_000_000,
        said.slices.len(),
        rows as f64 / total,
        total / plain,
        peak_mib().map_or("unknown".to_owned(), |mib| mib.to_string()),
    );
    Ok(())
}

// Linux alone says it without unsafe code.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

fn write(path: &PathBuf, rows: usize, model: u64) -> Result<()> {
    let is_json = path.extension().is_some_and(|suffix| suffix == "jsonl");
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    let mut line = String::new();
    if !is_json {
        writeln!(file, "id,label,gold,prob_negative,prob_neutral,prob_positive")?;
    }
    for row in 0..rows {
        // The new file is in another order, so that rows have to be found by their ids.
        let id = if model == 0 { row } else { (row * 7919 + 13) % rows };
        let gold = (Rng::stream(1, "gold", id as u64).next_u64() % 3) as usize;
        let mut rng = Rng::stream(2, "scores", id as u64);
        let mut scores = [rng.uniform(), rng.uniform(), rng.uniform()];
        scores[gold] += 1.0;
        if model == 1 {
            let mut rng = Rng::stream(3, "moved", id as u64);
            scores.iter_mut().for_each(|score| *score += 0.2 * rng.uniform());
        }
        let sum: f64 = scores.iter().sum();
        let [a, b, c] = scores.map(|score| (score / sum) as f32);
        let top = if a >= b && a >= c { 0 } else { 1 + usize::from(c > b) };
        let (label, gold) = (LABELS[top], LABELS[gold]);
        line.clear();
        let written = match is_json {
            true => writeln!(
                line,
                r#"{{"id":"row-{id}","label":"{label}","gold":"{gold}","scores":{{"negative":{a},"neutral":{b},"positive":{c}}}}}"#
            ),
            false => writeln!(line, "row-{id},{label},{gold},{a},{b},{c}"),
        };
        written.map_err(Error::other)?;
        file.write_all(line.as_bytes())?;
    }
    file.flush()
}

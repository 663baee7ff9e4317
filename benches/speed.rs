//! Speed and memory of the main job, in one run on one machine:
//!
//!     just bench                      # MiniLM on SST-2, where both lie next to the project as just slow needs them
//!     just bench-smoke                # what ships, in seconds, so that this file can't rot
//!
//! `--model DIR` and `--data DIR|FILE` choose others, `--steps N` another number of updates. Each number is the median of several; the machine's
//! matrix rate is measured in the same run, because absolute numbers of shared machines say little.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use lowchurn_data::{
    Batch, Columns, Dataset, Encoded, Labels, Request, Rng, Split, TextEncoder, collate, encode,
    epoch_order, padding_share, read,
};
use lowchurn_distill::{
    Divergence, Guides, Lambda, Measuring, Method, OldWeights, Plan, SelectBy, State, StepReport,
    Teacher, TeacherRows, gradient_noise, predict, step_deferring,
};
use lowchurn_kernels::{
    Onto, Packed, Precision, Threads, View, awake, bf16_path, ceiling_bf16, ceiling_f32, matmul,
    matmul_bf16, matrix_path, on_the_pool,
};
use lowchurn_models::{Classifier, Config, Head};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct What {
    model: PathBuf,
    data: PathBuf,
    columns: Columns,
    rows: usize,
    steps: usize,
}

fn main() -> Result<()> {
    on_the_pool(bench)
}

fn bench() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let what = what(&args)?;
    let threads = rayon::current_num_threads();
    println!("{} and {} on {threads} threads", matrix_path(), bf16_path());

    let start = Instant::now();
    let split = rows(&what)?;
    println!(
        "reading {} rows:           {:8.3} s",
        split.examples.len(),
        start.elapsed().as_secs_f64()
    );
    let encoder = TextEncoder::open(&what.model)?;
    let start = Instant::now();
    let tokens = encode(&encoder, &split.examples, 128)?;
    let rate = tokens.rows() as f64 / start.elapsed().as_secs_f64();
    println!("tokenisation:                  {rate:8.0} rows/s");

    let plan = Plan::default_with(SelectBy::Accuracy);
    let lengths = tokens.lengths();
    let order = epoch_order(&lengths, plan.batch_size, plan.seed, 0);
    println!(
        "padding at batch {}:           {:8.2} %",
        plan.batch_size,
        100.0 * padding_share(&lengths, &order)
    );
    training(&what, &plan, &split, &tokens, &order)?;
    let bf16 = Plan { precision: Precision::Bf16, ..plan.clone() };
    training(&what, &bf16, &split, &tokens, &order)?;
    updating(&what, &plan, &split, &tokens, &order)?;
    gradients(&what, &plan, &split, &tokens, &order)?;
    evaluation(&what, &split, &encoder)?;
    whole_command(&what)
}

fn training(
    what: &What,
    plan: &Plan,
    split: &Split,
    tokens: &Encoded,
    order: &[Vec<u32>],
) -> Result<()> {
    let mut model = model(what, split)?;
    model.precision = plan.precision;
    let threads = rayon::current_num_threads();
    let (name, ceiling) = match plan.precision {
        Precision::F32 => ("f32", Some(ceiling_f32(threads))),
        Precision::Bf16 => ("bf16", ceiling_bf16(threads)),
    };
    let config = model.config.clone();
    let mut state = State::new(model)?;
    let batches: Vec<Batch> = order
        .iter()
        .take(what.steps + 2)
        .map(|rows| collate(tokens, rows, config.pad_token_id))
        .collect();
    let (mut took, mut products) = (Vec::new(), Vec::new());
    let (mut rates, mut counts) = (Vec::new(), Vec::new());
    for (i, batch) in batches.iter().enumerate() {
        let (report, seconds) = timed(&mut state, plan, tokens, &Guides::default(), batch)?;
        // The first updates fill caches and ask for memory.
        if i >= 2 {
            took.push(seconds);
            products
                .push(product_seconds(&config, report.n_tokens as usize, plan.precision) / seconds);
            rates.push(report.n_tokens as f64 / seconds);
            counts.push(report.n_tokens as f64);
        }
    }
    let n_tokens = median(&mut counts);
    println!("step in {name}: {:23.1} ms ({n_tokens:.0} tokens)", 1e3 * median(&mut took));
    if let Some(ceiling) = ceiling {
        let arithmetic = 1e3 * flops(&config, n_tokens as usize) / ceiling / 1e9;
        println!("its arithmetic at {ceiling:.0} GFLOP/s: {arithmetic:7.1} ms");
    }
    println!("training:                      {:8.0} tokens/s", median(&mut rates));
    println!("matrix products of a step:     {:8.0} %", 100.0 * median(&mut products));
    Ok(())
}

/// An update as training makes it, and its seconds.
fn timed(
    state: &mut State,
    plan: &Plan,
    tokens: &Encoded,
    guides: &Guides,
    batch: &Batch,
) -> Result<(StepReport, f64)> {
    let start = Instant::now();
    let micro = std::slice::from_ref(batch);
    let report = awake(|| -> Result<StepReport> {
        Ok(step_deferring(state, plan, tokens, guides, micro, 10_000, &Device::Cpu)?)
    })?;
    Ok((report, start.elapsed().as_secs_f64()))
}

/// What following a teacher's table adds to an update: the same batches, once with labels alone and once with the teacher,
/// turn by turn.
fn updating(
    what: &What,
    plan: &Plan,
    split: &Split,
    tokens: &Encoded,
    order: &[Vec<u32>],
) -> Result<()> {
    let (mut plain, mut followed) =
        (State::new(model(what, split)?)?, State::new(model(what, split)?)?);
    let classes = split.labels.len();
    let logits = (0..tokens.rows() * classes).map(|i| (i % 7) as f32 * 0.3 - 0.9).collect();
    let teacher = Teacher { logits, known: vec![true; classes], said: Vec::new() };
    let guides = Guides { teacher: Some(&teacher), ..Guides::default() };
    let method = Method::Distil {
        lambda: Lambda::Constant(0.5),
        temperature: 2.0,
        divergence: Divergence::Kl,
        rows: TeacherRows::All,
    };
    let with_teacher = Plan { method, ..plan.clone() };
    let pad = plain.model.config.pad_token_id;
    let mut ratios = Vec::new();
    for (i, rows) in order.iter().take(what.steps + 2).enumerate() {
        let batch = collate(tokens, rows, pad);
        let mut alone = || timed(&mut plain, plan, tokens, &Guides::default(), &batch);
        let mut together = || timed(&mut followed, &with_teacher, tokens, &guides, &batch);
        // Whichever comes second finds caches and memory warm.
        let ((_, together), (_, alone)) = match i % 2 {
            0 => {
                let alone = alone()?;
                (together()?, alone)
            }
            _ => (together()?, alone()?),
        };
        if i >= 2 {
            ratios.push(together / alone);
        }
    }
    println!(
        "update with a teacher's table: {:8.3} of a plain update (median)",
        median(&mut ratios)
    );
    Ok(())
}

/// What `diagnose --gradients` costs: batches measured, and the same ones as plain updates; without the teacher's own gradients and
/// with them.
fn gradients(
    what: &What,
    plan: &Plan,
    split: &Split,
    tokens: &Encoded,
    order: &[Vec<u32>],
) -> Result<()> {
    let (mut trained, student) = (State::new(model(what, split)?)?, model(what, split)?);
    let weights = OldWeights::of(&student.params);
    let classes = split.labels.len();
    let logits = (0..tokens.rows() * classes).map(|i| (i % 7) as f32 * 0.3 - 0.9).collect();
    let teacher = Teacher { logits, known: vec![true; classes], said: Vec::new() };
    let batches = &order[..order.len().min(what.steps)];
    let all = student.params.names().map(str::to_string).collect();
    // In turn, a batch at a time: a shared machine is another one some seconds later.
    let mut in_updates = |weights: Option<&OldWeights>| -> Result<f64> {
        let measuring = Measuring {
            student: &student,
            trained: &all,
            teacher: &teacher,
            weights,
            rows: tokens,
            batches,
            lambda: 0.5,
            device: &Device::Cpu,
        };
        let (mut measured, mut updates, mut start) = (0.0, Ok(0.0), Instant::now());
        gradient_noise(&measuring, &mut |n_done| {
            measured += start.elapsed().as_secs_f64();
            let batch = collate(tokens, &batches[n_done - 1], student.config.pad_token_id);
            let update = timed(&mut trained, plan, tokens, &Guides::default(), &batch);
            updates = update.map(|(_, seconds)| seconds + updates.as_ref().unwrap_or(&0.0));
            start = Instant::now();
            updates.is_ok()
        })?;
        measured += start.elapsed().as_secs_f64();
        Ok(measured / updates?)
    };
    let (alone, own) = (in_updates(None)?, in_updates(Some(&weights))?);
    println!(
        "gradients of a batch measured: {:8.3} of a plain update; with the teacher's own {:.3} ({} batches)",
        alone,
        own,
        batches.len()
    );
    Ok(())
}

fn evaluation(what: &What, split: &Split, encoder: &TextEncoder) -> Result<()> {
    let model = model(what, split)?;
    let n = split.examples.len().min(1000);
    let tokens = encode(encoder, &split.examples[..n], 128)?;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        predict(&model, &tokens, 64, &Device::Cpu, &mut |_| {})?;
        rates.push(tokens.rows() as f64 / start.elapsed().as_secs_f64());
    }
    println!("evaluation:                    {:8.0} rows/s", median(&mut rates));
    Ok(())
}

/// Peak memory and time of the command itself, as it is used.
fn whole_command(what: &What) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let column = |flag: &str, name: &Option<String>| {
        name.as_ref().map_or(Vec::new(), |name| vec![flag.to_string(), name.clone()])
    };
    let output = Command::new(env!("CARGO_BIN_EXE_lowchurn"))
        .args([
            "finetune",
            path(&what.data)?,
            "--model",
            path(&what.model)?,
            "--json",
            "--eval-split",
            "none",
        ])
        .args([
            "--epochs",
            "1",
            "--max-steps",
            &what.steps.to_string(),
            "--output",
            path(folder.path())?,
        ])
        .args(column("--text-column", &what.columns.text))
        .args(column("--label-column", &what.columns.label))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("finetune failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let last: serde_json::Value = serde_json::from_str(text.lines().last().context("no output")?)?;
    let number = |key: &str| last[key].as_f64().unwrap_or(f64::NAN);
    println!("command: set-up                {:8.2} s", number("setup_seconds"));
    println!("command: peak memory           {:8.0} MiB", number("peak_rss_mib"));
    Ok(())
}

/// Multiplications and additions of a step's products: 12·C² weights a layer for each token, forward and twice backward.
fn flops(config: &Config, n_tokens: usize) -> f64 {
    let weights = 4 * config.hidden_size.pow(2) + 2 * config.hidden_size * config.intermediate_size;
    3.0 * 2.0 * (n_tokens * config.layers * weights) as f64
}

/// Time of the products of a step alone, at its shapes, with the rounding and packing that they need.
fn product_seconds(config: &Config, n: usize, precision: Precision) -> f64 {
    let (c, f) = (config.hidden_size, config.intermediate_size);
    let shapes = [(c, c, 4), (c, f, 1), (f, c, 1)];
    let mut seconds = 0.0;
    for (i, o, times) in shapes {
        let (x, w, mut y) = (vec![0.5f32; n * i], vec![0.5f32; o * i], vec![0f32; n * o]);
        let (mut dx, mut dw) = (vec![0f32; n * i], vec![0f32; o * i]);
        let (xv, wv, yv) = (View::rows_of(n, i), View::rows_of(o, i), View::rows_of(n, o));
        let start = Instant::now();
        for _ in 0..times * config.layers {
            match precision {
                Precision::F32 => {
                    matmul(&mut y, yv, Onto::Overwrite, &x, xv, &w, wv.t(), Threads::All);
                    matmul(&mut dx, xv, Onto::Overwrite, &y, yv, &w, wv, Threads::All);
                    matmul(&mut dw, wv, Onto::Overwrite, &y, yv.t(), &x, xv, Threads::All);
                }
                Precision::Bf16 => {
                    let product = |to: &mut [f32], a: Packed, b: Packed| {
                        matmul_bf16(to, Onto::Overwrite, &a, &b)
                    };
                    product(&mut y, Packed::left(&x, xv), Packed::right(&w, wv.t()));
                    product(&mut dx, Packed::left(&y, yv), Packed::right(&w, wv));
                    product(&mut dw, Packed::left(&y, yv.t()), Packed::right(&x, xv));
                }
            }
        }
        seconds += start.elapsed().as_secs_f64();
    }
    seconds
}

fn model(what: &What, split: &Split) -> Result<Classifier> {
    let mut rng = Rng::stream(1, "head", 0);
    let head = Head::Fresh { labels: split.labels.names().to_vec(), normal: &mut || rng.normal() };
    Ok(Classifier::open(&what.model, head, &Device::Cpu)?.0)
}

fn rows(what: &What) -> Result<Split> {
    let dataset = match what.data.is_dir() {
        true => Dataset::of_folder(&what.data, None)?,
        false => Dataset::of_files(std::slice::from_ref(&what.data))?,
    };
    let request = Request {
        columns: what.columns.clone(),
        labels: Labels::Required,
        label_set: None,
        kind: None,
    };
    let mut split = read(&dataset, "train", &request)?;
    split.examples.truncate(what.rows);
    Ok(split)
}

/// MiniLM and SST-2 from next to the project, or what the flags name, or with `--smoke` what ships.
fn what(args: &[String]) -> Result<What> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let flag = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).map(PathBuf::from)
    };
    let columns = |text: &str| Columns {
        text: Some(text.into()),
        label: Some("label".into()),
        ..Columns::default()
    };
    if args.iter().any(|arg| arg == "--smoke") {
        let (model, data) = (root.join("models/tiny"), root.join("datasets/tickets"));
        return Ok(What { model, data, columns: columns("text"), rows: 200, steps: 5 });
    }
    let cache = std::env::var_os("LOCAL_HUB_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/local-hub")));
    let near = cache.map(|cache| cache.join("models/sentence-transformers/all-MiniLM-L6-v2"));
    let model = flag("--model").or(near).filter(|path| path.is_dir());
    let data = flag("--data").or(Some(root.join("../shared/hub/datasets/stanfordnlp/sst2")));
    let steps = match flag("--steps") {
        Some(text) => path(&text)?.parse().context("--steps: expected a number")?,
        None => 60,
    };
    let (Some(model), Some(data)) = (model, data.filter(|path| path.exists())) else {
        bail!("give --model DIR (MiniLM) and --data DIR (SST-2), or --smoke for what ships");
    };
    Ok(What { model, data, columns: columns("sentence"), rows: usize::MAX, steps })
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that isn't UTF-8")
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

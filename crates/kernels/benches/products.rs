//! Matrix products at the shapes of an encoder's layers, in f32 and bf16, against what the machine can do at most.
//! `-- --smoke` runs one small shape once, `-- --json --threads 2` prints a line a product for `benches/peer/pair.py`, and
//! `-- --sums --threads 2` how much faster two threads are than one where nothing but the processor decides.

use std::hint::black_box;
use std::time::Instant;

use lowchurn_kernels::{
    Onto, Packed, Threads, View, bf16_path, ceiling_bf16, ceiling_f32, matmul, matmul_bf16,
    matmul_gemm, matrix_path, memory_rate, sums_bf16, sums_f32,
};

const TOKENS: usize = 430;

/// Name, I, O of y (N, O) = x (N, I) · wᵀ.
const LAYERS: [(&str, usize, usize); 6] = [
    ("MiniLM attention", 384, 384),
    ("MiniLM up", 384, 1536),
    ("MiniLM down", 1536, 384),
    ("BERT-base attention", 768, 768),
    ("BERT-base up", 768, 3072),
    ("BERT-base down", 3072, 768),
];

/// N, I and O of a product that libraries are at their best with.
const SQUARE: usize = 2048;

/// A product a (R, I) · b (I, C), as the layer's operands lie in memory.
struct Product {
    name: &'static str,
    a: Vec<f32>,
    a_view: View,
    b: Vec<f32>,
    b_view: View,
}

impl Product {
    fn of(name: &'static str, a_view: View, b_view: View) -> Product {
        let numbers = |n: usize| (0..n).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect();
        let a = numbers(a_view.rows * a_view.columns);
        let b = numbers(b_view.rows * b_view.columns);
        Product { name, a, a_view, b, b_view }
    }

    fn gflop(&self) -> f64 {
        2e-9 * (self.a_view.rows * self.a_view.columns * self.b_view.columns) as f64
    }
}

/// Forward, dx = dy·w and dw = dyᵀ·x.
fn products(n: usize, i: usize, o: usize) -> [Product; 3] {
    let (x, w, dy) = (View::rows_of(n, i), View::rows_of(o, i), View::rows_of(n, o));
    [Product::of("forward", x, w.t()), Product::of("dx", dy, w), Product::of("dw", dy.t(), x)]
}

/// The least that one call of each takes, in turn: whatever else runs on the machine only adds, and to both.
fn seconds_of_both(
    repeats: usize,
    mut first: impl FnMut(),
    mut second: impl FnMut(),
) -> (f64, f64) {
    let time = |_| (seconds(0, &mut first), seconds(0, &mut second));
    (0..=repeats)
        .map(time)
        .fold((f64::INFINITY, f64::INFINITY), |(a, b), (c, d)| (a.min(c), b.min(d)))
}

/// The least that one call takes: whatever else runs on the machine only adds.
fn seconds(repeats: usize, mut call: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64()
    };
    (0..=repeats).map(time).fold(f64::INFINITY, f64::min)
}

struct Row {
    layer: &'static str,
    product: &'static str,
    gflop: f64,
    f32_ceiling: f64,
    f32_seconds: f64,
    gemm_seconds: f64,
    bf16_seconds: f64,
    pack_seconds: f64,
}

fn row(layer: &'static str, product: &Product, threads: usize, repeats: usize) -> Row {
    let Product { name, a, a_view, b, b_view } = product;
    let n = a_view.rows * b_view.columns;
    let mut y = vec![0f32; n + 16];
    // On a cache line.
    let start = y.as_ptr().align_offset(64).min(16);
    let y = &mut y[start..start + n];
    let y_view = View::rows_of(a_view.rows, b_view.columns);
    let mut of_gemm = y.to_vec();
    let ceiling_before = ceiling_f32(threads);
    let (f32_seconds, gemm_seconds) = seconds_of_both(
        repeats,
        || matmul(y, y_view, Onto::Overwrite, a, *a_view, b, *b_view, Threads::All),
        || matmul_gemm(&mut of_gemm, y_view, Onto::Overwrite, a, *a_view, b, *b_view, Threads::All),
    );
    // On both sides of the product: a processor that others use isn't the same a second later.
    let f32_ceiling = ceiling_before.max(ceiling_f32(threads));
    let (left, right) = (Packed::left(a, *a_view), Packed::right(b, *b_view));
    let bf16_seconds = seconds(repeats, || matmul_bf16(y, Onto::Overwrite, &left, &right));
    let pack_seconds = seconds(repeats, || {
        black_box((Packed::left(a, *a_view), Packed::right(b, *b_view)));
    });
    Row {
        layer,
        product: name,
        gflop: product.gflop(),
        f32_ceiling,
        f32_seconds,
        gemm_seconds,
        bf16_seconds,
        pack_seconds,
    }
}

/// All rows of one number of threads.
struct Measured {
    threads: usize,
    /// `None` on a processor without bf16.
    bf16_ceiling: Option<f64>,
    rows: Vec<Row>,
}

fn measure(
    layers: &[(&'static str, usize, usize)],
    tokens: usize,
    threads: usize,
    repeats: usize,
) -> Measured {
    let mut bf16_ceiling: Option<f64> = None;
    let mut rows = Vec::new();
    for &(layer, i, o) in layers {
        // Beside each layer anew: a processor that others use isn't the same a second later.
        let again = ceiling_bf16(threads);
        bf16_ceiling = again.into_iter().chain(bf16_ceiling).reduce(f64::max);
        rows.extend(
            products(tokens, i, o).iter().map(|product| row(layer, product, threads, repeats)),
        );
    }
    if repeats > 1 {
        let [square, ..] = products(SQUARE, SQUARE, SQUARE);
        rows.push(row("square of 2048", &square, threads, repeats / 4));
    }
    Measured { threads, bf16_ceiling, rows }
}

#[expect(clippy::print_stdout, reason = "a bench")]
fn print_json(Measured { threads, bf16_ceiling, rows }: &Measured) {
    let memory = memory_rate(*threads, 64 << 20);
    let bf16_ceiling = bf16_ceiling.map_or("null".into(), |rate| format!("{rate:.1}"));
    for row in rows {
        println!(
            "{{\"threads\": {threads}, \"memory\": {memory:.1}, \"layer\": {:?}, \"product\": {:?}, \"f32_path\": {:?}, \
             \"bf16_path\": {:?}, \"f32_ceiling\": {:.1}, \"bf16_ceiling\": {bf16_ceiling}, \"f32\": {:.1}, \"gemm\": {:.1}, \
             \"bf16\": {:.1}, \"bf16_with_packs\": {:.1}}}",
            row.layer,
            row.product,
            matrix_path(),
            bf16_path(),
            row.f32_ceiling,
            row.gflop / row.f32_seconds,
            row.gflop / row.gemm_seconds,
            row.gflop / row.bf16_seconds,
            row.gflop / (row.bf16_seconds + row.pack_seconds),
        );
    }
}

#[expect(clippy::print_stdout, reason = "a bench")]
fn print(Measured { threads, bf16_ceiling, rows }: &Measured) {
    let bf16_ceiling = bf16_ceiling.unwrap_or(f64::NAN);
    let f32_ceiling = rows.iter().map(|row| row.f32_ceiling).fold(0.0, f64::max);
    println!("\nthreads {threads}, memory {:.1} GB/s; GFLOP/s:", memory_rate(*threads, 64 << 20));
    println!(
        "ceiling f32 {f32_ceiling:.0} ({}), bf16 {bf16_ceiling:.0} ({})",
        matrix_path(),
        bf16_path()
    );
    println!(
        "{:29} {:>14} {:>6} {:>14} {:>10} {:>9}",
        "", "f32", "gemm", "bf16", "with packs", "packs µs"
    );
    for row in rows {
        let (f32_rate, bf16_rate) = (row.gflop / row.f32_seconds, row.gflop / row.bf16_seconds);
        println!(
            "{:20} {:8} {f32_rate:8.0} {:4.0}% {:5.0}% {bf16_rate:8.0} {:4.0}% {:10.0} {:9.0}",
            row.layer,
            row.product,
            100.0 * f32_rate / row.f32_ceiling,
            100.0 * row.gflop / row.gemm_seconds / row.f32_ceiling,
            100.0 * bf16_rate / bf16_ceiling,
            row.gflop / (row.bf16_seconds + row.pack_seconds),
            1e6 * row.pack_seconds,
        );
    }
}

/// The median ratio of a spell of sums in registers on `threads` threads to the spell on one before it. What others leave of a
/// shared processor changes from one second to the next, so that a best says nothing about a minute of training.
fn gain_of_sums(threads: usize, n_spells: usize, sums: impl Fn(usize) -> f64) -> f64 {
    let mut gains: Vec<f64> = (0..n_spells)
        .map(|_| {
            let one = sums(1);
            sums(threads) / one
        })
        .collect();
    gains.sort_by(f64::total_cmp);
    gains[n_spells / 2]
}

#[expect(clippy::print_stdout, reason = "a bench")]
fn print_gains(threads: usize, n_spells: usize) {
    let f32_gain = gain_of_sums(threads, n_spells, sums_f32);
    let bf16_gain = sums_bf16(1)
        .map(|_| gain_of_sums(threads, n_spells, |threads| sums_bf16(threads).unwrap_or(f64::NAN)));
    let bf16_gain = bf16_gain.map_or("null".into(), |gain| format!("{gain:.3}"));
    println!("{{\"threads\": {threads}, \"f32\": {f32_gain:.3}, \"bf16\": {bf16_gain}}}");
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let is_asked = |flag: &str| args.iter().any(|arg| arg == flag);
    let tell = if is_asked("--json") { print_json } else { print };
    let is_smoke = is_asked("--smoke");
    let asked = args.iter().position(|arg| arg == "--threads").and_then(|at| args.get(at + 1));
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = match asked {
        Some(n) => vec![n.parse().expect("--threads N")],
        None => vec![1, all],
    };
    counts.dedup();
    if is_asked("--sums") {
        let most = counts.into_iter().max().unwrap_or(all);
        return print_gains(most, if is_smoke { 3 } else { 101 });
    }
    for threads in counts {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let measured = pool.expect("a pool").install(|| match is_smoke {
            true => measure(&LAYERS[..1], 32, threads, 1),
            false => measure(&LAYERS, TOKENS, threads, 31),
        });
        tell(&measured);
    }
}

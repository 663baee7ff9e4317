//! Matrix products at the shapes of an encoder's layers, in f32 and bf16, against what the machine can do at most.
//! `-- --smoke` runs one small shape once.

use std::hint::black_box;
use std::time::Instant;

use lowchurn_kernels::{
    Onto, Packed, Threads, View, bf16_path, ceiling_bf16, ceiling_f32, matmul, matmul_bf16,
};
use lowchurn_kernels::{matrix_path, memory_rate};

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

/// The median of the seconds that one call takes.
fn seconds(repeats: usize, mut call: impl FnMut()) -> f64 {
    call();
    let mut times: Vec<f64> = (0..repeats)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a bench")]
fn measure(layers: &[(&str, usize, usize)], tokens: usize, threads: usize, repeats: usize) {
    let (f32_ceiling, bf16_ceiling) = (ceiling_f32(threads), ceiling_bf16(threads));
    let memory = memory_rate(threads, 64 << 20);
    println!(
        "\n{threads} threads: f32 {f32_ceiling:.0} GFLOP/s ({}), memory {memory:.1} GB/s",
        matrix_path()
    );
    match bf16_ceiling {
        Some(ceiling) => println!("bf16 {ceiling:.0} GFLOP/s ({})", bf16_path()),
        None => println!("bf16: {}", bf16_path()),
    }
    println!(
        "{:20} {:8} {:>8} {:>5} {:>8} {:>5} {:>8} {:>8}",
        "", "", "f32", "", "bf16", "", "+packs", "packs µs"
    );
    for &(layer, i, o) in layers {
        for product in products(tokens, i, o) {
            let Product { name, a, a_view, b, b_view } = &product;
            let mut y = vec![0f32; a_view.rows * b_view.columns];
            let y_view = View::rows_of(a_view.rows, b_view.columns);
            let f32_seconds = seconds(repeats, || {
                matmul(&mut y, y_view, Onto::Overwrite, a, *a_view, b, *b_view, Threads::All);
            });
            let (left, right) = (Packed::left(a, *a_view), Packed::right(b, *b_view));
            let bf16_seconds =
                seconds(repeats, || matmul_bf16(&mut y, Onto::Overwrite, &left, &right));
            let pack_seconds = seconds(repeats, || {
                black_box((Packed::left(a, *a_view), Packed::right(b, *b_view)));
            });
            let (f32_rate, bf16_rate) =
                (product.gflop() / f32_seconds, product.gflop() / bf16_seconds);
            println!(
                "{layer:20} {name:8} {f32_rate:8.0} {:4.0}% {bf16_rate:8.0} {:4.0}% {:8.0} {:8.0}",
                100.0 * f32_rate / f32_ceiling,
                bf16_ceiling.map_or(0.0, |ceiling| 100.0 * bf16_rate / ceiling),
                product.gflop() / (bf16_seconds + pack_seconds),
                1e6 * pack_seconds,
            );
        }
    }
}

fn main() {
    let is_smoke = std::env::args().any(|arg| arg == "--smoke");
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool").install(|| match is_smoke {
            true => measure(&LAYERS[..1], 32, threads, 1),
            false => measure(&LAYERS, TOKENS, threads, 31),
        });
    }
}

//! Relations between a text's tokens: MiniLMv2's distributions and TinyBERT's scores, with their gradients by hand.

use super::known::{OfText, Rows};

/// MiniLMv2 (Wang et al. 2021, 2012.15828, equation 4), one kind of relation of one text: with the C channels of queries (or
/// keys, or values) split into A heads of d, R = softmax(X_a·X_aᵀ/√d), (n, n), the loss is 1/(A·n)·Σ_a Σ_i KL(R_teacher ‖ R_student).
///
/// Student and teacher may differ in width, and so in d; not in A.
pub(crate) fn relation(student: Rows, teacher: Rows, heads: usize) -> OfText {
    let n = student.n;
    let share = 1.0 / (heads * n) as f64;
    let scale = 1.0 / ((student.c / heads) as f32).sqrt();
    let (mut value, mut gradient) = (0.0, vec![0f32; n * student.c]);
    let (mut s, mut t) = (vec![0f32; n * n], vec![0f32; n * n]); // (n, n), log R
    for head in 0..heads {
        scores(Head::of(student, head, heads), Head::of(student, head, heads), &mut s);
        scores(Head::of(teacher, head, heads), Head::of(teacher, head, heads), &mut t);
        for (s, t) in s.chunks_exact_mut(n).zip(t.chunks_exact_mut(n)) {
            log_softmax(s);
            log_softmax(t);
            for (s, t) in s.iter_mut().zip(t) {
                let (p, q) = (t.exp(), s.exp());
                value += f64::from(p) * (f64::from(*t) - f64::from(*s));
                *s = (q - p) * share as f32; // by the score
            }
        }
        // X stands on both sides of its scores: dX = (dS + dSᵀ)·X/√d.
        let own = Head::of(student, head, heads);
        for i in 0..n {
            let to = own.range(i);
            for j in 0..n {
                let factor = (s[i * n + j] + s[j * n + i]) * scale;
                add_times(&mut gradient[to.clone()], factor, own.row(j));
            }
        }
    }
    OfText { value: value * share, gradient }
}

/// TinyBERT's attention loss (Jiao et al. 2020, 1909.10351, equation 7), one layer of one text: 1/(H·n²)·Σ (S − S_teacher)²
/// with S = Q_h·K_hᵀ/√d before softmax, (n, n). What the gradient is by: queries, then keys.
///
/// Its own code divides by H·T² with T the padded length; here padding doesn't count.
pub(crate) fn attention_scores(
    student: (Rows, Rows),
    teacher: (Rows, Rows),
    heads: usize,
) -> (OfText, OfText) {
    let (queries, keys) = student;
    let n = queries.n;
    let share = 1.0 / (heads * n * n) as f64;
    let scale = 1.0 / ((queries.c / heads) as f32).sqrt();
    let (mut value, mut dq, mut dk) = (0.0, vec![0f32; n * queries.c], vec![0f32; n * queries.c]);
    let (mut s, mut t) = (vec![0f32; n * n], vec![0f32; n * n]); // (n, n)
    for head in 0..heads {
        let (q, k) = (Head::of(queries, head, heads), Head::of(keys, head, heads));
        scores(q, k, &mut s);
        scores(Head::of(teacher.0, head, heads), Head::of(teacher.1, head, heads), &mut t);
        for (s, t) in s.iter_mut().zip(&t) {
            let difference = *s - t;
            value += f64::from(difference) * f64::from(difference);
            *s = 2.0 * difference * share as f32 * scale; // by q·k
        }
        for i in 0..n {
            for j in 0..n {
                let factor = s[i * n + j];
                add_times(&mut dq[q.range(i)], factor, k.row(j));
                add_times(&mut dk[k.range(j)], factor, q.row(i));
            }
        }
    }
    let of_keys = OfText { value: 0.0, gradient: dk };
    (OfText { value: value * share, gradient: dq }, of_keys)
}

/// The channels of one head.
#[derive(Clone, Copy)]
struct Head<'x> {
    x: &'x [f32],
    c: usize,
    first: usize,
    d: usize,
}

impl<'x> Head<'x> {
    fn of(rows: Rows<'x>, head: usize, heads: usize) -> Head<'x> {
        let d = rows.c / heads;
        Head { x: rows.x, c: rows.c, first: head * d, d }
    }

    fn range(self, row: usize) -> std::ops::Range<usize> {
        row * self.c + self.first..row * self.c + self.first + self.d
    }

    fn row(self, row: usize) -> &'x [f32] {
        &self.x[self.range(row)]
    }
}

/// a·bᵀ/√d of n rows each, into (n, n).
fn scores(a: Head, b: Head, to: &mut [f32]) {
    let n = a.x.len() / a.c;
    let scale = 1.0 / (a.d as f32).sqrt();
    for (i, to) in to.chunks_exact_mut(n).enumerate() {
        for (j, to) in to.iter_mut().enumerate() {
            *to = dot(a.row(i), b.row(j)) * scale;
        }
    }
}

/// In eight sums, which the compiler makes one vector of.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

fn add_times(to: &mut [f32], factor: f32, x: &[f32]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * x);
}

fn log_softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = row.iter().map(|x| (x - max).exp()).sum();
    let log_sum = max + sum.ln();
    row.iter_mut().for_each(|x| *x -= log_sum);
}

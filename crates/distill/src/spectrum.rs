//! Eigendirections of a layer's inputs, and how far its weights have gone along each: numbers on the host, no models.
//!
//! Gradient descent fits the top directions of its inputs first; a student that follows a teacher does so more than the
//! teacher did at the same progress (Nagarajan et al. 2023; the linear case is worked out in the tests).

/// Directions v_k, of the largest λ_k first.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// λ_k (C,), mean squares of the inputs along v_k.
    pub values: Vec<f64>,
    /// (C·C), v_k in row k, of length 1; its largest entry is positive.
    pub vectors: Vec<f64>,
}

/// Adds Σ x·xᵀ of rows (N·C) to `sum` (C·C), in the order of the rows. Divided by N it is the uncentred covariance.
pub fn add_second_moment(sum: &mut [f64], rows: &[f32], width: usize) {
    for x in rows.chunks_exact(width) {
        for (line, &a) in sum.chunks_exact_mut(width).zip(x) {
            let a = f64::from(a);
            line.iter_mut().zip(x).for_each(|(s, &b)| *s += a * f64::from(b));
        }
    }
}

/// Sweeps after which rounding is all that is left; ten are usual.
const SWEEPS: usize = 60;

/// Eigenvalues and vectors of a symmetric matrix (C·C) by Jacobi's rotations: some 30·C³ operations, the same bits on every run.
pub fn eigen(matrix: &[f64], width: usize) -> Eigen {
    let n = width;
    let mut a = matrix.to_vec();
    let mut v: Vec<f64> = (0..n * n).map(|at| f64::from(u8::from(at / n == at % n))).collect(); // rows are v_k
    let whole: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..SWEEPS {
        let beside: f64 = (0..n)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| a[i * n + j].powi(2))
            .sum();
        // A whole that overflows or holds no number has no directions to find.
        if !whole.is_finite() || beside <= whole * 1e-30 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut v, n, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| a[j * n + j].total_cmp(&a[i * n + i]));
    let mut vectors = Vec::with_capacity(n * n);
    for &k in &order {
        let row = &v[k * n..(k + 1) * n];
        let largest =
            row.iter().fold(0.0f64, |most, x| if x.abs() > most.abs() { *x } else { most });
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        vectors.extend(row.iter().map(|x| sign * x));
    }
    Eigen { values: order.iter().map(|k| a[k * n + k]).collect(), vectors }
}

/// Turns axes p and q so that a_pq becomes 0 (Golub and Van Loan, 8.5).
fn rotate(a: &mut [f64], v: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let tau = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    let t = if tau >= 0.0 {
        1.0 / (tau + (1.0 + tau * tau).sqrt())
    } else {
        -1.0 / (-tau + (1.0 + tau * tau).sqrt())
    };
    let c = 1.0 / (1.0 + t * t).sqrt();
    let s = t * c;
    let turned = |x: f64, y: f64| (c * x - s * y, s * x + c * y);
    for k in 0..n {
        let (x, y) = turned(a[k * n + p], a[k * n + q]);
        (a[k * n + p], a[k * n + q]) = (x, y);
    }
    for k in 0..n {
        let (x, y) = turned(a[p * n + k], a[q * n + k]);
        (a[p * n + k], a[q * n + k]) = (x, y);
        let (x, y) = turned(v[p * n + k], v[q * n + k]);
        (v[p * n + k], v[q * n + k]) = (x, y);
    }
    (a[p * n + q], a[q * n + p]) = (0.0, 0.0);
}

/// c_k = ‖W·v_k‖ of a weight (O·C), for the first `count` directions.
pub fn along(weight: &[f64], eigen: &Eigen, count: usize) -> Vec<f64> {
    let width = eigen.values.len();
    let of = |v: &[f64]| -> f64 {
        let parts =
            weight.chunks_exact(width).map(|w| w.iter().zip(v).map(|(w, v)| w * v).sum::<f64>());
        parts.map(|part| part * part).sum::<f64>().sqrt()
    };
    eigen.vectors.chunks_exact(width.max(1)).take(count).map(of).collect()
}

/// Where two runs have gone equally far along the first direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matched {
    /// c of the first direction, in both.
    pub first: f64,
    /// c of the other direction, of each.
    pub teacher: f64,
    pub student: f64,
}

impl Matched {
    /// Above 1 the student has done more of its way along the first direction: the bias is exaggerated.
    pub fn ratio(&self) -> Option<f64> {
        let ratio = self.teacher / self.student;
        ratio.is_finite().then_some(ratio)
    }
}

/// Compares two runs, each as (c of the first direction, c of another) by checkpoint, at `share` of the farthest that both have
/// reached along the first one. Between checkpoints the way is a straight line, and where it comes by twice the first time
/// counts. `None` where a run has no two checkpoints or neither has moved.
pub fn matched(teacher: &[[f64; 2]], student: &[[f64; 2]], share: f64) -> Option<Matched> {
    let farthest = |run: &[[f64; 2]]| run.iter().map(|at| at[0]).fold(0.0, f64::max);
    let first = share * farthest(teacher).min(farthest(student));
    let reached = |run: &[[f64; 2]]| -> Option<f64> {
        run.windows(2).find_map(|two| {
            let ([x0, y0], [x1, y1]) = (two[0], two[1]);
            if !(x0 <= first && first <= x1) {
                return None;
            }
            Some(if x1 > x0 { y0 + (y1 - y0) * (first - x0) / (x1 - x0) } else { y1 })
        })
    };
    (first > 0.0)
        .then(|| Some(Matched { first, teacher: reached(teacher)?, student: reached(student)? }))?
}

#[cfg(test)]
mod tests;

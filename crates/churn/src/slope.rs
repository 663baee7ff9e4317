//! A straight line through pairs of numbers by least squares, with an interval of its slope that doesn't ask for equal scatter.

use serde::{Deserialize, Serialize};

use crate::Interval;

/// y = intercept + slope·x over N pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub slope: f64,
    pub intercept: f64,
    /// Of the slope; `None` where the scatter can't be told: two pairs, or one pair that decides the slope alone.
    pub interval: Option<Interval>,
}

/// slope = Σd·(y − ȳ) / S with d = x − x̄ and S = Σd², intercept = ȳ − slope·x̄. `None` for fewer than two pairs or where x is
/// constant.
///
/// The interval is slope ± t·√Var with Var = Σd²·e²/(1 − h)² / S², h = 1/N + d²/S and e the residual: the estimate HC3 (MacKinnon
/// and White 1985), which holds where the scatter changes with x. t has the degrees of freedom of Bell and McCaffrey (2002),
/// rounded down: at few rows, or where few rows decide, the interval is wide. Simulated below.
pub fn line(x: &[f64], y: &[f64], confidence: f64) -> Option<Line> {
    let n = x.len().min(y.len());
    let (x, y) = (&x[..n], &y[..n]);
    if n < 2 {
        return None;
    }
    let (mean_x, mean_y) = (mean(x), mean(y));
    let spread: f64 = x.iter().map(|x| (x - mean_x).powi(2)).sum();
    let scale = x.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    // A constant column may leave the rounding of its mean behind.
    if spread.is_nan() || spread <= n as f64 * (f64::EPSILON * scale).powi(2) {
        return None;
    }
    let both: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let slope = both / spread;
    let intercept = mean_y - slope * mean_x;
    let half = half_width(x, y, (mean_x, mean_y), (slope, spread), confidence);
    let around = |half: f64| Interval { low: slope - half, high: slope + half, confidence };
    Some(Line { slope, intercept, interval: half.filter(|half| half.is_finite()).map(around) })
}

/// t·√Var of [`line`]; `None` where a row decides alone.
fn half_width(
    x: &[f64],
    y: &[f64],
    (mean_x, mean_y): (f64, f64),
    (slope, spread): (f64, f64),
    confidence: f64,
) -> Option<f64> {
    let n = x.len() as f64;
    // With w = d²/S²/(1 − h), the residual maker M and its share G of the estimate, degrees = tr(G)²/tr(G²), and
    // tr(G²) = Σ w²·(1 − 2h) + Σᵢⱼ wᵢwⱼ(1/N + dᵢdⱼ/S)², multiplied out.
    let (mut variance, mut trace, mut own) = (0.0, 0.0, 0.0);
    let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let d = x - mean_x;
        let h = 1.0 / n + d * d / spread;
        if 1.0 - h < 1e-12 {
            return None;
        }
        let residual = y - mean_y - slope * d;
        variance += (d * residual / (1.0 - h)).powi(2);
        let weight = (d / spread).powi(2) / (1.0 - h);
        trace += (d / spread).powi(2);
        own += weight * weight * (1.0 - 2.0 * h);
        sum += weight;
        first += weight * d;
        second += weight * d * d;
    }
    let square =
        own + (sum / n).powi(2) + 2.0 * first * first / (n * spread) + (second / spread).powi(2);
    // A little is added, for a whole number of degrees isn't quite one in floating point.
    let degrees = (trace * trace / square + 1e-6).clamp(1.0, (n - 2.0).max(1.0));
    Some(student_t(degrees as u64, confidence) * variance.sqrt() / spread)
}

/// The mean of N numbers ± t·s/√N with N − 1 degrees of freedom; an interval from two numbers on.
pub fn mean_of(values: &[f64], confidence: f64) -> Option<(f64, Option<Interval>)> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = mean(values);
    let half = (n > 1).then(|| {
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        student_t(n as u64 - 1, confidence) * (squares / (n as f64 - 1.0) / n as f64).sqrt()
    });
    let around = |half: f64| Interval { low: mean - half, high: mean + half, confidence };
    Some((mean, half.filter(|half| half.is_finite()).map(around)))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// More degrees than this change the fifth digit no more.
const MOST_DEGREES: u64 = 10_000;

/// t with P(|T| ≤ t) = confidence, T of Student's distribution with so many degrees of freedom (at least 1). Of more than 10,000
/// it is that of 10,000, which is wider by a part in ten thousand.
pub fn student_t(degrees: u64, confidence: f64) -> f64 {
    let degrees = degrees.clamp(1, MOST_DEGREES);
    // The angle θ = atan(t/√ν) makes a finite line of the infinite one.
    let (mut low, mut high) = (0.0f64, std::f64::consts::FRAC_PI_2);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        match within(middle, degrees) < confidence {
            true => low = middle,
            false => high = middle,
        }
    }
    (degrees as f64).sqrt() * low.tan()
}

/// P(|T| ≤ √ν·tan θ) as a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4).
fn within(theta: f64, degrees: u64) -> f64 {
    let (sin, cos) = theta.sin_cos();
    let odd = degrees % 2 == 1;
    let (mut term, mut sum) = if odd { (cos, cos) } else { (1.0, 1.0) };
    let mut k = if odd { 3 } else { 2 };
    while k < degrees {
        term *= cos * cos * (k - 1) as f64 / k as f64;
        sum += term;
        k += 2;
    }
    match (odd, degrees) {
        (true, 1) => theta * std::f64::consts::FRAC_2_PI,
        (true, _) => (theta + sin * sum) * std::f64::consts::FRAC_2_PI,
        (false, _) => sin * sum,
    }
}

#[cfg(test)]
mod tests {
    use lowchurn_data::Rng;
    use serde_json::Value;

    use super::*;

    fn golden() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/deviation.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    #[test]
    fn quantiles_are_those_of_scipy() {
        let golden = golden();
        let cases = golden["student_t"].as_array().unwrap();
        assert!(cases.len() > 20);
        for case in cases {
            let degrees = case["degrees"].as_u64().unwrap();
            let found = student_t(degrees, case["confidence"].as_f64().unwrap());
            let expected = case["t"].as_f64().unwrap();
            assert!((found / expected - 1.0).abs() < 1e-9, "{case}: {found}");
        }
    }

    #[test]
    fn lines_and_means_are_those_of_numpy() {
        let golden = golden();
        let cases = golden["lines"].as_array().unwrap();
        assert!(cases.len() >= 5);
        for case in cases {
            let (x, y) = (numbers(&case["x"]), numbers(&case["y"]));
            let close = |found: f64, key: &str| {
                let expected = case[key].as_f64().unwrap();
                assert!(
                    (found - expected).abs() < 1e-9 * (1.0 + expected.abs()),
                    "{key} {found} {expected}"
                );
            };
            let found = line(&x, &y, 0.95).unwrap();
            close(found.slope, "slope");
            close(found.intercept, "intercept");
            close(found.interval.unwrap().low, "low");
            close(found.interval.unwrap().high, "high");
            let differences: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y - x).collect();
            let (mean, interval) = mean_of(&differences, 0.95).unwrap();
            close(mean, "mean_deviation");
            close(interval.unwrap().low, "mean_low");
            close(interval.unwrap().high, "mean_high");
        }
    }

    #[test]
    fn what_has_no_slope_or_no_interval() {
        assert_eq!(line(&[1.0], &[2.0], 0.95), None);
        assert_eq!(line(&[0.1; 7], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 0.95), None);
        let two = line(&[0.0, 1.0], &[0.0, 2.0], 0.95).unwrap();
        assert_eq!((two.slope, two.interval), (2.0, None));
        // All but one at one place: the one decides.
        let lever = line(&[0.0, 0.0, 0.0, 1.0], &[0.0, 1.0, -1.0, 5.0], 0.95).unwrap();
        assert_eq!((lever.slope, lever.interval), (5.0, None));
        let flat = line(&[0.0, 1.0, 2.0], &[3.0; 3], 0.95).unwrap();
        let nothing = Interval { low: 0.0, high: 0.0, confidence: 0.95 };
        assert_eq!((flat.slope, flat.interval), (0.0, Some(nothing)));
        assert_eq!(mean_of(&[], 0.95), None);
        assert_eq!(mean_of(&[2.0], 0.95), Some((2.0, None)));
    }

    /// The scatter grows fivefold along x, as it does between models; an interval of equal scatter covers less than it says.
    #[test]
    fn intervals_cover_the_slope_as_often_as_they_say() {
        for n in [12, 40, 200] {
            let (mut covered, mut narrow) = (0, 0);
            for draw in 0..1500 {
                let mut rng = Rng::stream(11, "slopes", draw << 8 | n as u64);
                let x: Vec<f64> = (0..n).map(|_| -rng.uniform().ln()).collect();
                let y: Vec<f64> =
                    x.iter().map(|x| 0.3 + 1.1 * x + (0.2 + x) * rng.normal()).collect();
                let found = line(&x, &y, 0.95).unwrap();
                let interval = found.interval.unwrap();
                covered += u32::from(interval.low <= 1.1 && 1.1 <= interval.high);
                narrow += u32::from(plain(&x, &y, found.slope) >= (found.slope - 1.1).abs());
            }
            let (covered, narrow) = (f64::from(covered) / 1500.0, f64::from(narrow) / 1500.0);
            assert!((0.94..0.975).contains(&covered), "{n}: {covered}");
            assert!(narrow < 0.8, "{n}: {narrow} {covered}");
        }
    }

    /// Half of the interval that takes the scatter as equal.
    fn plain(x: &[f64], y: &[f64], slope: f64) -> f64 {
        let (mean_x, mean_y) = (mean(x), mean(y));
        let spread: f64 = x.iter().map(|x| (x - mean_x).powi(2)).sum();
        let left: f64 =
            x.iter().zip(y).map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
        let degrees = x.len() as u64 - 2;
        student_t(degrees, 0.95) * (left / degrees as f64 / spread).sqrt()
    }
}

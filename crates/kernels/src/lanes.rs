//! Elementwise arithmetic that the compiler turns into wide vectors, and sums with a fixed order.
//!
//! Multiplications and additions are kept apart (no fused multiply–add), so every machine gives the same bytes.

/// Lanes of a sum; also the width of one AVX-512 register.
pub const LANES: usize = 16;

/// Defines a function compiled three times, for AVX-512, AVX2 and the baseline, and chosen at run time.
macro_rules! wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn v4($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn v3($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                use std::arch::is_x86_feature_detected as has;
                if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                    // SAFETY: the features that `v4` is compiled for were found on this machine.
                    return unsafe { v4($($arg),*) };
                }
                if has!("avx2") && has!("fma") {
                    // SAFETY: as above, for `v3`.
                    return unsafe { v3($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use wide;

/// Σ f(x): lane by lane, then the lanes. Over slices, because a sum over indices keeps its bounds checks and stays scalar.
#[inline(always)]
pub fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for lane in 0..LANES {
            lanes[lane] += f(x[lane]);
        }
    }
    lanes.iter_mut().zip(rest).for_each(|(sum, &x)| *sum += f(x));
    total(lanes)
}

/// Σ f(a, b) over two slices of one length, in the same order.
#[inline(always)]
pub fn sum_of_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((whole_a, rest_a), (whole_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    lanes.iter_mut().zip(rest_a.iter().zip(rest_b)).for_each(|(sum, (&a, &b))| *sum += f(a, b));
    total(lanes)
}

/// Sum of the lanes, halves onto halves: four additions deep instead of sixteen.
#[inline(always)]
pub fn total(lanes: [f32; LANES]) -> f32 {
    folded(lanes, |x, other| x + other)
}

/// The largest lane.
#[inline(always)]
pub fn largest(lanes: [f32; LANES]) -> f32 {
    folded(lanes, |x, other| if other > x { other } else { x })
}

/// Halves onto halves, each of them by name: a loop over halves keeps its bounds checks and goes through memory number by number.
#[inline(always)]
fn folded(lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    // Without the box the compiler gives the sums that led here the shape of these pieces, two numbers to a register.
    let lanes = std::hint::black_box(lanes);
    let lanes: [f32; 8] = std::array::from_fn(|lane| f(lanes[lane], lanes[lane + 8]));
    let lanes: [f32; 4] = std::array::from_fn(|lane| f(lanes[lane], lanes[lane + 4]));
    let lanes: [f32; 2] = std::array::from_fn(|lane| f(lanes[lane], lanes[lane + 2]));
    f(lanes[0], lanes[1])
}

/// eˣ within 2 units in the last place for x ≤ 88; smaller than e⁻⁸⁷ counts as e⁻⁸⁷.
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, a polynomial in r, and n put into the exponent.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³: adding and taking it away rounds to a whole number.
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, so that r is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let y = p * r * r + r + 1.0;
    // n stands in the low bits of `shifted`. A cast of n itself checks its range number by number and doesn't vectorise.
    y * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// erf(x), absolute error below 5e-7: an odd rational function, constant beyond |x| = 4.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let x2 = x * x;
    let p = -2.726_142_3e-10;
    let p = p * x2 + 2.770_681_4e-8;
    let p = p * x2 + -2.101_024e-6;
    let p = p * x2 + -5.692_506_4e-5;
    let p = p * x2 + -7.349_906_3e-4;
    let p = p * x2 + -2.954_6e-3;
    let p = p * x2 + -1.609_603_3e-2;
    let q = -1.456_607_2e-5;
    let q = q * x2 + -2.133_740_6e-4;
    let q = q * x2 + -1.682_827e-3;
    let q = q * x2 + -7.373_329e-3;
    let q = q * x2 + -1.426_473_9e-2;
    x * p / q
}

/// tanh(x) = 1 − 2/(e²ˣ + 1), absolute error below 5e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x.clamp(-20.0, 20.0)) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_close_to_f64() {
        let grid = (-900_000..=880_000).map(|i| i as f32 * 1e-4);
        for x in grid {
            let exact = f64::from(x).max(-87.0).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= exact * 2.5e-7, "exp({x})");
            let exact = candle_core::cpu::erf::erf_f64(f64::from(x));
            assert!((f64::from(erf(x)) - exact).abs() < 5e-7, "erf({x}) = {} {exact}", erf(x));
            let exact = f64::from(x).tanh();
            assert!((f64::from(tanh(x)) - exact).abs() < 5e-7, "tanh({x})");
        }
    }

    #[test]
    fn the_largest_lane_wherever_it_is() {
        for at in 0..LANES {
            let lanes: [f32; LANES] =
                std::array::from_fn(|lane| if lane == at { -1.0 } else { -2.0 - lane as f32 });
            assert_eq!(largest(lanes), -1.0);
        }
    }

    #[test]
    fn sums_of_any_length() {
        for n in 0..100usize {
            let x: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32).collect();
            assert_eq!(sum_of(&x, |x| x), x.iter().sum::<f32>());
            let squares = x.iter().map(|x| x * x).sum::<f32>();
            assert_eq!(sum_of_pairs(&x, &x, |a, b| a * b), squares);
        }
    }
}

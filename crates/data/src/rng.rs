//! One seed, many named streams of random numbers whose bits are fixed for ever.
//!
//! Resuming a run asks for `stream(seed, "dropout", step)` and gets the same numbers as the run that was killed, with no
//! generator state on disk. Refuses to be cryptographic. Uses only integer and IEEE-exact float operations: `ln` of the C
//! library differs in its last bit between platforms, so `normal` brings its own.

/// SplitMix64 (Steele, Lea, Flood 2014) started from a hash of seed, name and index.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    /// The stream of one purpose (`name`) at one place (`index`: epoch, step, row, ...).
    pub fn stream(seed: u64, name: &str, index: u64) -> Rng {
        let named = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let state = mix(mix(mix(seed.wrapping_add(GOLDEN_GAMMA)) ^ named).wrapping_add(index));
        Rng { state }
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// Uniform over `0..n` without bias (Lemire 2019: multiply, reject the short remainder); 0 for `n = 0`.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let short = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if (wide as u64) >= short {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Uniform over `[0, 1)` in steps of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal by Marsaglia's polar method; the second number of the pair is thrown away so that there is no state.
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * ln(square) / square).sqrt();
            }
        }
    }

    /// Fisher–Yates from the back.
    pub fn shuffle(&mut self, items: &mut [u32]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

// ln of a positive normal number: x = m·2^e with m in [1, 2), ln m = 2·artanh((m−1)/(m+1)), |.| ≤ 1/3, 17 terms of the series.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let series = (0..17).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * ratio * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_fixed_for_ever() {
        // Checkpoints on users' disks rely on these: a change here breaks every resume.
        let mut rng = Rng::stream(42, "order", 0);
        let drawn: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(
            drawn,
            [4_870_710_389_982_130_861, 17_062_231_273_529_457_413, 16_086_378_345_637_137_124]
        );
        let mut rng = Rng::stream(42, "dropout", 7);
        assert_eq!(rng.below(1000), 698);
        assert_eq!(rng.uniform().to_bits(), 0x3fe1_f3d4_64ba_4325);
        assert_eq!(rng.normal().to_bits(), 0x3fe8_1366_827c_fdbb);
        let mut items: Vec<u32> = (0..8).collect();
        rng.shuffle(&mut items);
        assert_eq!(items, [0, 5, 3, 7, 2, 6, 1, 4]);
    }

    #[test]
    fn splitmix_matches_its_published_sequence() {
        // First outputs of SplitMix64 from state 1234567.
        let mut rng = Rng { state: 1_234_567 };
        let drawn: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(
            drawn,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn own_logarithm_is_the_logarithm() {
        for x in [1e-300, 3e-9, 0.1, 0.5, 0.75, 0.999_999, 1.0, 1.5, 1.999, 12345.678] {
            let error = (ln(x) - f64::ln(x)).abs();
            assert!(error <= 4e-16 * f64::ln(x).abs().max(1.0), "ln({x}) is off by {error}");
        }
    }

    #[test]
    fn streams_differ_and_moments_fit() {
        let first = |seed, name, index| Rng::stream(seed, name, index).next_u64();
        let all = [
            first(1, "a", 0),
            first(2, "a", 0),
            first(1, "b", 0),
            first(1, "a", 1),
            first(0, "", 0),
            first(u64::MAX, "a", u64::MAX),
        ];
        for (at, value) in all.iter().enumerate() {
            assert!(!all[..at].contains(value));
        }
        let n = 200_000;
        let mut rng = Rng::stream(3, "moments", 0);
        let drawn: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = drawn.iter().sum::<f64>() / n as f64;
        let var = drawn.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01 && (var - 1.0).abs() < 0.02, "mean {mean} var {var}");
        let mut counts = [0u32; 6];
        (0..60_000).for_each(|_| counts[rng.below(6) as usize] += 1);
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
    }
}

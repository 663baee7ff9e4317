//! Counter-based randomness for dropout: an element is dropped by its key and its index, never by the order of execution,
//! so a mask needs no storage and is the same for any number of threads and on any device.

/// Hands out one key a dropout site, in call order.
#[derive(Clone, Debug)]
pub struct Keys {
    seed: u64,
    n_taken: u64,
}

/// Drop each element with probability `p`, scale the rest by 1/(1−p).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    pub p: f32,
    pub key: u64,
}

impl Keys {
    pub fn new(seed: u64) -> Keys {
        Keys { seed, n_taken: 0 }
    }

    #[expect(clippy::should_implement_trait, reason = "an endless source, not an iterator")]
    pub fn next(&mut self) -> u64 {
        self.n_taken += 1;
        mix64(self.seed ^ mix64(self.n_taken))
    }
}

impl Dropout {
    /// An element is kept where its 24 random bits are at least this number.
    #[inline(always)]
    pub fn threshold(&self) -> u32 {
        (f64::from(self.p) * f64::from(1u32 << 24)) as u32
    }

    /// The factor of the element at `index`: 0 or 1/(1−p).
    #[inline(always)]
    pub fn factor(&self, index: u32) -> f32 {
        let kept = random_bits(self.key, index) >> 8 >= self.threshold();
        if kept { 1.0 / (1.0 - self.p) } else { 0.0 }
    }
}

/// 32 random bits for an index under a key. Two rounds of a multiply–xorshift mix with a half of the key before each:
/// 32-bit lanes only, so that it vectorises.
#[inline(always)]
pub fn random_bits(key: u64, index: u32) -> u32 {
    mix32(mix32(index.wrapping_mul(0x9E37_79B9) ^ key as u32).wrapping_add((key >> 32) as u32))
}

#[inline(always)]
fn mix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

fn mix64(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share of dropped elements within four standard errors, for neighbouring keys, and neighbouring elements independent.
    #[test]
    fn dropped_share_is_p() {
        let mut keys = Keys::new(7);
        let n = 1u32 << 20;
        for p in [0.1f32, 0.5] {
            for _ in 0..4 {
                let d = Dropout { p, key: keys.next() };
                let dropped = |i: u32| d.factor(i) == 0.0;
                let count = (0..n).filter(|&i| dropped(i)).count() as f64;
                let pairs = (0..n).filter(|&i| dropped(i) && dropped(i ^ 1)).count() as f64;
                let (p, n) = (f64::from(p), f64::from(n));
                let error = |share: f64, p: f64| (share - p).abs() / (p * (1.0 - p) / n).sqrt();
                assert!(error(count / n, p) < 4.0, "{count}");
                // Pairs are counted from both sides, hence twice the variance.
                assert!(error(pairs / n, p * p) < 4.0 * 2f64.sqrt(), "{pairs}");
            }
        }
    }

    #[test]
    fn keys_differ_and_repeat() {
        let take = |seed| {
            let mut keys = Keys::new(seed);
            (0..100).map(|_| keys.next()).collect::<Vec<_>>()
        };
        let all: std::collections::BTreeSet<_> = take(1).into_iter().chain(take(2)).collect();
        assert_eq!(all.len(), 200);
        assert_eq!(take(1), take(1));
    }
}

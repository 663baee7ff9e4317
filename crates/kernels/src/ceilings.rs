//! What this machine can do at most: arithmetic that touches nothing but registers, and memory that only passes by.
//! For benches and for `doctor`; nothing is computed with it.

use std::sync::Barrier;
use std::time::Instant;

/// The best of so many: whatever else runs on the machine only takes away.
const REPEATS: usize = 5;
/// A few milliseconds of any of the loops.
const STEPS: u64 = 1 << 20;

/// GFLOP/s in f32 of `threads` threads at once: the best of a few spells of [`sums_f32`].
pub fn ceiling_f32(threads: usize) -> f64 {
    (0..REPEATS).map(|_| sums_f32(threads)).fold(0.0, f64::max)
}

/// GFLOP/s in bf16 of `threads` threads at once: the best of a few spells of [`sums_bf16`].
pub fn ceiling_bf16(threads: usize) -> Option<f64> {
    (0..REPEATS).filter_map(|_| sums_bf16(threads)).reduce(f64::max)
}

/// GFLOP/s in f32 of `threads` threads at once over one spell of some milliseconds: fused multiply–adds between registers, on
/// the widest that there are.
pub fn sums_f32(threads: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") {
            return rate(threads, x86::AVX512_FLOP, x86::avx512);
        }
        if has!("avx2") && has!("fma") {
            return rate(threads, x86::AVX2_FLOP, x86::avx2);
        }
    }
    rate(threads, PLAIN_FLOP, plain)
}

/// The same in bf16, on what [`crate::matmul_bf16`] runs on; `None` where that is no instruction of the processor's.
pub fn sums_bf16(threads: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        #[cfg(target_os = "linux")]
        if crate::bf16::amx::is_here() {
            return Some(rate(threads, x86::AMX_FLOP, x86::amx));
        }
        if crate::bf16::avx512::is_here() {
            return Some(rate(threads, x86::AVX512_BF16_FLOP, x86::avx512_bf16));
        }
    }
    let _ = threads;
    None
}

/// GB/s that `threads` threads move at once while they read and write `bytes` of memory; both directions count.
pub fn memory_rate(threads: usize, bytes: usize) -> f64 {
    let part = (bytes / 4).div_ceil(threads.max(1));
    let mut parts: Vec<Vec<f32>> = vec![vec![0.0; part]; threads.max(1)];
    let pass = |part: &mut Vec<f32>| part.iter_mut().for_each(|x| *x += 1.0);
    let seconds = (0..=REPEATS).map(|_| together(parts.iter_mut().collect(), pass));
    2.0 * (4 * part * threads.max(1)) as f64 / seconds.fold(f64::INFINITY, f64::min) / 1e9
}

fn rate(threads: usize, flop_a_step: u64, work: fn()) -> f64 {
    let flop = (threads.max(1) as u64 * STEPS * flop_a_step) as f64;
    flop / together(vec![(); threads.max(1)], |()| work()) / 1e9
}

/// Seconds from the first start to the last end, a thread a part.
fn together<P: Send>(parts: Vec<P>, work: impl Fn(P) + Sync) -> f64 {
    let barrier = Barrier::new(parts.len());
    let run = |part: P| {
        barrier.wait();
        let start = Instant::now();
        work(part);
        (start, Instant::now())
    };
    let times: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let started: Vec<_> = parts.into_iter().map(|part| scope.spawn(|| run(part))).collect();
        started.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let first = times.iter().map(|&(start, _)| start).min();
    let last = times.iter().map(|&(_, end)| end).max();
    first.zip(last).map_or(f64::INFINITY, |(first, last)| (last - first).as_secs_f64())
}

const PLAIN_FLOP: u64 = 2 * 64;

/// As wide as the compiler makes it.
fn plain() {
    let mut sums = [0f32; 64];
    let (a, b) = std::hint::black_box((1.0, 0.5));
    for _ in 0..STEPS {
        sums.iter_mut().for_each(|sum| *sum = *sum * a + b);
    }
    std::hint::black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    use super::STEPS;

    /// 24 sums of 16: more than two units of latency four need.
    pub const AVX512_FLOP: u64 = 24 * 16 * 2;
    pub const AVX2_FLOP: u64 = 12 * 8 * 2;
    /// 24 sums of 16, two products each.
    pub const AVX512_BF16_FLOP: u64 = 24 * 16 * 4;
    /// Four tiles of 16 × 16, 32 products each.
    pub const AMX_FLOP: u64 = 4 * 16 * 16 * 32 * 2;

    /// A loop of `STEPS` rounds over registers that were set to zero, which are then given up.
    macro_rules! registers {
        ($zero:literal, $step:literal, [$($sum:tt)*], $a:tt, $b:tt) => {
            asm!(
                $(concat!($zero, " ", $sum, ", ", $sum, ", ", $sum),)*
                concat!($zero, " ", $a, ", ", $a, ", ", $a),
                concat!($zero, " ", $b, ", ", $b, ", ", $b),
                "2:",
                $(concat!($step, " ", $sum, ", ", $a, ", ", $b),)*
                "dec {steps}",
                "jnz 2b",
                steps = inout(reg) STEPS => _,
                $(out($sum) _,)*
                out($a) _,
                out($b) _,
                options(nostack, nomem),
            )
        };
    }

    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    pub fn avx512() {
        // SAFETY: called where AVX-512 was found; only registers are touched, and all are named.
        unsafe {
            registers!(
                "vpxord",
                "vfmadd231ps",
                ["zmm0" "zmm1" "zmm2" "zmm3" "zmm4" "zmm5" "zmm6" "zmm7" "zmm8" "zmm9" "zmm10" "zmm11"
                 "zmm12" "zmm13" "zmm14" "zmm15" "zmm16" "zmm17" "zmm18" "zmm19" "zmm20" "zmm21" "zmm22" "zmm23"],
                "zmm24",
                "zmm25"
            );
        }
    }

    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    pub fn avx512_bf16() {
        // SAFETY: as in `avx512`, where AVX-512-BF16 was found.
        unsafe {
            registers!(
                "vpxord",
                "vdpbf16ps",
                ["zmm0" "zmm1" "zmm2" "zmm3" "zmm4" "zmm5" "zmm6" "zmm7" "zmm8" "zmm9" "zmm10" "zmm11"
                 "zmm12" "zmm13" "zmm14" "zmm15" "zmm16" "zmm17" "zmm18" "zmm19" "zmm20" "zmm21" "zmm22" "zmm23"],
                "zmm24",
                "zmm25"
            );
        }
    }

    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    pub fn avx2() {
        // SAFETY: as in `avx512`, where AVX2 and FMA were found.
        unsafe {
            registers!(
                "vxorps",
                "vfmadd231ps",
                ["ymm0" "ymm1" "ymm2" "ymm3" "ymm4" "ymm5" "ymm6" "ymm7" "ymm8" "ymm9" "ymm10" "ymm11"],
                "ymm12",
                "ymm13"
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    pub fn amx() {
        let _tiles = crate::bf16::amx::Tiles::configure();
        // SAFETY: the tiles are configured; only registers are touched, and all are named.
        unsafe {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {steps}",
                "jnz 2b",
                steps = inout(reg) STEPS => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_bf16_ceiling_exactly_where_an_instruction_is() {
        assert_eq!(ceiling_bf16(2).is_some(), crate::bf16_path() != "portable");
        assert!(ceiling_bf16(2).is_none_or(|rate| rate.is_finite() && rate > 0.0));
        assert!(ceiling_f32(2).is_finite() && ceiling_f32(2) > 0.0);
        assert!(memory_rate(2, 1 << 20).is_finite() && memory_rate(0, 1 << 20) > 0.0);
    }
}

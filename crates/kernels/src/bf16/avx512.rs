//! Rounding, layout and products on AVX-512-BF16.

#[cfg(not(target_arch = "x86_64"))]
mod elsewhere {
    use crate::bf16::Square;
    use crate::bf16::pack::{Part, Tile};

    pub fn is_here() -> bool {
        false
    }

    pub fn convert(_: &mut Tile, _: Part<'_>, _: bool, _: bool) {
        unreachable!("no AVX-512 on this processor")
    }

    /// # Safety
    /// It is never called.
    #[expect(unsafe_code, reason = "the same signature as elsewhere")]
    pub unsafe fn multiply(_: &Square) {
        unreachable!("no AVX-512 on this processor")
    }
}
#[cfg(not(target_arch = "x86_64"))]
pub use elsewhere::{convert, is_here, multiply};
#[cfg(target_arch = "x86_64")]
pub use here::{convert, is_here, multiply, transposed};

#[cfg(target_arch = "x86_64")]
mod here {
    use std::arch::x86_64::*;

    use crate::bf16::pack::{Part, Tile};
    use crate::bf16::{DEPTH, SIDE, STEP, Square, TILE};

    pub fn is_here() -> bool {
        use std::arch::is_x86_feature_detected as has;
        has!("avx512f") && has!("avx512bw") && has!("avx512bf16")
    }

    /// What `pack::convert` does, for parts of any size.
    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    pub fn convert(tile: &mut Tile, part: Part<'_>, is_along: bool, is_turned: bool) {
        assert!(is_here());
        // SAFETY: the features were found.
        let rows = unsafe { if is_along { along(part) } else { across(part) } };
        // SAFETY: as above.
        unsafe { store(tile, if is_turned { transposed(rows) } else { rows }) };
    }

    /// Lanes that hold something, of the 16 from `from` on.
    fn mask(n: usize, from: usize) -> __mmask16 {
        let n = n.saturating_sub(from).min(16);
        ((1u32 << n) - 1) as u16
    }

    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "a load under a mask")]
    fn load(x: &[f32], start: usize, mask: __mmask16) -> __m512 {
        assert!(mask == 0 || start + (16 - mask.leading_zeros() as usize) <= x.len());
        // SAFETY: lanes under the mask lie inside x (asserted), and no other lane is touched.
        unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr().wrapping_add(start)) }
    }

    /// Asks for what the next step of I loads: its lines lie in more pages than the processor foresees by itself.
    #[expect(unsafe_code, reason = "a hint")]
    #[inline(always)]
    fn fetch(x: &[f32], start: usize) {
        // SAFETY: the instruction loads nothing and ignores addresses that are not there.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(start).cast()) }
    }

    /// A word a pair of neighbours: the layout where I has stride 1.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn along(part: Part<'_>) -> [__m512i; SIDE] {
        let masks = [mask(part.n_inner, 0), mask(part.n_inner, 16)];
        let mut rows = [_mm512_setzero_si512(); SIDE];
        for (r, row) in rows.iter_mut().enumerate().take(part.n_outer) {
            fetch(part.x, r * part.stride + DEPTH);
            fetch(part.x, r * part.stride + DEPTH + 16);
            let low = load(part.x, r * part.stride, masks[0]);
            let high = load(part.x, r * part.stride + 16, masks[1]);
            *row = bits(_mm512_cvtne2ps_pbh(high, low));
        }
        rows
    }

    /// A word two neighbours in I, from two rows of x.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn across(part: Part<'_>) -> [__m512i; SIDE] {
        let mask = mask(part.n_outer, 0);
        let alternate = alternate();
        let mut rows = [_mm512_setzero_si512(); SIDE];
        let line = |inner: usize| {
            let mask = if inner < part.n_inner { mask } else { 0 };
            fetch(part.x, (inner + DEPTH) * part.stride);
            load(part.x, inner * part.stride, mask)
        };
        for (pair, row) in rows.iter_mut().enumerate() {
            let both = _mm512_cvtne2ps_pbh(line(2 * pair + 1), line(2 * pair));
            *row = _mm512_permutexvar_epi16(alternate, bits(both));
        }
        rows
    }

    /// 0, 16, 1, 17, ..: the halves of a register in turn.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn alternate() -> __m512i {
        let counts: [i16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as i16);
        load_words(&counts)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[expect(unsafe_code, reason = "a load")]
    fn load_words(words: &[i16; 32]) -> __m512i {
        // SAFETY: 64 bytes.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[expect(unsafe_code, reason = "the intrinsics have no cast between their types")]
    fn bits(x: __m512bh) -> __m512i {
        // SAFETY: both are 64 bytes of which any value is valid.
        unsafe { std::mem::transmute(x) }
    }

    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "stores")]
    fn store(tile: &mut Tile, rows: [__m512i; SIDE]) {
        for (to, row) in tile.iter_mut().zip(rows) {
            // SAFETY: a row of a tile is 64 bytes.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), row) };
        }
    }

    /// 16 × 16 words: within quarters of registers, then whole quarters.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn transposed(x: [__m512i; SIDE]) -> [__m512i; SIDE] {
        let mut y = x;
        for i in (0..SIDE).step_by(4) {
            let a = _mm512_unpacklo_epi32(x[i], x[i + 1]);
            let b = _mm512_unpackhi_epi32(x[i], x[i + 1]);
            let c = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]);
            let d = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
            y[i] = _mm512_unpacklo_epi64(a, c);
            y[i + 1] = _mm512_unpackhi_epi64(a, c);
            y[i + 2] = _mm512_unpacklo_epi64(b, d);
            y[i + 3] = _mm512_unpackhi_epi64(b, d);
        }
        // y[4·i + j], quarter q: rows 4·i.. of column 4·q + j.
        let mut z = y;
        for j in 0..4 {
            let even = _mm512_shuffle_i32x4::<0x88>(y[j], y[4 + j]);
            let odd = _mm512_shuffle_i32x4::<0xdd>(y[j], y[4 + j]);
            let even_below = _mm512_shuffle_i32x4::<0x88>(y[8 + j], y[12 + j]);
            let odd_below = _mm512_shuffle_i32x4::<0xdd>(y[8 + j], y[12 + j]);
            z[j] = _mm512_shuffle_i32x4::<0x88>(even, even_below);
            z[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even, even_below);
            z[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd, odd_below);
            z[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_below);
        }
        z
    }

    /// Rows whose sums are in registers at once: 2 · 8 sums, 2 of the right operand.
    const ROWS: usize = 8;

    /// 32 × 32 elements of y.
    ///
    /// # Safety
    /// The processor has it ([`is_here`]); 32 rows of 32 elements lie at `square.y`, `square.y_stride` apart, and nobody
    /// else has them.
    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    pub unsafe fn multiply(square: &Square) {
        for r in (0..2 * SIDE).step_by(ROWS) {
            // SAFETY: by this function's own conditions.
            unsafe { rows(square, r) };
        }
    }

    /// Eight rows of y, from `r` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[expect(unsafe_code, reason = "loads and stores through a pointer")]
    unsafe fn rows(square: &Square, r: usize) {
        let y = |row: usize, half: usize| {
            // SAFETY: inside the 32 rows of 32.
            unsafe { square.y.add((r + row) * square.y_stride + half * SIDE) }
        };
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        if let Some((from, stride)) = square.from {
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as above, for the rows at `from`.
                *sums = unsafe {
                    let from = from.add((r + row) * stride);
                    [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(SIDE))]
                };
            }
        }
        let steps = square.left.chunks_exact(STEP).zip(square.right.chunks_exact(STEP));
        for (left, right) in steps {
            let left = &left[r * SIDE..][..ROWS * SIDE];
            let (first, second) = right.split_at(TILE);
            for pair in 0..SIDE {
                let b = [line(first, pair), line(second, pair)];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = pairs(_mm512_set1_epi32(left[row * SIDE + pair] as i32));
                    sums[0] = _mm512_dpbf16_ps(sums[0], a, b[0]);
                    sums[1] = _mm512_dpbf16_ps(sums[1], a, b[1]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            // SAFETY: as above.
            unsafe {
                _mm512_storeu_ps(y(row, 0), sums[0]);
                _mm512_storeu_ps(y(row, 1), sums[1]);
            }
        }
    }

    /// A row of a right tile.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[expect(unsafe_code, reason = "a load")]
    fn line(tile: &[u32], pair: usize) -> __m512bh {
        let line = &tile[pair * SIDE..][..SIDE];
        // SAFETY: 64 bytes.
        pairs(unsafe { _mm512_loadu_si512(line.as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[expect(unsafe_code, reason = "the intrinsics have no cast between their types")]
    fn pairs(x: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes of which any value is valid.
        unsafe { std::mem::transmute(x) }
    }
}

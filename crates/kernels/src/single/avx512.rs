//! Layout and products in f32 on AVX-512.

#[cfg(not(target_arch = "x86_64"))]
mod elsewhere {
    use crate::single::{Part, Tile};

    pub fn is_here() -> bool {
        false
    }

    pub fn pack(_: &mut [f32], _: Part<'_>) {
        unreachable!("no AVX-512 on this processor")
    }

    pub fn prefetch(_: &[f32], _: usize) {
        unreachable!("no AVX-512 on this processor")
    }

    /// # Safety
    /// It is never called.
    #[expect(unsafe_code, reason = "the same signature as elsewhere")]
    pub unsafe fn multiply(_: &Tile) {
        unreachable!("no AVX-512 on this processor")
    }
}
#[cfg(not(target_arch = "x86_64"))]
pub use elsewhere::{is_here, multiply, pack, prefetch};
#[cfg(target_arch = "x86_64")]
pub use here::{is_here, multiply, pack, prefetch};

#[cfg(target_arch = "x86_64")]
mod here {
    use std::arch::x86_64::*;

    use crate::matmul::Onto;
    use crate::single::{COLUMNS, Part, ROWS, Tile};

    /// Numbers in a register.
    const LANES: usize = 16;
    /// Registers across a tile: 8 · 3 sums, 3 of the right operand and 1 of the left one at a time are 28 of 32.
    const ACROSS: usize = COLUMNS / LANES;
    /// Elements of I between branches.
    const UNROLLED: usize = 4;
    /// Elements of I by which a left operand whose lines lie across I is fetched into the first cache ahead of its use. Lines along
    /// I the processor foresees.
    const AHEAD_ACROSS: usize = 32;

    pub fn is_here() -> bool {
        std::arch::is_x86_feature_detected!("avx512f")
    }

    /// The lowest lanes, 16 at most.
    fn mask(n: usize) -> __mmask16 {
        ((1u32 << n.min(LANES)) - 1) as u16
    }

    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "a load under a mask")]
    fn load(x: &[f32], start: usize, n: usize) -> __m512 {
        let n = n.min(LANES);
        assert!(n == 0 || start + n <= x.len());
        // SAFETY: the lowest n lanes lie inside x (asserted), and no other lane is touched.
        unsafe { _mm512_maskz_loadu_ps(mask(n), x.as_ptr().wrapping_add(start)) }
    }

    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "a store")]
    fn store(to: &mut [f32], x: __m512) {
        // SAFETY: 16 numbers.
        unsafe { _mm512_storeu_ps(to[..LANES].as_mut_ptr(), x) };
    }

    /// Element (column, inner) of `part` goes to `panel[inner · 48 + column]`, zeros behind the last column.
    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    pub fn pack(panel: &mut [f32], part: Part<'_>) {
        assert!(is_here());
        // SAFETY: the feature was found.
        unsafe { if part.is_along { pack_along(panel, part) } else { pack_across(panel, part) } };
    }

    /// Through transposed squares.
    #[target_feature(enable = "avx512f")]
    fn pack_along(panel: &mut [f32], part: Part<'_>) {
        for (first, squares) in
            (0..part.n_inner).step_by(LANES).zip(panel.chunks_mut(LANES * COLUMNS))
        {
            let n = LANES.min(part.n_inner - first);
            for side in (0..COLUMNS).step_by(LANES) {
                let mut rows = [_mm512_setzero_ps(); LANES];
                let n_rows = part.n_outer.saturating_sub(side);
                for (r, row) in rows.iter_mut().enumerate().take(n_rows) {
                    *row = load(part.x, (side + r) * part.stride + first, n);
                }
                for (to, column) in squares.chunks_exact_mut(COLUMNS).zip(transposed(rows)) {
                    store(&mut to[side..], column);
                }
            }
        }
    }

    /// Rows are copied.
    #[target_feature(enable = "avx512f")]
    fn pack_across(panel: &mut [f32], part: Part<'_>) {
        for (i, to) in panel.chunks_exact_mut(COLUMNS).enumerate() {
            for (side, to) in to.chunks_exact_mut(LANES).enumerate() {
                let side = side * LANES;
                store(to, load(part.x, i * part.stride + side, part.n_outer.saturating_sub(side)));
            }
        }
    }

    /// 16 × 16 numbers: within quarters of registers, then whole quarters.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transposed(x: [__m512; LANES]) -> [__m512; LANES] {
        let mut y = x;
        for i in (0..LANES).step_by(4) {
            let low = _mm512_castps_pd(_mm512_unpacklo_ps(x[i], x[i + 1]));
            let high = _mm512_castps_pd(_mm512_unpackhi_ps(x[i], x[i + 1]));
            let low_below = _mm512_castps_pd(_mm512_unpacklo_ps(x[i + 2], x[i + 3]));
            let high_below = _mm512_castps_pd(_mm512_unpackhi_ps(x[i + 2], x[i + 3]));
            y[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, low_below));
            y[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, low_below));
            y[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, high_below));
            y[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, high_below));
        }
        // y[4·i + j], quarter q: rows 4·i.. of column 4·q + j.
        let mut z = y;
        for j in 0..4 {
            let even = _mm512_shuffle_f32x4::<0x88>(y[j], y[4 + j]);
            let odd = _mm512_shuffle_f32x4::<0xdd>(y[j], y[4 + j]);
            let even_below = _mm512_shuffle_f32x4::<0x88>(y[8 + j], y[12 + j]);
            let odd_below = _mm512_shuffle_f32x4::<0xdd>(y[8 + j], y[12 + j]);
            z[j] = _mm512_shuffle_f32x4::<0x88>(even, even_below);
            z[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even, even_below);
            z[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd, odd_below);
            z[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_below);
        }
        z
    }

    /// Asks for the cache line of `x[at]`, into the second cache.
    #[expect(unsafe_code, reason = "an instruction")]
    pub fn prefetch(x: &[f32], at: usize) {
        // SAFETY: every x86-64 processor has it, and it reads nothing, so that any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(x.as_ptr().wrapping_add(at).cast()) };
    }

    /// Up to 8 × 48 elements of y.
    ///
    /// # Safety
    /// The processor has it ([`is_here`]); `tile.left.n_outer` rows of `tile.n_columns` elements lie at `tile.y`,
    /// `tile.y_stride` apart, and nobody else has them.
    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    pub unsafe fn multiply(tile: &Tile) {
        // SAFETY: by this function's own conditions.
        unsafe {
            match tile.left.n_outer {
                1 => rows::<1>(tile),
                2 => rows::<2>(tile),
                3 => rows::<3>(tile),
                4 => rows::<4>(tile),
                5 => rows::<5>(tile),
                6 => rows::<6>(tile),
                7 => rows::<7>(tile),
                _ => rows::<ROWS>(tile),
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "loads and stores through pointers")]
    unsafe fn rows<const R: usize>(tile: &Tile) {
        let (left, n_inner) = (tile.left, tile.left.n_inner);
        assert!(R <= left.n_outer && left.fits() && tile.right.len() >= n_inner * COLUMNS);
        let y = |row: usize, at: usize| tile.y.wrapping_add(row * tile.y_stride + at * LANES);
        // SAFETY: `left` fits (asserted), and the right slice is long enough (asserted).
        let sums = unsafe {
            match left.is_along {
                true => along::<R>(left.x.as_ptr(), left.stride, tile.right.as_ptr(), n_inner),
                false => across::<R>(left.x.as_ptr(), left.stride, tile.right.as_ptr(), n_inner),
            }
        };
        for (row, sums) in sums.iter().enumerate() {
            for (at, &sum) in sums.iter().enumerate() {
                let mask = mask(tile.n_columns.saturating_sub(at * LANES));
                // SAFETY: what is under the mask lies in the tile's rows of y.
                unsafe {
                    let sum = match tile.onto {
                        Onto::Overwrite => sum,
                        Onto::Add => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y(row, at)), sum),
                    };
                    _mm512_mask_storeu_ps(y(row, at), mask, sum);
                }
            }
        }
    }

    type Sums<const R: usize> = [[__m512; ACROSS]; R];

    /// One element of I: row r of the left operand at `left[r · row_stride]`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "loads through pointers")]
    unsafe fn one<const R: usize>(
        sums: &mut Sums<R>,
        left: *const f32,
        row_stride: usize,
        right: *const f32,
    ) {
        // SAFETY: the caller's R numbers of the left operand and 48 of the right one.
        unsafe {
            let b: [__m512; ACROSS] =
                std::array::from_fn(|at| _mm512_loadu_ps(right.add(at * LANES)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*left.add(row * row_stride));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_fmadd_ps(a, b, *sum);
                }
            }
        }
    }

    /// Rows of the left operand are `stride` apart, and a line of each is used 16 times.
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "loads through pointers")]
    unsafe fn along<const R: usize>(
        left: *const f32,
        stride: usize,
        right: *const f32,
        n: usize,
    ) -> Sums<R> {
        let mut sums = [[_mm512_setzero_ps(); ACROSS]; R];
        let (mut left, mut right) = (left, right);
        for _ in 0..n / UNROLLED {
            for _ in 0..UNROLLED {
                // SAFETY: the caller's n elements of I.
                unsafe {
                    one(&mut sums, left, stride, right);
                    (left, right) = (left.add(1), right.add(COLUMNS));
                }
            }
        }
        for _ in 0..n % UNROLLED {
            // SAFETY: as above.
            unsafe { one(&mut sums, left, stride, right) };
            (left, right) = (left.wrapping_add(1), right.wrapping_add(COLUMNS));
        }
        sums
    }

    /// Elements of I of the left operand are `stride` apart, each a line of its own.
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "loads through pointers")]
    unsafe fn across<const R: usize>(
        left: *const f32,
        stride: usize,
        right: *const f32,
        n: usize,
    ) -> Sums<R> {
        let mut sums = [[_mm512_setzero_ps(); ACROSS]; R];
        let (mut left, mut right) = (left, right);
        for _ in 0..n / UNROLLED {
            for _ in 0..UNROLLED {
                _mm_prefetch::<_MM_HINT_T0>(
                    left.wrapping_add(AHEAD_ACROSS.wrapping_mul(stride)).cast(),
                );
                // SAFETY: the caller's n elements of I.
                unsafe { one(&mut sums, left, 1, right) };
                (left, right) = (left.wrapping_add(stride), right.wrapping_add(COLUMNS));
            }
        }
        for _ in 0..n % UNROLLED {
            // SAFETY: as above.
            unsafe { one(&mut sums, left, 1, right) };
            (left, right) = (left.wrapping_add(stride), right.wrapping_add(COLUMNS));
        }
        sums
    }
}

//! Products on AMX: eight tile registers of 1 KiB, reached through inline assembly, on Linux.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod elsewhere {
    use crate::bf16::Square;

    pub struct Tiles;

    impl Tiles {
        pub fn configure() -> Tiles {
            Tiles
        }
    }

    pub fn is_here() -> bool {
        false
    }

    /// # Safety
    /// It is never called.
    #[expect(unsafe_code, reason = "the same signature as elsewhere")]
    pub unsafe fn multiply(_: &Square) {
        unreachable!("no AMX on this processor")
    }
}
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub use elsewhere::{Tiles, is_here, multiply};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use here::{Tiles, is_here, multiply};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod here {
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;

    use crate::bf16::{SIDE, STEP, Square};

    /// Whether the processor has AMX-BF16 and the kernel lets this process use it. The kernel is asked once, for all threads.
    pub fn is_here() -> bool {
        static IS_HERE: OnceLock<bool> = OnceLock::new();
        *IS_HERE.get_or_init(|| is_built_in() && is_permitted())
    }

    #[allow(unsafe_code, unused_unsafe)] // Newer compilers call `__cpuid_count` safe.
    fn is_built_in() -> bool {
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        // SAFETY: every x86-64 processor has the instruction.
        let (most, extended) = unsafe { (__cpuid_count(0, 0).eax, __cpuid_count(7, 0).edx) };
        most >= 7 && extended & AMX_BF16 != 0 && extended & AMX_TILE != 0
    }

    /// Linux gives the 8 KiB of tile state only to processes that ask for it.
    #[expect(unsafe_code, reason = "a system call")]
    fn is_permitted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const XTILEDATA: u64 = 18;
        let result: i64;
        // SAFETY: the call takes two numbers, writes no memory of ours, and clobbers rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XTILEDATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    /// This thread's tile registers, all of 16 rows of 64 bytes, until it is dropped: a thread with tiles in use costs the
    /// kernel 8 KiB more at each switch.
    pub struct Tiles(());

    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    impl Tiles {
        #[expect(unsafe_code, reason = "an instruction that not every processor has")]
        pub fn configure() -> Tiles {
            assert!(is_here());
            let mut configuration = Configuration {
                palette: 1,
                start_row: 0,
                reserved: [0; 14],
                row_bytes: [0; 16],
                rows: [0; 16],
            };
            configuration.row_bytes[..8].fill(64);
            configuration.rows[..8].fill(SIDE as u8);
            // SAFETY: AMX is there, and 64 bytes of a valid configuration are read.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, readonly, preserves_flags));
            }
            Tiles(())
        }
    }

    impl Drop for Tiles {
        #[expect(unsafe_code, reason = "an instruction that not every processor has")]
        fn drop(&mut self) {
            // SAFETY: AMX is there: `configure` has used it.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
        }
    }

    /// 32 × 32 elements of y: four tiles of sums, two of each operand.
    ///
    /// # Safety
    /// This thread has [`Tiles`]; 32 rows of 32 elements lie at `square.y`, `square.y_stride` apart, and nobody else has
    /// them.
    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    pub unsafe fn multiply(square: &Square) {
        let n_steps = square.left.len() / STEP;
        assert!(n_steps > 0 && square.right.len() >= n_steps * STEP);
        let is_added = u64::from(square.from.is_some());
        let (from, from_stride) = square.from.unwrap_or((square.y, 0));
        // SAFETY: reads n_steps · 2 tiles from each of two slices (asserted) and 2 × 2 tiles at `from`, writes as many of y.
        unsafe {
            asm!(
                "test {is_added}, {is_added}",
                "jz 2f",
                "tileloadd tmm0, [{from} + {from_stride}]",
                "tileloadd tmm1, [{from} + {from_stride} + 64]",
                "tileloadd tmm2, [{from_below} + {from_stride}]",
                "tileloadd tmm3, [{from_below} + {from_stride} + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                "tileloadd tmm4, [{left} + {row}]",
                "tileloadd tmm6, [{right} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{left} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {left}, 2048",
                "add {right}, 2048",
                "dec {n_steps}",
                "jnz 3b",
                "tilestored [{y} + {y_stride}], tmm0",
                "tilestored [{y} + {y_stride} + 64], tmm1",
                "tilestored [{y_below} + {y_stride}], tmm2",
                "tilestored [{y_below} + {y_stride} + 64], tmm3",
                left = inout(reg) square.left.as_ptr() => _,
                right = inout(reg) square.right.as_ptr() => _,
                n_steps = inout(reg) n_steps => _,
                y = in(reg) square.y,
                y_below = in(reg) square.y.add(SIDE * square.y_stride),
                y_stride = in(reg) square.y_stride * 4,
                from = in(reg) from,
                from_below = in(reg) from.add(SIDE * from_stride),
                from_stride = in(reg) from_stride * 4,
                row = in(reg) 64usize,
                is_added = in(reg) is_added,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

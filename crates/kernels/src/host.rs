//! f32 slices out of candle's CPU tensors, and tensors out of vectors.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};

/// Elementwise work is cut into blocks of this many elements: large against a task's cost, small against a cache.
/// Fixed, because block borders decide the order of sums.
pub const BLOCK: usize = 1 << 14;

/// Whether the fused form applies: f32 on the CPU.
pub fn is_fused(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu) && x.dtype() == DType::F32
}

/// The elements of a contiguous operand inside an op.
pub fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("operand is not contiguous")
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// A borrowed view of a tensor's elements; holds the storage's read lock.
struct Host<G> {
    guard: G,
    range: Range<usize>,
}

/// The elements of a contiguous f32 CPU tensor.
pub fn host(x: &Tensor) -> Result<impl Deref<Target = [f32]> + '_> {
    let (guard, layout) = x.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("operand is not contiguous")
    };
    match &*guard {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(Host { guard, range: start..end }),
        _ => bail!("expected an f32 tensor on the CPU"),
    }
}

impl<G: Deref<Target = Storage>> Deref for Host<G> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.guard {
            Storage::Cpu(CpuStorage::F32(all)) => &all[self.range.clone()],
            _ => &[], // `host` lets nothing else through.
        }
    }
}

/// What an op returns for a vector of results.
pub fn output(data: Vec<f32>, shape: &Shape) -> (CpuStorage, Shape) {
    (CpuStorage::F32(data), shape.clone())
}

pub fn tensor(data: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(data, like.shape(), &Device::Cpu)
}

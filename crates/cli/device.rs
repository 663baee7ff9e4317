//! Which device runs, in which precision: what was asked for, or why it can't.

use anyhow::Result;
use candle_core::Device;
use lowchurn_distill::device_kind;
use lowchurn_kernels::{Precision, bf16_path};

use crate::console::Console;
use crate::failure::Usage;

/// Where models run, and what their matrix products are made of.
pub struct Compute {
    pub device: Device,
    pub precision: Precision,
}

impl Compute {
    /// Says so where the precision that was asked for is the slower one here.
    pub fn open(name: &str, precision: Precision, console: &mut Console) -> Result<Compute> {
        let device = open(name)?;
        if let Some(note) = slow_note(device_kind(&device), precision, bf16_path()) {
            console.say(note);
        }
        Ok(Compute { device, precision })
    }
}

/// What the kernels call products without an instruction for them.
pub const PORTABLE: &str = "portable";

fn slow_note(device: &str, precision: Precision, path: &str) -> Option<&'static str> {
    let is_slow = precision == Precision::Bf16 && device == "cpu" && path == PORTABLE;
    is_slow.then_some(
        "--bf16: this processor has no bf16 products (AMX-BF16 or AVX-512-BF16), so they run portably: right, but slower \
         than f32",
    )
}

/// The flag of verbs that only score.
pub fn precision(bf16: bool) -> Precision {
    if bf16 { Precision::Bf16 } else { Precision::F32 }
}

/// `auto` takes the best device that is built in and there; a device that is named must be both.
pub fn open(name: &str) -> Result<Device> {
    match name {
        "auto" => Ok(best()),
        "cpu" => Ok(Device::Cpu),
        "metal" => metal(),
        _ => match name.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest)) {
            Some("") => cuda(0),
            Some(ordinal) => match ordinal.parse() {
                Ok(ordinal) => cuda(ordinal),
                Err(_) => Err(unknown(name)),
            },
            None => Err(unknown(name)),
        },
    }
}

fn best() -> Device {
    let built_in = [cuda as fn(usize) -> Result<Device>, |_| metal()];
    built_in.iter().find_map(|open| open(0).ok()).unwrap_or(Device::Cpu)
}

fn unknown(name: &str) -> anyhow::Error {
    Usage(format!("--device {name}: expected auto, cpu, cuda, cuda:N or metal")).into()
}

fn cuda(ordinal: usize) -> Result<Device> {
    if !cfg!(feature = "cuda") {
        return Err(not_built("cuda"));
    }
    let missing =
        |error| Usage(format!("--device cuda:{ordinal} is built in, but isn't there: {error}"));
    Ok(Device::new_cuda(ordinal).map_err(missing)?)
}

fn metal() -> Result<Device> {
    if !cfg!(feature = "metal") {
        return Err(not_built("metal"));
    }
    let missing = |error| Usage(format!("--device metal is built in, but isn't there: {error}"));
    Ok(Device::new_metal(0).map_err(missing)?)
}

fn not_built(name: &str) -> anyhow::Error {
    let how = format!("build it with: cargo build --release --features {name}");
    Usage(format!("--device {name} isn't in this build; {how}, or use --device cpu")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_products_are_told_of() {
        let note = "--bf16: this processor has no bf16 products (AMX-BF16 or AVX-512-BF16), so they run portably: right, but \
                    slower than f32";
        assert_eq!(slow_note("cpu", Precision::Bf16, "portable"), Some(note));
        assert_eq!(slow_note("cpu", Precision::F32, "portable"), None);
        assert_eq!(slow_note("cpu", Precision::Bf16, "AMX-BF16"), None);
        assert_eq!(slow_note("cuda", Precision::Bf16, "portable"), None);
    }

    #[test]
    fn devices() {
        assert!(matches!(open("cpu").unwrap(), Device::Cpu));
        let check = |name: &str, message: &str| {
            assert_eq!(open(name).unwrap_err().to_string(), message);
        };
        for name in ["gpu", "cuda:x", "cudax"] {
            check(name, &format!("--device {name}: expected auto, cpu, cuda, cuda:N or metal"));
        }
        #[cfg(not(feature = "cuda"))]
        check(
            "cuda:1",
            "--device cuda isn't in this build; build it with: cargo build --release --features cuda, or use --device cpu",
        );
    }
}

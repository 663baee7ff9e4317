//! What this machine is and what this process used. Everything that may not be known is an `Option`: nothing here fails.
//! Changes nothing, and starts no other program.

use std::path::{Path, PathBuf};

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub system: String,
    pub architecture: &'static str,
    pub cpu: Option<String>,
    /// Cores that this process may use.
    pub cores: Option<usize>,
    /// Threads that matrix products run on.
    pub threads: usize,
    /// What the processor has for products, by the names of Linux.
    pub features: Vec<String>,
    pub matrix_path: &'static str,
    /// "portable" where the processor has no such products.
    pub bf16_path: &'static str,
    pub memory: Option<Memory>,
    pub dir: PathBuf,
    /// Bytes that this user can still write at `dir`.
    pub disk_free: Option<u64>,
}

/// In bytes; a container's limit counts as the total.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    pub total: u64,
    pub available: u64,
}

impl Machine {
    /// `dir` is where results will be written; it need not be there yet.
    pub fn look(dir: &Path) -> Machine {
        let cpu_info = read("/proc/cpuinfo");
        let release = read("/etc/os-release");
        let name = release.as_deref().and_then(|text| value_of(text, "PRETTY_NAME", '='));
        Machine {
            system: name.map_or(std::env::consts::OS, |name| name.trim_matches('"')).to_owned(),
            architecture: std::env::consts::ARCH,
            cpu: cpu_info
                .as_deref()
                .and_then(|text| value_of(text, "model name", ':'))
                .map(str::to_owned),
            cores: std::thread::available_parallelism().ok().map(usize::from),
            threads: rayon::current_num_threads(),
            features: cpu_info.as_deref().map_or_else(Vec::new, features_in),
            matrix_path: lowchurn_kernels::matrix_path(),
            bf16_path: lowchurn_kernels::bf16_path(),
            memory: memory(),
            dir: std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf()),
            disk_free: disk_free(dir),
        }
    }
}

/// The most memory this process ever held, in MiB.
pub fn peak_rss_mib() -> Option<f64> {
    Some(kib(&read("/proc/self/status")?, "VmHWM")? as f64 / 1024.0)
}

/// Bytes that this user can still write at `path`, or at the nearest folder above it that is there.
pub fn disk_free(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(free_at)
}

#[cfg(unix)]
fn free_at(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn free_at(_: &Path) -> Option<u64> {
    None
}

/// Fit for a file name.
pub fn host_name() -> Option<String> {
    let name = read("/proc/sys/kernel/hostname").or_else(|| std::env::var("HOSTNAME").ok())?;
    let is_safe = |c: &char| c.is_ascii_alphanumeric() || "-_".contains(*c);
    Some(name.chars().filter(is_safe).take(64).collect()).filter(|name: &String| !name.is_empty())
}

/// All variables that are set. One that isn't text is given as near as text can.
pub fn variables() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect();
    found.sort();
    found
}

/// Memory of the machine, or of the container that this process is shut in.
fn memory() -> Option<Memory> {
    let info = read("/proc/meminfo")?;
    let machine = Memory {
        total: 1024 * kib(&info, "MemTotal")?,
        available: 1024 * kib(&info, "MemAvailable")?,
    };
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let confined = confined(machine, &groups, &|path| read(path)?.trim().parse().ok());
    Some(confined)
}

/// Control groups, version 2 then 1: `number` reads a file that holds one number, `max` being none.
fn confined(machine: Memory, groups: &str, number: &dyn Fn(&str) -> Option<u64>) -> Memory {
    let places = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_end_matches('/');
        match controllers {
            "" => Some((
                format!("/sys/fs/cgroup{path}/memory.max"),
                format!("/sys/fs/cgroup{path}/memory.current"),
            )),
            "memory" => {
                let at = |name| format!("/sys/fs/cgroup/memory{path}/memory.{name}_in_bytes");
                Some((at("limit"), at("usage")))
            }
            _ => None,
        }
    });
    places.fold(machine, |memory, (limit, used)| match (number(&limit), number(&used)) {
        (Some(limit), Some(used)) if limit < memory.total => {
            Memory { total: limit, available: memory.available.min(limit.saturating_sub(used)) }
        }
        _ => memory,
    })
}

/// The features that matter for products and are there, in the order of their age.
fn features_in(cpu_info: &str) -> Vec<String> {
    const NAMES: [&str; 13] = [
        "avx",
        "avx2",
        "fma",
        "avx512f",
        "avx_vnni",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_bf16",
        "asimd",
        "bf16",
        "sve",
    ];
    let flags = value_of(cpu_info, "flags", ':')
        .or_else(|| value_of(cpu_info, "Features", ':'))
        .unwrap_or("");
    NAMES
        .iter()
        .filter(|name| flags.split_whitespace().any(|flag| flag == **name))
        .map(|s| s.to_string())
        .collect()
}

fn read(path: &str) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The value of the first line `key SIGN value`.
fn value_of<'t>(text: &'t str, key: &str, sign: char) -> Option<&'t str> {
    let pairs = text.lines().filter_map(|line| line.split_once(sign));
    pairs
        .map(|(name, value)| (name.trim(), value.trim()))
        .find(|(name, value)| *name == key && !value.is_empty())
        .map(|(_, value)| value)
}

/// `key: 123 kB` → 123.
fn kib(text: &str, key: &str) -> Option<u64> {
    value_of(text, key, ':')?.strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc() {
        let check = |text: &str, key: &str, expected: Option<u64>| {
            assert_eq!(kib(text, key), expected, "{text:?}")
        };
        check("VmPeak:\t 9 kB\nVmHWM:\t    2196 kB\n", "VmHWM", Some(2196));
        check("VmHWM: kB\n", "VmHWM", None);
        check("VmHWM: -1 kB\n", "VmHWM", None);
        check("VmHWM: 7 MB\n", "VmHWM", None);
        check("VmHWM", "VmHWM", None);
        check("", "VmHWM", None);
        assert_eq!(
            value_of("model\t: 167\nmodel name\t: A (R) CPU: x\n", "model name", ':'),
            Some("A (R) CPU: x")
        );
        assert_eq!(features_in("flags\t: fpu amx_bf16 avx2 avx\n"), ["avx", "avx2", "amx_bf16"]);
        assert_eq!(features_in("Features : fp asimd\n"), ["asimd"]);
        assert_eq!(features_in("nothing"), Vec::<String>::new());
    }

    #[test]
    fn a_container_has_less_memory_than_its_machine() {
        let machine = Memory { total: 1000, available: 600 };
        let check = |groups: &str, files: &[(&str, u64)], expected: (u64, u64)| {
            let number = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, n)| *n);
            let found = confined(machine, groups, &number);
            assert_eq!((found.total, found.available), expected, "{groups:?}");
        };
        let v2 = [("/sys/fs/cgroup/a/memory.max", 300), ("/sys/fs/cgroup/a/memory.current", 100)];
        let v1 = [
            ("/sys/fs/cgroup/memory/b/memory.limit_in_bytes", 900),
            ("/sys/fs/cgroup/memory/b/memory.usage_in_bytes", 100),
        ];
        check("0::/a\n", &v2, (300, 200));
        check("0::/a/\n", &v2, (300, 200));
        check("3:cpuset:/\n4:memory:/b\n0::/\n", &v1, (900, 600));
        check("0::/other\n", &v2, (1000, 600));
        check(
            "0::/a\n",
            &[("/sys/fs/cgroup/a/memory.max", 5000), ("/sys/fs/cgroup/a/memory.current", 1)],
            (1000, 600),
        );
        check("nonsense\n::\n", &v2, (1000, 600));
    }

    #[test]
    fn this_machine() {
        let machine = Machine::look(Path::new("not/there/yet"));
        assert!(machine.threads > 0 && machine.dir.is_absolute());
        if cfg!(target_os = "linux") {
            assert!(
                machine
                    .memory
                    .is_some_and(|memory| 0 < memory.available && memory.available <= memory.total)
            );
            assert!(peak_rss_mib().is_some_and(|mib| mib > 1.0));
        }
        if cfg!(unix) {
            assert!(machine.disk_free.is_some());
        }
    }
}

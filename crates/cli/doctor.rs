//! `doctor`: what this machine, this build and the way to the hub can do, as a block to paste into an issue. Changes
//! nothing, downloads nothing, and never shows a token or a password.

mod self_test;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Result;
use lowchurn_hub::{Hub, Network};
use serde::Serialize;
use serde_json::json;

use crate::console::Console;
use crate::device::{self, PORTABLE};
use crate::failure::NUMERICS;
use crate::machine::{Machine, Memory, disk_free, variables};
use crate::progress::{bytes, count};

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub machine: Machine,
    /// In f32 on all threads.
    pub gigaflops: f64,
    /// In bf16 on all threads, with the rounding of both operands.
    pub gigaflops_bf16: f64,
    pub devices: Vec<Found>,
    pub hub: Way,
    pub variables: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub struct Found {
    pub name: &'static str,
    pub state: State,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "why")]
pub enum State {
    /// A training step on it gives what the slow form gives on the CPU.
    Works,
    NotBuiltIn,
    NotThere(String),
    Wrong(String),
}

/// How this machine gets to the hub.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    Bad(String),
    Hub {
        endpoint: String,
        connection: Connection,
        token: Secret,
        cache: PathBuf,
        cache_size: CacheSize,
        cache_disk_free: Option<u64>,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    Offline,
    ThroughProxy,
    Open { milliseconds: u64 },
    None(String),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    Set,
    NotSet,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheSize {
    NotThere,
    Bytes(u64),
    /// Counting took too long.
    AtLeast(u64),
}

pub fn run(console: &mut Console) -> Result<u8> {
    let report = look();
    match console.json {
        true => console.event(&json!({ "event": "doctor", "report": report })),
        false => console.out.write_all(text(&report).as_bytes())?,
    }
    let is_wrong = report.devices.iter().any(|found| matches!(found.state, State::Wrong(_)));
    Ok(if is_wrong { NUMERICS } else { 0 })
}

fn look() -> Report {
    let set = variables();
    let get = |name: &str| set.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let repeats = if lowchurn_kernels::bf16_path() == PORTABLE { 1 } else { 5 };
    let devices = ["cpu", "cuda", "metal"].map(|name| Found { name, state: try_device(name) });
    Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::look(Path::new(".")),
        gigaflops: lowchurn_kernels::matrix_rate(1024, 5),
        // The portable form may take a second for a product of this size.
        gigaflops_bf16: lowchurn_kernels::matrix_rate_bf16(1024, repeats),
        devices: devices.into(),
        hub: way(Hub::from_vars(&get)),
        variables: shown(&set),
    }
}

/// The block that people paste.
pub fn text(report: &Report) -> String {
    let machine = &report.machine;
    let unknown = || "unknown".to_owned();
    let size = |n: Option<u64>| n.map_or_else(unknown, bytes);
    let mut text = format!("lowchurn {}\n", report.version);
    let mut say = |name: &str, value: &str| {
        // Values of variables and answers of the system may hold anything.
        let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(text, "  {name:<12} {value}"); // to a string: can't fail
    };
    say("system", &format!("{}, {}", machine.system, machine.architecture));
    say("processor", machine.cpu.as_deref().unwrap_or("unknown"));
    say("cores", &machine.cores.map_or_else(unknown, |n| n.to_string()));
    say("threads", &machine.threads.to_string());
    if !machine.features.is_empty() {
        say("features", &machine.features.join(" "));
    }
    let rate = count(report.gigaflops as u64);
    say("matrices", &format!("{}, {rate} GFLOP/s in f32", machine.matrix_path));
    let rate = count(report.gigaflops_bf16 as u64);
    say(
        "",
        &format!("{}, {rate} GFLOP/s in bf16{}", machine.bf16_path, portably(machine.bf16_path)),
    );
    let memory = |m: Memory| format!("{}, {} available", bytes(m.total), bytes(m.available));
    say("memory", &machine.memory.map_or_else(unknown, memory));
    say("disk", &format!("{} free at {}", size(machine.disk_free), machine.dir.display()));
    for found in &report.devices {
        say(&format!("device {}", found.name), &state(found));
    }
    match &report.hub {
        Way::Bad(why) => say("hub", why),
        Way::Hub { endpoint, connection, token, cache, cache_size, cache_disk_free } => {
            say("hub", &format!("{endpoint}, {}", connected(connection)));
            let token = match token {
                Secret::Set => "set (not shown)",
                Secret::NotSet => "not set",
            };
            say("token", token);
            let held = match cache_size {
                CacheSize::NotThere => "not there yet".to_owned(),
                CacheSize::Bytes(n) => bytes(*n),
                CacheSize::AtLeast(n) => format!("more than {}", bytes(*n)),
            };
            let free = size(*cache_disk_free);
            say("cache", &format!("{}, {held}, {free} free there", cache.display()));
        }
    }
    for (name, value) in &report.variables {
        say("variable", &format!("{name}={value}"));
    }
    text
}

fn portably(path: &str) -> &'static str {
    match path {
        PORTABLE => " (no such products in this processor: --bf16 gains nothing)",
        _ => "",
    }
}

fn state(found: &Found) -> String {
    match &found.state {
        State::Works => "works (a training step gives what it should)".to_owned(),
        State::NotBuiltIn => {
            format!("not in this build (cargo build --release --features {})", found.name)
        }
        State::NotThere(why) => format!("in this build, but not usable: {why}"),
        State::Wrong(why) => format!("WRONG RESULTS: {why}"),
    }
}

fn connected(connection: &Connection) -> String {
    match connection {
        Connection::Offline => "not to be asked (HF_HUB_OFFLINE)".to_owned(),
        Connection::ThroughProxy => "through a proxy, not tried".to_owned(),
        Connection::Open { milliseconds } => format!("answers in {milliseconds} ms"),
        Connection::None(why) => format!("can't be reached: {why}"),
    }
}

fn try_device(name: &'static str) -> State {
    let is_left_out = (name == "cuda" && !cfg!(feature = "cuda"))
        || (name == "metal" && !cfg!(feature = "metal"));
    if is_left_out {
        return State::NotBuiltIn;
    }
    // cudarc panics where the driver's library isn't installed; that is an answer too, and needs no backtrace.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let tried = panic::catch_unwind(AssertUnwindSafe(|| match device::open(name) {
        Ok(device) => self_test::self_test(&device).map_or_else(State::Wrong, |()| State::Works),
        Err(error) => State::NotThere(format!("{error:#}")),
    }));
    panic::set_hook(hook);
    tried.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        State::NotThere(
            text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panics").to_owned(),
        )
    })
}

fn way(hub: lowchurn_hub::Result<Hub>) -> Way {
    let settings = match hub {
        Ok(hub) => hub.settings,
        Err(error) => return Way::Bad(error.to_string()),
    };
    let connection = match (settings.network, &settings.proxy) {
        (Network::Off, _) => Connection::Offline,
        (Network::Allowed, Some(_)) => Connection::ThroughProxy,
        (Network::Allowed, None) => connect(&settings.endpoint, Duration::from_secs(3)),
    };
    Way::Hub {
        connection,
        token: if settings.token.is_some() { Secret::Set } else { Secret::NotSet },
        cache_size: cache_size(&settings.cache, Duration::from_millis(300)),
        cache_disk_free: disk_free(&settings.cache),
        cache: settings.cache,
        endpoint: settings.endpoint,
    }
}

/// Knocks at the hub's door without a word. In a thread of its own: a name server may take minutes to say no.
fn connect(endpoint: &str, patience: Duration) -> Connection {
    let place = host_and_port(endpoint);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let start = Instant::now();
        let reach = || -> std::io::Result<()> {
            let mut last = std::io::Error::other("the name has no address");
            for address in place.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, patience) {
                    Ok(_) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        // Nobody listens any more where this took too long.
        let _ = tell.send(reach().map(|()| start.elapsed()));
    });
    match told.recv_timeout(patience) {
        Ok(Ok(took)) => Connection::Open { milliseconds: took.as_millis() as u64 },
        Ok(Err(error)) => Connection::None(error.to_string()),
        Err(_) => Connection::None(format!("no answer in {} s", patience.as_secs())),
    }
}

/// "https://host/path" → "host:443".
fn host_and_port(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let host = rest.split('/').next().unwrap_or(rest);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match (has_port, scheme) {
        (true, _) => host.to_owned(),
        (false, "http") => format!("{host}:80"),
        (false, _) => format!("{host}:443"),
    }
}

/// What the files of a folder hold; links, of which a cache is full, don't count.
fn cache_size(cache: &Path, patience: Duration) -> CacheSize {
    let start = Instant::now();
    let mut todo = match std::fs::read_dir(cache) {
        Ok(entries) => vec![entries],
        Err(_) => return CacheSize::NotThere,
    };
    let mut sum = 0;
    while let Some(entries) = todo.pop() {
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => todo.extend(std::fs::read_dir(entry.path())),
                Ok(found) if found.is_file() => sum += found.len(),
                _ => {}
            }
            if start.elapsed() > patience {
                return CacheSize::AtLeast(sum);
            }
        }
    }
    CacheSize::Bytes(sum)
}

/// Variables that decide what the program does. Only values that hold no secret by their purpose are shown.
fn shown(set: &[(String, String)]) -> BTreeMap<String, String> {
    const OPEN: [&str; 13] = [
        "CUDA_VISIBLE_DEVICES",
        "HF_DATASETS_CACHE",
        "HF_ENDPOINT",
        "HF_HOME",
        "HF_HUB_CACHE",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN",
        "HF_HUB_OFFLINE",
        "HF_TOKEN_PATH",
        "HUGGINGFACE_HUB_CACHE",
        "NO_COLOR",
        "NO_PROXY",
        "RAYON_NUM_THREADS",
        "XDG_CACHE_HOME",
    ];
    let is_token = |name: &str| ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].contains(&name);
    let tokens: Vec<&str> = set
        .iter()
        .filter(|(name, value)| is_token(name) && !value.trim().is_empty())
        .map(|(_, v)| v.trim())
        .collect();
    let is_secret = |value: &str| {
        // A password in an address, a query, or a token that was set under the wrong name.
        value.contains(['@', '?', '#'])
            || value.contains("hf_")
            || tokens.iter().any(|token| value.contains(token))
    };
    let matters = |name: &str| {
        let upper = name.to_ascii_uppercase();
        OPEN.contains(&name)
            || upper.ends_with("_PROXY")
            || ["HF_", "HUGGING"].iter().any(|start| name.starts_with(start))
    };
    let hidden = || "(set, not shown)".to_owned();
    let value_of = |name: &str, value: &str| match OPEN.contains(&name) && !is_secret(value) {
        true => value.to_owned(),
        false if value.is_empty() => String::new(),
        false => hidden(),
    };
    set.iter()
        .filter(|(name, _)| matters(name))
        .map(|(name, value)| (name.clone(), value_of(name, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            version: "1.2.3",
            machine: Machine {
                system: "Debian GNU/Linux 12 (bookworm)".into(),
                architecture: "x86_64",
                cpu: Some("A fast one".into()),
                cores: Some(8),
                threads: 4,
                features: vec!["avx2".into(), "avx512f".into()],
                matrix_path: "AVX-512",
                bf16_path: "AMX-BF16",
                memory: Some(Memory { total: 16 << 30, available: 12 << 30 }),
                dir: "/home/me".into(),
                disk_free: Some(100 << 30),
            },
            gigaflops: 1234.5,
            gigaflops_bf16: 5678.9,
            devices: vec![
                Found { name: "cpu", state: State::Works },
                Found { name: "cuda", state: State::NotThere("no driver".into()) },
                Found { name: "metal", state: State::NotBuiltIn },
            ],
            hub: Way::Hub {
                endpoint: "https://huggingface.co".into(),
                connection: Connection::Open { milliseconds: 12 },
                token: Secret::Set,
                cache: "/home/me/.cache/huggingface/hub".into(),
                cache_size: CacheSize::Bytes(90_900_000),
                cache_disk_free: None,
            },
            variables: BTreeMap::from([("HF_HOME".into(), "/x\n\x1b[2J".into())]),
        }
    }

    #[test]
    fn the_block() {
        let expected = "\
lowchurn 1.2.3
  system       Debian GNU/Linux 12 (bookworm), x86_64
  processor    A fast one
  cores        8
  threads      4
  features     avx2 avx512f
  matrices     AVX-512, 1,234 GFLOP/s in f32
               AMX-BF16, 5,678 GFLOP/s in bf16
  memory       16.0 GiB, 12.0 GiB available
  disk         100.0 GiB free at /home/me
  device cpu   works (a training step gives what it should)
  device cuda  in this build, but not usable: no driver
  device metal not in this build (cargo build --release --features metal)
  hub          https://huggingface.co, answers in 12 ms
  token        set (not shown)
  cache        /home/me/.cache/huggingface/hub, 86.7 MiB, unknown free there
  variable     HF_HOME=/x  [2J
";
        assert_eq!(text(&report()), expected);
    }

    #[test]
    fn the_block_of_a_machine_that_tells_nothing() {
        let mut report = report();
        let machine = &mut report.machine;
        (machine.cpu, machine.cores, machine.memory, machine.disk_free) = (None, None, None, None);
        machine.features.clear();
        machine.bf16_path = "portable";
        report.devices[0].state = State::Wrong("off by 1".into());
        report.hub = Way::Bad("HF_ENDPOINT is not usable".into());
        report.variables.clear();
        let expected = "\
lowchurn 1.2.3
  system       Debian GNU/Linux 12 (bookworm), x86_64
  processor    unknown
  cores        unknown
  threads      4
  matrices     AVX-512, 1,234 GFLOP/s in f32
               portable, 5,678 GFLOP/s in bf16 (no such products in this processor: --bf16 gains nothing)
  memory       unknown
  disk         unknown free at /home/me
  device cpu   WRONG RESULTS: off by 1
  device cuda  in this build, but not usable: no driver
  device metal not in this build (cargo build --release --features metal)
  hub          HF_ENDPOINT is not usable
";
        assert_eq!(text(&report), expected);
    }

    #[test]
    fn the_same_for_machines() {
        let value = json!(report());
        assert_eq!(value["machine"]["memory"]["total"], json!(16u64 << 30));
        let cuda = json!({ "name": "cuda", "state": { "state": "not_there", "why": "no driver" } });
        assert_eq!(value["devices"][1], cuda);
        assert_eq!(value["hub"]["hub"]["connection"], json!({ "open": { "milliseconds": 12 } }));
        assert_eq!(value["hub"]["hub"]["token"], "set");
        assert_eq!(value["machine"]["bf16_path"], "AMX-BF16");
        assert_eq!(value["gigaflops_bf16"], json!(5678.9));
    }

    #[test]
    fn no_secret_is_shown() {
        let secret = "hf_AbCdEf";
        let set: Vec<(String, String)> = [
            ("HF_TOKEN", secret),
            ("HUGGING_FACE_HUB_TOKEN", "another"),
            ("HF_TOKEN_PATH", "/home/me/another/token"),
            ("HF_HOME", secret),
            ("HF_SOMETHING_NEW", "xyz"),
            ("HF_ENDPOINT", "https://me:xyz@hub"),
            ("HTTPS_PROXY", "http://me:xyz@proxy"),
            ("https_proxy", "http://xyz"),
            ("HF_HUB_CACHE", "/cache"),
            ("HF_HUB_OFFLINE", ""),
            ("PATH", "/bin"),
            ("RAYON_NUM_THREADS", "2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let found = shown(&set);
        let hidden = "(set, not shown)";
        let expected = [
            ("HF_ENDPOINT", hidden),
            ("HF_HOME", hidden),
            ("HF_HUB_CACHE", "/cache"),
            ("HF_HUB_OFFLINE", ""),
            ("HF_SOMETHING_NEW", hidden),
            ("HF_TOKEN", hidden),
            ("HF_TOKEN_PATH", hidden),
            ("HTTPS_PROXY", hidden),
            ("HUGGING_FACE_HUB_TOKEN", hidden),
            ("RAYON_NUM_THREADS", "2"),
            ("https_proxy", hidden),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());

        let get = |name: &str| set.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        let offline = |name: &str| match name {
            "HF_HUB_OFFLINE" => Some("1".to_owned()),
            "HF_ENDPOINT" => None,
            _ => get(name),
        };
        for vars in [&get as &dyn Fn(&str) -> Option<String>, &offline] {
            let report =
                Report { variables: shown(&set), hub: way(Hub::from_vars(vars)), ..report() };
            for shown in [text(&report), json!(report).to_string(), format!("{report:?}")] {
                assert!(!shown.contains("AbCdEf") && !shown.contains("xyz"), "{shown}");
                assert!(!shown.contains("another"), "{shown}");
            }
        }
    }

    #[test]
    fn places_of_endpoints() {
        for (endpoint, expected) in [
            ("https://huggingface.co", "huggingface.co:443"),
            ("http://127.0.0.1:8000/hf", "127.0.0.1:8000"),
            ("http://hub/a:1", "hub:80"),
            ("https://[::1]", "[::1]:443"),
            ("https://[::1]:81", "[::1]:81"),
        ] {
            assert_eq!(host_and_port(endpoint), expected);
        }
    }

    #[test]
    fn connections() {
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", open.local_addr().unwrap());
        let found = connect(&endpoint, Duration::from_secs(3));
        assert!(matches!(found, Connection::Open { .. }), "{found:?}");
        drop(open);
        let found = connect(&endpoint, Duration::from_secs(3));
        assert!(matches!(&found, Connection::None(why) if why.contains("refused")), "{found:?}");
    }

    #[test]
    fn sizes_of_caches() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("hub");
        assert_eq!(cache_size(&cache, Duration::from_secs(9)), CacheSize::NotThere);
        std::fs::create_dir_all(cache.join("a/b")).unwrap();
        std::fs::write(cache.join("a/b/c"), [0; 100]).unwrap();
        std::fs::write(cache.join("d"), [0; 11]).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&cache, cache.join("a/round")).unwrap();
        assert_eq!(cache_size(&cache, Duration::from_secs(9)), CacheSize::Bytes(111));
        assert!(matches!(cache_size(&cache, Duration::ZERO), CacheSize::AtLeast(_)));
    }

    #[test]
    fn the_cpu_is_a_device_that_works() {
        assert!(matches!(try_device("cpu"), State::Works));
    }
}

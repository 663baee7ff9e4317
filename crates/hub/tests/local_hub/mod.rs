//! The local hub as a process, for every test that needs one: this crate's and the program's.
#![allow(dead_code, reason = "not every test file asks for all of it")]
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub struct LocalHub {
    process: Child,
    pub endpoint: String,
    /// Where uploads land.
    pub written: tempfile::TempDir,
    log: Arc<Mutex<Vec<String>>>,
    n_marks: AtomicUsize,
}

/// LOWCHURN_HUB_DIR, else what lies beside the clone.
pub fn folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|at| at.join("Cargo.lock").is_file()).unwrap_or(here);
    std::env::var_os("LOWCHURN_HUB_DIR").map_or_else(|| root.join("../shared/hub"), PathBuf::from)
}

impl LocalHub {
    /// `None`, with a line that says so, where there is nothing to serve. `more` are flags of serve.py.
    pub fn start(faults: &[&str], more: &[&str]) -> Option<LocalHub> {
        let program = folder().join("serve.py");
        let python = std::env::var("PYTHON").unwrap_or("python3".into());
        let has_python = Command::new(&python).arg("--version").output().is_ok();
        if !program.is_file() || !has_python {
            let _ = writeln!(io::stderr(), "skipped: ../shared/hub or {python} is not here");
            return None;
        }
        let written = tempfile::tempdir().unwrap();
        let mut command = Command::new(python);
        command.arg(program).args(["--verbose", "--port", "0", "--write-dir"]).arg(written.path());
        command.args(more);
        for fault in faults {
            command.args(["--fault", fault]);
        }
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut endpoint = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (log.clone(), process.stderr.take().unwrap());
        thread::spawn(move || {
            let lines_of = BufReader::new(stderr).lines().map_while(Result::ok);
            lines_of.for_each(|line| lines.lock().unwrap().push(line));
        });
        let endpoint = endpoint.trim().to_owned();
        Some(LocalHub { process, endpoint, written, log, n_marks: AtomicUsize::new(0) })
    }

    /// Requests so far whose address contains `part`.
    pub fn requests(&self, part: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(part)).count()
    }

    /// Files asked for so far.
    pub fn files_asked_for(&self) -> Vec<String> {
        let path =
            |line: &String| Some(line.split_once("/resolve/")?.1.split(' ').next()?.to_string());
        self.lines().iter().filter_map(path).collect()
    }

    /// Where a file of a model's repository lies after it was sent.
    pub fn path(&self, repo: &str, name: &str) -> PathBuf {
        self.written.path().join("models").join(repo).join(name)
    }

    /// The log so far, without requests of our own, which show that it is complete.
    fn lines(&self) -> Vec<String> {
        let mark = format!("/mark-{}-", self.n_marks.fetch_add(1, Ordering::Relaxed));
        let mut stream =
            TcpStream::connect(self.endpoint.strip_prefix("http://").unwrap()).unwrap();
        write!(stream, "GET {mark} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        let start = Instant::now();
        loop {
            let log = self.log.lock().unwrap();
            if log.iter().any(|line| line.contains(&mark)) {
                return log.iter().filter(|line| !line.contains("/mark-")).cloned().collect();
            }
            drop(log);
            assert!(start.elapsed() < Duration::from_secs(20), "our own request isn't in the log");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for LocalHub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

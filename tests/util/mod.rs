//! Runs the program as a user would: in a folder of its own, with nothing of this machine's environment, within a time limit.
#![allow(dead_code, reason = "each target uses its part")]

pub mod parquet;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// Forty rows of the shipped set and the shipped encoder: a whole run in less than a second.
pub const SMALL: &str = "finetune tickets --model tiny --train-split train[:40] --eval-split train[40:60] \
                         --batch-size 8 --max-length 32 --max-steps 6 --logging-steps 2";

/// Says why a test is skipped, past what is captured of one that passes.
pub fn skipped(why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {why}");
}

/// Of the program, in MiB; told on Linux alone.
pub fn is_peak_rss(value: &Value) -> bool {
    if cfg!(target_os = "linux") {
        value.as_f64().is_some_and(|mib| mib > 10.0)
    } else {
        value.is_null()
    }
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fresh folder. In command lines and messages it is `$T`.
pub struct Lab {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
    /// Where the program runs: the repository's root, where the shipped tasks and models are.
    pub cwd: PathBuf,
}

/// What a command left behind.
pub struct Done {
    pub line: String,
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Lab {
    pub fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        Lab { dir, env: Vec::new(), cwd: repository().into() }
    }

    /// Sets a variable for all commands that follow.
    pub fn set(mut self, name: &str, value: &str) -> Lab {
        let value = value.replace("$T", self.dir.path().to_str().unwrap());
        self.env.push((name.into(), value));
        self
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// The lines of a file of JSON lines.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        json_lines(&self.text(name))
    }

    /// Names in a folder, sorted; a folder's name ends in `/`.
    pub fn names(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .map(|entry| entry.unwrap())
            .map(|entry| match entry.path().is_dir() {
                true => format!("{}/", entry.file_name().to_string_lossy()),
                false => entry.file_name().to_string_lossy().into_owned(),
            })
            .collect();
        names.sort();
        names
    }

    /// Every file below a folder with its bytes.
    pub fn tree(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.path(name)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().map(Result::unwrap) {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path => drop(files.insert(path.clone(), fs::read(path).unwrap())),
                }
            }
        }
        files
    }

    /// Copies a folder of the repository, without folders in it.
    pub fn copy(&self, from: &str, to: &str) -> PathBuf {
        let to = self.path(to);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(repository().join(from)).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        to
    }

    /// The command for a line; words are parted by blanks.
    pub fn command(&self, line: &str) -> Command {
        let temp = self.dir.path().to_str().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lowchurn"));
        command
            .args(line.split_whitespace().map(|word| word.replace("$T", temp)))
            .current_dir(&self.cwd)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", temp)
            .env("HF_HOME", self.path("hf"))
            // Nobody listens there: a test that asks the hub without serving one fails at once.
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub fn start(&self, line: &str) -> Running {
        Running::of(self.command(line), line, self.dir.path())
    }

    pub fn run(&self, line: &str) -> Done {
        self.start(line).wait()
    }

    /// Runs a line that has to succeed.
    pub fn ok(&self, line: &str) -> Done {
        self.run(line).expect(0)
    }
}

/// A process whose output is being read.
pub struct Running {
    child: Child,
    line: String,
    temp: String,
    out: JoinHandle<Vec<u8>>,
    err: JoinHandle<Vec<u8>>,
    started: Instant,
}

impl Running {
    pub fn of(mut command: Command, line: &str, temp: &Path) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Running {
            child,
            line: line.into(),
            temp: temp.to_str().unwrap().into(),
            out: thread::spawn(move || all(out)),
            err: thread::spawn(move || all(err)),
            started: Instant::now(),
        }
    }

    /// SIGKILL, as a machine that runs out of memory would send it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// "TERM", "INT".
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
        assert!(done.success(), "kill -{name} {pid}");
    }

    /// Waits until a path is there; false where the process ended before.
    pub fn until(&mut self, path: &Path) -> bool {
        loop {
            if path.exists() {
                return true;
            }
            if self.ended().is_some() {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits a moment; false once the process ended or a path is there.
    pub fn until_not(&mut self, path: &Path) -> bool {
        thread::sleep(Duration::from_millis(1));
        !path.exists() && self.ended().is_none()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        if self.started.elapsed() > LIMIT {
            self.child.kill().unwrap();
            panic!("after {} s still at work: {}", LIMIT.as_secs(), self.line);
        }
        self.child.try_wait().unwrap()
    }

    pub fn wait(mut self) -> Done {
        let status = loop {
            match self.ended() {
                Some(status) => break status,
                None => thread::sleep(Duration::from_millis(2)),
            }
        };
        let text = |bytes: JoinHandle<Vec<u8>>| {
            String::from_utf8(bytes.join().unwrap()).unwrap().replace(&self.temp, "$T")
        };
        Done { line: self.line, code: status.code(), out: text(self.out), err: text(self.err) }
    }
}

fn all(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

impl Done {
    /// Holds the exit code against what it should be; shows all that was said where it isn't.
    #[track_caller]
    pub fn expect(self, code: i32) -> Done {
        let Done { line, out, err, .. } = &self;
        assert_eq!(
            self.code,
            Some(code),
            "exit code of: lowchurn {line}\nstdout:\n{out}\nstderr:\n{err}"
        );
        self
    }

    /// The error's message, which stands last on stderr.
    #[track_caller]
    pub fn error(&self) -> &str {
        match self.err.split_once("error: ") {
            Some((_, message)) => message.trim_end(),
            None => panic!("no error of: lowchurn {}\nstderr:\n{}", self.line, self.err),
        }
    }

    /// Stdout as JSON lines; every line has to be one.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        json_lines(&self.out)
    }
}

#[track_caller]
pub fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line: &str| match serde_json::from_str(line) {
        Ok(value) => value,
        Err(error) => panic!("{error} in {line:?}"),
    };
    text.lines().map(parse).collect()
}

//! Where words go. Results on stdout, progress and complaints on stderr; with `--json` stdout carries JSON lines alone.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::progress::{Color, Downloads, Terminal};

pub struct Console {
    pub out: Box<dyn Write + Send>,
    pub err: Box<dyn Write + Send>,
    pub json: bool,
    pub terminal: Terminal,
    downloads: Downloads,
}

impl Console {
    pub fn of_process(json: bool) -> Console {
        let is_plain = std::env::var("NO_COLOR").is_ok_and(|value| !value.is_empty());
        let color = if is_plain { Color::Off } else { Color::On };
        let terminal = match std::io::stderr().is_terminal() {
            true => Terminal::Line { width: columns(), color },
            false => Terminal::Plain,
        };
        let (out, err) = (Box::new(std::io::stdout()), Box::new(std::io::stderr()));
        let downloads = Downloads::new(&terminal);
        Console { out, err, json, terminal, downloads }
    }

    /// One that says nothing: for looking whether something would work.
    pub fn silent(&self) -> Console {
        let (out, err) = (Box::new(std::io::sink()), Box::new(std::io::sink()));
        let terminal = Terminal::Plain;
        Console { out, err, json: false, terminal, downloads: Downloads::new(&terminal) }
    }

    /// A line for people who watch. A closed stderr is nobody watching.
    pub fn say(&mut self, line: &str) {
        self.downloads.end(&mut self.err);
        let _ = writeln!(self.err, "{line}");
        let _ = self.err.flush();
    }

    /// What a download is doing.
    pub fn hub(&mut self, event: &lowchurn_hub::Event) {
        self.downloads.take(event, &mut self.err);
    }

    /// A line of the result: stdout, or stderr where stdout belongs to machines. A reader that went away (`| head`) must
    /// not stop a run; a disk that is full may.
    pub fn tell(&mut self, line: &str) -> std::io::Result<()> {
        let to = if self.json { &mut self.err } else { &mut self.out };
        match writeln!(to, "{line}") {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            told => told,
        }
    }

    /// A line for machines; nothing without `--json`.
    pub fn event(&mut self, event: &Value) {
        if self.json {
            let _ = writeln!(self.out, "{event}");
            let _ = self.out.flush();
        }
    }
}

fn columns() -> usize {
    std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or_else(terminal_width)
}

fn terminal_width() -> usize {
    terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(width, _)| usize::from(width.0))
}

//! Events of the hub → the line of a fetch or of an upload. Speed is that of the last seconds.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

use super::words::{bytes, duration, fit, part, percent, seconds};
use super::{REDRAW, Screen, Terminal};

/// The line of a fetch, file after file.
pub struct Downloads {
    began: Instant,
    terminal: Terminal,
    download: Option<Download>,
    screen: Screen,
}

impl Downloads {
    pub fn new(terminal: &Terminal) -> Downloads {
        let (terminal, screen) = (*terminal, Screen::default());
        Downloads { began: Instant::now(), terminal, download: None, screen }
    }

    /// Takes the event and shows what there is to show.
    pub fn take(&mut self, event: &lowchurn_hub::Event, out: &mut dyn Write) {
        self.show(event, self.began.elapsed(), out);
    }

    /// Takes the line away that is drawn over: a download that failed leaves it behind.
    pub fn end(&mut self, out: &mut dyn Write) {
        self.screen.close(out);
    }

    fn show(&mut self, event: &lowchurn_hub::Event, elapsed: Duration, out: &mut dyn Write) {
        use lowchurn_hub::Event;
        match event {
            Event::Started { file, size, have } => {
                self.download = Some(Download::new(file, *size, *have, elapsed));
            }
            Event::Sending { file, size } => {
                let download = Download::new(file, *size, 0, elapsed);
                self.download = Some(Download { doing: "uploading", ..download });
            }
            Event::Bytes { have, .. } => {
                if let Some(download) = &mut self.download {
                    download.take(*have, elapsed);
                }
            }
            Event::Done { file, size } | Event::Sent { file, size } => {
                let done = match event {
                    Event::Sent { .. } => "uploaded",
                    _ => "downloaded",
                };
                let took = self
                    .download
                    .take()
                    .map_or(Duration::ZERO, |d| elapsed.saturating_sub(d.started));
                let took = match took.as_secs() {
                    0 => String::new(),
                    _ => format!(" in {}", duration(took)),
                };
                return self.screen.note(&format!("{done} {file}, {}{took}", bytes(*size)), out);
            }
            Event::Waiting { file } => {
                return self
                    .screen
                    .note(&format!("waiting for another process that downloads {file}"), out);
            }
            Event::Retrying { what, reason, wait } => {
                let when = match wait.as_secs_f64() {
                    0.0 => "at once".to_owned(),
                    wait => format!("in {} s", wait.ceil()),
                };
                return self.screen.note(&format!("{what}: {reason}; trying again {when}"), out);
            }
        }
        if let Some(download) = &self.download
            && self.screen.is_due(download.started, elapsed, &self.terminal)
        {
            let text = download_line(download, self.terminal.width());
            self.screen.draw(&text, elapsed, &self.terminal, out);
        }
    }
}

/// A file on its way.
#[derive(Clone, Debug)]
struct Download {
    doing: &'static str,
    file: String,
    size: u64,
    /// Time and bytes that were there, of the last seconds.
    samples: VecDeque<(Duration, u64)>,
    have: u64,
    started: Duration,
    last: Duration,
}

impl Download {
    fn new(file: &str, size: u64, have: u64, elapsed: Duration) -> Download {
        let samples = VecDeque::from([(elapsed, have)]);
        let (doing, file) = ("downloading", file.to_owned());
        Download { doing, file, size, samples, have, started: elapsed, last: elapsed }
    }

    fn take(&mut self, have: u64, elapsed: Duration) {
        (self.have, self.last) = (have, elapsed);
        let since = |&(at, _): &(Duration, u64)| elapsed.saturating_sub(at);
        if self.samples.back().is_none_or(|sample| since(sample) >= REDRAW) {
            self.samples.push_back((elapsed, have));
        }
        while self.samples.len() > 2
            && self.samples.front().is_some_and(|s| since(s) > Duration::from_secs(5))
        {
            self.samples.pop_front();
        }
    }
}

fn download_line(download: &Download, width: usize) -> String {
    let Download { doing, file, size, have, .. } = download;
    let mut fields = vec![(0, format!("{doing} {file}")), (1, part(*have, *size))];
    fields.extend(percent(*have, *size).map(|text| (3, text)));
    let first = download.samples.front().copied().unwrap_or((download.last, *have));
    let took = download.last.saturating_sub(first.0).as_secs_f64();
    let speed = have.saturating_sub(first.1) as f64 / took;
    if took >= 0.5 && speed > 0.0 {
        fields.push((4, format!("{}/s", bytes(speed as u64))));
        let eta = seconds(size.saturating_sub(*have) as f64 / speed);
        fields.extend(eta.map(|eta| (2, format!("ETA {}", duration(eta)))));
    }
    fit(fields, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: usize = 200;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn lines_of_a_download() {
        const MIB: u64 = 1 << 20;
        let mut download = Download::new("model.safetensors", 90_900_000, 0, at(1.0));
        assert_eq!(
            download_line(&download, WIDE),
            "downloading model.safetensors  0.0/86.7 MiB  0%"
        );
        download.take(10 * MIB, at(2.0));
        download.take(20 * MIB, at(3.0));
        let expected = "downloading model.safetensors  20.0/86.7 MiB  23%  10.0 MiB/s  ETA 0:07";
        assert_eq!(download_line(&download, WIDE), expected);
        assert_eq!(download_line(&download, 53), "downloading model.safetensors  20.0/86.7 MiB");
        assert_eq!(download_line(&download, 20), "downloading model.s…");
        // The server starts again from nothing, slower.
        download.take(0, at(4.0));
        for second in 5..20 {
            download.take((second - 4) * MIB, at(second as f64));
        }
        let expected = "downloading model.safetensors  15.0/86.7 MiB  17%  1.0 MiB/s  ETA 1:12";
        assert_eq!(download_line(&download, WIDE), expected);
    }

    #[test]
    fn downloads_on_the_screen() {
        use lowchurn_hub::Event;
        let (mut out, mut downloads) = (Vec::new(), Downloads::new(&Terminal::Plain));
        let file = "a.bin";
        let events = [
            (0.0, Event::Started { file, size: 4096, have: 1024 }),
            (1.0, Event::Bytes { file, have: 2048 }),
            (
                1.1,
                Event::Retrying {
                    what: file,
                    reason: "503".into(),
                    wait: Duration::from_millis(1500),
                },
            ),
            (
                1.2,
                Event::Retrying {
                    what: file,
                    reason: "bad \x1b[2Jbytes".into(),
                    wait: Duration::ZERO,
                },
            ),
            (11.0, Event::Bytes { file, have: 3072 }),
            (65.0, Event::Done { file, size: 4096 }),
            (65.0, Event::Started { file: "b", size: 12, have: 0 }),
            (65.1, Event::Done { file: "b", size: 12 }),
            (66.0, Event::Waiting { file: "c" }),
        ];
        events.iter().for_each(|(elapsed, event)| downloads.show(event, at(*elapsed), &mut out));
        let expected = "\
            a.bin: 503; trying again in 2 s\n\
            a.bin: bad \u{fffd}[2Jbytes; trying again at once\n\
            downloading a.bin  3.0/4.0 KiB  75%  102 B/s  ETA 0:10\n\
            downloaded a.bin, 4.0 KiB in 1:05\n\
            downloaded b, 12 B\n\
            waiting for another process that downloads c\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

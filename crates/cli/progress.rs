//! Events of a run or a download → one line of progress, and where it goes: redrawn in place on a terminal, now and then
//! a plain line elsewhere. What a line says is a function of events and times; only [`Downloads`] looks at the clock.

mod downloads;
mod words;

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use lowchurn_data::Kind;
use lowchurn_distill::{Event, Scores, Steered};

pub use self::downloads::Downloads;
pub use self::words::{bytes, count, duration, printable};
use self::words::{fit, painted, percent, rate, seconds};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// A file or a pipe: whole lines, no escape codes.
    Plain,
    Line {
        width: usize,
        color: Color,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    On,
    Off,
}

/// The loss and the accuracy shown are those of this many updates.
const SMOOTHED: usize = 50;
/// Rates are those of this many: rows differ in length, and an ETA must not flicker.
const TIMED: usize = 200;
/// Fewer updates say nothing about the time that is left.
const ETA_FROM: u64 = 3;
const REDRAW: Duration = Duration::from_millis(100);

/// The line of a run, brought up to date by each event.
#[derive(Clone, Debug)]
pub struct Status {
    /// What rows outside training are gone through for.
    pub evaluating: &'static str,
    /// Whether the class or group that is worst off stands in the lines of evaluations.
    pub has_worst: bool,
    phase: Phase,
    step: u64,
    total: u64,
    learning_rate: f64,
    updates: VecDeque<Update>,
    /// By this process: what a resume brought along took no time here.
    n_updates: u64,
    /// Evaluating and saving; spread over the updates that are left, as they were over those done.
    paused: Duration,
    n_rows: u64,
    last: Duration,
    screen: Screen,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Training,
    Evaluating { done: usize, rows: usize, since: Duration },
}

#[derive(Clone, Copy, Debug)]
struct Update {
    took: Duration,
    loss_sum: f64,
    n_correct: u64,
    n_rows: u64,
    n_labelled: u64,
    n_agreed: Option<u64>,
}

impl Status {
    pub fn new() -> Status {
        Status {
            evaluating: "evaluating",
            has_worst: false,
            phase: Phase::Training,
            step: 0,
            total: 0,
            learning_rate: 0.0,
            updates: VecDeque::new(),
            n_updates: 0,
            paused: Duration::ZERO,
            n_rows: 0,
            last: Duration::ZERO,
            screen: Screen::default(),
        }
    }

    /// Takes the event and shows what there is to show. `elapsed` counts from the start of the work: loading isn't in it.
    pub fn show(
        &mut self,
        event: &Event,
        elapsed: Duration,
        terminal: &Terminal,
        out: &mut dyn Write,
    ) {
        self.take(event, elapsed);
        let (is_training, is_last) = match *event {
            Event::Stepped { step, total, .. } => (true, step == total),
            Event::Evaluating { done, rows } => (false, done >= rows),
            _ => (false, false),
        };
        let began = self.phase_began();
        let stays = is_last && self.screen.ends(began, terminal, is_training);
        match self.note(event) {
            Some(text) => self.screen.note(&text, out),
            None if stays => self.screen.note(&line(self, terminal.width()), out),
            None if matches!(event, Event::Logged(_)) => {}
            None if self.screen.is_due(began, elapsed, terminal) => {
                let text = line(self, terminal.width());
                self.screen.draw(&text, elapsed, terminal, out);
            }
            None => {}
        }
    }

    fn phase_began(&self) -> Duration {
        match self.phase {
            Phase::Training => Duration::ZERO,
            Phase::Evaluating { since, .. } => since,
        }
    }

    /// Takes the line away that is drawn over, so that others can write.
    pub fn end(&mut self, out: &mut dyn Write) {
        self.screen.close(out);
    }

    /// Rows trained on by this process, each as often as it came.
    pub fn rows_done(&self) -> u64 {
        self.n_rows
    }

    fn take(&mut self, event: &Event, elapsed: Duration) {
        let took = elapsed.saturating_sub(self.last);
        match *event {
            Event::Stepped { step, total, report } => {
                (self.step, self.total, self.learning_rate) = (step, total, report.learning_rate);
                let n_rows = report.n_rows;
                // Numbers are neither right nor agreed on.
                let is_counted = report.kind != Kind::Regression;
                self.updates.push_back(Update {
                    took,
                    loss_sum: report.loss_sum,
                    n_correct: report.n_correct,
                    n_rows,
                    n_labelled: if is_counted {
                        n_rows - report.n_unlabelled.min(n_rows)
                    } else {
                        0
                    },
                    n_agreed: report.lambda.filter(|_| is_counted).map(|_| report.n_agreed),
                });
                if self.updates.len() > TIMED {
                    self.updates.pop_front();
                }
                self.n_updates += 1;
                self.n_rows += n_rows;
                self.phase = Phase::Training;
            }
            Event::Evaluating { done, rows } => {
                let since = match self.phase {
                    Phase::Evaluating { since, done: before, .. } if before <= done => since,
                    _ => self.last,
                };
                self.phase = Phase::Evaluating { done, rows, since };
                self.paused += took;
            }
            Event::Resumed { step, total } => (self.step, self.total) = (step, total),
            Event::Evaluated { .. } | Event::Churned { .. } | Event::Steered { .. } => {
                self.phase = Phase::Training;
                self.paused += took;
            }
            Event::Logged(_) | Event::Saved { .. } | Event::StoppedEarly { .. } => {
                self.paused += took
            }
        }
        self.last = elapsed;
    }

    /// What is worth a line that stays.
    fn note(&self, event: &Event) -> Option<String> {
        match event {
            Event::Resumed { step, total } => {
                Some(format!("going on from step {} of {}", count(*step), count(*total)))
            }
            Event::Evaluated { step, scores, is_best } => {
                let worst = if self.has_worst { worst_of(scores) } else { String::new() };
                let best = if *is_best { "  best so far" } else { "" };
                Some(format!("step {}  eval {}{worst}{best}", count(*step), scores_line(scores)))
            }
            Event::Churned { step, churn, lambda } => Some(format!(
                "update {step}: churn {:.2} % on held-out rows, λ {lambda:.3}",
                100.0 * churn
            )),
            Event::Steered { step, worst, all } => all.get(*worst).map(|Steered { name, loss, weight }| {
                let name = printable(name);
                format!("update {step}: worst off on held-out rows is {name}, loss {loss:.3}, weight {weight:.3}")
            }),
            Event::StoppedEarly { step, n_evals } => Some(format!(
                "stopped early at step {}: {n_evals} evaluations without a gain",
                count(*step)
            )),
            Event::Stepped { .. }
            | Event::Logged(_)
            | Event::Evaluating { .. }
            | Event::Saved { .. } => None,
        }
    }

    fn eta(&self) -> Option<Duration> {
        if self.n_updates < ETA_FROM || self.total <= self.step {
            return None;
        }
        let took: Duration = self.updates.iter().map(|update| update.took).sum();
        let each = took.as_secs_f64() / self.updates.len() as f64
            + self.paused.as_secs_f64() / self.n_updates as f64;
        seconds((self.total - self.step) as f64 * each)
    }
}

/// The line of a run, at most `width` characters; what matters least goes first.
fn line(status: &Status, width: usize) -> String {
    let mut fields = Vec::new();
    match status.phase {
        Phase::Training => {
            fields.push((0, format!("step {}/{}", count(status.step), count(status.total))));
            fields.extend(percent(status.step, status.total).map(|text| (5, text)));
            fields.extend(status.eta().map(|eta| (1, format!("ETA {}", duration(eta)))));
            let recent = || status.updates.iter().rev().take(SMOOTHED);
            let loss: f64 = recent().map(|update| update.loss_sum).sum();
            let of = |count: fn(&Update) -> u64| recent().map(count).sum::<u64>();
            let (rows, labelled) = (of(|update| update.n_rows), of(|update| update.n_labelled));
            if rows > 0 {
                fields.push((2, format!("loss {:.4}", loss / rows as f64)));
            }
            if labelled > 0 {
                let share = 100.0 * of(|update| update.n_correct) as f64 / labelled as f64;
                fields.push((3, format!("accuracy {share:.1}%")));
            }
            let agreed: Option<u64> =
                status.updates.iter().rev().take(SMOOTHED).map(|update| update.n_agreed).sum();
            if let (Some(agreed), true) = (agreed, rows > 0) {
                let share = 100.0 * agreed as f64 / rows as f64;
                fields.push((4, format!("as the teacher {share:.1}%")));
            }
            let timed = status.updates.iter();
            let (took, rows) = timed.fold((Duration::ZERO, 0), |(took, rows), update| {
                (took + update.took, rows + update.n_rows)
            });
            fields.extend(rate(rows as f64, took).map(|text| (4, text)));
            if rows > 0 {
                fields.push((6, format!("lr {:.1e}", status.learning_rate)));
            }
        }
        Phase::Evaluating { done, rows, since } => {
            let took = status.last.saturating_sub(since);
            let all = rows.max(done);
            let what = status.evaluating;
            fields.push((0, format!("{what} {}/{}", count(done as u64), count(all as u64))));
            fields.extend(percent(done as u64, all as u64).map(|text| (3, text)));
            if 0 < done && done < all {
                let eta = took.as_secs_f64() * (all - done) as f64 / done as f64;
                fields.extend(seconds(eta).map(|eta| (1, format!("ETA {}", duration(eta)))));
            }
            fields.extend(rate(done as f64, took).map(|text| (2, text)));
        }
    }
    fields.push((7, format!("elapsed {}", duration(status.last))));
    fit(fields, width)
}

pub fn scores_line(scores: &Scores) -> String {
    let accuracy = scores.accuracy.map(|share| format!("accuracy {:.2}%  ", 100.0 * share));
    let mut text = format!("{}loss {:.4}", accuracy.unwrap_or_default(), scores.loss);
    let others = [
        ("f1", scores.f1),
        ("macro f1", scores.macro_f1),
        ("matthews", scores.matthews),
        ("pearson", scores.pearson),
        ("spearman", scores.spearman),
    ];
    for (name, score) in others {
        if let Some(score) = score {
            text.push_str(&format!("  {name} {score:.4}"));
        }
    }
    text
}

/// What stands behind a line of scores where it was asked for: the group that is worst off, else the class's recall.
pub fn worst_of(scores: &Scores) -> String {
    match (scores.worst_group(), scores.worst_class) {
        (Some((name, accuracy)), _) => {
            format!("  worst group {} {:.2}%", printable(name), 100.0 * accuracy)
        }
        (None, Some(recall)) => format!("  worst class {:.2}%", 100.0 * recall),
        (None, None) => String::new(),
    }
}

impl Terminal {
    /// The last column stays free: a cursor beyond it counts as on the next line in some terminals.
    fn width(&self) -> usize {
        match self {
            Terminal::Plain => usize::MAX,
            Terminal::Line { width, .. } => width.saturating_sub(1),
        }
    }
}

/// What stands on the screen.
#[derive(Clone, Debug, Default)]
struct Screen {
    /// When the line was last drawn.
    drawn: Option<Duration>,
    is_line_open: bool,
}

// A terminal that went away must not stop a run, so what can't be written is left out.
impl Screen {
    /// A line that stays.
    fn note(&mut self, text: &str, out: &mut dyn Write) {
        self.close(out);
        let _ = out.write_all(format!("{}\n", printable(text)).as_bytes());
        let _ = out.flush();
    }

    fn close(&mut self, out: &mut dyn Write) {
        if self.is_line_open {
            let _ = out.write_all(b"\r\x1b[K");
            let _ = out.flush();
            *self = Screen::default();
        }
    }

    /// On a terminal at once and then ten times a second. Elsewhere after 5 % more time, but at least 10 seconds and at most a
    /// minute, since the last line or since the phase `began`: what is short says nothing in a log.
    fn is_due(&self, began: Duration, elapsed: Duration, terminal: &Terminal) -> bool {
        let (wait, since) = match terminal {
            Terminal::Line { .. } => (REDRAW, self.drawn),
            Terminal::Plain => {
                let wait = (elapsed / 20).clamp(Duration::from_secs(10), Duration::from_secs(60));
                (wait, Some(self.drawn.unwrap_or_default().max(began)))
            }
        };
        since.is_none_or(|since| elapsed.saturating_sub(since) >= wait)
    }

    /// Whether the last line of a phase is kept: that of a training, which sums it up, and in a log that of any phase that has a line
    /// there already.
    fn ends(&self, began: Duration, terminal: &Terminal, is_training: bool) -> bool {
        match terminal {
            Terminal::Line { .. } => is_training,
            Terminal::Plain => is_training || self.drawn.is_some_and(|drawn| drawn > began),
        }
    }

    fn draw(&mut self, text: &str, elapsed: Duration, terminal: &Terminal, out: &mut dyn Write) {
        let text = printable(text);
        let whole = match terminal {
            Terminal::Plain => format!("{text}\n"),
            // No wrapping meanwhile: in a window made narrower, each redraw would leave a line behind.
            Terminal::Line { color, .. } => {
                format!("\r\x1b[?7l{}\x1b[K\x1b[?7h", painted(&text, *color))
            }
        };
        let _ = out.write_all(whole.as_bytes());
        let _ = out.flush();
        *self = Screen { drawn: Some(elapsed), is_line_open: *terminal != Terminal::Plain };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowchurn_distill::{LogEntry, StepReport};

    const WIDE: usize = 200;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// 32 rows of which 24 are right, at a mean loss of 0.5.
    fn stepped(step: u64, total: u64) -> Event {
        let report = StepReport {
            loss_sum: 16.0,
            n_correct: 24,
            n_rows: 32,
            n_unlabelled: 0,
            n_tokens: 900,
            learning_rate: 4.1e-5,
            gradient_norm: 1.0,
            lambda: None,
            n_agreed: 0,
            kind: Kind::SingleLabel,
        };
        Event::Stepped { step, total, report }
    }

    fn evaluated(step: u64) -> Event {
        let scores = Scores {
            rows: 872,
            loss: 0.25,
            accuracy: Some(0.89105),
            f1: Some(0.9),
            ..Scores::default()
        };
        Event::Evaluated { step, scores, is_best: true }
    }

    fn logged() -> Event {
        let entry = LogEntry::Train {
            step: 1,
            epoch: 0.0,
            loss: 1.0,
            accuracy: Some(0.5),
            grad_norm: 1.0,
            learning_rate: 1e-5,
            lambda: None,
            agreement: None,
        };
        Event::Logged(entry)
    }

    fn status(events: &[(f64, Event)]) -> Status {
        let mut status = Status::new();
        events.iter().for_each(|(elapsed, event)| status.take(event, at(*elapsed)));
        status
    }

    fn check(events: &[(f64, Event)], expected: &str) {
        assert_eq!(line(&status(events), WIDE), expected, "{events:?}");
    }

    #[test]
    fn lines_of_a_run() {
        let resumed = || Event::Resumed { step: 1000, total: 6315 };
        check(&[], "step 0/0  elapsed 0:00");
        check(&[(5.0, resumed())], "step 1,000/6,315  15%  elapsed 0:05");
        check(
            &[(0.5, stepped(1, 100))],
            "step 1/100  1%  loss 0.5000  accuracy 75.0%  64 rows/s  lr 4.1e-5  elapsed 0:00",
        );
        check(
            &[(1.0, stepped(1, 100)), (2.0, stepped(2, 100)), (3.0, stepped(3, 100))],
            "step 3/100  3%  ETA 1:37  loss 0.5000  accuracy 75.0%  32 rows/s  lr 4.1e-5  elapsed 0:03",
        );
        // What was done before the resume took no time here, and loading the checkpoint is no update.
        check(
            &[
                (9.0, resumed()),
                (10.0, stepped(1001, 6315)),
                (11.0, stepped(1002, 6315)),
                (12.0, stepped(1003, 6315)),
            ],
            "step 1,003/6,315  15%  ETA 1:28:32  loss 0.5000  accuracy 75.0%  32 rows/s  lr 4.1e-5  elapsed 0:12",
        );
        // Evaluation and saving slow the run down, but not the rate.
        check(
            &[
                (1.0, stepped(1, 5)),
                (2.0, stepped(2, 5)),
                (3.0, stepped(3, 5)),
                (4.0, Event::Evaluating { done: 436, rows: 872 }),
                (5.0, Event::Evaluating { done: 872, rows: 872 }),
                (5.5, evaluated(3)),
                (6.0, Event::Saved { step: 3, path: "runs/x".into() }),
                (7.0, stepped(4, 5)),
            ],
            "step 4/5  80%  ETA 0:02  loss 0.5000  accuracy 75.0%  32 rows/s  lr 4.1e-5  elapsed 0:07",
        );
        check(
            &[(1.0, stepped(4, 4)), (2.0, stepped(4, 4)), (3.0, stepped(4, 4))],
            "step 4/4  100%  loss 0.5000  accuracy 75.0%  32 rows/s  lr 4.1e-5  elapsed 0:03",
        );
    }

    #[test]
    fn lines_of_an_evaluation() {
        let evaluating = |done| Event::Evaluating { done, rows: 872 };
        let step = || (2.0, stepped(1, 2));
        check(&[(1.0, evaluating(0))], "evaluating 0/872  0%  elapsed 0:01");
        check(
            &[step(), (3.0, evaluating(256)), (4.0, evaluating(512))],
            "evaluating 512/872  58%  ETA 0:02  256 rows/s  elapsed 0:04",
        );
        check(
            &[step(), (4.0, evaluating(872))],
            "evaluating 872/872  100%  436 rows/s  elapsed 0:04",
        );
        // A second evaluation starts its own clock.
        check(
            &[step(), (3.0, evaluating(872)), (4.0, evaluating(8))],
            "evaluating 8/872  0%  ETA 1:48  8.0 rows/s  elapsed 0:04",
        );
        let mut predicting = status(&[(1.0, evaluating(8))]);
        predicting.evaluating = "predicting";
        assert_eq!(line(&predicting, 24), "predicting 8/872");
    }

    #[test]
    fn old_updates_are_forgotten() {
        let mut status = Status::new();
        for step in 1..=1000 {
            let mut event = stepped(step, 2000);
            // The first 900 are slow and wrong.
            let slow = step <= 900;
            if let (true, Event::Stepped { report, .. }) = (slow, &mut event) {
                (report.loss_sum, report.n_correct) = (320.0, 0);
            }
            let elapsed = if slow { step as f64 } else { 900.0 + (step - 900) as f64 * 0.01 };
            status.take(&event, at(elapsed));
        }
        let expected = "step 1,000/2,000  50%  ETA 8:25  loss 0.5000  accuracy 75.0%  63 rows/s  lr 4.1e-5  elapsed 15:01";
        assert_eq!(line(&status, WIDE), expected);
    }

    #[test]
    fn a_clock_that_goes_back_and_numbers_that_are_none_are_borne() {
        let mut event = stepped(3, u64::MAX);
        if let Event::Stepped { report, .. } = &mut event {
            (report.loss_sum, report.n_rows) = (f64::NAN, 0);
        }
        let events = [(5.0, stepped(1, 9)), (1.0, stepped(2, 9)), (1e9, event)];
        let text = line(&status(&events), WIDE);
        assert!(text.starts_with("step 3/18,446,744,073,709,551,615  0%"), "{text}");
        line(&status(&[(1.0, Event::Evaluating { done: 9, rows: 3 })]), WIDE);
    }

    #[test]
    fn what_matters_least_goes_first() {
        let status =
            status(&[(1.0, stepped(1, 100)), (2.0, stepped(2, 100)), (3.0, stepped(3, 100))]);
        let rows = [
            (88, "step 3/100  3%  ETA 1:37  loss 0.5000  accuracy 75.0%  32 rows/s  lr 4.1e-5"),
            (74, "step 3/100  3%  ETA 1:37  loss 0.5000  accuracy 75.0%  32 rows/s"),
            (63, "step 3/100  ETA 1:37  loss 0.5000  accuracy 75.0%  32 rows/s"),
            (59, "step 3/100  ETA 1:37  loss 0.5000  accuracy 75.0%"),
            (48, "step 3/100  ETA 1:37  loss 0.5000"),
            (32, "step 3/100  ETA 1:37"),
            (19, "step 3/100"),
            (6, "step …"),
            (1, "…"),
            (0, ""),
        ];
        for (width, expected) in rows {
            assert_eq!(line(&status, width), expected, "{width}");
        }
    }

    #[test]
    fn notes() {
        let check = |event: Event, expected: Option<&str>| {
            assert_eq!(Status::new().note(&event).as_deref(), expected, "{event:?}");
        };
        check(
            Event::Resumed { step: 1000, total: 6315 },
            Some("going on from step 1,000 of 6,315"),
        );
        check(
            evaluated(2105),
            Some("step 2,105  eval accuracy 89.11%  loss 0.2500  f1 0.9000  best so far"),
        );
        check(Event::Saved { step: 1, path: "runs/x".into() }, None);
        check(
            Event::StoppedEarly { step: 900, n_evals: 3 },
            Some("stopped early at step 900: 3 evaluations without a gain"),
        );
        check(stepped(1, 2), None);
        check(Event::Evaluating { done: 1, rows: 2 }, None);
        check(logged(), None);
        let one = |name: &str, loss, weight| Steered { name: name.into(), loss, weight };
        let all = vec![one("late", 0.25, 0.25), one("r\x1bd", 0.5, 0.75)];
        check(
            Event::Steered { step: 50, worst: 1, all },
            Some("update 50: worst off on held-out rows is r\u{fffd}d, loss 0.500, weight 0.750"),
        );
    }

    #[test]
    fn the_worst_class_is_told_where_it_is_asked_for() {
        let asked = Status { has_worst: true, ..Status::new() };
        let of = |worst_class, groups: &[(&str, f64)]| {
            let Event::Evaluated { step, scores, is_best } = evaluated(9) else {
                panic!("another event")
            };
            let groups = groups.iter().map(|(name, share)| (name.to_string(), *share)).collect();
            let event = Event::Evaluated {
                step,
                scores: Scores { worst_class, groups, ..scores },
                is_best,
            };
            let plain = Status::new().note(&event).unwrap();
            assert!(!plain.contains("worst"), "{plain}");
            let line = asked.note(&event).unwrap();
            line.split_once("f1 0.9000").unwrap().1.to_string()
        };
        assert_eq!(of(None, &[]), "  best so far");
        assert_eq!(of(Some(0.225), &[]), "  worst class 22.50%  best so far");
        let groups = [("Delta", 0.5), ("United", 0.25)];
        assert_eq!(of(Some(0.1), &groups), "  worst group United 25.00%  best so far");
    }

    fn shown(terminal: Terminal, events: &[(f64, Event)]) -> String {
        let (mut out, mut status) = (Vec::new(), Status::new());
        events
            .iter()
            .for_each(|(elapsed, event)| status.show(event, at(*elapsed), &terminal, &mut out));
        status.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_a_terminal_whole_lines_now_and_then() {
        let steps: Vec<(f64, Event)> =
            (1..=250).map(|n| (n as f64 * 0.1, stepped(n, 250))).collect();
        let expected = "\
            step 100/250  40%  ETA 0:15  loss 0.5000  accuracy 75.0%  320 rows/s  lr 4.1e-5  elapsed 0:10\n\
            step 200/250  80%  ETA 0:05  loss 0.5000  accuracy 75.0%  320 rows/s  lr 4.1e-5  elapsed 0:20\n\
            step 250/250  100%  loss 0.5000  accuracy 75.0%  320 rows/s  lr 4.1e-5  elapsed 0:25\n";
        assert_eq!(shown(Terminal::Plain, &steps), expected);
        let lines_in = |hours: u64| {
            let steps: Vec<(f64, Event)> =
                (1..=hours * 3600).map(|n| (n as f64, stepped(n, hours * 3600))).collect();
            shown(Terminal::Plain, &steps).lines().count()
        };
        assert_eq!((lines_in(1), lines_in(2)), (95, 155));
    }

    #[test]
    fn without_a_terminal_a_short_phase_says_nothing_and_a_long_one_ends_with_all() {
        let scored = |seconds: &[f64], rows: usize| -> Vec<(f64, Event)> {
            let done = |n: usize| rows * (n + 1) / seconds.len();
            let event = |(n, &at): (usize, &f64)| (at, Event::Evaluating { done: done(n), rows });
            seconds.iter().enumerate().map(event).collect()
        };
        assert_eq!(shown(Terminal::Plain, &scored(&[1.0, 5.0, 9.0, 9.5], 400)), "");
        let expected = "\
            evaluating 200/400  50%  ETA 0:11  18 rows/s  elapsed 0:11\n\
            evaluating 400/400  100%  29 rows/s  elapsed 0:14\n";
        assert_eq!(shown(Terminal::Plain, &scored(&[1.0, 11.0, 12.0, 14.0], 400)), expected);
        // An evaluation in the midst of a long training is short all the same.
        let mut all = vec![(12.0, stepped(1, 3))];
        all.extend(scored(&[13.0, 14.0], 400));
        all.push((14.5, evaluated(1)));
        all.push((25.0, stepped(3, 3)));
        let said = shown(Terminal::Plain, &all);
        let firsts: Vec<&str> = said.lines().filter_map(|line| line.split("  ").next()).collect();
        assert_eq!(firsts, ["step 1/3", "step 1", "step 3/3"]);
    }

    #[test]
    fn on_a_terminal_in_place() {
        let events = [
            (1.0, stepped(1, 3)),
            (1.05, stepped(2, 3)), // too soon
            (1.2, Event::Evaluating { done: 8, rows: 16 }),
            (1.25, evaluated(2)),
            (1.3, logged()),
            (2.0, stepped(3, 3)),
        ];
        let expected = "\
            \r\x1b[?7lstep 1/3  loss 0.5000\x1b[K\x1b[?7h\
            \r\x1b[?7levaluating 8/16  ETA 0:01\x1b[K\x1b[?7h\
            \r\x1b[Kstep 2  eval accuracy 89.11%  loss 0.2500  f1 0.9000  best so far\n\
            step 3/3  loss 0.5000\n";
        assert_eq!(shown(Terminal::Line { width: 30, color: Color::Off }, &events), expected);
        let bold = "\r\x1b[?7l\x1b[1mstep 1/3\x1b[0m  loss 0.5000\x1b[K\x1b[?7h\r\x1b[K";
        assert_eq!(shown(Terminal::Line { width: 30, color: Color::On }, &events[..1]), bold);
    }
}

//! Numbers and fields as people read them.

use std::time::Duration;

use super::Color;

/// "67,349".
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "86.7 MiB".
pub fn bytes(n: u64) -> String {
    let (unit, name) = unit(n);
    match unit {
        1 => format!("{n} B"),
        _ => format!("{:.1} {name}", n as f64 / unit as f64),
    }
}

/// "1:02:03", "2:05".
pub fn duration(took: Duration) -> String {
    let seconds = took.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// The unit that leaves at most four digits before the point, after rounding to one behind it.
fn unit(n: u64) -> (u64, &'static str) {
    let units = [(1, "B"), (1 << 10, "KiB"), (1 << 20, "MiB"), (1 << 30, "GiB"), (1 << 40, "TiB")];
    let fits = |(unit, _): &&(u64, _)| {
        n as f64 / (*unit as f64) < if *unit == 1 { 1024.0 } else { 1023.95 }
    };
    *units.iter().find(fits).unwrap_or(&units[4])
}

/// "12.3/86.7 MiB".
pub fn part(have: u64, size: u64) -> String {
    let (unit, name) = unit(size);
    match unit {
        1 => format!("{have}/{size} B"),
        _ => format!("{:.1}/{:.1} {name}", have as f64 / unit as f64, size as f64 / unit as f64),
    }
}

/// Rounded down: 100% is the end.
pub fn percent(done: u64, all: u64) -> Option<String> {
    (all > 0).then(|| format!("{}%", u128::from(done) * 100 / u128::from(all)))
}

pub fn rate(rows: f64, took: Duration) -> Option<String> {
    let rate = rows / took.as_secs_f64();
    match rate {
        _ if !rate.is_finite() || rate <= 0.0 => None,
        _ if rate < 10.0 => Some(format!("{rate:.1} rows/s")),
        _ => Some(format!("{} rows/s", count(rate.round() as u64))),
    }
}

pub fn seconds(n: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(n.ceil()).ok()
}

/// Joins fields, without those of the highest number where all don't fit; cuts what is left.
pub fn fit(mut fields: Vec<(u8, String)>, width: usize) -> String {
    loop {
        let texts: Vec<&str> = fields.iter().map(|(_, text)| text.as_str()).collect();
        let joined = texts.join("  ");
        let last = fields.iter().map(|(rank, _)| *rank).max().unwrap_or(0);
        match joined.chars().count() {
            n if n <= width => return joined,
            _ if last > 0 => fields.retain(|(rank, _)| *rank < last),
            _ => return cut(&joined, width),
        }
    }
}

fn cut(text: &str, width: usize) -> String {
    match width {
        0 => String::new(),
        _ => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

/// Names and reasons come from the network: they must not steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The first field in bold.
pub fn painted(text: &str, color: Color) -> String {
    let (first, rest) = text.split_at(text.find("  ").unwrap_or(text.len()));
    match color {
        Color::On => format!("\x1b[1m{first}\x1b[0m{rest}"),
        Color::Off => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (n, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (67349, "67,349"), (1234567, "1,234,567")]
        {
            assert_eq!(count(n), expected);
        }
        for (n, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (90_900_000, "86.7 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(n), expected);
        }
        for (seconds, expected) in
            [(0, "0:00"), (59, "0:59"), (125, "2:05"), (3723, "1:02:03"), (90123, "25:02:03")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        }
    }
}

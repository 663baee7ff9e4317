//! Numbers and texts for people: shares, intervals, thousands, and the escapes of HTML and Markdown.
//!
//! Every text that comes from data goes through [`escape`] or [`markdown_cell`]; nothing else in the crate writes one.

use crate::{Estimate, Interval, Rate};

/// What stands where a number isn't defined.
pub(crate) const NONE: &str = "–";

/// A share as percent with two decimals, so that columns line up.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.2}%", share * 100.0) } else { NONE.to_string() }
}

/// A difference of shares, in percentage points with its sign.
pub(crate) fn points(difference: f64) -> String {
    if difference.is_finite() { format!("{} points", signed(difference)) } else { NONE.to_string() }
}

fn signed(difference: f64) -> String {
    format!("{:+.2}", difference * 100.0).replace('-', "−")
}

pub(crate) fn percent_or_none(share: Option<f64>) -> String {
    share.map_or(NONE.to_string(), percent)
}

/// A plain number with three decimals.
pub(crate) fn number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or(NONE.to_string(), |value| format!("{value:.3}"))
}

/// `1.30–2.10%`.
pub(crate) fn range(interval: &Interval) -> String {
    format!("{:.2}–{:.2}%", interval.low * 100.0, interval.high * 100.0)
}

/// `1.66% (1.30–2.10%)`.
pub(crate) fn rate(rate: &Option<Rate>) -> String {
    let said = |rate: &Rate| format!("{} ({})", percent(rate.value), range(&rate.interval));
    rate.as_ref().map_or(NONE.to_string(), said)
}

/// `−0.40 to +1.20`, in percentage points.
pub(crate) fn signed_range(interval: &Interval) -> String {
    format!("{} to {}", signed(interval.low), signed(interval.high))
}

/// `+0.40 points (−0.40 to +1.20)`.
pub(crate) fn gain(estimate: &Option<Estimate>) -> String {
    let said =
        |gain: &Estimate| format!("{} ({})", points(gain.value), signed_range(&gain.interval));
    estimate.as_ref().map_or(NONE.to_string(), said)
}

/// `12,345`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 row`, `12 rows`.
pub(crate) fn rows(value: u64) -> String {
    format!("{} {}", count(value), if value == 1 { "row" } else { "rows" })
}

/// A p-value; small ones as a bound.
pub(crate) fn p_value(p: f64) -> String {
    match p {
        p if !p.is_finite() => NONE.to_string(),
        p if p < 0.0001 => "<0.0001".to_string(),
        p => format!("{p:.4}"),
    }
}

/// 64 hex digits are too many for a heading: the first twelve.
pub(crate) fn short_hash(hash: &str) -> String {
    hash.chars().take(12).collect()
}

/// At most `limit` characters, with `…` in the place of the rest.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    if text.chars().nth(limit).is_none() {
        return text.to_string();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    kept.trim_end().to_string() + "…"
}

/// Text for HTML, as content or between quotes of an attribute. Control characters, which HTML forbids, are replaced.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(letter),
            '\r' => {}
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

/// Text for one cell of a Markdown table, also between `<code>` tags: one line, and nothing in it is markup, a link, a
/// formula or the mention of somebody, who would get mail.
pub fn markdown_cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ").replace("www.", "www\u{200b}.");
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            // Before a space, it makes neither a link nor an emoji.
            ':' if letters.peek().is_none_or(|next| *next == ' ') => out.push(':'),
            // An entity is a letter to Markdown, never markup; a table doesn't split at it either.
            '&' | '<' | '>' | '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '~' | ':' | '$' | '#' => {
                out.push_str(&format!("&#{};", u32::from(letter)));
            }
            '@' => out.push_str("&#64;\u{200b}"),
            // These turn the direction of what follows, outside of the cell too.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(percent(0.0166), "1.66%");
        assert_eq!(percent(f64::NAN), NONE);
        assert_eq!(points(-0.004), "−0.40 points");
        assert_eq!(points(0.012), "+1.20 points");
        let interval = Interval { low: -0.004, high: 0.012, confidence: 0.95 };
        assert_eq!(signed_range(&interval), "−0.40 to +1.20");
        for (value, expected) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(value), expected);
        }
        assert_eq!(p_value(0.00001), "<0.0001");
        assert_eq!(p_value(0.0654), "0.0654");
        assert_eq!(number(Some(f64::INFINITY)), NONE);
    }

    #[test]
    fn cut_counts_characters_and_not_bytes() {
        for (text, expected) in
            [("abcd", "abcd"), ("abcde", "abc…"), ("äöüßé", "äöü…"), ("ab cde", "ab…")]
        {
            assert_eq!(cut(text, 4), expected);
        }
    }

    #[test]
    fn html_is_escaped() {
        let nasty = "<script>alert('x')</script>\" onload=\"y\u{0}\u{1b}&amp;\r\n";
        assert_eq!(
            escape(nasty),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot; onload=&quot;y\u{fffd}\u{fffd}&amp;amp;\n"
        );
    }

    #[test]
    fn markdown_is_escaped() {
        for (text, expected) in [
            ("a|b\nc", "a&#124;b c"),
            ("a\\|b", "a&#92;&#124;b"),
            ("`x` <b>", "&#96;x&#96; &#60;b&#62;"),
            ("ends: http://a.b", "ends: http&#58;//a.b"),
            ("@delta http://a.b", "&#64;\u{200b}delta http&#58;//a.b"),
            ("www.a.b", "www\u{200b}.a.b"),
            ("![x](y) **z** #12", "!&#91;x&#93;(y) &#42;&#42;z&#42;&#42; &#35;12"),
            ("a\u{202e}b", "a\u{fffd}b"),
        ] {
            assert_eq!(markdown_cell(text), expected);
        }
    }
}

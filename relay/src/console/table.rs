//! Answers for people: aligned columns, numbers and times that can be read.

use std::fmt::Write as _;

use jiff::Timestamp;
use runtime::span::Span;
use serde_json::Value;

/// A column's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Rows under headings.
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Side)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A row, with as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells.iter().map(|cell| clean(cell)).collect());
    }

    pub(crate) fn text(&self) -> String {
        let width = |i: usize, heading: &str| {
            let cells = self.rows.iter().map(|row| row[i].chars().count());
            cells.max().unwrap_or(0).max(heading.chars().count())
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(|(i, (heading, _))| width(i, heading)).collect();
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, side)) in row.iter().zip(&widths).zip(&self.columns) {
                let padding = " ".repeat(width - cell.chars().count());
                match side {
                    Side::Left => line.push_str(&format!("{cell}{padding}  ")),
                    Side::Right => line.push_str(&format!("{padding}{cell}  ")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names and values, one a line; what is empty is left out.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:<width$}  {}", clean(value));
    }
    text
}

/// Texts come from strangers: nothing in them may steer the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A text, or nothing.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A whole number with its thousands apart, or nothing.
pub(crate) fn number(value: &Value) -> String {
    value.as_u64().map_or_else(String::new, grouped)
}

pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Something a second.
pub(crate) fn rate(value: &Value) -> String {
    match value.as_f64() {
        None => String::new(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => grouped(rate.round() as u64),
    }
}

/// Bytes in the largest unit that fits.
pub(crate) fn bytes(value: &Value) -> String {
    value.as_u64().map_or_else(String::new, |bytes| bytesize::ByteSize(bytes).display().si().to_string())
}

/// Seconds as a span of time.
pub(crate) fn seconds(value: &Value) -> String {
    value.as_u64().map_or_else(String::new, |seconds| Span(seconds).to_string())
}

/// Microseconds since the Unix epoch as a time, in UTC.
pub(crate) fn time(value: &Value) -> String {
    let at = value.as_i64().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_texts_are_tame() {
        let mut table = Table::new(&[("HOST", Side::Left), ("SEQ", Side::Right), ("LAST END", Side::Left)]);
        table.row(vec!["a.example.com".into(), "7".into(), "ü\u{1b}[2J".into()]);
        table.row(vec!["b".into(), "1,234".into(), String::new()]);
        assert_eq!(
            table.text(),
            "HOST             SEQ  LAST END\na.example.com      7  ü\u{fffd}[2J\nb              1,234\n"
        );
        assert_eq!(
            facts(&[("host", "a".into()), ("nothing", String::new()), ("last event", "b\n".into())]),
            "host        a\nlast event  b\u{fffd}\n"
        );
    }

    #[test]
    fn values_are_readable() {
        for (number_of, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(&json!(number_of)), expected);
        }
        assert_eq!(seconds(&json!(3_700)), "1 h 1 min");
        assert_eq!(rate(&json!(0.26)), "0.3");
        assert_eq!(rate(&json!(1234.5)), "1,235");
        assert_eq!(bytes(&json!(1_500_000)), "1.5 MB");
        assert_eq!(time(&json!(1_767_323_045_678_000_u64)), "2026-01-02 03:04:05Z");
        for nothing in [number, rate, bytes, seconds, time, text] {
            assert_eq!(nothing(&Value::Null), "");
        }
    }
}

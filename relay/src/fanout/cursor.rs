//! What a subscriber's cursor means: where it begins, and what it is told first. Pure.

use storage::{log::Window, seq::Seq};

/// A `cursor` parameter that is not a whole number from 0 up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor must be a non-negative integer")]
pub struct Unreadable;

/// Where a subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what comes after this seq.
    After(Seq),
    /// The same, and it is told first that events between its cursor and there are gone.
    Outdated(Seq),
    /// Its cursor is past the last event: it is told so and the connection ends. To be said only when the window is known
    /// to show the log's end.
    Future,
}

/// Reads the parameter: absent and empty mean "live from now", `None`.
pub fn parse(parameter: Option<&str>) -> Result<Option<u64>, Unreadable> {
    match parameter {
        None | Some("") => Ok(None),
        // The lexicon's integer is a signed one; `+1` is not a number in a query.
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse::<i64>().map(|cursor| Some(cursor as u64)).map_err(|_| Unreadable)
        }
        Some(_) => Err(Unreadable),
    }
}

/// Where a cursor begins in a window. Cursors are exclusive: the events sent are those with `seq > cursor`.
pub fn start(cursor: Option<u64>, window: &Window) -> Start {
    let before_first = Seq(window.first.0.saturating_sub(1));
    match cursor {
        None => Start::After(window.last),
        Some(0) => Start::After(before_first),
        Some(cursor) if cursor > window.last.0 => Start::Future,
        Some(cursor) if cursor < before_first.0 => Start::Outdated(before_first),
        Some(cursor) => Start::After(Seq(cursor)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter() {
        for (text, expected) in [
            (None, Ok(None)),
            (Some(""), Ok(None)),
            (Some("0"), Ok(Some(0))),
            (Some("17"), Ok(Some(17))),
            (Some("9223372036854775807"), Ok(Some(i64::MAX as u64))),
            (Some("9223372036854775808"), Err(Unreadable)),
            (Some("-1"), Err(Unreadable)),
            (Some("+1"), Err(Unreadable)),
            (Some("1.5"), Err(Unreadable)),
            (Some("1e3"), Err(Unreadable)),
            (Some(" 1"), Err(Unreadable)),
            (Some("abc"), Err(Unreadable)),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_table() {
        let window = |first, last| Window { first: Seq(first), last: Seq(last), ..Window::default() };
        let full = window(10, 20);
        for (cursor, expected) in [
            (None, Start::After(Seq(20))),
            (Some(0), Start::After(Seq(9))),
            (Some(1), Start::Outdated(Seq(9))),
            (Some(8), Start::Outdated(Seq(9))),
            (Some(9), Start::After(Seq(9))),
            (Some(10), Start::After(Seq(10))),
            (Some(19), Start::After(Seq(19))),
            (Some(20), Start::After(Seq(20))),
            (Some(21), Start::Future),
            (Some(u64::MAX >> 1), Start::Future),
        ] {
            assert_eq!(start(cursor, &full), expected, "{cursor:?}");
        }
        // Nothing was ever appended to a log that begins at 1, and all is gone from one that reached 20.
        assert_eq!(start(Some(0), &window(1, 0)), Start::After(Seq(0)));
        assert_eq!(start(Some(1), &window(1, 0)), Start::Future);
        assert_eq!(start(Some(0), &window(21, 20)), Start::After(Seq(20)));
        assert_eq!(start(Some(5), &window(21, 20)), Start::Outdated(Seq(20)));
        assert_eq!(start(Some(20), &window(21, 20)), Start::After(Seq(20)));
    }
}

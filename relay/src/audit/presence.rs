//! When a stream was there to bring what it has, and when not. Pure; times are since the audit began.
//!
//! What must hold: an event counts as missing on a stream only where the stream was connected for the settling time
//! before and after the event came on the other, or was connected again at its cursor so long before the end that what it
//! missed must have come.

use std::time::Duration;

/// Breaks that are kept one by one; past them the last one is made longer, so that too little is judged, never too much.
const BREAKS_MAX: usize = 100;

/// A stream's connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    since: Option<Duration>,
    breaks: Vec<Break>,
    cursor: Option<u64>,
    /// Where the connection began that is in use.
    resumed_at: Option<u64>,
}

/// A time without a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// When it began.
    pub from: Duration,
    /// When there was a connection again; `None` where it lasts.
    pub until: Option<Duration>,
    /// Whether the stream went on after the last event before it, so that what came meanwhile came later.
    pub filled: bool,
    /// Why the connection ended.
    pub why: String,
}

/// Where a moment lies, as seen from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// What came on the other stream then must have come here.
    Judged,
    /// Too near the beginning: it may have come before we were there.
    Begin,
    /// Too near the end: it may come yet.
    End,
    /// Within or near a break.
    Break,
}

/// The time that is audited, and the margin at its ends and at breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When both streams were there.
    pub begin: Duration,
    /// When reading ended.
    pub end: Duration,
    /// How much later than on one stream an event may come on the other.
    pub settle: Duration,
}

impl Presence {
    /// There is a connection, after the cursor if there is one.
    pub fn connected(&mut self, at: Duration) {
        self.since.get_or_insert(at);
        self.resumed_at = self.cursor;
        if let Some(last) = self.breaks.last_mut().filter(|last| last.until.is_none()) {
            last.until = Some(at);
            last.filled &= self.cursor.is_some();
        }
    }

    /// There is none any more, or still none.
    pub fn lost(&mut self, at: Duration, why: String) {
        if self.since.is_none() {
            return;
        }
        let full = self.breaks.len() == BREAKS_MAX;
        match self.breaks.last_mut() {
            Some(last) if last.until.is_none() => last.why = why,
            Some(last) if full => {
                last.until = None;
                last.why = why;
            }
            Some(_) | None => self.breaks.push(Break { from: at, until: None, filled: true, why }),
        }
    }

    /// An event came. Gives whether it is a new one: a server may begin with the very event that the cursor names.
    pub fn came(&mut self, seq: u64) -> bool {
        if self.resumed_at.is_some_and(|resumed| seq <= resumed) {
            return false;
        }
        self.cursor = Some(seq);
        true
    }

    /// The server has not kept what came after our cursor.
    pub fn outdated(&mut self) {
        if let Some(last) = self.breaks.last_mut() {
            last.filled = false;
        }
    }

    /// Our cursor means nothing to the server any more: it counts anew.
    pub fn began_anew(&mut self) {
        self.cursor = None;
        self.outdated();
    }

    /// Where to go on.
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// The first connection.
    pub fn since(&self) -> Option<Duration> {
        self.since
    }

    /// Whether there is a connection.
    pub fn is_there(&self) -> bool {
        self.since.is_some() && self.breaks.last().is_none_or(|last| last.until.is_some())
    }

    /// The times without one.
    pub fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    /// Whether what comes now may be late for the break's sake alone.
    pub fn catches_up(&self, at: Duration, settle: Duration) -> bool {
        self.breaks.last().is_some_and(|last| last.until.is_none_or(|until| at <= until + settle))
    }

    /// Where the moment lies in which an event came on the other stream.
    pub fn place(&self, at: Duration, span: Span) -> Place {
        let Span { begin, end, settle } = span;
        if at < begin + settle {
            return Place::Begin;
        }
        if at + settle > end {
            return Place::End;
        }
        let touches = |it: &Break| {
            let until = it.until.unwrap_or(end);
            let caught_up = it.filled && it.until.is_some() && until + settle <= end;
            !caught_up && at + settle >= it.from && at <= until + settle
        };
        if self.breaks.iter().any(touches) { Place::Break } else { Place::Judged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const SPAN: Span =
        Span { begin: Duration::from_secs(10), end: Duration::from_secs(110), settle: Duration::from_secs(5) };

    /// A stream that is there from second 8 on, with a cursor.
    fn there() -> Presence {
        let mut presence = Presence::default();
        presence.connected(s(8));
        assert!(presence.came(100));
        presence
    }

    #[test]
    fn the_ends_are_not_judged() {
        let presence = there();
        for (at, place) in [
            (0, Place::Begin),
            (14, Place::Begin),
            (15, Place::Judged),
            (105, Place::Judged),
            (106, Place::End),
            (200, Place::End),
        ] {
            assert_eq!(presence.place(s(at), SPAN), place, "{at}");
        }
    }

    #[test]
    fn a_break_that_was_filled_is_judged_where_there_was_time_to_catch_up() {
        for (until, filled, place) in [
            (Some(60), true, Place::Judged),
            (Some(60), false, Place::Break),
            (Some(105), true, Place::Judged),
            (Some(106), true, Place::Break),
            (None, true, Place::Break),
        ] {
            let mut presence = there();
            presence.lost(s(50), "why".to_owned());
            assert!(!presence.is_there());
            if let Some(until) = until {
                presence.connected(s(until));
                assert!(presence.is_there());
            }
            if !filled {
                presence.outdated();
            }
            assert_eq!(presence.place(s(55), SPAN), place, "{until:?} {filled}");
            assert_eq!(presence.place(s(45), SPAN), place, "in the margin before");
            assert_eq!(presence.place(s(44), SPAN), Place::Judged);
            if until == Some(60) {
                assert_eq!(presence.place(s(65), SPAN), place, "in the margin after");
                assert_eq!(presence.place(s(66), SPAN), Place::Judged);
            }
        }
    }

    #[test]
    fn without_a_cursor_nothing_is_filled() {
        let mut presence = Presence::default();
        presence.connected(s(8));
        presence.lost(s(20), "why".to_owned());
        presence.connected(s(21));
        assert!(!presence.breaks()[0].filled, "no event had come");

        let mut presence = there();
        presence.lost(s(20), "why".to_owned());
        presence.connected(s(21));
        assert_eq!(presence.cursor(), Some(100));
        presence.began_anew();
        presence.lost(s(21), "FutureCursor".to_owned());
        presence.connected(s(22));
        assert_eq!(presence.cursor(), None);
        assert!(presence.came(3), "a seq that is lower than the old cursor");
        assert!(presence.breaks().iter().all(|it| !it.filled), "{presence:?}");
    }

    #[test]
    fn what_the_cursor_names_may_come_again() {
        let mut presence = there();
        assert!(presence.came(100), "on one connection seqs are the server's own affair");
        presence.lost(s(20), "why".to_owned());
        presence.lost(s(21), "no connection".to_owned());
        assert_eq!(presence.breaks().len(), 1, "tries are one break");
        presence.connected(s(22));
        assert!(!presence.came(100));
        assert!(presence.came(101));
        assert!(presence.catches_up(s(27), s(5)) && !presence.catches_up(s(28), s(5)));
    }

    #[test]
    fn tries_before_the_first_connection_are_no_breaks() {
        let mut presence = Presence::default();
        presence.lost(s(1), "refused".to_owned());
        assert_eq!((presence.breaks(), presence.is_there()), (&[][..], false));
    }

    #[test]
    fn of_many_breaks_the_last_is_made_longer() {
        let mut presence = there();
        for n in 0..150 {
            presence.lost(Duration::from_millis(20_000 + 100 * n), "why".to_owned());
            presence.connected(Duration::from_millis(20_050 + 100 * n));
        }
        let last = &presence.breaks()[BREAKS_MAX - 1];
        assert_eq!(presence.breaks().len(), BREAKS_MAX);
        assert_eq!((last.from, last.until), (s(29) + Duration::from_millis(900), Some(Duration::from_millis(34_950))));
    }
}

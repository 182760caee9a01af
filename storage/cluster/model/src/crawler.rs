use crate::{
    Protocol, Raw, State, Step,
    state::{Crawler, Cursor, Host},
};

/// What a crawler may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// It hears that the host is its own, and connects with the cursor of the row.
    Start,
    /// The connection was lost when the host began anew; it connects with the cursor in memory.
    Reconnect,
    /// It reads the host's next event and sends it to `raw`.
    Send,
    /// The first of what it has sent is in `raw`, and it knows.
    Land,
    /// The first of what it has sent fails and is sent again, after the others.
    Overtake,
    /// It saves the cursor.
    Save,
    /// It hears that the host is another's.
    Gone,
    /// It is killed and starts again.
    Crash,
}

impl Act {
    pub(crate) fn is_fault(self) -> bool {
        matches!(self, Act::Crash | Act::Overtake)
    }
}

const IN_FLIGHT_MAX: usize = 2;

pub(crate) fn acts(protocol: &Protocol, state: &State, who: usize) -> Vec<Act> {
    let crawler = &state.crawlers[who];
    let owns = state.crawls == who;
    let mut acts = Vec::new();
    if crawler.running {
        let can_send = crawler.flight.len() < IN_FLIGHT_MAX && next_event(protocol, &state.host, crawler).is_some();
        acts.extend(can_send.then_some(Act::Send));
        let is_cut_off = crawler.after_reset != state.host.has_reset && crawler.flight.is_empty();
        acts.extend(is_cut_off.then_some(Act::Reconnect));
        acts.extend((!crawler.flight.is_empty()).then_some(Act::Land));
        let overtakes = crawler.flight.len() > 1 && !protocol.has(Step::GaplessProducer);
        acts.extend((overtakes && state.faults.crawler_crashes > 0).then_some(Act::Overtake));
        // A late crawler's write loses by its timestamp.
        acts.extend((known(protocol, crawler) != state.cursor && owns).then_some(Act::Save));
        acts.extend((!owns).then_some(Act::Gone));
        acts.extend((state.faults.crawler_crashes > 0).then_some(Act::Crash));
    } else {
        acts.extend(owns.then_some(Act::Start));
    }
    acts
}

pub(crate) fn apply(protocol: &Protocol, state: &mut State, who: usize, act: Act) {
    let owns = state.crawls == who;
    let State { raw, cursor, crawlers, faults, host, .. } = state;
    let crawler = &mut crawlers[who];
    match act {
        Act::Start => {
            let from = *cursor;
            connect(protocol, host, crawler, from, owns.then_some(cursor));
        }
        Act::Reconnect => {
            let from = known(protocol, crawler);
            connect(protocol, host, crawler, from, owns.then_some(cursor));
        }
        Act::Send => {
            let event = next_event(protocol, host, crawler).expect("there is one");
            crawler.flight.push_back(event);
            crawler.next += 1;
        }
        Act::Land => raw.push(crawler.flight.pop_front().expect("there is one")),
        Act::Overtake => {
            crawler.flight.rotate_left(1);
            faults.crawler_crashes -= 1;
        }
        Act::Save => *cursor = known(protocol, crawler),
        Act::Gone => *crawler = Crawler::default(),
        Act::Crash => {
            *crawler = Crawler::default();
            faults.crawler_crashes -= 1;
        }
    }
}

/// Asks for what comes after a cursor. Where the host has not come so far it has begun anew, and so does the crawler, in
/// a new epoch; it can't tell where the host has come further since.
fn connect(protocol: &Protocol, host: &Host, crawler: &mut Crawler, from: Cursor, row: Option<&mut Cursor>) {
    let begun = protocol.bounds.reset_after.filter(|_| host.has_reset).unwrap_or(0);
    let is_in_future = from.seq > host.made - begun;
    let from = if is_in_future { Cursor { epoch: from.epoch + 1, seq: 0 } } else { from };
    if let Some(row) = row
        && protocol.has(Step::EpochBeforeFrames)
    {
        *row = from;
    }
    *crawler = Crawler {
        running: true,
        after_reset: host.has_reset,
        epoch: from.epoch,
        next: from.seq + 1,
        ..Crawler::default()
    };
}

fn next_event(protocol: &Protocol, host: &Host, crawler: &Crawler) -> Option<Raw> {
    let begun = protocol.bounds.reset_after.filter(|_| host.has_reset).unwrap_or(0);
    let id = begun + crawler.next;
    let is_there = crawler.after_reset == host.has_reset && id <= host.made;
    let did = is_there.then(|| protocol.bounds.host.get(usize::from(id) - 1)).flatten()?;
    Some(Raw::Frame { did: *did, epoch: crawler.epoch, seq: crawler.next, id })
}

/// The low-water mark of what `raw` has acknowledged.
fn known(protocol: &Protocol, crawler: &Crawler) -> Cursor {
    let first_open = crawler.flight.iter().filter_map(|raw| match *raw {
        Raw::Frame { seq, .. } if protocol.has(Step::CursorAfterAck) => Some(seq),
        Raw::Frame { .. } | Raw::Command { .. } => None,
    });
    Cursor { epoch: crawler.epoch, seq: first_open.min().unwrap_or(crawler.next) - 1 }
}

/// Whether everything of the host before the cursor is in `raw`. Where the host began anew and nobody could tell, a
/// cursor says nothing about what came before.
pub(crate) fn cursor_is_true(protocol: &Protocol, state: &State) -> bool {
    let is_there = |id: u8| state.raw.iter().any(|raw| matches!(raw, Raw::Frame { id: other, .. } if *other == id));
    protocol.bounds.reset_after.is_some() || (1..=state.cursor.seq).all(is_there)
}

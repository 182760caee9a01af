use crate::{
    Protocol, State, Step,
    state::{Crawler, offset},
};

/// What a crawler may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// It hears that the host is its own, and reads from the cursor on.
    Start,
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
        let has_more = usize::from(crawler.next) < protocol.bounds.host.len();
        acts.extend((has_more && crawler.flight.len() < IN_FLIGHT_MAX).then_some(Act::Send));
        acts.extend((!crawler.flight.is_empty()).then_some(Act::Land));
        let overtakes = crawler.flight.len() > 1 && !protocol.has(Step::GaplessProducer);
        acts.extend((overtakes && state.faults.crawler_crashes > 0).then_some(Act::Overtake));
        // A late crawler's lower cursor is as true as a higher one.
        acts.extend((known(protocol, crawler) != state.cursor && owns).then_some(Act::Save));
        acts.extend((!owns).then_some(Act::Gone));
        acts.extend((state.faults.crawler_crashes > 0).then_some(Act::Crash));
    } else {
        acts.extend(owns.then_some(Act::Start));
    }
    acts
}

pub(crate) fn apply(protocol: &Protocol, state: &mut State, who: usize, act: Act) {
    let State { raw, cursor, crawlers, faults, .. } = state;
    let crawler = &mut crawlers[who];
    match act {
        Act::Start => *crawler = Crawler { running: true, next: *cursor, ..Crawler::default() },
        Act::Send => {
            crawler.flight.push_back(crawler.next);
            crawler.next += 1;
        }
        Act::Land => {
            let event = crawler.flight.pop_front().expect("there is one");
            raw.push(protocol.bounds.host[usize::from(event)]);
        }
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

/// The low-water mark of what `raw` has acknowledged.
fn known(protocol: &Protocol, crawler: &Crawler) -> u8 {
    if !protocol.has(Step::CursorAfterAck) {
        return crawler.next;
    }
    crawler.flight.iter().copied().min().unwrap_or(crawler.next)
}

/// Whether everything of the host before the cursor is in `raw`.
pub(crate) fn cursor_is_true(protocol: &Protocol, state: &State) -> bool {
    let host = &protocol.bounds.host;
    host.iter().enumerate().all(|(at, event)| offset(at) >= state.cursor || state.raw.contains(event))
}

//! Following the firehose: the thread that reads its end, and what moves the window.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rdkafka::Message as _;
use storage::{error::Error, log::Window, seq::Seq};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    Config, Ends, Found, Metrics, PATIENCE, Point, Published, Reader, Shared, decode, failed, publish, ring::Ring,
    search::Index, silent,
};
use crate::sequence::state;

/// So many records before the end are read for the ring when it begins.
const BEGIN_BEFORE: i64 = 2000;
/// What is read ahead of the ring.
const AHEAD_BYTES: usize = 8 << 20;
const STEP_BYTES: usize = 1 << 20;
/// A look needs one record only.
const LOOK_BYTES: usize = 16 << 10;
/// So many events are shown together at most.
const TOGETHER_MAX: usize = 256;
/// How long one look at the topic may take: how soon a call to stop is seen.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is looked what is still kept.
const KEPT_EVERY: Duration = Duration::from_secs(1);
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// Reads the end.
pub(super) struct Tail {
    shared: Arc<Shared>,
    reader: Reader,
}

impl Tail {
    /// Reads up to the end. Blocks.
    pub(super) fn open(
        config: Config,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Result<(Tail, Arc<Shared>), Error> {
        let what = "read the sequencer's state";
        // The state first: what is published later is in the topic.
        let state = state::read_last(&config.client, &config.state, PATIENCE)
            .map_err(|error| Error::Determinate { what, source: error.into() })?
            .ok_or_else(|| Error::Determinate {
                what,
                source: format!("{} holds none: run `mainstem cluster init` first", config.state).into(),
            })?;
        let next = state.next_seq;
        let looking = Reader::new(&config, LOOK_BYTES, LOOK_BYTES).map_err(failed)?;
        let (low, _) = looking.watermarks()?;
        let first = looking.look(low)?;
        let last = Seq(next.0.saturating_sub(1));
        let window = Window { first: next, last, bytes: 0, first_at_micros: None };
        let shared = Arc::new(Shared {
            ring: Mutex::new(Ring::new(config.limits.ring_bytes_max)),
            index: Mutex::new(Index::default()),
            window: watch::Sender::new(window),
            ends: Mutex::new(Ends {
                low,
                first: None,
                next: low,
                high: low,
                met_end: Instant::now(),
                seen_bytes: 0,
                seen: 0,
            }),
            stop,
            metrics,
            config,
        });
        let reader = Reader::new(&shared.config, AHEAD_BYTES, STEP_BYTES).map_err(failed)?;
        let tail = Tail { shared: Arc::clone(&shared), reader };
        tail.begin()?;
        if first.is_some() {
            shared.set_first(low, first);
        }
        Ok((tail, shared))
    }

    /// Follows from here on, in threads of its own, until it is stopped.
    pub(super) fn start(self) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new().name("firehose-kept".into()).spawn(move || watch_kept(&shared))?;
        std::thread::Builder::new().name("firehose-tail".into()).spawn(move || self.run())?;
        Ok(())
    }

    /// Reads the newest records, up to the end.
    fn begin(&self) -> Result<(), Error> {
        let (low, high) = self.reader.watermarks()?;
        let mut before = BEGIN_BEFORE;
        loop {
            let from = (high - before).max(low);
            self.reader.place(from).map_err(failed)?;
            let until = Instant::now() + PATIENCE;
            let mut batch = Vec::new();
            loop {
                match self.reader.next(LOOK).map_err(failed)? {
                    Found::Record(message) => {
                        batch.push(take(&message)?);
                        // Where more is written all the time, the end itself is never met.
                        if message.offset() + 1 >= high {
                            break;
                        }
                    }
                    Found::End => break,
                    Found::Nothing if Instant::now() > until => return Err(silent()),
                    Found::Nothing => {}
                }
                if batch.len() >= TOGETHER_MAX {
                    self.shared.show(&mut batch);
                }
            }
            self.shared.show(&mut batch);
            // There may be marks only.
            if self.shared.ring().last().is_some() || from == low {
                return Ok(());
            }
            before *= 8;
        }
    }

    fn run(self) {
        while !self.shared.stop.is_cancelled() {
            let Err(failure) = self.follow() else { return };
            self.shared.metrics.tail_restarts.inc();
            if let Error::Damaged { what } = &failure {
                error!(what, "the firehose can't be followed");
            } else {
                warn!(error = %with_causes(&failure), "following the firehose begins anew");
            }
            std::thread::sleep(PAUSE);
            if let Err(failure) = self.go_on() {
                warn!(error = %with_causes(&failure), "following the firehose can't begin anew yet");
            }
        }
    }

    /// Where it was; or at the end, where what comes next is no longer kept.
    fn go_on(&self) -> Result<(), Error> {
        let (low, high) = self.reader.watermarks()?;
        let next = self.shared.ends().next;
        if (low..=high).contains(&next) {
            return self.reader.place(next).map_err(failed);
        }
        self.shared.ring().clear();
        self.shared.index().clear();
        self.shared.ends().next = low;
        self.begin()?;
        self.shared
            .set_first(low, Reader::new(&self.shared.config, LOOK_BYTES, LOOK_BYTES).map_err(failed)?.look(low)?);
        Ok(())
    }

    fn follow(&self) -> Result<(), Error> {
        let mut batch = Vec::new();
        while !self.shared.stop.is_cancelled() {
            // What was read is shown as soon as nothing more is there.
            let wait = if batch.is_empty() { LOOK } else { Duration::ZERO };
            let found = self.reader.next(wait).map_err(failed)?;
            let (more, at_end) = match found {
                Found::Record(message) => {
                    batch.push(take(&message)?);
                    // The end as it was a moment ago; where more is written all the time, the end itself is never met.
                    (batch.len() < TOGETHER_MAX, message.offset() + 1 >= self.shared.ends().high)
                }
                Found::End => (false, true),
                Found::Nothing => (false, !wait.is_zero()),
            };
            if at_end {
                self.shared.ends().met_end = Instant::now();
            }
            if !more {
                self.shared.show(&mut batch);
            }
        }
        Ok(())
    }
}

/// An event that was read.
struct Tailed {
    offset: i64,
    at_micros: u64,
    event: Published,
}

fn take(message: &rdkafka::message::BorrowedMessage<'_>) -> Result<Tailed, Error> {
    let record = decode(message)?;
    Ok(Tailed { offset: message.offset(), at_micros: record.head.at_micros, event: publish(&record) })
}

impl Shared {
    /// Makes events readable and moves the window.
    fn show(&self, batch: &mut Vec<Tailed>) {
        let Some(newest) = batch.last() else { return };
        let (last, next) = (newest.event.seq, newest.offset + 1);
        let (oldest, at_micros) = (Point { seq: batch[0].event.seq, offset: batch[0].offset }, batch[0].at_micros);
        let (bytes, count) =
            (batch.iter().map(|tailed| tailed.event.frame.len() as u64).sum::<u64>(), batch.len() as u64);
        self.metrics.tailed.inc_by(count);
        self.index().learn(oldest);
        let met = self.ends().next;
        {
            let mut ring = self.ring();
            for Tailed { event, offset, .. } in batch.drain(..) {
                if ring.last().is_none_or(|last| last < event.seq) {
                    ring.push(event);
                } else if offset >= met {
                    self.metrics.seqs_again.inc();
                    error!(seq = event.seq.0, offset, "a seq is there twice; what came first stays");
                }
                // Else it was read before: after a new beginning some come again.
            }
        }
        let was_empty = {
            let mut ends = self.ends();
            ends.next = ends.next.max(next);
            ends.seen_bytes += bytes + wire_overhead(count);
            ends.seen += count;
            ends.first.is_none().then(|| ends.first = Some(oldest)).is_some()
        };
        self.window.send_modify(|window| {
            window.last = window.last.max(last);
            if was_empty {
                (window.first, window.first_at_micros) = (oldest.seq, Some(at_micros));
            }
            window.bytes = self.estimate(window.first, window.last);
        });
        self.metrics.set_window(&self.window.borrow());
    }

    /// Notes what is the first record kept.
    fn set_first(&self, low: i64, first: Option<(Point, u64)>) {
        {
            let mut ends = self.ends();
            ends.low = low;
            ends.first = first.map(|(point, _)| point);
        }
        self.window.send_modify(|window| {
            match first {
                Some((point, at_micros)) => {
                    (window.first, window.first_at_micros) = (point.seq, Some(at_micros));
                    // What the tail has not met yet is not shown.
                    window.first = window.first.min(window.last.next());
                }
                None => (window.first, window.first_at_micros) = (window.last.next(), None),
            }
            window.bytes = self.estimate(window.first, window.last);
        });
        let window = *self.window.borrow();
        self.index().forget_before(window.first);
        self.metrics.set_window(&window);
    }

    fn estimate(&self, first: Seq, last: Seq) -> u64 {
        let Ends { seen_bytes, seen, .. } = *self.ends();
        let kept = (last.0 + 1).saturating_sub(first.0);
        let bytes = u128::from(kept) * u128::from(seen_bytes) / u128::from(seen.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// What so many records take beside their frames.
fn wire_overhead(count: u64) -> u64 {
    // The head, and some bytes of Kafka's own.
    count * (crate::wire::firehose::Head::BYTES as u64 + 12)
}

/// Looks now and then which record is the first that is kept.
fn watch_kept(shared: &Shared) {
    let mut reader = None;
    let mut next = Instant::now() + KEPT_EVERY;
    while !shared.stop.is_cancelled() {
        if Instant::now() < next {
            std::thread::sleep(LOOK);
            continue;
        }
        next = Instant::now() + KEPT_EVERY;
        if let Err(failure) = look_what_is_kept(shared, &mut reader) {
            warn!(error = %with_causes(&failure), "failed to look what is kept of the firehose");
            reader = None;
        }
    }
}

fn look_what_is_kept(shared: &Shared, reader: &mut Option<Reader>) -> Result<(), Error> {
    let reader = match reader {
        Some(reader) => reader,
        None => reader.insert(Reader::new(&shared.config, LOOK_BYTES, LOOK_BYTES).map_err(failed)?),
    };
    let (low, high) = reader.watermarks()?;
    shared.ends().high = high;
    let known = *shared.ends();
    if low != known.low && known.first.is_none_or(|first| first.offset < low) {
        shared.set_first(low, reader.look(low)?);
    }
    Ok(())
}

/// Waits until the tail has met all that is committed now. Blocks.
pub(super) fn catch_up(shared: &Shared) -> Result<(), Error> {
    let reader = Reader::new(&shared.config, LOOK_BYTES, LOOK_BYTES).map_err(failed)?;
    let (_, high) = reader.watermarks()?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let next = shared.ends().next;
        // Behind the last record there are only marks.
        if next >= high || reader.look(next)?.is_none() {
            return Ok(());
        }
        while shared.ends().next == next && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Err(silent())
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

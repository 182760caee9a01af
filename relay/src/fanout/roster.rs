//! Who is connected: a bounded number of seats, what each shows of its subscriber, and the way to send one away.
//!
//! A seat is written by its subscriber alone and read by the operator, so that the figures are plain atomics: a store
//! for each chunk. They may be a chunk ahead of what has left the socket.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use storage::seq::Seq;
use tokio_util::sync::CancellationToken;

/// What a subscriber said of itself when it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// The other end of its connection; behind a reverse proxy, the proxy.
    pub address: Option<SocketAddr>,
    /// What a proxy says of whom it serves (`X-Forwarded-For`); anybody can write it.
    pub forwarded_for: Option<String>,
    /// Its `User-Agent`.
    pub user_agent: Option<String>,
    /// The cursor it asked for.
    pub cursor: Option<u64>,
    /// When it came, microseconds since the Unix epoch.
    pub since_micros: u64,
}

/// A subscriber's seat, shared by its loop and whoever looks.
#[derive(Debug)]
pub struct Seat {
    id: u64,
    guest: Guest,
    position: AtomicU64,
    events_sent: AtomicU64,
    bytes_sent: AtomicU64,
    leave: CancellationToken,
}

/// One subscriber as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its number in this process, from 1.
    pub id: u64,
    /// What it said of itself.
    pub guest: Guest,
    /// It has been given all events up to this seq.
    pub position: Seq,
    /// Events that have left in full.
    pub events_sent: u64,
    /// Bytes of events that have left.
    pub bytes_sent: u64,
}

/// The seats. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    max: usize,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    last_id: u64,
    taken: BTreeMap<u64, Arc<Seat>>,
}

/// A seat that is taken; free again when dropped.
#[derive(Debug)]
pub struct Place {
    seat: Arc<Seat>,
    roster: Roster,
}

impl Roster {
    /// So many seats, all free.
    pub fn new(max: usize) -> Roster {
        Roster { inner: Arc::new(Inner { max, seats: Mutex::default() }) }
    }

    /// Takes one, if one is free.
    pub fn take(&self, guest: Guest) -> Option<Place> {
        let mut seats = self.seats();
        if seats.taken.len() >= self.inner.max {
            return None;
        }
        seats.last_id += 1;
        let seat = Arc::new(Seat::new(seats.last_id, guest));
        seats.taken.insert(seat.id, Arc::clone(&seat));
        Some(Place { seat, roster: self.clone() })
    }

    /// All that are taken, the oldest first.
    pub fn list(&self) -> Vec<View> {
        self.seats().taken.values().map(|seat| seat.view()).collect()
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Option<View> {
        self.seats().taken.get(&id).map(|seat| seat.view())
    }

    /// Sends a subscriber away, after the last whole frame. Gives what it was; `None` where it is not there.
    pub fn disconnect(&self, id: u64) -> Option<View> {
        let seat = self.seats().taken.get(&id).cloned()?;
        seat.leave.cancel();
        Some(seat.view())
    }

    /// Nothing panics while it is held, and every change is whole.
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.inner.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn new(id: u64, guest: Guest) -> Seat {
        Seat {
            id,
            guest,
            position: AtomicU64::new(0),
            events_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            leave: CancellationToken::new(),
        }
    }

    /// Its subscriber has been given all up to `position`.
    pub(super) fn at(&self, position: Seq) {
        self.position.store(position.0, Ordering::Relaxed);
    }

    /// So much has left. Only its subscriber calls this, so that a load and a store do.
    pub(super) fn sent(&self, events: u64, bytes: u64) {
        let add = |counter: &AtomicU64, n| counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        add(&self.events_sent, events);
        add(&self.bytes_sent, bytes);
    }

    /// Cancelled when its subscriber is to go.
    pub(super) fn leave(&self) -> &CancellationToken {
        &self.leave
    }

    fn view(&self) -> View {
        View {
            id: self.id,
            guest: self.guest.clone(),
            position: Seq(self.position.load(Ordering::Relaxed)),
            events_sent: self.events_sent.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
        }
    }
}

impl Place {
    /// The seat.
    pub fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.roster.seats().taken.remove(&self.seat.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_and_free_again_and_their_numbers_are_not_reused() {
        let roster = Roster::new(2);
        let first = roster.take(Guest::default()).unwrap();
        let second = roster.take(Guest { cursor: Some(7), ..Guest::default() }).unwrap();
        assert!(roster.take(Guest::default()).is_none());
        second.seat().at(Seq(9));
        second.seat().sent(2, 300);
        second.seat().sent(1, 100);
        let views = roster.list();
        assert_eq!(views.iter().map(|view| view.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((views[1].position, views[1].events_sent, views[1].bytes_sent), (Seq(9), 3, 400));

        assert!(roster.disconnect(3).is_none());
        assert_eq!(roster.disconnect(1), roster.get(1));
        assert!(first.seat().leave().is_cancelled() && !second.seat().leave().is_cancelled());
        drop(first);
        assert!(roster.get(1).is_none());
        assert_eq!(roster.take(Guest::default()).unwrap().seat().id, 3);
    }
}

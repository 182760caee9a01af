//! Who is connected: a bounded number of seats, what each shows of its subscriber, and the way to send one away.
//!
//! Seats are bounded in all and by address. Who has a token is counted by it alone, and finds its seats free whoever else
//! came: those are beside the others. Trusted proxies' own addresses are bounded in all only: behind one that does not
//! say whom it serves there may be anybody, and on loopback there is the operator.
//!
//! A seat is written by its subscriber alone and read by the operator, so that the figures are plain atomics: a store
//! for each chunk. They may be a chunk ahead of what has left the socket.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use runtime::networks::{Networks, party};
use storage::seq::Seq;
use tokio_util::sync::CancellationToken;

use super::{
    metrics::Refused,
    outgoing::Reader,
    turned_away::{Row, TurnedAway},
};

/// How many there may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Subscribers without a token.
    pub max: usize,
    /// Subscribers with a token, all tokens together.
    pub with_token_max: usize,
    /// Of those without from one address, or one /64 of IPv6; `None` for no limit.
    pub per_address_max: Option<usize>,
    /// Addresses that are not limited: trusted proxies.
    pub unlimited: Networks,
}

/// Why there is no seat for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSeat {
    /// All are taken.
    Full,
    /// Its address has as many as one may have.
    AddressFull {
        /// How many.
        max: usize,
    },
    /// Its token has as many as it may have.
    TokenFull {
        /// How many.
        max: usize,
    },
}

impl NoSeat {
    /// The reason as it is counted.
    pub fn reason(self) -> Refused {
        match self {
            NoSeat::Full => Refused::Full,
            NoSeat::AddressFull { .. } => Refused::AddressFull,
            NoSeat::TokenFull { .. } => Refused::TokenFull,
        }
    }
}

/// A token that a subscriber has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Its name.
    pub name: Arc<str>,
    /// Its seats.
    pub max: usize,
}

/// What a subscriber said of itself when it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// The other end of its connection; behind a reverse proxy, the proxy.
    pub address: Option<SocketAddr>,
    /// Its address, behind the proxies that are believed.
    pub client: Option<IpAddr>,
    /// Its token.
    pub pass: Option<Pass>,
    /// What a proxy says of whom it serves (`X-Forwarded-For`); anybody can write it.
    pub forwarded_for: Option<String>,
    /// Its `User-Agent`.
    pub user_agent: Option<String>,
    /// The cursor it asked for.
    pub cursor: Option<u64>,
    /// What it asked for.
    pub reader: Reader,
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
    limits: Limits,
    seats: Mutex<Seats>,
    turned_away: Mutex<TurnedAway>,
}

/// Whom a seat is counted with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Count {
    /// All without a token.
    All,
    /// Those of one address.
    Address(IpAddr),
    /// Those with one token.
    Token(Arc<str>),
}

#[derive(Debug, Default)]
struct Seats {
    last_id: u64,
    taken: BTreeMap<u64, Arc<Seat>>,
    counts: HashMap<Count, usize>,
}

/// A seat that is taken; free again when dropped.
#[derive(Debug)]
pub struct Place {
    seat: Arc<Seat>,
    roster: Roster,
}

impl Roster {
    /// Seats within limits, all free.
    pub fn new(limits: Limits) -> Roster {
        Roster { inner: Arc::new(Inner { limits, seats: Mutex::default(), turned_away: Mutex::default() }) }
    }

    /// Takes one, if one is free for this guest.
    pub fn take(&self, guest: Guest) -> Result<Place, NoSeat> {
        let counts = self.counts_of(&guest);
        let mut seats = self.seats();
        for (count, max, full) in &counts {
            if seats.counts.get(count).is_some_and(|taken| taken >= max) {
                return Err(*full);
            }
        }
        for (count, _, _) in counts {
            *seats.counts.entry(count).or_default() += 1;
        }
        seats.last_id += 1;
        let seat = Arc::new(Seat::new(seats.last_id, guest));
        seats.taken.insert(seat.id, Arc::clone(&seat));
        Ok(Place { seat, roster: self.clone() })
    }

    /// What a guest counts towards, how many of it there may be, and what one more is told. The guest's own limit comes
    /// first: who has all it may have should hear that.
    fn counts_of(&self, guest: &Guest) -> Vec<(Count, usize, NoSeat)> {
        let Limits { max, with_token_max: _, per_address_max, unlimited } = &self.inner.limits;
        if let Some(pass) = &guest.pass {
            return vec![(Count::Token(Arc::clone(&pass.name)), pass.max, NoSeat::TokenFull { max: pass.max })];
        }
        let mut counts = Vec::with_capacity(2);
        if let (Some(client), Some(max)) = (guest.client, per_address_max)
            && !unlimited.contain(client)
        {
            counts.push((Count::Address(party(client)), *max, NoSeat::AddressFull { max: *max }));
        }
        counts.push((Count::All, *max, NoSeat::Full));
        counts
    }

    /// All that there may be.
    pub fn seats_max(&self) -> usize {
        self.inner.limits.max + self.inner.limits.with_token_max
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Remembers whom it turned away.
    pub fn turned_away(&self, client: Option<IpAddr>, token: Option<&str>, reason: Refused, now_micros: u64) {
        let mut away = self.inner.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        away.add(client.map(party), token, reason, now_micros);
    }

    /// Who was turned away of late, the latest first.
    pub fn list_turned_away(&self) -> Vec<Row> {
        self.inner.turned_away.lock().unwrap_or_else(PoisonError::into_inner).list()
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
        let counts = self.roster.counts_of(&self.seat.guest);
        let mut seats = self.roster.seats();
        seats.taken.remove(&self.seat.id);
        for (count, _, _) in counts {
            if let Some(taken) = seats.counts.get_mut(&count) {
                *taken -= 1;
                if *taken == 0 {
                    seats.counts.remove(&count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(max: usize, per_address_max: Option<usize>) -> Roster {
        Roster::new(Limits { max, with_token_max: 0, per_address_max, unlimited: Networks::loopback() })
    }

    fn from(client: &str) -> Guest {
        Guest { client: Some(client.parse().unwrap()), ..Guest::default() }
    }

    #[test]
    fn seats_are_bounded_and_free_again_and_their_numbers_are_not_reused() {
        let roster = roster(2, None);
        let first = roster.take(Guest::default()).unwrap();
        let second = roster.take(Guest { cursor: Some(7), ..Guest::default() }).unwrap();
        assert_eq!(roster.take(Guest::default()).unwrap_err(), NoSeat::Full);
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

    #[test]
    fn one_address_leaves_seats_for_others() {
        let roster = roster(5, Some(2));
        let flood: Vec<_> = (0..100).map(|_| roster.take(from("192.0.2.1"))).collect();
        assert_eq!(flood.iter().filter(|taken| taken.is_ok()).count(), 2);
        assert!(flood.iter().skip(2).all(|taken| matches!(taken, Err(NoSeat::AddressFull { max: 2 }))));
        // One /64 is one party.
        let _six: Vec<_> = (0..2).map(|n| roster.take(from(&format!("2001:db8::{n}"))).unwrap()).collect();
        assert_eq!(roster.take(from("2001:db8::9")).unwrap_err(), NoSeat::AddressFull { max: 2 });
        let _other = roster.take(from("192.0.2.2")).unwrap();
        assert_eq!(roster.take(from("192.0.2.3")).unwrap_err(), NoSeat::Full);
        drop(flood);
        let _again = roster.take(from("192.0.2.1")).unwrap();
    }

    #[test]
    fn a_trusted_proxy_that_tells_nothing_is_bounded_in_all_only() {
        let roster = roster(3, Some(1));
        let local: Vec<_> = (0..4).map(|_| roster.take(from("127.0.0.1"))).collect();
        assert_eq!(local.iter().filter(|taken| taken.is_ok()).count(), 3);
        assert!(matches!(local[3], Err(NoSeat::Full)));
    }

    #[test]
    fn a_token_has_its_own_seats_and_no_more() {
        let roster = roster(1, Some(1));
        let with_pass = || Guest { pass: Some(Pass { name: "appview".into(), max: 2 }), ..from("192.0.2.1") };
        let _stranger = roster.take(from("192.0.2.1")).unwrap();
        assert_eq!(roster.take(from("192.0.2.9")).unwrap_err(), NoSeat::Full);
        let first = roster.take(with_pass()).unwrap();
        let _second = roster.take(with_pass()).unwrap();
        assert_eq!(roster.take(with_pass()).unwrap_err(), NoSeat::TokenFull { max: 2 });
        drop(first);
        let _third = roster.take(with_pass()).unwrap();
        assert_eq!(roster.list().len(), 3);
    }

    #[test]
    fn nothing_is_remembered_of_who_has_left() {
        let roster = roster(10, Some(2));
        for n in 0..1_000_u32 {
            drop(roster.take(from(&IpAddr::from(n.to_be_bytes()).to_string())).unwrap());
        }
        assert!(roster.seats().counts.is_empty());
    }
}

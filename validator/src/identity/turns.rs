//! Whose request is next. Pure.
//!
//! Accounts that are ready to be asked about stand in a queue of whoever asks for them, and the queues take turns: a host
//! that sends events of endless unknown accounts waits for itself, and others' accounts are asked about as soon as if it
//! were one of many.

use std::collections::{HashMap, VecDeque};

use atproto::syntax::Did;

use super::{Asker, lookups::Flight};

/// Flights that may leave as soon as there is room.
#[derive(Default)]
pub(super) struct Turns {
    flights: HashMap<Did, Flight>,
    /// An account may stand in several queues; it leaves with the first.
    queues: HashMap<Asker, VecDeque<Did>>,
    /// The askers with a queue, each once.
    order: VecDeque<Asker>,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// A flight is ready, and these want it.
    pub(super) fn push(&mut self, flight: Flight, askers: Vec<Asker>) {
        let did = flight.did.clone();
        self.flights.insert(did.clone(), flight);
        for asker in askers {
            self.line_up(asker, did.clone());
        }
    }

    /// One more wants an account; it counts where its flight is ready and has not left.
    pub(super) fn join(&mut self, did: &Did, asker: Asker) {
        if self.flights.contains_key(did) {
            self.line_up(asker, did.clone());
        }
    }

    /// The next flight.
    pub(super) fn pop(&mut self) -> Option<Flight> {
        while let Some(asker) = self.order.pop_front() {
            let Some(queue) = self.queues.get_mut(&asker) else { continue };
            let flight = loop {
                match queue.pop_front() {
                    // Another's turn may have taken it.
                    Some(did) => match self.flights.remove(&did) {
                        Some(flight) => break Some(flight),
                        None => continue,
                    },
                    None => break None,
                }
            };
            if queue.is_empty() {
                self.queues.remove(&asker);
            } else {
                self.order.push_back(asker);
            }
            if flight.is_some() {
                return flight;
            }
        }
        None
    }

    fn line_up(&mut self, asker: Asker, did: Did) {
        let queue = self.queues.entry(asker.clone()).or_default();
        if queue.is_empty() {
            self.order.push_back(asker);
        }
        queue.push_back(did);
    }
}

#[cfg(test)]
mod tests {
    use atproto::syntax::HostName;

    use super::*;

    fn did(n: usize) -> Did {
        Did::parse(&format!("did:web:{n}.example.com")).unwrap()
    }

    fn asker(n: usize) -> Asker {
        Asker::Host(HostName::parse(&format!("host-{n}.example.com")).unwrap())
    }

    fn flight(n: usize) -> Flight {
        Flight { did: did(n), not_before_micros: 0, is_retry: false }
    }

    fn popped(turns: &mut Turns) -> Vec<Did> {
        std::iter::from_fn(|| turns.pop().map(|flight| flight.did)).collect()
    }

    #[test]
    fn askers_take_turns_and_each_keeps_its_order() {
        let mut turns = Turns::default();
        for n in 0..100 {
            turns.push(flight(n), vec![asker(0)]);
        }
        turns.push(flight(200), vec![asker(1)]);
        turns.push(flight(201), vec![asker(1)]);
        turns.push(flight(300), vec![Asker::Ourselves]);
        let order = popped(&mut turns);
        assert_eq!(order[..7], [0, 200, 300, 1, 201, 2, 3].map(did));
        assert_eq!(order.len(), 103);
        assert!(turns.is_empty() && turns.queues.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn an_account_leaves_with_the_first_who_has_a_turn() {
        let mut turns = Turns::default();
        for n in 0..10 {
            turns.push(flight(n), vec![asker(0)]);
        }
        turns.join(&did(9), asker(1));
        turns.join(&did(77), asker(1));
        let order = popped(&mut turns);
        assert_eq!(order[..3], [0, 9, 1].map(did));
        assert_eq!(order.len(), 10, "and only once");
        assert!(turns.queues.is_empty() && turns.order.is_empty());
    }
}

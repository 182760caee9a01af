//! The order of a host's events on one connection. Pure.

/// What an event's seq says about its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// After all before it: it is new.
    Next,
    /// It is the cursor's own event: some hosts take a cursor as inclusive. It has been taken before.
    Repeat,
    /// Below the cursor, and the first on its connection: the host counts anew.
    Reset,
    /// Not above the one before it on this connection: a fault.
    NotRising {
        /// The one before.
        last: u64,
    },
}

/// Judges the seqs of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    cursor: Option<u64>,
    last: Option<u64>,
}

impl Order {
    /// For a connection that was asked for with this cursor.
    pub fn new(cursor: Option<u64>) -> Order {
        Order { cursor, last: None }
    }

    /// Judges the next event, and remembers its seq if it rises.
    pub fn judge(&mut self, seq: u64) -> Place {
        let place = match (self.last, self.cursor) {
            (Some(last), _) if seq <= last => return Place::NotRising { last },
            (Some(_), _) | (None, None) => Place::Next,
            (None, Some(cursor)) if seq < cursor => Place::Reset,
            (None, Some(cursor)) if seq == cursor => Place::Repeat,
            (None, Some(_)) => Place::Next,
        };
        self.last = Some(seq);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::{Place::*, *};

    #[test]
    fn table() {
        type Row = (Option<u64>, &'static [(u64, Place)]);
        let table: [Row; 6] = [
            (None, &[(7, Next), (8, Next), (8, NotRising { last: 8 }), (2, NotRising { last: 8 }), (100, Next)]),
            (Some(0), &[(1, Next), (5, Next)]),
            (Some(10), &[(11, Next), (10, NotRising { last: 11 }), (13, Next)]),
            (Some(10), &[(10, Repeat), (10, NotRising { last: 10 }), (11, Next)]),
            (Some(10), &[(3, Reset), (4, Next), (4, NotRising { last: 4 }), (10, Next), (11, Next)]),
            (Some(10), &[(500, Next), (9, NotRising { last: 500 })]),
        ];
        for (cursor, events) in table {
            let mut order = Order::new(cursor);
            for &(seq, place) in events {
                assert_eq!(order.judge(seq), place, "{cursor:?}: {seq} in {events:?}");
            }
        }
    }
}

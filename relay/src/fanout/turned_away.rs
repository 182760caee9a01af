//! Who was turned away of late, and why: the last few, whoever floods. Pure.

use std::net::IpAddr;

use super::metrics::Refused;

/// Rows remembered. A flood from one address is one row.
const ROWS_MAX: usize = 32;

/// Somebody who was turned away for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The address, behind trusted proxies; `None` where it is not known.
    pub client: Option<IpAddr>,
    /// The name of its token, where it had one.
    pub token: Option<String>,
    /// Why.
    pub reason: Refused,
    /// How often, since it was last forgotten.
    pub count: u64,
    /// When last, microseconds since the Unix epoch.
    pub last_at_micros: u64,
}

/// The rows, the latest last.
#[derive(Debug, Default)]
pub struct TurnedAway {
    rows: Vec<Row>,
}

impl TurnedAway {
    /// Remembers one more; forgets whose last time was the longest ago.
    pub fn add(&mut self, client: Option<IpAddr>, token: Option<&str>, reason: Refused, now_micros: u64) {
        let same = |row: &Row| row.client == client && row.token.as_deref() == token && row.reason == reason;
        let mut row = match self.rows.iter().position(same) {
            Some(at) => self.rows.remove(at),
            None => Row { client, token: token.map(str::to_owned), reason, count: 0, last_at_micros: 0 },
        };
        if self.rows.len() >= ROWS_MAX {
            self.rows.remove(0);
        }
        row.count += 1;
        row.last_at_micros = now_micros;
        self.rows.push(row);
    }

    /// All of them, the latest first.
    pub fn list(&self) -> Vec<Row> {
        self.rows.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_row_and_the_latest_are_remembered() {
        let mut away = TurnedAway::default();
        let address = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        for now in 0..10_000 {
            away.add(address(1), None, Refused::AddressFull, now);
        }
        away.add(address(1), None, Refused::Full, 10_000);
        away.add(address(2), Some("appview"), Refused::TokenFull, 10_001);
        let rows = away.list();
        assert_eq!(rows.iter().map(|row| row.count).collect::<Vec<_>>(), [1, 1, 10_000]);
        assert_eq!((rows[0].token.as_deref(), rows[2].last_at_micros), (Some("appview"), 9_999));
        for n in 0..1_000 {
            away.add(address(100 + n), None, Refused::Full, 20_000);
        }
        assert_eq!(away.list().len(), ROWS_MAX);
        assert_eq!(away.list()[0].client, address(1_099));
    }
}

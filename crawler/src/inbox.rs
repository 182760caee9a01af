//! What a host has sent and is not dealt with yet, between the half of a session that reads and the half that works.
//!
//! It is short: its use is that a host's pings are seen, and answered, while its events wait for their turn. Small
//! messages are bounded by host. Large ones share one allowance over all hosts ([`Allowance`]), from before most of
//! their bytes are read until they are handed on.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use atproto::frame::FRAME_BYTES_MAX;
use bytes::Bytes;
use prometheus::IntGauge;
use runtime::ws::Data;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::session::Failure;

/// While more than this is held, the host is not read.
const READ_AHEAD_BYTES: usize = 32 * 1024;

/// What the reading half hands over.
#[derive(Debug)]
pub(crate) enum Item {
    /// A message.
    Message {
        data: Data,
        payload: Bytes,
        /// Its part of the allowance, where it is large.
        share: Option<Share>,
    },
    /// A message over the limit has gone by.
    TooLarge { bytes: u64 },
    /// The last: the connection has ended.
    End(Failure),
}

/// Items in order.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    held: Mutex<Held>,
    arrived: Notify,
    taken: Notify,
}

#[derive(Debug, Default)]
struct Held {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Inbox {
    pub(crate) fn put(&self, item: Item) {
        self.with(|held| {
            held.bytes += item.bytes();
            held.items.push_back(item);
        });
        self.arrived.notify_one();
    }

    /// Waits for the next item. Cancel-safe.
    pub(crate) async fn take(&self) -> Item {
        loop {
            let item = self.with(|held| held.items.pop_front().inspect(|item| held.bytes -= item.bytes()));
            if let Some(item) = item {
                self.taken.notify_one();
                return item;
            }
            self.arrived.notified().await;
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.with(|held| held.bytes <= READ_AHEAD_BYTES)
    }

    /// Waits until there is room. Cancel-safe.
    pub(crate) async fn room(&self) {
        while !self.has_room() {
            self.taken.notified().await;
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        // Every change is one step, so a panic elsewhere leaves nothing to repair.
        change(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Item::Message { payload, .. } => payload.len(),
            Item::TooLarge { .. } | Item::End(_) => 0,
        }
    }
}

/// Bytes of large messages that may be held over all hosts: those that are not whole yet, and those not handed on.
///
/// A message takes its whole length before it is read on, so whoever holds a share needs no other, and shares come back
/// in bounded time: a message that is not finished in time ends its connection.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    kibibytes: Arc<Semaphore>,
    gauge: IntGauge,
}

/// A part of the allowance; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    _permit: OwnedSemaphorePermit,
    bytes: i64,
    gauge: IntGauge,
}

impl Allowance {
    /// So many bytes; one message of the largest size always has room.
    pub(crate) fn new(bytes_max: usize, gauge: IntGauge) -> Allowance {
        let kibibytes = kibibytes(bytes_max.max(FRAME_BYTES_MAX)).min(Semaphore::MAX_PERMITS);
        Allowance { kibibytes: Arc::new(Semaphore::new(kibibytes)), gauge }
    }

    /// Whether a message of this length needs a share: not if the host's own room is enough for it.
    pub(crate) fn concerns(bytes: usize) -> bool {
        bytes > READ_AHEAD_BYTES
    }

    /// Waits for a share, first come first served.
    pub(crate) async fn share(self, bytes: usize) -> Share {
        let permits = u32::try_from(kibibytes(bytes.min(FRAME_BYTES_MAX))).unwrap_or(u32::MAX);
        let permit = self.kibibytes.acquire_many_owned(permits).await.expect("the semaphore is never closed");
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.gauge.add(bytes);
        Share { _permit: permit, bytes, gauge: self.gauge }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
    }
}

fn kibibytes(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn message(bytes: usize) -> Item {
        Item::Message { data: Data::Binary, payload: Bytes::from(vec![0; bytes]), share: None }
    }

    #[test]
    fn it_has_room_until_it_is_full_and_again_when_something_is_taken() {
        let inbox = Inbox::default();
        assert!(inbox.take().now_or_never().is_none());
        inbox.put(message(READ_AHEAD_BYTES));
        assert!(inbox.has_room());
        inbox.put(message(1));
        assert!(!inbox.has_room() && inbox.room().now_or_never().is_none());
        assert!(matches!(inbox.take().now_or_never(), Some(Item::Message { .. })));
        assert!(inbox.room().now_or_never().is_some());
    }

    #[test]
    fn shares_are_bounded_and_come_back() {
        let gauge = IntGauge::new("g", "g").unwrap();
        let allowance = Allowance::new(2 * FRAME_BYTES_MAX, gauge.clone());
        let first = allowance.clone().share(FRAME_BYTES_MAX).now_or_never().unwrap();
        let _second = allowance.clone().share(FRAME_BYTES_MAX).now_or_never().unwrap();
        assert_eq!(gauge.get(), 2 * FRAME_BYTES_MAX as i64);
        assert!(allowance.clone().share(100_000).now_or_never().is_none());
        drop(first);
        assert!(allowance.clone().share(100_000).now_or_never().is_some());
        assert_eq!(gauge.get(), FRAME_BYTES_MAX as i64);
        assert!(Allowance::new(0, gauge).share(FRAME_BYTES_MAX).now_or_never().is_some());
    }
}

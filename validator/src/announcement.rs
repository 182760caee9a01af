//! Events of our own: `#account` frames that tell subscribers how an account is where no host's event does.

use atproto::{
    event::{self, AccountEvent, Event, Routed},
    frame::SeqSlot,
    syntax::{Datetime, Did},
};
use bytes::Bytes;
use storage::repos::AccountStatus;

/// An `#account` frame with its seq's place; the log puts the seq in.
pub(crate) fn account(did: &Did, status: AccountStatus, now_micros: u64) -> (Bytes, SeqSlot) {
    let time = Datetime::from_micros(now_micros);
    let event = AccountEvent {
        seq: 1,
        did: did.as_str(),
        time: time.as_str(),
        active: status.is_active(),
        status: status.as_str(),
    };
    let frame = Event::Account(event).encode();
    let Ok(Routed::Event(route)) = event::route(&frame) else {
        unreachable!("it is an event with a seq, and a `Did` is a DID");
    };
    let seq_slot = route.seq_slot;
    (Bytes::from(frame), seq_slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_to_be_said() {
        let did = Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap();
        for status in [
            AccountStatus::Active,
            AccountStatus::Takendown,
            AccountStatus::Inactive,
            AccountStatus::Throttled { active: false },
        ] {
            let (frame, seq_slot) = account(&did, status, 1_763_804_900_123_456);
            let mut bytes = Vec::new();
            atproto::frame::write_with_seq(&mut bytes, &frame, seq_slot, 1 << 40);
            let Ok(Event::Account(event)) = event::parse(&bytes) else { panic!("not an #account") };
            assert_eq!((event.seq, event.did, event.time), (1 << 40, did.as_str(), "2025-11-22T09:48:20.123456Z"));
            assert_eq!(AccountStatus::from_event(event.active, event.status), status);
        }
    }
}

//! The WebSocket codec, which reads what any host or subscriber sends.

use runtime::ws::{Decoder, Event, ProtocolError, Role};

/// Largest message in these tests; small, so that going over it is easily found.
const MESSAGE_BYTES_MAX: usize = 300;

/// What comes in after a handshake. The first byte says which end we are, and in which pieces the rest arrives. Both with
/// compression and without.
pub fn ws(bytes: &[u8]) {
    let Some((&how, stream)) = bytes.split_first() else { return };
    let role = if how & 1 == 0 { Role::Client } else { Role::Server };
    for deflate in [false, true] {
        both(role, deflate, stream, usize::from(how >> 1).max(1));
    }
}

fn both(role: Role, deflate: bool, stream: &[u8], piece_bytes: usize) {
    let whole = decode(role, deflate, stream, stream.len().max(1));
    for event in &whole.0 {
        match event {
            Event::Message { payload, .. } => assert!(payload.len() <= MESSAGE_BYTES_MAX, "a message over the limit"),
            Event::TooLarge { bytes } => assert!(*bytes > MESSAGE_BYTES_MAX as u64, "{bytes} bytes are not too large"),
            Event::Ping(payload) | Event::Pong(payload) => assert!(payload.len() <= 125, "a long control frame"),
            Event::Close { reason, .. } => assert!(reason.len() <= 123, "a long reason"),
        }
    }
    let pieces = decode(role, deflate, stream, piece_bytes);
    assert_eq!(whole, pieces, "the pieces in which it arrives change what is read");
}

fn decode(role: Role, deflate: bool, stream: &[u8], piece_bytes: usize) -> (Vec<Event>, Option<ProtocolError>) {
    let mut decoder = Decoder::new(role, MESSAGE_BYTES_MAX).taking_deflated(deflate);
    let mut events = Vec::new();
    for mut piece in stream.chunks(piece_bytes) {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        assert!(piece.is_empty(), "bytes that are neither used nor kept");
    }
    (events, None)
}

//! WebSocket (RFC 6455): a small frame codec without IO, and the handshake over HTTP/1.
//!
//! We have our own because two things are needed that tungstenite can't do: a message over the limit is discarded as it
//! streams in while the socket goes on, and ready-made frames shared by many subscribers are written by who owns the
//! socket. The one extension is permessage-deflate without context takeover (RFC 7692), where both ends want it.

mod decode;
mod deflate;
mod encode;
mod handshake;

pub use decode::{Decoder, Event, ProtocolError};
pub use deflate::{Deflater, LEVEL_MAX, agree};
pub use encode::{Header, close, deflated_header, header, payload, ping, pong};
pub use handshake::{HandshakeError, Request, Socket, Upgrade, accept, connect};

/// Which end we are. A client masks what it sends and must not be sent masked frames; for a server it is the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that asked for the connection.
    Client,
    /// The end that was asked.
    Server,
}

/// What a data frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// Why a connection is closed (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Done.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The end goes away.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The other end broke the protocol.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// A kind of data that can't be taken.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// Text that is not UTF-8.
    pub const INVALID_DATA: CloseCode = CloseCode(1007);
    /// The other end breaks a rule of this one's.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// A message over the limit.
    pub const TOO_LARGE: CloseCode = CloseCode(1009);
    /// Something unforeseen.
    pub const INTERNAL: CloseCode = CloseCode(1011);
    /// Come back later.
    pub const TRY_AGAIN: CloseCode = CloseCode(1013);

    /// Whether it may stand in a close frame.
    pub fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// The frame types of the base protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message that was begun.
    Continuation,
    /// A text message, or the beginning of one.
    Text,
    /// A binary message, or the beginning of one.
    Binary,
    /// The last frame of an end.
    Close,
    /// To be answered with a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    /// Its four bits.
    pub fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }
}

/// The largest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;

/// The bit of a message's first frame that says that its payload is deflated.
const RSV1: u8 = 0x40;

/// XORs a payload with its mask, from the payload's byte `offset` on.
fn apply_mask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut mask = mask;
    mask.rotate_left(offset % 4);
    // Four bytes at a time is what the compiler turns into vector code.
    let mut chunks = payload.chunks_exact_mut(4);
    for chunk in &mut chunks {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

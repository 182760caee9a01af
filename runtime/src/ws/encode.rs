//! Frames to send. Pure.

use super::{CONTROL_BYTES_MAX, CloseCode, Data, Opcode, RSV1, apply_mask};

/// An unmasked frame's header, 2 to 10 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; 10],
    len: u8,
}

impl Header {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The header of a whole message of `payload_bytes` in one frame, as a server sends it.
pub fn header(data: Data, payload_bytes: usize) -> Header {
    let opcode = match data {
        Data::Text => Opcode::Text,
        Data::Binary => Opcode::Binary,
    };
    unmasked(opcode, payload_bytes)
}

/// As [`header`], of a message whose payload is deflated (RFC 7692, section 6).
pub fn deflated_header(data: Data, payload_bytes: usize) -> Header {
    let mut header = header(data, payload_bytes);
    header.bytes[0] |= RSV1;
    header
}

/// The payload of a whole frame that begins with one of these headers.
pub fn payload(frame: &[u8]) -> &[u8] {
    let header_bytes = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        Some(_) | None => 2,
    };
    frame.get(header_bytes..).unwrap_or_default()
}

/// A ping. `mask` is given by a client, a new random one each time, and by nobody else. What is over 125 bytes of the
/// payload is cut off.
pub fn ping(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    control(Opcode::Ping, payload, mask)
}

/// A pong with the payload of the ping it answers. `mask` as in [`ping`].
pub fn pong(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    control(Opcode::Pong, payload, mask)
}

/// A close frame; with no code it is empty. The reason is cut to what fits. `mask` as in [`ping`].
pub fn close(code: Option<CloseCode>, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let Some(code) = code else { return control(Opcode::Close, &[], mask) };
    let mut payload = code.0.to_be_bytes().to_vec();
    let fits = reason.floor_char_boundary(CONTROL_BYTES_MAX - payload.len());
    payload.extend_from_slice(&reason.as_bytes()[..fits]);
    control(Opcode::Close, &payload, mask)
}

fn control(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    let mut frame = unmasked(opcode, payload.len()).as_bytes().to_vec();
    if let Some(mask) = mask {
        frame[1] |= 0x80;
        frame.extend_from_slice(&mask);
        let start = frame.len();
        frame.extend_from_slice(payload);
        apply_mask(&mut frame[start..], mask, 0);
    } else {
        frame.extend_from_slice(payload);
    }
    frame
}

fn unmasked(opcode: Opcode, payload_bytes: usize) -> Header {
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode.bits();
    let len = match payload_bytes {
        0..=125 => {
            bytes[1] = payload_bytes as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        }
    };
    Header { bytes, len }
}

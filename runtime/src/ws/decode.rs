//! Frames received: bytes in, messages out. Pure.
//!
//! What must hold: the decoder holds no more than `message_bytes_max` and one control frame, allocates a message's
//! memory only as its bytes arrive, and gives the same events however the stream is cut into pieces.

use bytes::Bytes;

use super::{CONTROL_BYTES_MAX, CloseCode, Data, Opcode, Role, apply_mask};

/// The longest frame header: two bytes, a length of eight, a mask of four.
const HEADER_BYTES_MAX: usize = 14;

/// What is reserved at most for bytes that a header has announced and that are not there yet.
const RESERVE_BYTES_MAX: usize = 64 * 1024;

/// What has come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole message, its fragments joined. Text is UTF-8.
    Message {
        /// What it holds.
        data: Data,
        /// All of it.
        payload: Bytes,
    },
    /// The end of a message over the limit, whose bytes are gone. The stream goes on.
    TooLarge {
        /// How long it was.
        bytes: u64,
    },
    /// To be answered with a pong of the same payload.
    Ping(Bytes),
    /// An answer to a ping, or nothing of importance.
    Pong(Bytes),
    /// The last frame of the other end. What comes after it is not read.
    Close {
        /// Its code, if it has one.
        code: Option<CloseCode>,
        /// For people.
        reason: String,
    },
}

/// The other end broke the protocol; the stream can't be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A reserved bit is set, though no extension was agreed on.
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode that does not exist.
    #[error("unknown opcode {0}")]
    Opcode(u8),
    /// Masked by a server, or not masked by a client.
    #[error("wrong masking")]
    Masking,
    /// A length not in its shortest form, or over 2^63.
    #[error("bad length")]
    Length,
    /// A control frame in fragments, or over 125 bytes.
    #[error("bad control frame")]
    Control,
    /// A continuation of nothing, or a new message within one.
    #[error("bad fragmentation")]
    Fragmentation,
    /// Text or a close reason that is not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// A close frame of one byte, or with a code that may not be sent.
    #[error("bad close frame")]
    Close,
}

impl ProtocolError {
    /// What to close the connection with.
    pub fn close_code(self) -> CloseCode {
        match self {
            ProtocolError::Utf8 => CloseCode::INVALID_DATA,
            ProtocolError::ReservedBits
            | ProtocolError::Opcode(_)
            | ProtocolError::Masking
            | ProtocolError::Length
            | ProtocolError::Control
            | ProtocolError::Fragmentation
            | ProtocolError::Close => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// Reads one end of a connection.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    message_bytes_max: usize,
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    frame: Option<Frame>,
    message: Option<Message>,
    control: Vec<u8>,
    closed: bool,
}

/// The frame whose payload is being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    bytes: u64,
    read: u64,
}

/// The message being put together.
#[derive(Debug)]
struct Message {
    data: Data,
    payload: Vec<u8>,
    /// Its length so far where it is over the limit and its payload is dropped.
    discarded: Option<u64>,
}

impl Decoder {
    /// A decoder for what comes in at the end `role`, of a connection after its handshake.
    pub fn new(role: Role, message_bytes_max: usize) -> Decoder {
        Decoder {
            role,
            message_bytes_max,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            frame: None,
            message: None,
            control: Vec::new(),
            closed: false,
        }
    }

    /// Reads from `input`, moving it past what is used, until an event is whole or the input is used up (`None`). Call
    /// it again while it gives events. After an error or a close, the rest of the stream has no meaning.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event>, ProtocolError> {
        loop {
            if self.closed {
                *input = &[];
                return Ok(None);
            }
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.read_header(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let frame = self.read_payload(frame, input);
            if frame.read < frame.bytes {
                self.frame = Some(frame);
                return Ok(None);
            }
            self.frame = None;
            if let Some(event) = self.finish(frame)? {
                return Ok(Some(event));
            }
        }
    }

    /// Whether the stream stands between two messages: where an end of file loses nothing.
    pub fn is_between_messages(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, ProtocolError> {
        loop {
            let needed = header_bytes(&self.header[..self.header_len]);
            if self.header_len == needed {
                break;
            }
            let n = (needed - self.header_len).min(input.len());
            if n == 0 {
                return Ok(None);
            }
            self.header[self.header_len..self.header_len + n].copy_from_slice(&input[..n]);
            self.header_len += n;
            *input = &input[n..];
        }
        let frame = self.parse_header()?;
        self.header_len = 0;
        self.begin(&frame)?;
        Ok(Some(frame))
    }

    fn parse_header(&self) -> Result<Frame, ProtocolError> {
        let [first, second, ..] = self.header;
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let bits = first & 0x0f;
        let opcode = Opcode::from_bits(bits).ok_or(ProtocolError::Opcode(bits))?;
        let masked = second & 0x80 != 0;
        if masked != (self.role == Role::Server) {
            return Err(ProtocolError::Masking);
        }
        let rest = &self.header[2..self.header_len];
        let (bytes, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk().expect("the header is whole");
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk().expect("the header is whole");
                (u64::from_be_bytes(*length), rest)
            }
            short => (u64::from(short), rest),
        };
        let shortest = match second & 0x7f {
            126 => bytes > 125,
            127 => bytes > 0xffff && bytes >> 63 == 0,
            _ => true,
        };
        if !shortest {
            return Err(ProtocolError::Length);
        }
        let mask = rest.first_chunk().copied();
        Ok(Frame { fin: first & 0x80 != 0, opcode, mask, bytes, read: 0 })
    }

    /// Checks a frame against what came before it, and makes ready for its payload.
    fn begin(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        let data = match frame.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                if !frame.fin || frame.bytes > CONTROL_BYTES_MAX as u64 {
                    return Err(ProtocolError::Control);
                }
                self.control.clear();
                return Ok(());
            }
            Opcode::Continuation => None,
            Opcode::Text => Some(Data::Text),
            Opcode::Binary => Some(Data::Binary),
        };
        if data.is_some() == self.message.is_some() {
            return Err(ProtocolError::Fragmentation);
        }
        if let Some(data) = data {
            self.message = Some(Message { data, payload: Vec::new(), discarded: None });
        }
        let message = self.message.as_mut().expect("made above, or there to be continued");
        let so_far = message.discarded.unwrap_or(message.payload.len() as u64);
        let total = so_far.saturating_add(frame.bytes);
        if message.discarded.is_some() || total > self.message_bytes_max as u64 {
            message.discarded = Some(total);
            message.payload = Vec::new();
        }
        Ok(())
    }

    fn read_payload(&mut self, mut frame: Frame, input: &mut &[u8]) -> Frame {
        let left = frame.bytes - frame.read;
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let (part, rest) = input.split_at(n);
        *input = rest;
        let target = match frame.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => Some(&mut self.control),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => match &mut self.message {
                Some(Message { discarded: None, payload, .. }) => {
                    // `begin` has checked the whole frame against the limit, which is a usize.
                    reserve(payload, n, usize::try_from(left).unwrap_or(usize::MAX));
                    Some(payload)
                }
                Some(_) | None => None,
            },
        };
        if let Some(target) = target {
            let start = target.len();
            target.extend_from_slice(part);
            if let Some(mask) = frame.mask {
                // Only the offset modulo 4 matters.
                apply_mask(&mut target[start..], mask, (frame.read % 4) as usize);
            }
        }
        frame.read += n as u64;
        frame
    }

    fn finish(&mut self, frame: Frame) -> Result<Option<Event>, ProtocolError> {
        match frame.opcode {
            Opcode::Ping => Ok(Some(Event::Ping(Bytes::copy_from_slice(&self.control)))),
            Opcode::Pong => Ok(Some(Event::Pong(Bytes::copy_from_slice(&self.control)))),
            Opcode::Close => {
                self.closed = true;
                let (code, reason) = match self.control.split_first_chunk() {
                    Some((code, reason)) => (Some(CloseCode(u16::from_be_bytes(*code))), reason),
                    None if self.control.is_empty() => (None, &[][..]),
                    None => return Err(ProtocolError::Close),
                };
                if code.is_some_and(|code| !code.may_be_sent()) {
                    return Err(ProtocolError::Close);
                }
                let reason = str::from_utf8(reason).map_err(|_| ProtocolError::Utf8)?.to_owned();
                Ok(Some(Event::Close { code, reason }))
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                let Some(message) = self.message.take_if(|_| frame.fin) else { return Ok(None) };
                if let Some(bytes) = message.discarded {
                    return Ok(Some(Event::TooLarge { bytes }));
                }
                if message.data == Data::Text && str::from_utf8(&message.payload).is_err() {
                    return Err(ProtocolError::Utf8);
                }
                Ok(Some(Event::Message { data: message.data, payload: Bytes::from(message.payload) }))
            }
        }
    }
}

/// How long a header is, from what is there of it: at least 2, and 2 until both first bytes are there.
fn header_bytes(start: &[u8]) -> usize {
    let Some(second) = start.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    2 + length + mask
}

/// Makes room for `now` bytes of `expected`: all of a short frame at once, so that it is allocated exactly; a long one
/// as it comes, so that announcing bytes costs nothing and sending them costs no more than their double.
fn reserve(payload: &mut Vec<u8>, now: usize, expected: usize) {
    if payload.capacity() - payload.len() < now {
        let step = payload.len().max(RESERVE_BYTES_MAX).max(now);
        payload.reserve_exact(step.min(expected));
    }
}

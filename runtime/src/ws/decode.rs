//! Frames received: bytes in, messages out. Pure.
//!
//! What must hold: the decoder holds no more than `message_bytes_max` and one control frame (of a deflated message as much
//! again while it is inflated), allocates a message's memory only as its bytes arrive, and gives the same events however
//! the stream is cut into pieces.

use bytes::Bytes;

use super::{
    CONTROL_BYTES_MAX, CloseCode, Data, Opcode, RSV1, Role, apply_mask,
    deflate::{InflateError, Inflater},
};

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
        /// How long it was. Of a deflated message this is what came where that is over the limit, and else the limit and
        /// one more byte: it is inflated no further.
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
    /// A message that says that it is deflated, and is not.
    #[error("not deflated")]
    Deflate,
}

impl ProtocolError {
    /// What to close the connection with.
    pub fn close_code(self) -> CloseCode {
        match self {
            ProtocolError::Utf8 | ProtocolError::Deflate => CloseCode::INVALID_DATA,
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
    /// Whether messages may come deflated.
    takes_deflated: bool,
    /// Kept between messages by a client, which gets many. A server has many clients, and hardly gets a message.
    inflater: Option<Box<Inflater>>,
}

/// The frame whose payload is being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    deflated: bool,
    mask: Option<[u8; 4]>,
    bytes: u64,
    read: u64,
}

/// The message being put together.
#[derive(Debug)]
struct Message {
    data: Data,
    deflated: bool,
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
            takes_deflated: false,
            inflater: None,
        }
    }

    /// The same where permessage-deflate was agreed on: messages may come deflated, each by itself.
    #[must_use]
    pub fn taking_deflated(mut self, agreed: bool) -> Decoder {
        self.takes_deflated = agreed;
        self
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

    /// How long the message will be at most that has begun and is not whole, where it is kept. Of a message in fragments
    /// or deflated, this is the limit: it does not say how long it will be.
    pub fn message_bytes_awaited(&self) -> Option<usize> {
        let message = self.message.as_ref().filter(|message| message.discarded.is_none())?;
        if message.deflated {
            return Some(self.message_bytes_max);
        }
        let so_far = message.payload.len();
        Some(match self.frame {
            Some(Frame {
                fin: true,
                opcode: Opcode::Continuation | Opcode::Text | Opcode::Binary,
                bytes,
                read,
                ..
            }) => so_far + usize::try_from(bytes - read).unwrap_or(self.message_bytes_max),
            Some(_) | None => self.message_bytes_max,
        })
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
        let bits = first & 0x0f;
        let opcode = Opcode::from_bits(bits).ok_or(ProtocolError::Opcode(bits));
        // The first frame of a message says whether it is deflated, and no other.
        let may_be_deflated = self.takes_deflated && matches!(opcode, Ok(Opcode::Text | Opcode::Binary));
        let deflated = first & RSV1 != 0;
        if first & 0x70 & !RSV1 != 0 || (deflated && !may_be_deflated) {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = opcode?;
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
        Ok(Frame { fin: first & 0x80 != 0, opcode, deflated, mask, bytes, read: 0 })
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
            self.message = Some(Message { data, deflated: frame.deflated, payload: Vec::new(), discarded: None });
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
                let payload = match message.deflated {
                    false => message.payload,
                    true => match self.inflate(&message.payload) {
                        Ok(payload) => payload,
                        Err(InflateError::Corrupt) => return Err(ProtocolError::Deflate),
                        Err(InflateError::TooLarge) => {
                            return Ok(Some(Event::TooLarge { bytes: self.message_bytes_max as u64 + 1 }));
                        }
                    },
                };
                if message.data == Data::Text && str::from_utf8(&payload).is_err() {
                    return Err(ProtocolError::Utf8);
                }
                Ok(Some(Event::Message { data: message.data, payload: Bytes::from(payload) }))
            }
        }
    }

    fn inflate(&mut self, payload: &[u8]) -> Result<Vec<u8>, InflateError> {
        let mut inflater = self.inflater.take().unwrap_or_else(|| Box::new(Inflater::new()));
        let inflated = inflater.inflate(payload, self.message_bytes_max);
        match self.role {
            Role::Client => self.inflater = Some(inflater),
            Role::Server => {}
        }
        inflated
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ws::{Deflater, close, header, ping, pong};

    const MAX: usize = 1_000;

    /// One frame, masked when the decoder is a server's.
    fn frame(role: Role, fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = header(Data::Binary, payload.len()).as_bytes().to_vec();
        bytes[0] = opcode | if fin { 0x80 } else { 0 };
        if role == Role::Server {
            let mask = [1, 2, 3, 250];
            bytes[1] |= 0x80;
            bytes.extend_from_slice(&mask);
            let start = bytes.len();
            bytes.extend_from_slice(payload);
            apply_mask(&mut bytes[start..], mask, 0);
        } else {
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    /// All events of a stream that comes in pieces of these lengths, and then whole.
    fn decode(role: Role, stream: &[u8], pieces: &[usize]) -> (Vec<Event>, Option<ProtocolError>) {
        decode_by(Decoder::new(role, MAX), stream, pieces)
    }

    fn decode_by(mut decoder: Decoder, stream: &[u8], pieces: &[usize]) -> (Vec<Event>, Option<ProtocolError>) {
        let mut events = Vec::new();
        let mut rest = stream;
        let mut pieces = pieces.iter();
        while !rest.is_empty() {
            let n = pieces.next().map_or(rest.len(), |&n| n.clamp(1, rest.len()));
            let (mut piece, after) = rest.split_at(n);
            rest = after;
            loop {
                match decoder.next(&mut piece) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(error) => return (events, Some(error)),
                }
            }
            assert!(piece.is_empty(), "`None` means that all is used");
        }
        (events, None)
    }

    fn binary(payload: &[u8]) -> Event {
        Event::Message { data: Data::Binary, payload: Bytes::copy_from_slice(payload) }
    }

    fn both(check: impl Fn(Role)) {
        check(Role::Client);
        check(Role::Server);
    }

    #[test]
    fn messages_of_every_form_of_length_come_out_whole() {
        both(|role| {
            for bytes in [0, 1, 125, 126, 127, MAX] {
                let payload: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
                assert_eq!(decode(role, &frame(role, true, 2, &payload), &[]), (vec![binary(&payload)], None));
            }
            let text = Event::Message { data: Data::Text, payload: Bytes::from_static("grüß".as_bytes()) };
            assert_eq!(decode(role, &frame(role, true, 1, "grüß".as_bytes()), &[]), (vec![text], None));
        });
        let payload = vec![7; 70_000];
        let mut decoder = Decoder::new(Role::Client, 100_000);
        let stream = frame(Role::Client, true, 2, &payload);
        assert_eq!(decoder.next(&mut &stream[..]), Ok(Some(binary(&payload))));
    }

    #[test]
    fn fragments_are_joined_and_control_frames_come_between_them() {
        both(|role| {
            let stream = [
                frame(role, false, 2, b"ab"),
                frame(role, true, 9, b"ping"),
                frame(role, false, 0, b""),
                frame(role, true, 10, b""),
                frame(role, true, 0, b"cd"),
                frame(role, true, 2, b"next"),
            ]
            .concat();
            let expected = vec![
                Event::Ping(Bytes::from_static(b"ping")),
                Event::Pong(Bytes::new()),
                binary(b"abcd"),
                binary(b"next"),
            ];
            assert_eq!(decode(role, &stream, &[]), (expected, None));
        });
    }

    #[test]
    fn a_message_over_the_limit_streams_by_and_the_next_is_read() {
        both(|role| {
            let long = vec![1; MAX + 1];
            let stream = [
                frame(role, true, 2, &long),
                frame(role, true, 2, b"after"),
                frame(role, false, 1, &[b'x'; 600]),
                frame(role, true, 9, b"p"),
                frame(role, false, 0, &[0xff; 600]),
                frame(role, true, 0, b"end"),
                frame(role, true, 2, b"again"),
            ]
            .concat();
            let expected = vec![
                Event::TooLarge { bytes: MAX as u64 + 1 },
                binary(b"after"),
                Event::Ping(Bytes::from_static(b"p")),
                Event::TooLarge { bytes: 1_203 },
                binary(b"again"),
            ];
            assert_eq!(decode(role, &stream, &[]), (expected, None));
        });
    }

    #[test]
    fn announcing_bytes_allocates_nothing() {
        let mut decoder = Decoder::new(Role::Client, 5 << 20);
        let mut announced: &[u8] = &[0x82, 127, 0, 0, 0, 0, 0, 0x40, 0, 0, 1, 2, 3];
        assert_eq!(decoder.next(&mut announced), Ok(None));
        let held = decoder.message.as_ref().map(|message| message.payload.capacity());
        assert!(held.is_some_and(|bytes| bytes <= RESERVE_BYTES_MAX), "{held:?}");
        let mut most: &[u8] = &[0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        let mut decoder = Decoder::new(Role::Client, 5 << 20);
        assert_eq!(decoder.next(&mut most), Ok(None));
        assert_eq!(decoder.message.map(|message| message.payload.capacity()), Some(0));
    }

    #[test]
    fn it_says_how_much_of_a_message_is_awaited() {
        let mut decoder = Decoder::new(Role::Client, MAX);
        let mut feed = |stream: &[u8]| {
            let mut input = stream;
            while decoder.next(&mut input).unwrap().is_some() {}
            decoder.message_bytes_awaited()
        };
        let whole = frame(Role::Client, true, 2, &[1; 300]);
        assert_eq!(feed(&[]), None);
        assert_eq!(feed(&whole[..2]), None);
        assert_eq!(feed(&whole[2..50]), Some(300));
        assert_eq!(feed(&whole[50..]), None);
        assert_eq!(feed(&frame(Role::Client, false, 2, &[1; 300])), Some(MAX));
        assert_eq!(feed(&frame(Role::Client, true, 9, b"ping")[..3]), Some(MAX));
        assert_eq!(feed(&frame(Role::Client, true, 9, b"ping")[3..]), Some(MAX));
        assert_eq!(feed(&frame(Role::Client, true, 0, &[1; 300])[..10]), Some(600));
        assert_eq!(feed(&[1; 294]), None);
        let long = frame(Role::Client, true, 2, &[1; MAX + 1]);
        assert_eq!(feed(&long[..20]), None, "what is thrown away is not kept");
    }

    fn deflated(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(Deflater::new(6).deflate(payload, &mut out));
        out
    }

    #[test]
    fn deflated_messages_where_that_was_agreed() {
        both(|role| {
            let hello = b"hello, hello, hello, hello";
            let small = deflated(hello);
            let (first, rest) = small.split_at(5);
            let stream = [
                frame(role, true, 0x42, &small),
                frame(role, true, 2, b"as it is"),
                frame(role, false, 0x41, first),
                frame(role, true, 9, b"p"),
                frame(role, true, 0, rest),
                frame(role, true, 0x42, &deflated(&[0; MAX])),
                frame(role, true, 0x42, &deflated(&[0; MAX + 1])),
                frame(role, true, 0x42, &[0]),
            ]
            .concat();
            let expected = vec![
                binary(hello),
                binary(b"as it is"),
                Event::Ping(Bytes::from_static(b"p")),
                Event::Message { data: Data::Text, payload: Bytes::from_static(hello) },
                binary(&[0; MAX]),
                Event::TooLarge { bytes: MAX as u64 + 1 },
                binary(b""),
            ];
            let decoder = || Decoder::new(role, MAX).taking_deflated(true);
            assert_eq!(decode_by(decoder(), &stream, &[]), (expected.clone(), None));
            assert_eq!(decode_by(decoder(), &stream, &vec![1; stream.len()]), (expected, None));
            for (name, stream, error, code) in [
                (
                    "a later frame",
                    [frame(role, false, 2, b""), frame(role, true, 0x40, b"")].concat(),
                    ProtocolError::ReservedBits,
                    1002,
                ),
                ("a ping", frame(role, true, 0x49, b""), ProtocolError::ReservedBits, 1002),
                ("rsv2", frame(role, true, 0x62, &small), ProtocolError::ReservedBits, 1002),
                ("not deflated", frame(role, true, 0x42, &[7, 0, 0]), ProtocolError::Deflate, 1007),
                ("not UTF-8", frame(role, true, 0x41, &deflated(&[0xff; 99])), ProtocolError::Utf8, 1007),
            ] {
                assert_eq!(decode_by(decoder(), &stream, &[]), (vec![], Some(error)), "{name}, {role:?}");
                assert_eq!(error.close_code(), CloseCode(code), "{name}");
            }
            let kept = {
                let mut decoder = decoder();
                let _message = decoder.next(&mut &frame(role, true, 0x42, &small)[..]);
                decoder.inflater.is_some()
            };
            assert_eq!(kept, role == Role::Client, "a server keeps nothing between two messages");
        });
    }

    #[test]
    fn close_frames() {
        both(|role| {
            let close = |payload: &[u8]| decode(role, &[frame(role, true, 8, payload), vec![0xff; 9]].concat(), &[]);
            let event = |code: Option<u16>, reason: &str| {
                (vec![Event::Close { code: code.map(CloseCode), reason: reason.to_owned() }], None)
            };
            assert_eq!(close(b""), event(None, ""));
            assert_eq!(close(&[0x03, 0xe8]), event(Some(1000), ""));
            assert_eq!(close(b"\x0b\xb8bye"), event(Some(3000), "bye"));
            assert_eq!(close(b"\x03"), (vec![], Some(ProtocolError::Close)));
            for bad in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
                assert_eq!(close(&bad.to_be_bytes()), (vec![], Some(ProtocolError::Close)), "{bad}");
            }
            assert_eq!(close(b"\x03\xe8\xff"), (vec![], Some(ProtocolError::Utf8)));
        });
    }

    #[test]
    fn every_breach_has_its_error_and_close_code() {
        both(|role| {
            let other = if role == Role::Client { Role::Server } else { Role::Client };
            let masked = if role == Role::Server { 0x80 } else { 0 };
            let table: [(&str, Vec<u8>, ProtocolError, u16); 16] = [
                ("rsv1", frame(role, true, 0x42, b""), ProtocolError::ReservedBits, 1002),
                ("rsv2", frame(role, true, 0x22, b""), ProtocolError::ReservedBits, 1002),
                ("rsv3", frame(role, true, 0x12, b""), ProtocolError::ReservedBits, 1002),
                ("opcode 3", frame(role, true, 3, b""), ProtocolError::Opcode(3), 1002),
                ("opcode 11", frame(role, true, 11, b""), ProtocolError::Opcode(11), 1002),
                ("mask", frame(other, true, 2, b"x"), ProtocolError::Masking, 1002),
                ("long 16", [vec![0x82, 126 | masked, 0, 125], vec![0; 4]].concat(), ProtocolError::Length, 1002),
                (
                    "long 64",
                    [vec![0x82, 127 | masked, 0, 0, 0, 0, 0, 0, 0xff, 0xff], vec![0; 4]].concat(),
                    ProtocolError::Length,
                    1002,
                ),
                (
                    "sign bit",
                    [vec![0x82, 127 | masked, 0x80, 0, 0, 0, 0, 0, 0, 0], vec![0; 4]].concat(),
                    ProtocolError::Length,
                    1002,
                ),
                ("long ping", frame(role, true, 9, &[0; 126]), ProtocolError::Control, 1002),
                ("part of a ping", frame(role, false, 9, b""), ProtocolError::Control, 1002),
                ("part of a close", frame(role, false, 8, b""), ProtocolError::Control, 1002),
                ("continues nothing", frame(role, true, 0, b""), ProtocolError::Fragmentation, 1002),
                (
                    "message in a message",
                    [frame(role, false, 2, b"a"), frame(role, true, 2, b"b")].concat(),
                    ProtocolError::Fragmentation,
                    1002,
                ),
                ("text", frame(role, true, 1, b"\xff"), ProtocolError::Utf8, 1007),
                (
                    "text in parts",
                    [frame(role, false, 1, b"\xc3"), frame(role, true, 0, b"")].concat(),
                    ProtocolError::Utf8,
                    1007,
                ),
            ];
            for (name, stream, error, code) in table {
                assert_eq!(decode(role, &stream, &[]), (vec![], Some(error)), "{name}, {role:?}");
                assert_eq!(error.close_code(), CloseCode(code), "{name}");
            }
        });
    }

    #[test]
    fn our_own_control_frames_are_read() {
        for (role, mask) in [(Role::Client, None), (Role::Server, Some([9, 8, 7, 6]))] {
            let reason = "ü".repeat(100);
            let stream =
                [ping(b"p", mask), pong(&[1; 200], mask), close(Some(CloseCode::GOING_AWAY), &reason, mask)].concat();
            let expected = vec![
                Event::Ping(Bytes::from_static(b"p")),
                Event::Pong(Bytes::from_static(&[1; 125])),
                Event::Close { code: Some(CloseCode::GOING_AWAY), reason: "ü".repeat(61) },
            ];
            assert_eq!(decode(role, &stream, &[]), (expected, None));
        }
        let empty = close(None, "ignored", None);
        assert_eq!(decode(Role::Client, &empty, &[]), (vec![Event::Close { code: None, reason: String::new() }], None));
    }

    fn any_frame() -> impl Strategy<Value = (bool, u8, usize)> {
        let opcode = prop_oneof![8 => Just(2u8), 2 => Just(1), 4 => Just(0), 1 => Just(9), 1 => Just(10), 1 => 0u8..16];
        let bytes = prop_oneof![4 => 0usize..130, 1 => 500usize..1_200];
        (prop::bool::weighted(0.7), opcode, bytes)
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_events_are_the_same(
            frames in prop::collection::vec(any_frame(), 1..12),
            pieces in prop::collection::vec(1usize..40, 0..200),
            server: bool,
        ) {
            let role = if server { Role::Server } else { Role::Client };
            let stream: Vec<u8> =
                frames.iter().flat_map(|&(fin, opcode, bytes)| frame(role, fin, opcode, &vec![b'a'; bytes])).collect();
            prop_assert_eq!(decode(role, &stream, &pieces), decode(role, &stream, &[]));
        }

        #[test]
        fn however_a_deflated_stream_is_cut_the_events_are_the_same(
            messages in prop::collection::vec((prop::collection::vec(0u8..4, 0..1_200), any::<u8>(), 0usize..300), 1..6),
            pieces in prop::collection::vec(1usize..60, 0..100),
            server: bool,
        ) {
            let role = if server { Role::Server } else { Role::Client };
            let (mut deflater, mut out, mut stream) = (Deflater::new(1), Vec::new(), Vec::new());
            let mut expected = Vec::new();
            for (payload, noise, cut) in &messages {
                let (bit, bytes) = if deflater.deflate(payload, &mut out) { (0x40, &out) } else { (0, payload) };
                // In two frames, with a ping between them.
                let (first, rest) = bytes.split_at((*cut).min(bytes.len()));
                stream.extend(frame(role, false, bit | 2, first));
                stream.extend(frame(role, true, 9, &[*noise]));
                stream.extend(frame(role, true, 0, rest));
                expected.push(Event::Ping(Bytes::copy_from_slice(&[*noise])));
                let too_large = Event::TooLarge { bytes: if bit == 0 { payload.len() } else { MAX + 1 } as u64 };
                expected.push(if payload.len() > MAX { too_large } else { binary(payload) });
            }
            let decoder = || Decoder::new(role, MAX).taking_deflated(true);
            prop_assert_eq!(decode_by(decoder(), &stream, &pieces), (expected.clone(), None));
            prop_assert_eq!(decode_by(decoder(), &stream, &[]), (expected, None));
        }

        #[test]
        fn any_bytes_are_survived_within_the_bounds(stream in prop::collection::vec(any::<u8>(), 0..400), server: bool) {
            let role = if server { Role::Server } else { Role::Client };
            let (events, error) = decode(role, &stream, &[]);
            prop_assert_eq!(decode(role, &stream, &vec![1; stream.len()]), (events, error));
            let decoder = || Decoder::new(role, MAX).taking_deflated(true);
            let whole = decode_by(decoder(), &stream, &[]);
            prop_assert_eq!(decode_by(decoder(), &stream, &vec![1; stream.len()]), whole);
        }
    }
}

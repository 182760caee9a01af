//! Finds the messages in a WebSocket stream by its headers alone. Pure: bytes in, counts out.
//!
//! Written for this program only, so that a relay's frames are judged by other code than what made them (RFC 6455,
//! section 5.2). What must hold: it doesn't matter where the stream is cut; no byte of a message is touched, unless
//! that message is one of those that are looked at.

/// Where in the stream a reader is.
#[derive(Clone, Debug)]
pub(super) struct Walker {
    /// A header that isn't whole yet.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    /// The frame under way, and how much of its payload is still to come.
    under_way: Option<(Head, u64)>,
    /// What has come of its payload, if it is looked at.
    kept: Vec<u8>,
    messages: u64,
    /// Those of them that were compressed.
    compressed: u64,
    /// Each so many messages, one is looked at; none where it is 0.
    look_every: u64,
}

/// What is found in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A message has come; its payload, if it is one of those that are looked at.
    Message(Option<&'a [u8]>),
    /// A compressed message has come; the same.
    Compressed(Option<&'a [u8]>),
    /// A ping, to be answered with this.
    Ping(&'a [u8]),
    /// The other end closes: code and reason.
    Close(Option<u16>, &'a [u8]),
}

/// The stream is no WebSocket stream of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// A server masks nothing.
    #[error("a masked frame")]
    Masked,
    /// An opcode that means nothing.
    #[error("a frame of unknown kind {0}")]
    Opcode(u8),
    /// A control frame is 125 bytes at most.
    #[error("a control frame of {0} bytes")]
    Control(u64),
}

const HEADER_BYTES_MAX: usize = 10;

#[derive(Clone, Copy, Debug)]
struct Head {
    opcode: u8,
    last: bool,
    compressed: bool,
    look: bool,
}

impl Walker {
    pub(super) fn new(look_every: u64) -> Walker {
        Walker {
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            under_way: None,
            kept: Vec::new(),
            messages: 0,
            compressed: 0,
            look_every,
        }
    }

    /// Messages that have come whole.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Those of them that were compressed.
    pub(super) fn compressed(&self) -> u64 {
        self.compressed
    }

    /// Takes what has come, and tells what is in it.
    pub(super) fn walk(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Found<'_>)) -> Result<(), Broken> {
        loop {
            let (head, left) = match self.under_way {
                Some(under_way) => under_way,
                None => match self.take_header(&mut bytes)? {
                    Some(under_way) => under_way,
                    None => return Ok(()),
                },
            };
            let whole = usize::try_from(left).unwrap_or(usize::MAX);
            if bytes.len() < whole {
                if head.look {
                    self.kept.extend_from_slice(bytes);
                }
                self.under_way = Some((head, left - bytes.len() as u64));
                return Ok(());
            }
            let (payload, rest) = bytes.split_at(whole);
            bytes = rest;
            self.under_way = None;
            if self.kept.is_empty() {
                self.finish(head, payload, &mut tell);
            } else {
                self.kept.extend_from_slice(payload);
                let kept = std::mem::take(&mut self.kept);
                self.finish(head, &kept, &mut tell);
            }
        }
    }

    fn take_header(&mut self, bytes: &mut &[u8]) -> Result<Option<(Head, u64)>, Broken> {
        loop {
            if let Some((opcode, bits, length)) = parse(&self.header[..self.header_bytes])? {
                self.header_bytes = 0;
                let control = opcode >= CLOSE;
                let compressed = bits & COMPRESSED != 0;
                let sampled = self.look_every > 0 && self.messages.is_multiple_of(self.look_every);
                let whole = bits & LAST != 0 && opcode != CONTINUATION;
                let look = control || (sampled && whole);
                return Ok(Some((Head { opcode, last: bits & LAST != 0, compressed, look }, length)));
            }
            let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
            self.header[self.header_bytes] = *first;
            self.header_bytes += 1;
            *bytes = rest;
        }
    }

    fn finish(&mut self, head: Head, payload: &[u8], tell: &mut impl FnMut(Found<'_>)) {
        match head.opcode {
            PING => tell(Found::Ping(payload)),
            PONG => {}
            CLOSE => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                tell(Found::Close(code, payload.get(2..).unwrap_or_default()));
            }
            // Text, binary, or what continues them.
            _data => {
                if head.last {
                    self.messages += 1;
                    self.compressed += u64::from(head.compressed);
                    let looked_at = head.look.then_some(payload);
                    tell(if head.compressed { Found::Compressed(looked_at) } else { Found::Message(looked_at) });
                }
            }
        }
    }
}

const CONTINUATION: u8 = 0;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const LAST: u8 = 0x80;
const COMPRESSED: u8 = 0x40;

/// Opcode, bits before it, and the payload's length; `None` where bytes are missing.
fn parse(header: &[u8]) -> Result<Option<(u8, u8, u64)>, Broken> {
    let [first, second, extended @ ..] = header else { return Ok(None) };
    let opcode = first & 0x0f;
    if second & 0x80 != 0 {
        return Err(Broken::Masked);
    }
    if !matches!(opcode, 0..=2 | CLOSE..=PONG) {
        return Err(Broken::Opcode(opcode));
    }
    let length = match second & 0x7f {
        126 => extended.first_chunk().map(|length| u64::from(u16::from_be_bytes(*length))),
        127 => extended.first_chunk().map(|length| u64::from_be_bytes(*length)),
        short => Some(u64::from(short)),
    };
    match length {
        Some(length) if opcode >= CLOSE && length > 125 => Err(Broken::Control(length)),
        Some(length) => Ok(Some((opcode, first & 0xf0, length))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(length as u8),
            length @ 126..0x1_0000 => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    fn said(found: Found<'_>) -> String {
        match found {
            Found::Message(None) => "message".to_owned(),
            Found::Message(Some(payload)) => format!("message of {}", payload.len()),
            Found::Compressed(payload) => format!("compressed of {:?}", payload.map(<[u8]>::len)),
            Found::Ping(payload) => format!("ping {}", String::from_utf8_lossy(payload)),
            Found::Close(code, reason) => format!("close {code:?} {}", String::from_utf8_lossy(reason)),
        }
    }

    #[test]
    fn it_does_not_matter_where_a_stream_is_cut() {
        let mut stream = Vec::new();
        for (first, payload) in [
            (0x82, vec![1; 3]),
            (0x82, vec![2; 300]),
            (0x89, b"there?".to_vec()),
            (0x82, vec![]),
            (0xc2, vec![3; 70_000]),
            (0x02, vec![4; 10]),
            (0x80, vec![5; 10]),
            (0x8a, vec![]),
            (0x82, vec![6; 70_000]),
            (0xc2, vec![7; 70_001]),
            (0x88, b"\x03\xe9bye".to_vec()),
        ] {
            stream.extend(frame(first, &payload));
        }
        let expected = [
            "message of 3",
            "message",
            "ping there?",
            "message of 0",
            "compressed of None",
            "message",
            "message",
            "compressed of Some(70001)",
            "close Some(1001) bye",
        ];
        for cut in [1, 2, 3, 7, 299, 4_096, 70_001, usize::MAX] {
            let (mut walker, mut all) = (Walker::new(2), Vec::new());
            for part in stream.chunks(cut.min(stream.len())) {
                walker.walk(part, |found| all.push(said(found))).unwrap();
            }
            assert_eq!(all, expected, "cut by {cut}");
            assert_eq!((walker.messages(), walker.compressed()), (7, 2));
        }
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        for (bytes, broken) in [
            (&[0x82, 0x81, 0, 0, 0, 0, 0][..], Broken::Masked),
            (&[0x83, 0x00], Broken::Opcode(3)),
            (&[0x8b, 0x00], Broken::Opcode(11)),
            (&[0x89, 126, 0, 126], Broken::Control(126)),
        ] {
            assert_eq!(Walker::new(0).walk(bytes, |_| {}), Err(broken), "{bytes:?}");
        }
    }
}

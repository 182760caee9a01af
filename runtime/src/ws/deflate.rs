//! permessage-deflate (RFC 7692) without context takeover: what is agreed in the handshake, and messages deflated and
//! inflated each by itself. Pure.
//!
//! Neither end remembers one message for the next: so a message is deflated once for all who asked, a reader may begin
//! anywhere, and a connection costs no window. What must hold: inflating never makes more than it was allowed to, and
//! memory is taken as bytes come out.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::{HeaderMap, HeaderValue, header};

/// What a sync flush ends with, and a message leaves out (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What a deflated message takes at most beside its bytes: a block's beginning and end, and the flush.
const ROOM_BESIDE: usize = 64;

/// What is reserved at first for a message to be inflated.
const INFLATED_BYTES_MIN: usize = 4 * 1024;

const NAME: &str = "permessage-deflate";

/// What a client says that takes deflated messages, in `Sec-WebSocket-Extensions`.
pub(super) const OFFER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The highest level of [`Deflater`].
pub const LEVEL_MAX: u32 = 9;

/// Deflates messages, one after the other, each by itself.
///
/// What must hold: a stream that was left before its end is not used again. zlib-rs forgets neither the bytes that it has
/// not given out yet nor a block that is open when it is reset (0.6.8): later messages are then wrong, and at last it
/// panics.
#[derive(Debug)]
pub struct Deflater {
    stream: Compress,
    level: Compression,
}

impl Deflater {
    /// Level 1 is fast, [`LEVEL_MAX`] is small; a window of 32 KiB. Takes about 300 KiB.
    pub fn new(level: u32) -> Deflater {
        let level = Compression::new(level.clamp(1, LEVEL_MAX));
        Deflater { stream: Compress::new(level, false), level }
    }

    /// Puts the payload of a deflated message into `out`, in place of what was there. `false` where it would not be
    /// shorter than `payload`, so that this is better sent as it is; what `out` holds then has no meaning.
    pub fn deflate(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        // Whatever the payload: at worst each byte takes nine bits.
        out.reserve(payload.len() + payload.len() / 8 + ROOM_BESIDE);
        self.stream.reset();
        let status = self.stream.compress_vec(payload, out, FlushCompress::Sync);
        // With room left, all has been read and flushed.
        if !matches!(status, Ok(Status::Ok)) || out.len() == out.capacity() || !out.ends_with(&TAIL) {
            self.stream = Compress::new(self.level, false);
            return false;
        }
        out.truncate(out.len() - TAIL.len());
        out.len() < payload.len()
    }
}

/// Why a message can't be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InflateError {
    /// It is not deflate.
    Corrupt,
    /// It makes more than is taken.
    TooLarge,
}

/// Inflates messages, one after the other, each by itself. Takes about 40 KiB.
#[derive(Debug)]
pub(super) struct Inflater {
    stream: Decompress,
}

impl Inflater {
    pub(super) fn new() -> Inflater {
        Inflater { stream: Decompress::new(false) }
    }

    /// The message whose deflated payload this is. What would be over `bytes_max` is never made.
    pub(super) fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
        let mut out = Vec::new();
        self.stream.reset(false);
        for input in [payload, &TAIL[..]] {
            self.feed(input, &mut out, bytes_max)?;
        }
        Ok(out)
    }

    fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), InflateError> {
        loop {
            if out.len() > bytes_max {
                return Err(InflateError::TooLarge);
            }
            if out.len() == out.capacity() {
                // One byte over the limit is enough to know that it is passed.
                out.reserve_exact(out.len().max(INFLATED_BYTES_MIN).min(bytes_max + 1 - out.len()));
            }
            let (read, made) = (self.stream.total_in(), out.len());
            let status = self.stream.decompress_vec(input, out, FlushDecompress::None);
            let status = status.map_err(|_| InflateError::Corrupt)?;
            let used = usize::try_from(self.stream.total_in() - read).map_err(|_| InflateError::Corrupt)?;
            input = &input[used..];
            match status {
                // The end of a stream within a message (section 7.2.3.4): what follows is a new one.
                Status::StreamEnd => self.stream.reset(false),
                Status::Ok | Status::BufError if out.len() < out.capacity() => {
                    if input.is_empty() {
                        return Ok(());
                    }
                    if used == 0 && out.len() == made {
                        return Err(InflateError::Corrupt);
                    }
                }
                Status::Ok | Status::BufError => {}
            }
            if status == Status::StreamEnd && input.is_empty() && out.len() <= bytes_max {
                return Ok(());
            }
        }
    }
}

// === the handshake ===

/// A server's answer to a client that takes deflated messages: the value of `Sec-WebSocket-Extensions`, if something of
/// what it offers can be agreed on. After that, both ends may deflate messages, each by itself.
pub fn agree(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut answer = extensions(headers).into_iter().find_map(answer)?;
    answer.insert_str(0, OFFER);
    HeaderValue::try_from(answer).ok()
}

/// Whether the server's answer takes up [`OFFER`]. `Err` where it agrees to what was not offered, in words.
pub(super) fn agreed(headers: &HeaderMap) -> Result<bool, &'static str> {
    let extensions = extensions(headers);
    let Some(extension) = extensions.first() else { return Ok(false) };
    if extension.name != NAME || extensions.len() > 1 {
        return Err("an extension that was not offered");
    }
    let mut server_forgets = false;
    for (name, value) in &extension.params {
        match (*name, *value) {
            ("server_no_context_takeover", None) => server_forgets = true,
            ("client_no_context_takeover", None) => {}
            // Any window fits into ours.
            ("server_max_window_bits", Some(bits)) if window_bits(bits).is_some() => {}
            _ => return Err("a parameter of permessage-deflate that was not offered"),
        }
    }
    if server_forgets { Ok(true) } else { Err("permessage-deflate with context takeover") }
}

/// One extension of a header, with its parameters.
struct Extension<'a> {
    name: &'a str,
    params: Vec<(&'a str, Option<&'a str>)>,
}

fn extensions(headers: &HeaderMap) -> Vec<Extension<'_>> {
    let values = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let texts = values.flat_map(|value| value.split(',')).map(str::trim).filter(|text| !text.is_empty());
    texts
        .map(|text| {
            let mut parts = text.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let params = parts.filter(|part| !part.is_empty()).map(|part| match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (part, None),
            });
            Extension { name, params: params.collect() }
        })
        .collect()
}

/// What is to be said beside [`OFFER`] to accept this; `None` where it can't be accepted (section 7.1).
fn answer(extension: Extension<'_>) -> Option<String> {
    if extension.name != NAME {
        return None;
    }
    let mut beside = String::new();
    for (at, (name, value)) in extension.params.iter().enumerate() {
        if extension.params[..at].iter().any(|(other, _)| other == name) {
            return None;
        }
        match (*name, *value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(bits)) => _ = window_bits(bits)?,
            // A smaller window would be one for this client alone: each message is deflated once for all.
            ("server_max_window_bits", Some("15")) => beside.push_str("; server_max_window_bits=15"),
            _ => return None,
        }
    }
    Some(beside)
}

fn window_bits(text: &str) -> Option<u8> {
    // No sign and no zero before it.
    matches!(text, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15").then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::SEC_WEBSOCKET_EXTENSIONS, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn offers_and_their_answers() {
        let both = Some(OFFER.to_owned());
        let wide = Some(format!("{OFFER}; server_max_window_bits=15"));
        for (values, expected) in [
            (&[][..], &None),
            (&["permessage-deflate"], &both),
            (&["permessage-deflate; client_max_window_bits"], &both),
            (&["permessage-deflate; client_max_window_bits=10; server_no_context_takeover"], &both),
            (&["permessage-deflate;client_max_window_bits=\"15\" ; client_no_context_takeover"], &both),
            (&["permessage-deflate; server_max_window_bits=15"], &wide),
            (&["permessage-deflate; server_max_window_bits=10"], &None),
            (&["permessage-deflate; server_max_window_bits=10, permessage-deflate"], &both),
            (&["x-webkit-deflate-frame", "permessage-deflate"], &both),
            (&["permessage-bzip2"], &None),
            (&["permessage-deflate; server_max_window_bits"], &None),
            (&["permessage-deflate; client_max_window_bits=7"], &None),
            (&["permessage-deflate; client_max_window_bits=015"], &None),
            (&["permessage-deflate; client_no_context_takeover=1"], &None),
            (&["permessage-deflate; client_no_context_takeover; client_no_context_takeover"], &None),
            (&["permessage-deflate; unknown"], &None),
        ] {
            let answer = agree(&headers(values)).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(&answer, expected, "{values:?}");
        }
    }

    #[test]
    fn answers_to_our_offer() {
        for (values, expected) in [
            (&[][..], Ok(false)),
            (&[OFFER], Ok(true)),
            (&["permessage-deflate; server_no_context_takeover"], Ok(true)),
            (&["permessage-deflate; server_no_context_takeover; server_max_window_bits=9"], Ok(true)),
            (&["permessage-deflate"], Err(())),
            (&["permessage-deflate; server_no_context_takeover; client_max_window_bits=9"], Err(())),
            (&["permessage-deflate; server_no_context_takeover; server_max_window_bits=16"], Err(())),
            (&[OFFER, OFFER], Err(())),
            (&["permessage-bzip2"], Err(())),
        ] {
            assert_eq!(agreed(&headers(values)).map_err(|_| ()), expected, "{values:?}");
        }
        assert!(agree(&headers(&[OFFER])).is_some_and(|answer| answer == OFFER), "our own ends agree");
    }

    #[test]
    fn the_examples_of_the_specification() {
        // Sections 7.2.3.1, .3 (no compression), .4 (a final block) and .5 (two blocks).
        for payload in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(Inflater::new().inflate(payload, 5).as_deref(), Ok(&b"Hello"[..]), "{payload:02x?}");
            assert_eq!(Inflater::new().inflate(payload, 4), Err(InflateError::TooLarge));
        }
        assert_eq!(Inflater::new().inflate(&[0], 0), Ok(vec![]), "an empty message");
    }

    #[test]
    fn a_bomb_makes_no_more_than_it_may() {
        let mut bomb = Vec::new();
        assert!(Deflater::new(9).deflate(&vec![0; 64 << 20], &mut bomb));
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        let mut inflater = Inflater::new();
        let mut out = Vec::new();
        assert_eq!(inflater.feed(&bomb, &mut out, 100_000), Err(InflateError::TooLarge));
        assert!(out.capacity() <= 100_001, "{}", out.capacity());
        assert_eq!(inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5).as_deref(), Ok(&b"Hello"[..]));
    }

    #[test]
    fn what_does_not_get_shorter_is_left_as_it_is() {
        let mut out = Vec::new();
        for payload in [&b""[..], b"a", b"ab", &(0..=255).collect::<Vec<u8>>()] {
            assert!(!Deflater::new(6).deflate(payload, &mut out), "{payload:?}");
        }
    }

    #[test]
    fn what_does_not_get_shorter_leaves_nothing_behind() {
        let mut state = 1u32;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 16) as u8
        };
        let text = b"the same again, the same again, the same again".repeat(20);
        for level in [1, 6] {
            let (mut deflater, mut inflater, mut out) = (Deflater::new(level), Inflater::new(), Vec::new());
            for bytes in (0..100).map(|_| 2_000).chain([100_000, 300_000]) {
                let payload: Vec<u8> = (0..bytes).map(|_| noise()).collect();
                assert!(!deflater.deflate(&payload, &mut out));
                assert!(out.len() < out.capacity(), "there was room for all of it");
                assert!(deflater.deflate(&text, &mut out));
                assert_eq!(inflater.inflate(&out, text.len()).as_deref(), Ok(&text[..]), "after {bytes} bytes");
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_deflated_is_inflated(
            messages in prop::collection::vec(prop::collection::vec(0u8..8, 0..3_000), 1..5), level in 1u32..=9,
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(level), Inflater::new());
            let mut out = Vec::new();
            for message in messages {
                if deflater.deflate(&message, &mut out) {
                    prop_assert!(out.len() < message.len());
                    prop_assert_eq!(inflater.inflate(&out, message.len()), Ok(message.clone()));
                    prop_assert_eq!(inflater.inflate(&out, message.len() - 1), Err(InflateError::TooLarge));
                }
            }
        }

        #[test]
        fn any_bytes_are_survived_within_the_bound(payload in prop::collection::vec(any::<u8>(), 0..300), max in 0usize..2_000) {
            if let Ok(out) = Inflater::new().inflate(&payload, max) {
                prop_assert!(out.len() <= max);
            }
        }
    }
}

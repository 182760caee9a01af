//! One connection of a crowd: its handshake, then its stream.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use atproto::event::{Routed, route};

use super::{
    Ending, Request,
    walker::{Found, Walker},
};
use crate::follower::inflate::Inflater;

/// A connection that is being read.
pub(super) struct Reader {
    pub(super) socket: TcpStream,
    stage: Stage,
    look_every: u64,
    inflated: Inflated,
}

/// The compressed messages that were looked at.
#[derive(Default)]
struct Inflated {
    /// Made for the first of them.
    inflater: Option<Box<Inflater>>,
    /// How many there were.
    events: u64,
}

enum Stage {
    /// The answer to the request, as far as it has come.
    Handshake(Vec<u8>),
    Streaming(Walker),
}

/// What came of a read.
#[derive(Debug, Default)]
pub(super) struct Came {
    /// The handshake is done, now or before.
    pub(super) open: bool,
    /// Bytes from the socket.
    pub(super) bytes: usize,
    /// Why nothing more will come, if so.
    pub(super) ending: Option<Ending>,
}

/// An answer's head is this long at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;

impl Reader {
    /// Connects, and asks for the stream. The answer is read later.
    pub(super) fn connect(address: SocketAddr, request: &Request, look_every: u64) -> io::Result<Reader> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.write_all(request.head(address).as_bytes())?;
        socket.set_nonblocking(true)?;
        Ok(Reader { socket, stage: Stage::Handshake(Vec::new()), look_every, inflated: Inflated::default() })
    }

    /// Whole messages so far.
    pub(super) fn messages(&self) -> u64 {
        match &self.stage {
            Stage::Handshake(_) => 0,
            Stage::Streaming(walker) => walker.messages(),
        }
    }

    /// Those of them that were compressed.
    pub(super) fn compressed(&self) -> u64 {
        match &self.stage {
            Stage::Handshake(_) => 0,
            Stage::Streaming(walker) => walker.compressed(),
        }
    }

    /// Compressed messages that were looked at, and were events.
    pub(super) fn inflated(&self) -> u64 {
        self.inflated.events
    }

    /// Reads once, as much as fits into `buffer`; `look` gets the messages that are looked at, inflated.
    pub(super) fn read(&mut self, buffer: &mut [u8], look: &mut impl FnMut(&[u8])) -> Came {
        let mut came = Came { open: matches!(self.stage, Stage::Streaming(_)), ..Came::default() };
        let read = match self.socket.read(buffer) {
            Ok(0) => {
                came.ending = Some(Ending::Gone("the connection ended".to_owned()));
                return came;
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return came,
            Err(error) => {
                came.ending = Some(Ending::Gone(error.to_string()));
                return came;
            }
        };
        came.bytes = read;
        let bytes = &buffer[..read];
        match &mut self.stage {
            Stage::Streaming(walker) => came.ending = stream(walker, &self.socket, &mut self.inflated, bytes, look),
            Stage::Handshake(head) => {
                head.extend_from_slice(bytes);
                match opened(head) {
                    Ok(None) => {}
                    Ok(Some(end)) => {
                        let mut walker = Walker::new(self.look_every);
                        came.open = true;
                        came.ending = stream(&mut walker, &self.socket, &mut self.inflated, &head[end..], look);
                        self.stage = Stage::Streaming(walker);
                    }
                    Err(ending) => came.ending = Some(ending),
                }
            }
        }
        came
    }
}

impl Inflated {
    /// The event that this is compressed. `Err` where it is none, in words.
    fn event(&mut self, payload: &[u8]) -> Result<Vec<u8>, String> {
        let message = self.inflater.get_or_insert_default().inflate(payload).map_err(|error| error.to_string())?;
        match route(&message) {
            Ok(Routed::Event(_)) => {
                self.events += 1;
                Ok(message)
            }
            Ok(other) => Err(format!("compressed, and no event: {other:?}")),
            Err(error) => Err(format!("compressed, and no event: {error}")),
        }
    }
}

/// Where the answer's head ends, if it has come and is one that opens the stream.
fn opened(head: &[u8]) -> Result<Option<usize>, Ending> {
    let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return match head.len() > HEAD_BYTES_MAX {
            true => Err(Ending::Refused("an answer without an end".to_owned())),
            false => Ok(None),
        };
    };
    let text = String::from_utf8_lossy(&head[..end]);
    let status = text.lines().next().unwrap_or_default();
    match status.starts_with("HTTP/1.1 101") {
        true => Ok(Some(end + 4)),
        false => Err(Ending::Refused(status.to_owned())),
    }
}

fn stream(
    walker: &mut Walker,
    mut socket: &TcpStream,
    inflated: &mut Inflated,
    bytes: &[u8],
    look: &mut impl FnMut(&[u8]),
) -> Option<Ending> {
    let mut ending = None;
    let walked = walker.walk(bytes, |found| match found {
        Found::Message(None) | Found::Compressed(None) => {}
        Found::Message(Some(payload)) => look(payload),
        Found::Compressed(Some(payload)) => match inflated.event(payload) {
            Ok(event) => look(&event),
            Err(why) => ending = Some(Ending::Gone(why)),
        },
        Found::Ping(payload) => {
            // Masked with zeros, which leaves the bytes as they are. A relay that doesn't read has no claim to it.
            let mut pong = vec![0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0];
            pong.extend_from_slice(payload);
            let _full = socket.write(&pong);
        }
        Found::Close(code, reason) => {
            ending = Some(Ending::Closed(code, String::from_utf8_lossy(reason).into_owned()));
        }
    });
    match walked {
        Ok(()) => ending,
        Err(broken) => Some(Ending::Gone(broken.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use runtime::ws::Deflater;

    use super::*;

    #[test]
    fn what_comes_compressed_has_to_be_an_event() {
        let mut inflated = Inflated::default();
        assert!(inflated.event(&[0xff; 20]).is_err(), "not deflated");
        let mut payload = Vec::new();
        assert!(Deflater::new(1).deflate(&[b'x'; 500], &mut payload));
        assert!(inflated.event(&payload).is_err(), "no frame");
        // The header {"op": 1, "t": "#identity"} and the body {"seq": 7, "did": …, "time": …}.
        let event = b"\xa2\x61t\x69#identity\x62op\x01\xa3\x63did\x78\x20did:plc:ewvi7nxzyoun6zhxrhs64oiz\x63seq\x07\x64time\x78\x182026-01-01T00:00:00.000Z";
        match Deflater::new(9).deflate(event, &mut payload) {
            true => assert_eq!(inflated.event(&payload), Ok(event.to_vec())),
            false => panic!("it does not get shorter"),
        }
        assert_eq!(inflated.events, 1);
    }

    #[test]
    fn only_an_answer_of_101_opens() {
        let good = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n\x82\x00";
        assert_eq!(opened(good), Ok(Some(good.len() - 2)));
        assert_eq!(opened(&good[..30]), Ok(None));
        let full = b"HTTP/1.1 503 Service Unavailable\r\n\r\n";
        assert_eq!(opened(full), Err(Ending::Refused("HTTP/1.1 503 Service Unavailable".to_owned())));
        assert!(opened(&[b'x'; HEAD_BYTES_MAX + 1]).is_err());
    }
}

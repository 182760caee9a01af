//! Subscribers that no relay wants.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{Request, reader::Reader};

/// What is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// They never read.
    Silent,
    /// They read a byte a second.
    Trickle,
    /// They read all, and say more than half a megabyte a second, in messages of 16 KiB.
    Talker,
}

/// Some of one manner, in a thread of their own. They leave when their value is dropped.
pub struct Hostile {
    stop: Arc<AtomicBool>,
    left: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

const TICK: Duration = Duration::from_millis(100);
/// Ticks in a second.
const SECOND: u64 = 10;
const MESSAGE_BYTES: u16 = 16 * 1024;
/// Messages that a talker says each tick.
const MESSAGES: usize = 4;

impl Hostile {
    /// Connects so many, live.
    pub fn start(address: SocketAddr, manner: Manner, count: usize) -> io::Result<Hostile> {
        let request = Request::default();
        let connect = |_| Ok(Reader::connect(address, &request, 0)?.socket);
        let mut sockets = (0..count).map(connect).collect::<io::Result<Vec<TcpStream>>>()?;
        let (stop, left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(count)));
        let (stopped, leaving) = (Arc::clone(&stop), Arc::clone(&left));
        let thread = std::thread::Builder::new().name("hostile".to_owned()).spawn(move || {
            // As a client must: masked, with zeros.
            let mut message = vec![0x82, 0xfe];
            message.extend(MESSAGE_BYTES.to_be_bytes());
            message.resize(8 + usize::from(MESSAGE_BYTES), 0);
            let talk = message.repeat(MESSAGES);
            let mut buffer = vec![0; 256 * 1024];
            for tick in 1_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(TICK);
                sockets.retain_mut(|socket| match manner {
                    Manner::Silent => true,
                    Manner::Trickle => !tick.is_multiple_of(SECOND) || read(socket, &mut buffer[..1]) != State::Ended,
                    Manner::Talker => {
                        let mut state = State::More;
                        while state == State::More {
                            state = read(socket, &mut buffer);
                        }
                        // Cut messages are continued with whatever comes next: a relay has to live with that too.
                        state != State::Ended && (tick == 1 || say(socket, &talk))
                    }
                });
                leaving.store(sockets.len(), Ordering::Relaxed);
            }
        })?;
        Ok(Hostile { stop, left, thread: Some(thread) })
    }

    /// How many have not been seen to be sent away. Those that never read never see it.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that panicked has said so.
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

/// What a read tells of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    More,
    Empty,
    Ended,
}

fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> State {
    match socket.read(buffer) {
        Ok(0) => State::Ended,
        Ok(_) => State::More,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => State::Empty,
        Err(_) => State::Ended,
    }
}

/// Whether the connection still is one.
fn say(socket: &mut TcpStream, text: &[u8]) -> bool {
    match socket.write(text) {
        Ok(said) => said > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn talkers_talk_and_notice_that_they_are_sent_away() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let hostile = Hostile::start(listener.local_addr().unwrap(), Manner::Talker, 2).unwrap();
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().unwrap();
            socket.read_exact(&mut vec![0; 100_000]).unwrap();
        }
        while hostile.left() > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

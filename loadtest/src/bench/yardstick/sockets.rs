//! What the kernel takes to carry bytes to many sockets of this machine: the least that serving a stream can cost.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::cpu_time::CpuTime;
use crate::crowd::{self, Crowd};

/// Sockets that are written as fast as they are read, 64 KiB at a time, always the same bytes; and read by the crowd that
/// reads the relay, with as many threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sockets {
    /// How many.
    pub sockets: usize,
    /// Bytes in a second, all together.
    pub bytes_per_second: f64,
    /// CPU time of the writing end for one KiB, nanoseconds.
    pub cpu_nanos_per_kib: f64,
}

const WRITE_BYTES: usize = 64 * 1024;
/// A message of the usual size; what they are makes no difference to who writes.
const MESSAGE_BYTES: usize = 2_500;
const LIMIT: Duration = Duration::from_secs(60);

impl Sockets {
    /// Measures with about so many bytes over all sockets. Blocks.
    pub fn measure(sockets: usize, threads: usize, bytes: u64) -> io::Result<Sockets> {
        let mut message = vec![0x82, 126];
        message.extend((MESSAGE_BYTES as u16).to_be_bytes());
        message.resize(4 + MESSAGE_BYTES, 0x5a);
        let messages = WRITE_BYTES / message.len();
        let piece = message.repeat(messages);
        let rounds = (bytes / (sockets * piece.len()) as u64).max(1);

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let crowd = Crowd::start(crowd::Config {
            address,
            requests: Vec::new(),
            readers: sockets,
            threads,
            look_every: 0,
            until: Some(rounds * messages as u64),
            gives_way: false,
        })?;
        let mut all = (0..sockets).map(|_| accept(&listener)).collect::<io::Result<Vec<TcpStream>>>()?;
        let opened = Instant::now();
        while crowd.open() < sockets {
            within(opened)?;
        }
        let (started, before) = (Instant::now(), crowd.bytes());
        let share = all.len().div_ceil(threads.max(1)).max(1);
        let cpu: io::Result<Duration> = std::thread::scope(|scope| {
            let writers: Vec<_> =
                all.chunks_mut(share).map(|part| scope.spawn(|| write(part, &piece, rounds))).collect();
            let times = writers.into_iter().map(|writer| writer.join());
            times.map(|time| time.map_err(|_| io::Error::other("a writer panicked"))?).sum()
        });
        let cpu = cpu?;
        while crowd.done().len() < sockets {
            within(started)?;
        }
        let (wall, bytes) = (started.elapsed(), crowd.bytes() - before);
        Ok(Sockets {
            sockets,
            bytes_per_second: bytes as f64 / wall.as_secs_f64(),
            cpu_nanos_per_kib: cpu.as_nanos() as f64 / (bytes as f64 / 1024.0),
        })
    }

    /// The mean of two: a machine drifts between before and after.
    pub fn mean(before: Sockets, after: Sockets) -> Sockets {
        Sockets {
            sockets: before.sockets,
            bytes_per_second: f64::midpoint(before.bytes_per_second, after.bytes_per_second),
            cpu_nanos_per_kib: f64::midpoint(before.cpu_nanos_per_kib, after.cpu_nanos_per_kib),
        }
    }

    /// CPU time of the writing end for so many bytes, microseconds.
    pub fn cpu_micros(&self, bytes: f64) -> f64 {
        self.cpu_nanos_per_kib * bytes / 1024.0 / 1e3
    }

    /// With `sockets`, `bytes_per_second` and `cpu_nanos_per_kib`.
    pub fn to_json(&self) -> Value {
        json!({
            "sockets": self.sockets,
            "bytes_per_second": self.bytes_per_second,
            "cpu_nanos_per_kib": self.cpu_nanos_per_kib,
        })
    }
}

fn within(since: Instant) -> io::Result<()> {
    if since.elapsed() > LIMIT {
        return Err(io::ErrorKind::TimedOut.into());
    }
    std::thread::sleep(Duration::from_millis(1));
    Ok(())
}

/// Takes a connection and answers its handshake.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let (mut head, mut bytes) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&bytes[..read]),
        }
    }
    socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")?;
    Ok(socket)
}

fn write(sockets: &mut [TcpStream], piece: &[u8], rounds: u64) -> io::Result<Duration> {
    let cpu = CpuTime::now();
    for _ in 0..rounds {
        for socket in &mut *sockets {
            socket.write_all(piece)?;
        }
    }
    Ok(cpu.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_measures() {
        for sockets in [1, 5] {
            let measured = Sockets::measure(sockets, 2, 16 << 20).unwrap();
            assert_eq!(measured.sockets, sockets);
            assert!(measured.bytes_per_second > 1e6, "{measured:?}");
        }
    }
}

//! What the kernel takes to carry bytes from one socket of this machine to another.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::cpu_time::CpuTime;

/// A socket that is written and read as fast as it goes, 64 KiB at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loopback {
    /// Bytes in a second.
    pub bytes_per_second: f64,
    /// CPU time of both ends for one KiB, nanoseconds.
    pub cpu_nanos_per_kib: f64,
}

const WRITE_BYTES: usize = 64 * 1024;
const BYTES: u64 = 512 << 20;

impl Loopback {
    /// Measures with half a GiB: some tenths of a second.
    pub fn measure() -> io::Result<Loopback> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut writer = TcpStream::connect(listener.local_addr()?)?;
        let (mut reader, _) = listener.accept()?;
        let started = Instant::now();
        let reading = std::thread::spawn(move || -> io::Result<(u64, Duration)> {
            let (cpu, mut buffer, mut bytes) = (CpuTime::now(), vec![0; WRITE_BYTES], 0);
            loop {
                match reader.read(&mut buffer)? {
                    0 => return Ok((bytes, cpu.elapsed())),
                    read => bytes += read as u64,
                }
            }
        });
        let (cpu, buffer) = (CpuTime::now(), vec![0x5a; WRITE_BYTES]);
        for _ in 0..BYTES / WRITE_BYTES as u64 {
            writer.write_all(&buffer)?;
        }
        drop(writer);
        let wrote = cpu.elapsed();
        let (bytes, read) = reading.join().map_err(|_| io::Error::other("the reader panicked"))??;
        Ok(Loopback {
            bytes_per_second: bytes as f64 / started.elapsed().as_secs_f64(),
            cpu_nanos_per_kib: (wrote + read).as_nanos() as f64 / (bytes as f64 / 1024.0),
        })
    }

    /// CPU time of both ends to carry so many bytes, microseconds.
    pub fn cpu_micros(&self, bytes: f64) -> f64 {
        self.cpu_nanos_per_kib * bytes / 1024.0 / 1e3
    }

    /// With `bytes_per_second` and `cpu_nanos_per_kib`.
    pub fn to_json(&self) -> Value {
        json!({"bytes_per_second": self.bytes_per_second, "cpu_nanos_per_kib": self.cpu_nanos_per_kib})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_measures() {
        let loopback = Loopback::measure().unwrap();
        assert!(loopback.bytes_per_second > 1e6, "{loopback:?}");
    }
}

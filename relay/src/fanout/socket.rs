//! What a subscriber's loop asks of the kernel.

use std::io::{self, IoSlice};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};
use tracing::debug;

/// Bounds what the kernel keeps for `socket` that has not been sent. The send buffer alone would be let grow to
/// megabytes for somebody who reads nothing; what is on its way to somebody who reads fast is not bounded by this.
pub(super) fn bound_unsent(socket: &TcpStream, bytes_max: u32) {
    if let Err(error) = SockRef::from(socket).set_tcp_notsent_lowat(bytes_max) {
        debug!(%error, "failed to bound a socket's unsent bytes");
    }
}

/// What the socket took of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// So many bytes.
    pub(super) bytes: usize,
    /// There is room for no more; readiness for writing comes when there is.
    pub(super) full: bool,
}

/// Writes once.
pub(super) fn send(socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<Taken> {
    let asked: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut bytes = 0;
    let result = socket.try_io(Interest::WRITABLE, || {
        bytes = SockRef::from(socket).send_vectored(slices)?;
        // Who took less than there was is full: known without a second call that would only say so.
        if bytes < asked { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match result {
        Ok(()) => Ok(Taken { bytes, full: false }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Taken { bytes, full: true }),
        Err(error) => Err(error),
    }
}

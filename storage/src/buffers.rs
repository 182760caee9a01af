//! Memory for large reads, used again and again.
//!
//! A fresh allocation of a MiB costs a page fault for every four KiB that are read into it, about as much as the read; a
//! buffer that was used before costs nothing. What must hold: a buffer has one owner, who may write all of it, until it
//! is made [`Bytes`]; it comes home when the last of these is gone.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

/// Buffers that wait to be used again. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Buffers {
    home: Arc<Home>,
}

#[derive(Debug)]
struct Home {
    kept_bytes_max: usize,
    kept: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// Keeps at most this many bytes while nobody uses them.
    pub fn new(kept_bytes_max: usize) -> Buffers {
        Buffers { home: Arc::new(Home { kept_bytes_max, kept: Mutex::default() }) }
    }

    /// A buffer of `len` bytes, whatever they are.
    pub fn take(&self, len: usize) -> Buffer {
        let kept = {
            let mut kept = self.home.kept.lock().unwrap_or_else(PoisonError::into_inner);
            // A far larger one would be held by whoever reads little.
            let fits = kept.iter().position(|bytes| (len..=len.saturating_mul(4)).contains(&bytes.len()));
            fits.map(|at| kept.swap_remove(at))
        };
        let bytes = kept.unwrap_or_else(|| vec![0; len]);
        Buffer { bytes, len, home: Some(Arc::clone(&self.home)) }
    }
}

/// Bytes with one owner.
#[derive(Debug, Default)]
pub struct Buffer {
    /// May be more than `len`.
    bytes: Vec<u8>,
    len: usize,
    home: Option<Arc<Home>>,
}

impl Buffer {
    /// Forgets all but the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The same bytes, to be shared and written no more.
    pub fn freeze(self) -> Bytes {
        if self.is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Buffer {
        Buffer { len: bytes.len(), bytes, home: None }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let mut kept = home.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().map(Vec::len).sum::<usize>() + self.bytes.len() <= home.kept_bytes_max {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_home_with_its_last_reader() {
        let buffers = Buffers::new(1_000);
        let mut buffer = buffers.take(600);
        buffer.fill(7);
        buffer.truncate(500);
        let place = buffer.as_ptr();
        let bytes = buffer.freeze();
        let slice = bytes.slice(100..200);
        drop(bytes);
        let other = buffers.take(400);
        assert_ne!(other.as_ptr(), place, "it is still read");
        assert!(slice.iter().all(|byte| *byte == 7));
        drop(slice);
        let again = buffers.take(300);
        assert_eq!((again.as_ptr(), again.len()), (place, 300));
    }

    #[test]
    fn only_so_much_is_kept_and_what_is_far_larger_is_not_lent() {
        let buffers = Buffers::new(1_000);
        drop((buffers.take(600), buffers.take(600)));
        let kept = || buffers.home.kept.lock().unwrap().iter().map(Vec::len).sum::<usize>();
        assert_eq!(kept(), 600);
        assert_eq!(buffers.take(100).bytes.len(), 100);
        assert_eq!(kept(), 700);
        drop(buffers.take(2_000));
        assert_eq!(kept(), 700);
    }
}

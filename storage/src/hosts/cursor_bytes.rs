//! The bytes of a host's cursor, as backends keep it. Frozen; a change is a new version byte. Numbers are little-endian.
//!
//! ```text
//!   version u8 · epoch u32 · [seq u64]
//! ```

use super::HostCursor;

const VERSION: u8 = 1;

impl HostCursor {
    /// The cursor's bytes: 5 or 13.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.seq.iter().flat_map(|seq| seq.to_le_bytes()));
        bytes
    }

    /// Reads a cursor that is exactly these bytes; `None` where they are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<HostCursor> {
        let (&VERSION, rest) = bytes.split_first()? else { return None };
        let (epoch, seq) = rest.split_first_chunk()?;
        let seq = match seq {
            [] => None,
            seq => Some(u64::from_le_bytes(seq.try_into().ok()?)),
        };
        Some(HostCursor { epoch: u32::from_le_bytes(*epoch), seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_bytes() {
        for (cursor, expected) in [
            (HostCursor { epoch: 3, seq: None }, &[1, 3, 0, 0, 0][..]),
            (
                HostCursor { epoch: 0, seq: Some(u64::MAX - 1) },
                &[1, 0, 0, 0, 0, 254, 255, 255, 255, 255, 255, 255, 255],
            ),
        ] {
            let mut bytes = cursor.to_bytes();
            assert_eq!(bytes, expected);
            assert_eq!(HostCursor::from_bytes(&bytes), Some(cursor));
            assert_eq!(HostCursor::from_bytes(&bytes[..bytes.len() - 1]), None);
            bytes.push(0);
            assert_eq!(HostCursor::from_bytes(&bytes), None);
        }
        assert_eq!(HostCursor::from_bytes(&[2, 3, 0, 0, 0]), None, "a later version");
    }
}

use std::fmt;

use super::SyntaxError;

/// A timestamp identifier: 13 characters of base32-sortable, 53 bits of microseconds and 10 bits of clock id. Kept as
/// its 64-bit number, whose order is the text's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid(u64);

const TID_CHARS: usize = 13;
const ALPHABET: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";

impl Tid {
    /// Parses the 13 characters. They have room for 65 bits; the first must be one of `234567abcdefghij`, so that 64 do.
    pub fn parse(text: &str) -> Result<Tid, SyntaxError> {
        let invalid = |why| SyntaxError { what: "TID", why };
        if text.len() != TID_CHARS {
            return Err(invalid("not 13 characters"));
        }
        let mut number: u64 = 0;
        for (i, byte) in text.bytes().enumerate() {
            let digit = match byte {
                b'2'..=b'7' => byte - b'2',
                b'a'..=b'z' => byte - b'a' + 6,
                _ => return Err(invalid("a character that is not base32-sortable")),
            };
            if i == 0 && digit > 0b1111 {
                return Err(invalid("a number of more than 64 bits"));
            }
            number = number << 5 | u64::from(digit);
        }
        Ok(Tid(number))
    }

    /// From microseconds since the Unix epoch (53 bits are kept) and a clock id (10 bits are kept).
    pub fn from_micros(micros: u64, clock_id: u16) -> Tid {
        Tid((micros & ((1 << 53) - 1)) << 10 | u64::from(clock_id & 0x3ff))
    }

    /// Microseconds since the Unix epoch; 53 bits, or 54 where whoever made it did not keep the top bit zero.
    pub fn micros(self) -> u64 {
        self.0 >> 10
    }

    /// The number itself; its order is the text's.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// From [`Tid::to_u64`]'s number; every number is one.
    pub fn from_u64(number: u64) -> Tid {
        Tid(number)
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TID_CHARS];
        for (i, byte) in text.iter_mut().enumerate() {
            *byte = ALPHABET[(self.0 >> (5 * (TID_CHARS - 1 - i)) & 0b1_1111) as usize];
        }
        f.pad(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

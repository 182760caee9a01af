//! Strict DAG-CBOR (DRISL): the one canonical form, or an error.
//!
//! Checked always: shortest lengths and integers, definite lengths, map keys text, unique and sorted (by length, then
//! bytes), UTF-8, tag 42 only around a CID, no floats but finite 64-bit ones, no trailing bytes where a whole item is
//! asked for, nesting and container sizes within [`Limits`].
//!
//! [`Reader`] pulls values out of bytes and borrows from them; what it passes over it checks as strictly as what it
//! reads. [`Writer`] appends them.

use crate::cid::{self, Cid};

/// Bounds for an item from outside (design: protocol, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most levels of arrays and maps inside each other; never more than 128, whatever is asked.
    pub nesting_max: usize,
    /// Most entries of one array or map.
    pub entries_max: usize,
    /// Longest map key, in bytes.
    pub key_bytes_max: usize,
}

impl Limits {
    /// Nesting 32, 131,072 entries, keys of 8,192 bytes.
    pub const DEFAULT: Limits = Limits { nesting_max: 32, entries_max: 131_072, key_bytes_max: 8_192 };
}

/// What is wrong with the bytes, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid dag-cbor at byte {at}: {why}")]
pub struct CborError {
    /// Offset of the offending byte.
    pub at: usize,
    /// The rule that is broken.
    pub why: &'static str,
}

/// Checks that `bytes` begin with one canonical item and gives what follows it.
pub fn validate<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a [u8], CborError> {
    let mut reader = Reader::with_limits(bytes, limits);
    reader.skip()?;
    Ok(reader.rest())
}

/// The item as JSON in the protocol's form (`{"$link": …}`, `{"$bytes": …}`), for people and tools: a tree of many tiny
/// maps takes some two hundred times its bytes in memory, so not for whatever a stranger sends.
pub fn to_json(bytes: &[u8]) -> Result<serde_json::Value, CborError> {
    let mut reader = Reader::new(bytes);
    let json = json_item(&mut reader)?;
    reader.finish()?;
    Ok(json)
}

// === Reader ===

/// The kinds of items, as [`Reader::peek`] sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer, zero or above.
    Unsigned,
    /// An integer below zero.
    Negative,
    /// A byte string.
    Bytes,
    /// A text string.
    Text,
    /// An array.
    Array,
    /// A map.
    Map,
    /// Tag 42, a CID.
    Link,
    /// True or false.
    Bool,
    /// Null.
    Null,
    /// A 64-bit float.
    Float,
}

/// Pulls items out of bytes, strictly. Each method reads one item of the type that it names, or fails; after a failure
/// the position is of no use.
///
/// ```
/// # use atproto::cbor::{CborError, Reader};
/// # fn main() -> Result<(), CborError> {
/// let mut reader = Reader::new(&[0xa2, 0x61, b'a', 0x01, 0x61, b'b', 0x80]);
/// let mut map = reader.map()?;
/// let mut a = None;
/// while let Some(key) = map.next_key(&mut reader)? {
///     match key {
///         "a" => a = Some(reader.unsigned()?),
///         _ => reader.skip()?,
///     }
/// }
/// reader.finish()?;
/// assert_eq!(a, Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Levels that may still be opened.
    nesting_left: usize,
    entries_max: usize,
    key_bytes_max: usize,
}

/// Keeps the recursion of [`Reader::skip`] within any thread's stack.
const NESTING_CAP: usize = 128;

/// Longest CID of any kind that is taken (design: protocol, section 2).
const LINK_BYTES_MAX: usize = 100;

/// Tag 42, a byte string of 37 bytes, the zero byte: what stands before every CID of the protocol.
const LINK_PREFIX: [u8; 5] = [0xd8, 0x2a, 0x58, 0x25, 0x00];

impl<'a> Reader<'a> {
    /// Reads `bytes` within [`Limits::DEFAULT`].
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader::with_limits(bytes, &Limits::DEFAULT)
    }

    /// Reads `bytes` within `limits`.
    pub fn with_limits(bytes: &'a [u8], limits: &Limits) -> Reader<'a> {
        Reader {
            bytes,
            at: 0,
            nesting_left: limits.nesting_max.min(NESTING_CAP),
            entries_max: limits.entries_max,
            key_bytes_max: limits.key_bytes_max,
        }
    }

    /// Offset of the next item's first byte.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Fails if anything has not been read.
    pub fn finish(&self) -> Result<(), CborError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.error("trailing bytes")) }
    }

    /// An error at the next item, for callers whose rules go beyond the form.
    pub fn error(&self, why: &'static str) -> CborError {
        CborError { at: self.at, why }
    }

    /// The kind of the next item, by its first byte only.
    pub fn peek(&self) -> Result<Kind, CborError> {
        let Some(&first) = self.bytes.get(self.at) else { return Err(self.error("cut short")) };
        match first {
            0x00..=0x1f => Ok(Kind::Unsigned),
            0x20..=0x3f => Ok(Kind::Negative),
            0x40..=0x5f => Ok(Kind::Bytes),
            0x60..=0x7f => Ok(Kind::Text),
            0x80..=0x9f => Ok(Kind::Array),
            0xa0..=0xbf => Ok(Kind::Map),
            0xc0..=0xdf => Ok(Kind::Link),
            0xf4 | 0xf5 => Ok(Kind::Bool),
            0xf6 => Ok(Kind::Null),
            0xfb => Ok(Kind::Float),
            0xf9 | 0xfa => Err(self.error("a float of other than 64 bits")),
            0xe0..=0xf3 | 0xf7 | 0xf8 | 0xfc..=0xff => Err(self.error("a simple value that is not allowed")),
        }
    }

    /// An integer, zero or above.
    #[inline]
    pub fn unsigned(&mut self) -> Result<u64, CborError> {
        self.head(UNSIGNED, "not an unsigned integer")
    }

    /// An integer that 64 bits with a sign hold.
    pub fn integer(&mut self) -> Result<i64, CborError> {
        let start = self.at;
        let out_of_range = CborError { at: start, why: "an integer out of range" };
        if self.bytes.get(start).is_some_and(|first| first >> 5 == NEGATIVE) {
            let number = self.head(NEGATIVE, "not an integer")?;
            return i64::try_from(number).map(|number| -1 - number).map_err(|_| out_of_range);
        }
        let number = self.head(UNSIGNED, "not an integer")?;
        i64::try_from(number).map_err(|_| out_of_range)
    }

    /// True or false.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, CborError> {
        let value = match self.bytes.get(self.at) {
            Some(0xf4) => false,
            Some(0xf5) => true,
            Some(_) => return Err(self.error("not a boolean")),
            None => return Err(self.error("cut short")),
        };
        self.at += 1;
        Ok(value)
    }

    /// Passes over a null if there is one, and says whether.
    #[inline]
    pub fn null(&mut self) -> bool {
        let is_null = self.bytes.get(self.at) == Some(&0xf6);
        self.at += usize::from(is_null);
        is_null
    }

    /// A finite 64-bit float.
    pub fn float(&mut self) -> Result<f64, CborError> {
        if self.bytes.get(self.at) != Some(&0xfb) {
            return Err(self.error("not a 64-bit float"));
        }
        let Some(bits) = self.bytes.get(self.at + 1..).and_then(|rest| rest.first_chunk()) else {
            return Err(self.error("cut short"));
        };
        let value = f64::from_be_bytes(*bits);
        if !value.is_finite() {
            return Err(self.error("a float that is no number"));
        }
        self.at += 9;
        Ok(value)
    }

    /// A text string.
    #[inline]
    pub fn text(&mut self) -> Result<&'a str, CborError> {
        let start = self.at;
        let len = self.head(TEXT, "not text")?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|_| CborError { at: start, why: "text that is not UTF-8" })
    }

    /// A byte string.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        let len = self.head(BYTES, "not bytes")?;
        self.take(len)
    }

    /// A CID of the protocol's form.
    #[inline]
    pub fn cid(&mut self) -> Result<Cid, CborError> {
        let rest = self.rest();
        if let Some(cid) = rest.strip_prefix(&LINK_PREFIX).and_then(|cid| cid.first_chunk::<{ Cid::BYTES }>())
            && let Ok(cid) = Cid::from_bytes(cid)
        {
            self.at += LINK_PREFIX.len() + Cid::BYTES;
            return Ok(cid);
        }
        let start = self.at;
        self.link()?;
        Err(CborError { at: start, why: "a CID of a form that the protocol does not use" })
    }

    /// A CID of any codec and hash, checked for form only: version 1, its digest of the length it says, at most
    /// 100 bytes in all.
    pub fn link(&mut self) -> Result<&'a [u8], CborError> {
        let start = self.at;
        if self.head(TAG, "not a CID")? != 42 {
            return Err(CborError { at: start, why: "a tag other than 42" });
        }
        match self.bytes()? {
            [0, cid @ ..] if cid.len() > LINK_BYTES_MAX => Err(CborError { at: start, why: "a CID that is too long" }),
            [0, cid @ ..] if cid::form(cid) == Some(cid.len()) => Ok(cid),
            _ => Err(CborError { at: start, why: "tag 42 around what is not a CID" }),
        }
    }

    /// The start of an array; its items are then read while [`Items::more`] says so.
    pub fn array(&mut self) -> Result<Items, CborError> {
        let left = self.open(ARRAY, "not an array", 1)?;
        Ok(Items { left })
    }

    /// The start of a map; its values are then read after each [`Keys::next_key`].
    pub fn map(&mut self) -> Result<Keys<'a>, CborError> {
        let left = self.open(MAP, "not a map", 2)?;
        Ok(Keys { left, last: None })
    }

    /// Passes over one item of any kind, checking it.
    pub fn skip(&mut self) -> Result<(), CborError> {
        match self.peek()? {
            Kind::Unsigned => self.unsigned().map(drop),
            Kind::Negative => self.head(NEGATIVE, "not an integer").map(drop),
            Kind::Bytes => self.bytes().map(drop),
            Kind::Text => self.skip_text(),
            Kind::Array => {
                let mut items = self.array()?;
                while items.more(self) {
                    self.skip()?;
                }
                Ok(())
            }
            Kind::Map => {
                let mut keys = self.map()?;
                while keys.next_key(self)?.is_some() {
                    self.skip()?;
                }
                Ok(())
            }
            Kind::Link => self.link().map(drop),
            Kind::Bool | Kind::Null => {
                self.at += 1;
                Ok(())
            }
            Kind::Float => self.float().map(drop),
        }
    }

    /// Passes over a text string, checking it. Most text is ASCII, and to see that takes less than to decode it.
    fn skip_text(&mut self) -> Result<(), CborError> {
        let start = self.at;
        let len = self.head(TEXT, "not text")?;
        let bytes = self.take(len)?;
        if bytes.is_ascii() || std::str::from_utf8(bytes).is_ok() {
            Ok(())
        } else {
            Err(CborError { at: start, why: "text that is not UTF-8" })
        }
    }

    /// The argument of an item of major type `major`, in its shortest form.
    #[inline]
    fn head(&mut self, major: u8, otherwise: &'static str) -> Result<u64, CborError> {
        let Some(&first) = self.bytes.get(self.at) else { return Err(self.error("cut short")) };
        if first >> 5 != major {
            return Err(self.error(otherwise));
        }
        let info = first & 0x1f;
        if info < 24 {
            self.at += 1;
            return Ok(u64::from(info));
        }
        self.long_argument(info)
    }

    fn long_argument(&mut self, info: u8) -> Result<u64, CborError> {
        let rest = &self.bytes[self.at + 1..];
        let (argument, argument_bytes, shortest_from) = match info {
            24 => (rest.first_chunk().map(|b| u64::from(u8::from_be_bytes(*b))), 1, 24),
            25 => (rest.first_chunk().map(|b| u64::from(u16::from_be_bytes(*b))), 2, 1 << 8),
            26 => (rest.first_chunk().map(|b| u64::from(u32::from_be_bytes(*b))), 4, 1 << 16),
            27 => (rest.first_chunk().map(|b| u64::from_be_bytes(*b)), 8, 1 << 32),
            31 => return Err(self.error("an indefinite length")),
            _ => return Err(self.error("a reserved length")),
        };
        let Some(argument) = argument else { return Err(self.error("cut short")) };
        if argument < shortest_from {
            return Err(self.error("a number not in its shortest form"));
        }
        self.at += 1 + argument_bytes;
        Ok(argument)
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<&'a [u8], CborError> {
        let taken = usize::try_from(len).ok().and_then(|len| self.rest().get(..len));
        let Some(taken) = taken else { return Err(self.error("cut short")) };
        self.at += taken.len();
        Ok(taken)
    }

    /// Opens a container whose entries take at least `entry_bytes_min`, so that its length can't promise more than there
    /// is.
    fn open(&mut self, major: u8, otherwise: &'static str, entry_bytes_min: usize) -> Result<usize, CborError> {
        let start = self.at;
        let entries = self.head(major, otherwise)?;
        let Ok(entries) = usize::try_from(entries) else {
            return Err(CborError { at: start, why: "too many entries" });
        };
        if entries > self.entries_max {
            return Err(CborError { at: start, why: "too many entries" });
        }
        if entries > (self.bytes.len() - self.at) / entry_bytes_min {
            return Err(CborError { at: start, why: "cut short" });
        }
        let Some(nesting_left) = self.nesting_left.checked_sub(1) else {
            return Err(CborError { at: start, why: "nested too deeply" });
        };
        self.nesting_left = nesting_left;
        Ok(entries)
    }
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// An array being read. Ask [`Items::more`] until it says no: the reader counts levels by it.
#[derive(Debug)]
pub struct Items {
    left: usize,
}

impl Items {
    /// How many items are still to come; no more than there are bytes.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Whether another item follows; it must be read before the next call.
    #[inline]
    pub fn more(&mut self, reader: &mut Reader<'_>) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                reader.nesting_left += 1;
                false
            }
        }
    }
}

/// A map being read. Ask [`Keys::next_key`] until there is none: the reader counts levels by it.
#[derive(Debug)]
pub struct Keys<'a> {
    left: usize,
    last: Option<&'a str>,
}

impl<'a> Keys<'a> {
    /// How many keys are still to come; no more than there are bytes.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next key, which stands in order after the one before; its value must be read before the next call.
    #[inline]
    pub fn next_key(&mut self, reader: &mut Reader<'a>) -> Result<Option<&'a str>, CborError> {
        let Some(left) = self.left.checked_sub(1) else {
            reader.nesting_left += 1;
            return Ok(None);
        };
        self.left = left;
        let start = reader.at;
        if reader.bytes.get(start).is_some_and(|first| first >> 5 != TEXT) {
            return Err(reader.error("a map key that is not text"));
        }
        let key = reader.text()?;
        if key.len() > reader.key_bytes_max {
            return Err(CborError { at: start, why: "a map key that is too long" });
        }
        if self.last.is_some_and(|last| (last.len(), last) >= (key.len(), key)) {
            return Err(CborError { at: start, why: "map keys out of order" });
        }
        self.last = Some(key);
        Ok(Some(key))
    }
}

fn json_item(reader: &mut Reader<'_>) -> Result<serde_json::Value, CborError> {
    use serde_json::Value;

    Ok(match reader.peek()? {
        Kind::Unsigned => Value::from(reader.unsigned()?),
        Kind::Negative => Value::from(reader.integer()?),
        Kind::Bytes => {
            let text = data_encoding::BASE64_NOPAD.encode(reader.bytes()?);
            serde_json::json!({ "$bytes": text })
        }
        Kind::Text => Value::from(reader.text()?),
        Kind::Array => {
            let mut items = reader.array()?;
            let mut array = Vec::new();
            while items.more(reader) {
                array.push(json_item(reader)?);
            }
            Value::Array(array)
        }
        Kind::Map => {
            let mut keys = reader.map()?;
            let mut object = serde_json::Map::new();
            while let Some(key) = keys.next_key(reader)? {
                object.insert(key.to_owned(), json_item(reader)?);
            }
            Value::Object(object)
        }
        Kind::Link => serde_json::json!({ "$link": cid::text(reader.link()?) }),
        Kind::Bool => Value::from(reader.bool()?),
        Kind::Null => {
            reader.skip()?;
            Value::Null
        }
        Kind::Float => Value::from(reader.float()?),
    })
}

// === Writer ===

/// Appends canonical items to a buffer. Lengths and integers come out in their shortest form; that the keys of a map
/// are written in order (by length, then bytes), and as many items as were announced, is up to the caller.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// An empty buffer with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Writer {
        Writer { out: Vec::with_capacity(bytes) }
    }

    /// What has been written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// An integer, zero or above.
    pub fn unsigned(&mut self, value: u64) {
        self.head(UNSIGNED, value);
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.head(UNSIGNED, value),
            Err(_) => self.head(NEGATIVE, (-1 - value).unsigned_abs()),
        }
    }

    /// True or false.
    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { 0xf5 } else { 0xf4 });
    }

    /// Null.
    pub fn null(&mut self) {
        self.out.push(0xf6);
    }

    /// A text string; also a map's key.
    pub fn text(&mut self, value: &str) {
        self.head(TEXT, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
    }

    /// A byte string.
    pub fn bytes(&mut self, value: &[u8]) {
        self.head(BYTES, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    /// A CID.
    pub fn cid(&mut self, value: &Cid) {
        self.out.extend_from_slice(&LINK_PREFIX);
        self.out.extend_from_slice(&value.to_bytes());
    }

    /// A CID, or null.
    pub fn cid_or_null(&mut self, value: Option<&Cid>) {
        match value {
            Some(cid) => self.cid(cid),
            None => self.null(),
        }
    }

    /// The start of an array of `items`.
    pub fn array(&mut self, items: usize) {
        self.head(ARRAY, items as u64);
    }

    /// The start of a map of `entries`, each a key and a value.
    pub fn map(&mut self, entries: usize) {
        self.head(MAP, entries as u64);
    }

    fn head(&mut self, major: u8, argument: u64) {
        let (bytes, len) = head_bytes(major, argument);
        self.out.extend_from_slice(&bytes[..len]);
    }
}

/// An unsigned integer as [`Writer::unsigned`] appends it: the first bytes of the array, and how many they are.
pub fn unsigned_bytes(value: u64) -> ([u8; 9], usize) {
    head_bytes(UNSIGNED, value)
}

/// An item's first bytes, and how many of the array they are.
fn head_bytes(major: u8, argument: u64) -> ([u8; 9], usize) {
    let mut bytes = [0; 9];
    let (info, len) = match argument {
        0..24 => (argument as u8, 0),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        0x1_0000_0000.. => (27, 8),
    };
    bytes[0] = major << 5 | info;
    bytes[1..=len].copy_from_slice(&argument.to_be_bytes()[8 - len..]);
    (bytes, 1 + len)
}

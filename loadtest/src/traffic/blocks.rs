//! Signed frames on disk, in blocks that are read, stamped and written to a socket as they are.
//!
//! A file is a header and blocks, one after the other. All numbers are little-endian.
//!
//! ```text
//! file header   8  "mstraffc"
//!               4  version (1)
//!               4  0
//! block header  4  "BLCK"
//!               4  host, from 0
//!               8  seq of the first frame
//!               4  frames
//!               4  bytes of the stream
//!               4  seq of the last frame less that of the first
//!               4  CRC-32C of all of the block but this field
//! index         for each frame
//!               4  where its message ends in the stream
//!               4  where its stamp stands in the stream
//!               4  its seq less that of the block's first frame
//! stream        WebSocket messages as a server sends them: final, binary, unmasked; each a frame with its seq
//! ```
//!
//! What must hold: a host's blocks are in the order of its seqs, and a message never spans two. Blocks of different hosts
//! may lie in any order. A block is at most [`STREAM_BYTES_MAX`] and one message long. A file that ends early or has a bit
//! changed is refused, never sent: its length is checked when it is opened, and each block's sum when it is read.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use atproto::frame::FRAME_BYTES_MAX;
use bytes::Bytes;

use super::stamp;

/// The version of the format.
pub const VERSION: u32 = 1;
/// A block's stream is closed when it has so many bytes.
pub const STREAM_BYTES_MAX: usize = 256 * 1024;

const MAGIC: &[u8; 8] = b"mstraffc";
const FILE_HEADER_BYTES: u64 = 16;
const BLOCK_MAGIC: &[u8; 4] = b"BLCK";
const BLOCK_HEADER_BYTES: usize = 32;
const INDEX_BYTES: usize = 12;
/// All hosts' open blocks together are about so long at most.
const OPEN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a file of frames is none, or can't be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system.
    #[error("failed to {what} {file}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{file} is not a file of frames")]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// It is of another version than [`VERSION`].
    #[error("{file} is of version {found}; version {VERSION} is read: make it anew")]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It ends within a block, or sooner than it should.
    #[error("{file} is cut short at byte {at}: make it anew")]
    CutShort {
        /// The file.
        file: PathBuf,
        /// Where what is missing begins.
        at: u64,
    },
    /// A block is not what was written.
    #[error("{file} is damaged at byte {at}: make it anew")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where the block begins.
        at: u64,
    },
    /// A frame has no stamp, or is too long.
    #[error("a frame that can't be stamped")]
    Frame,
}

/// Writes a file of frames. It is whole only after [`Writer::finish`].
pub struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    open: Vec<Open>,
    block_bytes_max: usize,
    written: u64,
}

/// A host's block that is not full.
#[derive(Default)]
struct Open {
    first_seq: u64,
    /// The last seq less the first.
    last: u32,
    index: Vec<u8>,
    stream: Vec<u8>,
}

impl Writer {
    /// A new file for the frames of so many hosts.
    pub fn create(path: &Path, hosts: usize) -> Result<Writer, Error> {
        let failed = |source| Error::Io { what: "create", file: path.to_owned(), source };
        let mut file = BufWriter::with_capacity(1024 * 1024, File::create_new(path).map_err(failed)?);
        let mut header = [0; FILE_HEADER_BYTES as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        file.write_all(&header).map_err(failed)?;
        let mut open = Vec::new();
        open.resize_with(hosts, Open::default);
        Ok(Writer {
            file,
            path: path.to_owned(),
            open,
            block_bytes_max: (OPEN_BYTES_MAX / hosts.max(1)).min(STREAM_BYTES_MAX),
            written: FILE_HEADER_BYTES,
        })
    }

    /// Adds a host's next frame. Its seq must be above the last.
    pub fn push(&mut self, host: usize, seq: u64, frame: &[u8]) -> Result<(), Error> {
        let open = &mut self.open[host];
        // What is so far from the block's first can't be said in its index; no host leaves out so many seqs.
        if seq.checked_sub(open.first_seq).is_none_or(|past| u32::try_from(past).is_err()) {
            self.close(host)?;
        }
        let open = &mut self.open[host];
        if open.index.is_empty() {
            open.first_seq = seq;
        }
        let stamp = stamp::find(frame).filter(|_| frame.len() <= FRAME_BYTES_MAX).ok_or(Error::Frame)?;
        write_message_header(&mut open.stream, frame.len());
        let stamp = open.stream.len() + stamp;
        open.stream.extend_from_slice(frame);
        open.last = u32::try_from(seq - open.first_seq).map_err(|_| Error::Frame)?;
        for number in [open.stream.len() as u32, stamp as u32, open.last] {
            open.index.extend_from_slice(&number.to_le_bytes());
        }
        match open.stream.len() >= self.block_bytes_max {
            true => self.close(host),
            false => Ok(()),
        }
    }

    /// Writes what there is, makes it last, and gives the file's length.
    pub fn finish(mut self) -> Result<u64, Error> {
        for host in 0..self.open.len() {
            self.close(host)?;
        }
        let failed = |source| Error::Io { what: "write", file: self.path.clone(), source };
        let file = self.file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        Ok(self.written)
    }

    fn close(&mut self, host: usize) -> Result<(), Error> {
        let open = &mut self.open[host];
        if open.index.is_empty() {
            return Ok(());
        }
        let header = BlockHeader {
            host: host as u32,
            first_seq: open.first_seq,
            frames: (open.index.len() / INDEX_BYTES) as u32,
            stream_bytes: open.stream.len() as u32,
            last: open.last,
            sum: 0,
        };
        let sum = sum(&header, [&open.index, &open.stream]);
        let header = BlockHeader { sum, ..header }.encode();
        for bytes in [&header[..], &open.index, &open.stream] {
            let failed = |source| Error::Io { what: "write", file: self.path.clone(), source };
            self.file.write_all(bytes).map_err(failed)?;
            self.written += bytes.len() as u64;
        }
        open.index.clear();
        open.stream.clear();
        Ok(())
    }
}

/// A file of frames that can be read, by many at once.
pub struct Blocks {
    file: File,
    path: PathBuf,
    hosts: Vec<Vec<Place>>,
}

/// Where a block stands, and what it begins with.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    header: BlockHeader,
    /// Frames of the host in the blocks before.
    frames_before: u64,
}

impl Blocks {
    /// Opens a file that is `file_bytes` long and has frames of so many hosts. Always checks its version, and that the
    /// blocks fill it; reads only their headers.
    pub fn open(path: &Path, file_bytes: u64, hosts: usize) -> Result<Blocks, Error> {
        let named = || path.to_owned();
        let failed = |source| Error::Io { what: "read", file: named(), source };
        let file = File::open(path).map_err(|source| Error::Io { what: "open", file: named(), source })?;
        let length = file.metadata().map_err(failed)?.len();
        let mut header = [0; FILE_HEADER_BYTES as usize];
        if length < FILE_HEADER_BYTES {
            return Err(Error::CutShort { file: named(), at: length });
        }
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        if &header[..8] != MAGIC {
            return Err(Error::Foreign { file: named() });
        }
        let found = u32_at(&header, 8);
        if found != VERSION {
            return Err(Error::Version { file: named(), found });
        }
        if length < file_bytes {
            return Err(Error::CutShort { file: named(), at: length });
        }
        let mut places: Vec<Vec<Place>> = vec![Vec::new(); hosts];
        let mut at = FILE_HEADER_BYTES;
        while at < length {
            let mut header = [0; BLOCK_HEADER_BYTES];
            if length - at < BLOCK_HEADER_BYTES as u64 {
                return Err(Error::CutShort { file: named(), at });
            }
            file.read_exact_at(&mut header, at).map_err(failed)?;
            let damaged = || Error::Damaged { file: named(), at };
            let header = BlockHeader::decode(&header).ok_or_else(damaged)?;
            let of_host = places.get_mut(header.host as usize).ok_or_else(damaged)?;
            let before = of_host.last().map_or(0, |last| last.frames_before + u64::from(last.header.frames));
            of_host.push(Place { at, header, frames_before: before });
            at += header.block_bytes();
            if at > length {
                return Err(Error::CutShort { file: named(), at: length });
            }
        }
        Ok(Blocks { file, path: named(), hosts: places })
    }

    /// How many frames a host has.
    pub fn frames(&self, host: usize) -> u64 {
        self.hosts[host].last().map_or(0, |last| last.frames_before + u64::from(last.header.frames))
    }

    /// How many blocks a host has.
    pub fn blocks(&self, host: usize) -> usize {
        self.hosts[host].len()
    }

    /// The seq of a host's last frame, unless it has none.
    pub fn last_seq(&self, host: usize) -> Option<u64> {
        self.hosts[host].last().map(|place| place.header.first_seq + u64::from(place.header.last))
    }

    /// The block of a host in which a seq above `seq` may be found first; past the last if there is none.
    pub fn block_after(&self, host: usize, seq: u64) -> usize {
        // The last block that begins no later, or else the first.
        self.hosts[host].partition_point(|place| place.header.first_seq <= seq).saturating_sub(1)
    }

    /// Reads a host's block. Always checks its sum. Blocks.
    pub fn read(&self, host: usize, block: usize) -> Result<Block, Error> {
        let Place { at, header, frames_before } = self.hosts[host][block];
        let damaged = || Error::Damaged { file: self.path.clone(), at };
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::CutShort { file: self.path.clone(), at },
            _ => Error::Io { what: "read", file: self.path.clone(), source },
        };
        let mut index = vec![0; header.frames as usize * INDEX_BYTES];
        let mut stream = vec![0; header.stream_bytes as usize];
        let start = at + BLOCK_HEADER_BYTES as u64;
        self.file.read_exact_at(&mut index, start).map_err(failed)?;
        self.file.read_exact_at(&mut stream, start + index.len() as u64).map_err(failed)?;
        if sum(&header, [&index, &stream]) != header.sum {
            return Err(damaged());
        }
        let mut frames = Vec::with_capacity(header.frames as usize);
        let mut before = (0, None);
        for entry in index.chunks_exact(INDEX_BYTES) {
            let frame = Entry {
                end: u32_at(entry, 0) as usize,
                stamp: u32_at(entry, 4) as usize,
                seq: header.first_seq + u64::from(u32_at(entry, 8)),
            };
            // The sum holds, but whoever wrote it need not have been us.
            let fits = frame.stamp > before.0 && frame.stamp + stamp::BYTES <= frame.end && frame.end <= stream.len();
            if !fits || before.1.is_some_and(|seq| seq >= frame.seq) {
                return Err(damaged());
            }
            before = (frame.end, Some(frame.seq));
            frames.push(frame);
        }
        Ok(Block { stream, frames, frames_before })
    }

    /// A host's frames, without their WebSocket headers, a block in memory at a time. Ends after the first error.
    pub fn iter(&self, host: usize) -> impl Iterator<Item = Result<Bytes, Error>> + '_ {
        let mut failed = false;
        (0..self.blocks(host))
            .map_while(move |block| {
                let read = (!failed).then(|| self.read(host, block))?;
                failed = read.is_err();
                Some(read)
            })
            .flat_map(|block| match block {
                Ok(block) => block.into_frames().into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            })
    }
}

/// A block in memory: what a host sends next.
#[derive(Clone, Debug)]
pub struct Block {
    stream: Vec<u8>,
    frames: Vec<Entry>,
    frames_before: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    end: usize,
    stamp: usize,
    seq: u64,
}

impl Block {
    /// How many frames it has.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames of the host in the blocks before.
    pub fn frames_before(&self) -> u64 {
        self.frames_before
    }

    /// The first frame with a seq above `seq`.
    pub fn first_after(&self, seq: u64) -> usize {
        self.frames.partition_point(|frame| frame.seq <= seq)
    }

    /// Past the last frame so that those from `from` are about `bytes` long, one of them at least, and it is `end_max` at
    /// most.
    pub fn end_of(&self, from: usize, bytes: usize, end_max: usize) -> usize {
        let limit = self.start(from) + bytes;
        let end = self.frames.partition_point(|frame| frame.end <= limit);
        end.max(from + 1).min(end_max)
    }

    /// The messages of these frames, all sent at `micros`.
    pub fn stamped(&mut self, frames: Range<usize>, micros: u64) -> &[u8] {
        let text = stamp::text(micros);
        for Entry { stamp, .. } in &self.frames[frames.clone()] {
            self.stream[*stamp..*stamp + stamp::BYTES].copy_from_slice(&text);
        }
        &self.stream[self.start(frames.start)..self.start(frames.end)]
    }

    /// Bytes of these frames, without their messages' headers.
    pub fn frame_bytes(&self, frames: Range<usize>) -> u64 {
        let bytes = frames.map(|frame| {
            let message = self.frames[frame].end - self.start(frame);
            message - message_header_bytes(message)
        });
        bytes.sum::<usize>() as u64
    }

    fn start(&self, frame: usize) -> usize {
        frame.checked_sub(1).map_or(0, |before| self.frames[before].end)
    }

    fn into_frames(self) -> Vec<Bytes> {
        let stream = Bytes::from(self.stream);
        let mut start = 0;
        let frames = self.frames.iter().map(|frame| {
            let message = stream.slice(start..frame.end);
            start = frame.end;
            message.slice(message_header_bytes(message.len())..)
        });
        frames.collect()
    }
}

/// A message's header: final, binary, unmasked (RFC 6455, 5.2).
fn write_message_header(out: &mut Vec<u8>, length: usize) {
    out.push(0x82);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// How long the header of a message of so many bytes, header included, is.
fn message_header_bytes(message_bytes: usize) -> usize {
    match message_bytes {
        0..=127 => 2,
        128..=65_539 => 4,
        _ => 10,
    }
}

#[derive(Clone, Copy, Debug)]
struct BlockHeader {
    host: u32,
    first_seq: u64,
    frames: u32,
    stream_bytes: u32,
    /// The last seq less the first.
    last: u32,
    sum: u32,
}

impl BlockHeader {
    fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(BLOCK_MAGIC);
        bytes[4..8].copy_from_slice(&self.host.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.frames.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.stream_bytes.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.last.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Option<BlockHeader> {
        let first_seq = u64::from(u32_at(bytes, 8)) | u64::from(u32_at(bytes, 12)) << 32;
        (&bytes[..4] == BLOCK_MAGIC).then(|| BlockHeader {
            host: u32_at(bytes, 4),
            first_seq,
            frames: u32_at(bytes, 16),
            stream_bytes: u32_at(bytes, 20),
            last: u32_at(bytes, 24),
            sum: u32_at(bytes, 28),
        })
    }

    fn block_bytes(&self) -> u64 {
        BLOCK_HEADER_BYTES as u64 + u64::from(self.frames) * INDEX_BYTES as u64 + u64::from(self.stream_bytes)
    }
}

fn sum(header: &BlockHeader, parts: [&[u8]; 2]) -> u32 {
    let header = BlockHeader { sum: 0, ..*header }.encode();
    parts.into_iter().fold(crc32c::crc32c(&header), crc32c::crc32c_append)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use atproto::event::{AccountEvent, Event};
    use tempfile::TempDir;

    use super::*;

    const HOSTS: usize = 3;

    fn frame(seq: u64, bytes: usize) -> Vec<u8> {
        let (did, time) = ("did:plc:ewvi7nxzyoun6zhxrhs64oiz", "2026-01-01T00:00:00.000000Z");
        let status = "x".repeat(bytes);
        Event::Account(AccountEvent { seq, did, time, active: false, status: Some(&status) }).encode()
    }

    /// Frames of all kinds of lengths of three hosts, the second of which has none; many blocks of the first.
    fn written() -> (TempDir, PathBuf, u64, [Vec<Vec<u8>>; HOSTS]) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.frames");
        let mut writer = Writer::create(&path, HOSTS).unwrap();
        let mut frames = [const { Vec::new() }; HOSTS];
        for n in 0..400_u64 {
            let host = if n % 7 == 0 { 2 } else { 0 };
            let frame = frame(10 + 3 * n, [3, 60, 500, 3_000, 70_000][(n % 5) as usize]);
            writer.push(host, 10 + 3 * n, &frame).unwrap();
            frames[host].push(frame);
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
        (folder, path, bytes, frames)
    }

    #[test]
    fn what_was_written_is_read() {
        let (_folder, path, bytes, frames) = written();
        let blocks = Blocks::open(&path, bytes, HOSTS).unwrap();
        assert!(blocks.blocks(0) > 10);
        for (host, frames) in frames.iter().enumerate() {
            let read: Vec<Bytes> = blocks.iter(host).map(Result::unwrap).collect();
            assert_eq!(&read, frames);
            assert_eq!(blocks.frames(host), frames.len() as u64);
        }
        assert_eq!((blocks.last_seq(0), blocks.last_seq(1), blocks.last_seq(2)), (Some(1_204), None, Some(1_207)));
    }

    #[test]
    fn a_seq_leads_to_the_frame_after_it() {
        let (_folder, path, bytes, _) = written();
        let blocks = Blocks::open(&path, bytes, HOSTS).unwrap();
        let seqs: Vec<u64> = (0..400).filter(|n| n % 7 != 0).map(|n| 10 + 3 * n).collect();
        for after in 0..1_220 {
            let expected = seqs.iter().copied().find(|seq| *seq > after);
            let mut found = None;
            for number in blocks.block_after(0, after)..blocks.blocks(0) {
                let block = blocks.read(0, number).unwrap();
                found = block.frames.get(block.first_after(after)).map(|frame| frame.seq);
                if found.is_some() {
                    break;
                }
            }
            assert_eq!(found, expected, "after {after}");
        }
    }

    #[test]
    fn messages_are_what_a_server_sends_and_say_when() {
        let (_folder, path, bytes, frames) = written();
        let blocks = Blocks::open(&path, bytes, HOSTS).unwrap();
        let micros = 1_795_367_100_123_456;
        let (mut at, mut told) = (0, 0);
        for number in 0..blocks.blocks(0) {
            let mut block = blocks.read(0, number).unwrap();
            let mut next = 0;
            while next < block.len() {
                let end = block.end_of(next, 100_000, block.len());
                told += block.frame_bytes(next..end);
                let mut stream = block.stamped(next..end, micros);
                for _ in next..end {
                    let (header, length) = match stream[1] {
                        126 => (4, usize::from(stream[2]) << 8 | usize::from(stream[3])),
                        127 => (10, stream[2..10].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))),
                        length => (2, usize::from(length)),
                    };
                    let (message, rest) = stream.split_at(header + length);
                    let mut expected = frames[0][at].clone();
                    let place = stamp::find(&expected).unwrap();
                    stamp::write(&mut expected, place, micros);
                    assert_eq!((message[0], &message[header..]), (0x82, &expected[..]));
                    (stream, at) = (rest, at + 1);
                }
                assert!(stream.is_empty());
                next = end;
            }
        }
        assert_eq!(at, frames[0].len());
        assert_eq!(told, frames[0].iter().map(|frame| frame.len() as u64).sum::<u64>());
    }

    #[test]
    fn what_is_cut_short_or_damaged_is_refused() {
        let (folder, path, bytes, _) = written();
        let whole = std::fs::read(&path).unwrap();
        let copy = folder.path().join("copy.frames");
        let read_all = || -> Result<(), Error> {
            let blocks = Blocks::open(&copy, bytes, HOSTS)?;
            (0..HOSTS).try_for_each(|host| blocks.iter(host).try_for_each(|frame| frame.map(drop)))
        };
        for cut in [0, 7, 15, 16, 17, 47, 48, 1_000, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&copy, &whole[..cut]).unwrap();
            let told = read_all().unwrap_err();
            assert!(matches!(told, Error::CutShort { .. }), "cut at {cut}: {told}");
        }
        for at in (0..200).chain((200..whole.len()).step_by(9_973)) {
            // Two bytes of the file's header mean nothing yet.
            if (12..16).contains(&at) {
                continue;
            }
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&copy, &damaged).unwrap();
            assert!(read_all().is_err(), "a bit at {at}");
        }
        std::fs::write(&copy, b"something else altogether").unwrap();
        assert!(matches!(read_all(), Err(Error::Foreign { .. })));
        let mut newer = whole.clone();
        newer[8] = 2;
        std::fs::write(&copy, &newer).unwrap();
        let told = read_all().unwrap_err().to_string();
        assert!(told.ends_with("is of version 2; version 1 is read: make it anew"), "{told}");
        std::fs::write(&copy, &whole).unwrap();
        read_all().unwrap();
    }
}

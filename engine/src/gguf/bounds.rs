//! A walk over a GGUF header that allocates nothing and trusts nothing.
//!
//! candle's reader checks lengths against the bytes that remain, but still turns every array element into a
//! 32-byte value and follows nested arrays; this walk bounds both, counts entries, and refuses duplicate
//! work before it starts. It validates structure only; meaning is for the readers behind it.

use std::io::{BufReader, Read, Seek};

use crate::error::{Error, Result};

/// Metadata entries at most; real files have fewer than a hundred.
const MAX_ENTRIES: u64 = 1 << 16;
/// Tensors at most; the largest known models have a few thousand.
const MAX_TENSORS: u64 = 1 << 16;
/// Elements of one array at most: several times the largest vocabulary or list of merges.
const MAX_ARRAY: u64 = 1 << 22;
/// Elements of all arrays together.
const MAX_ELEMENTS: u64 = 1 << 23;
/// Bytes of one key or tensor name (the format says 64 for tensors, 65535 for keys).
const MAX_NAME: u64 = 1 << 16;
/// Bytes of one string value; the longest known are chat templates of some tens of kilobytes.
const MAX_STRING: u64 = 1 << 24;
/// Dimensions of a tensor, as in ggml.
const MAX_DIMENSIONS: u32 = 4;

/// The header's cursor: a reader and how many bytes of the file lie ahead of it.
struct Walk<R> {
    reader: R,
    remaining: u64,
    elements: u64,
}

/// Checks the header at the reader's position, in a file with `size` bytes left.
pub(super) fn check<R: Read + Seek>(reader: &mut R, size: u64) -> Result<()> {
    let mut walk = Walk { reader: BufReader::with_capacity(1 << 16, reader), remaining: size, elements: 0 };
    let magic = walk.bytes::<4>("the magic number")?;
    if &magic != b"GGUF" {
        return Err(Error::format(format!("not a GGUF file, it starts with {}", magic.escape_ascii())));
    }
    match walk.u32("the version")? {
        2 | 3 => {}
        version => return Err(Error::unsupported(format!("GGUF version {version}, known are 2 and 3"))),
    }
    let tensors = limited("tensors", walk.u64("the tensor count")?, MAX_TENSORS)?;
    let entries = limited("metadata entries", walk.u64("the metadata count")?, MAX_ENTRIES)?;
    for _ in 0..entries {
        walk.string("a metadata key", MAX_NAME)?;
        let kind = walk.u32("a metadata type")?;
        walk.value(kind)?;
    }
    for _ in 0..tensors {
        walk.string("a tensor name", MAX_NAME)?;
        let dimensions = walk.u32("a tensor's dimensions")?;
        limited("tensor dimensions", dimensions.into(), MAX_DIMENSIONS.into())?;
        for _ in 0..dimensions {
            walk.u64("a tensor's dimension")?;
        }
        walk.u32("a tensor's type")?;
        walk.u64("a tensor's offset")?;
    }
    Ok(())
}

fn limited(what: &str, value: u64, limit: u64) -> Result<u64> {
    if value <= limit {
        Ok(value)
    } else {
        Err(Error::format(format!("{value} {what}, the limit is {limit}")))
    }
}

impl<R: Read> Walk<R> {
    fn take(&mut self, what: &str, bytes: u64) -> Result<()> {
        self.remaining = self.remaining.checked_sub(bytes).ok_or_else(|| {
            Error::format(format!("{what} needs {bytes} bytes, {} are left in the file", self.remaining))
        })?;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        self.take(what, N as u64)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(what)?))
    }

    fn skip(&mut self, what: &str, bytes: u64) -> Result<()> {
        self.take(what, bytes)?;
        let skipped = std::io::copy(&mut (&mut self.reader).take(bytes), &mut std::io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(Error::format(format!("{what} ends early"))) }
    }

    fn string(&mut self, what: &str, limit: u64) -> Result<()> {
        let length = limited(&format!("bytes in {what}"), self.u64(what)?, limit)?;
        self.skip(what, length)
    }

    fn value(&mut self, kind: u32) -> Result<()> {
        const STRING: u32 = 8;
        const ARRAY: u32 = 9;
        match kind {
            STRING => self.string("a metadata string", MAX_STRING),
            ARRAY => {
                let inner = self.u32("an array's type")?;
                let length = limited("elements in an array", self.u64("an array's length")?, MAX_ARRAY)?;
                self.elements = limited("array elements in all", self.elements + length, MAX_ELEMENTS)?;
                match inner {
                    ARRAY => Err(Error::unsupported("metadata with nested arrays")),
                    STRING => (0..length).try_for_each(|_| self.string("a string in an array", MAX_STRING)),
                    scalar => self.skip("an array", length * width(scalar)?),
                }
            }
            scalar => self.skip("a metadata value", width(scalar)?),
        }
    }
}

/// Bytes of a scalar metadata value.
fn width(kind: u32) -> Result<u64> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        other => Err(Error::format(format!("unknown metadata type {other}, known are 0 to 12"))),
    }
}

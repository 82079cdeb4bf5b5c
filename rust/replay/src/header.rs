//! What a buffer is made of, as the first bytes of a file tell it: of a snapshot, and of a file of rows.
//!
//! ```text
//! magic 8 bytes   version u32   header length u32   header crc32 u32
//! header          byte order mark u32, seed u64, next batch u64, num_envs u64, capacity u64, check_finite u8,
//!                 columns u16, and for each: name length u16, name, dtype u8, axes u8, axes × u64
//! ```
//!
//! Numbers are little-endian but for the mark, which tells the byte order of the rows. Nothing here is believed before
//! the checksum was right, and no length before it was found to be within its limit.
use crate::buffer::Config;
use crate::layout::{Column, DType, MAX_AXES, MAX_COLUMNS};

/// Bytes before the header.
pub(crate) const PREAMBLE: usize = 20;
const MAX_HEADER: usize = 1 << 20;
const ORDER_MARK: u32 = 0x0102_0304;

/// What a part of a file should be and is not.
pub(crate) type Parsed<T> = std::result::Result<T, String>;

/// CRC-32 of a part of a file; its number is part of it, so that parts cannot change places.
pub(crate) fn crc(index: u64, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&index.to_le_bytes());
    hasher.update(data);
    hasher.finalize()
}

/// Preamble and header.
pub(crate) fn encode(magic: [u8; 8], version: u32, config: &Config, next_batch: u64) -> Vec<u8> {
    let mut header = ORDER_MARK.to_ne_bytes().to_vec();
    for number in [config.seed, next_batch, config.num_envs as u64, config.capacity as u64] {
        header.extend(number.to_le_bytes());
    }
    header.push(u8::from(config.check_finite));
    header.extend(u16::try_from(config.columns.len()).unwrap_or(u16::MAX).to_le_bytes());
    for column in &config.columns {
        header.extend(u16::try_from(column.name.len()).unwrap_or(u16::MAX).to_le_bytes());
        header.extend(column.name.as_bytes());
        header.push(column.dtype as u8);
        header.push(u8::try_from(column.shape.len()).unwrap_or(u8::MAX));
        for &n in &column.shape {
            header.extend((n as u64).to_le_bytes());
        }
    }
    let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
    let sum = crc(0, &header);
    [magic.as_slice(), &version.to_le_bytes(), &length.to_le_bytes(), &sum.to_le_bytes(), &header].concat()
}

/// The preamble of a header.
pub(crate) struct Preamble {
    pub(crate) version: u32,
    /// Bytes of the header that follows.
    pub(crate) length: usize,
    sum: u32,
}

impl Preamble {
    /// `kind` is what files that begin with `magic` are called, and `newest` the last version that is known.
    pub(crate) fn parse(bytes: &[u8; PREAMBLE], magic: [u8; 8], newest: u32, kind: &str) -> Parsed<Self> {
        let mut rest = Rest(bytes);
        if rest.take::<8>()? != magic {
            return Err(format!("not a {kind}: the first bytes are not those of one"));
        }
        let mut word = || rest.take().map(u32::from_le_bytes);
        let (version, length, sum) = (word()?, word()? as usize, word()?);
        if !(1..=newest).contains(&version) {
            return Err(format!("format version {version}; this version of crl reads 1 to {newest}"));
        }
        if length > MAX_HEADER {
            return Err(format!("header: {length} bytes, more than the limit of {MAX_HEADER}"));
        }
        Ok(Self { version, length, sum })
    }

    /// The settings, for a sampler with `threads`, and the number of the next batch.
    pub(crate) fn config(&self, header: &[u8], threads: usize) -> Parsed<(Config, u64)> {
        if crc(0, header) != self.sum {
            return Err("header: the checksum does not match".into());
        }
        Rest(header).config(threads).map_err(|what| format!("header: {what}"))
    }
}

/// What was not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk().ok_or("it ends early")?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Parsed<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Parsed<usize> {
        let number = self.number()?;
        usize::try_from(number).map_err(|_| format!("{number} is no size on this machine"))
    }

    fn config(mut self, threads: usize) -> Parsed<(Config, u64)> {
        if u32::from_ne_bytes(self.take()?) != ORDER_MARK {
            return Err("written on a machine of another byte order".into());
        }
        let (seed, next_batch, num_envs, capacity) = (self.number()?, self.number()?, self.size()?, self.size()?);
        let check_finite = self.take::<1>()?[0] != 0;
        let count = usize::from(u16::from_le_bytes(self.take()?));
        if count > MAX_COLUMNS {
            return Err(format!("{count} columns, more than the limit of {MAX_COLUMNS}"));
        }
        let columns = (0..count).map(|_| self.column()).collect::<Parsed<_>>()?;
        if !self.0.is_empty() {
            return Err("it goes on after the last column".into());
        }
        Ok((Config { num_envs, capacity, columns, seed, check_finite, threads }, next_batch))
    }

    fn column(&mut self) -> Parsed<Column> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (name, rest) = self.0.split_at_checked(length).ok_or("it ends early")?;
        let name = std::str::from_utf8(name).map_err(|_| "a name is not UTF-8")?.to_owned();
        self.0 = rest;
        let [dtype, axes] = self.take()?;
        let dtype = *DType::ALL.get(usize::from(dtype)).ok_or_else(|| format!("{name}: unknown dtype {dtype}"))?;
        if usize::from(axes) > MAX_AXES {
            return Err(format!("{name}: {axes} axes, more than the limit of {MAX_AXES}"));
        }
        let shape = (0..axes).map(|_| self.size()).collect::<Parsed<_>>()?;
        Ok(Column { name, dtype, shape })
    }
}

//! A buffer in a file, and back.
//!
//! ```text
//! "CRLBUF\r\n"  version u32  header length u32  header crc32 u32
//! header        byte order mark u32, seed u64, next batch u64, num_envs u64, capacity u64, check_finite u8,
//!               columns u16, and for each: name length u16, name, dtype u8, axes u8, axes × u64
//! blocks        length u32, crc32 u32 of (block number u64, data), data of at most 4 MiB; the last one is empty
//! data          for each env: rows ever written u64, then its stored rows from the oldest on:
//!               1 where a trajectory starts, else 0; then the bytes of each column
//! ```
//!
//! Numbers are little-endian; columns keep the byte order of the machine, which the mark tells. Every length is
//! checked before memory is taken for it, and rows come back through the same [`Rings::push`] that wrote them
//! first, so that no file can make a ring that writing could not.
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::buffer::{Buffer, Config};
use crate::error::{Error, Result};
use crate::layout::{Column, DType, MAX_AXES, MAX_COLUMNS};
use crate::ring::{Place, Rings};

const MAGIC: [u8; 8] = *b"CRLBUF\r\n";
const VERSION: u32 = 1;
const ORDER_MARK: u32 = 0x0102_0304;
const MAX_HEADER: usize = 1 << 20;
const BLOCK: usize = 4 << 20;

/// Saves under another name, and takes the right one when everything is on the disk.
pub(crate) fn save(buffer: &Buffer, path: &Path) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let unfinished = path.with_file_name(name);
    let saved = write(buffer, &unfinished).and_then(|()| {
        fs::rename(&unfinished, path).and_then(|()| sync_folder(path)).map_err(|source| io_error(path, source))
    });
    if saved.is_err() {
        let _ = fs::remove_file(&unfinished); // The first error is the one to tell.
    }
    saved
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // The same signature everywhere.
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.into(), source }
}

fn write(buffer: &Buffer, path: &Path) -> Result<()> {
    let fail = |source| io_error(path, source);
    let file = File::create(path).map_err(fail)?;
    let header = header(buffer);
    let mut out = BufWriter::new(&file);
    let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
    let preamble = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &length.to_le_bytes(), &crc(0, &header).to_le_bytes()];
    out.write_all(&preamble.concat()).and_then(|()| out.write_all(&header)).map_err(fail)?;

    let mut blocks = BlockWriter { out, index: 0, data: Vec::with_capacity(BLOCK) };
    let row_bytes: usize = buffer.layout().fields().iter().map(|field| field.bytes).sum::<usize>() + 1;
    let mut rows = vec![0; row_bytes * (BLOCK / row_bytes).max(1)];
    for env in 0..buffer.rings.num_envs() {
        write_env(buffer, env, row_bytes, &mut rows, |bytes| blocks.push(bytes).map_err(fail))?;
    }
    blocks.finish().map_err(fail)?;
    file.sync_all().map_err(fail)
}

/// Passes on one environment: rows are copied in runs as a sampler copies them, and a run counts if its oldest lives.
fn write_env(
    buffer: &Buffer,
    env: usize,
    row_bytes: usize,
    rows: &mut [u8],
    mut push: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (rings, length) = (&buffer.rings, buffer.rings.length() as u64);
    let written = rings.published(env);
    push(&written.to_le_bytes())?;
    let mut t = written.saturating_sub(length);
    let mut before = None;
    while t < written {
        let first = t;
        let mut used = 0;
        for row in rows.chunks_exact_mut(row_bytes).take(usize::try_from(written - t).unwrap_or(usize::MAX)) {
            let slot = usize::try_from(t % length).unwrap_or_default();
            let place = Place { env, slot, ..Place::default() };
            let trajectory = Some(rings.trajectory(env, slot));
            row[0] = u8::from(trajectory != before);
            before = trajectory;
            let mut from = 1;
            for &field in buffer.layout().fields() {
                rings.read(rings.index(place), field, &mut row[from..from + field.bytes]);
                from += field.bytes;
            }
            used += row_bytes;
            t += 1;
        }
        Rings::settle();
        if !rings.lives(env, first) {
            return Err(Error::Busy(format!("save: rows of env {env} were overwritten meanwhile; pause its writer")));
        }
        push(&rows[..used])?;
    }
    Ok(())
}

fn header(buffer: &Buffer) -> Vec<u8> {
    let config = buffer.config();
    let mut header = ORDER_MARK.to_ne_bytes().to_vec();
    for number in [config.seed, buffer.next_batch(), config.num_envs as u64, config.capacity as u64] {
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
    header
}

/// CRC-32 of a block; its number is part of it, so that blocks cannot change places.
fn crc(index: u64, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&index.to_le_bytes());
    hasher.update(data);
    hasher.finalize()
}

struct BlockWriter<W: Write> {
    out: W,
    index: u64,
    data: Vec<u8>,
}

impl<W: Write> BlockWriter<W> {
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.data.len()));
            self.data.extend_from_slice(now);
            bytes = later;
            if self.data.len() == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&crc(self.index, &self.data).to_le_bytes())?;
        self.out.write_all(&self.data)?;
        self.index += 1;
        self.data.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if !self.data.is_empty() {
            self.flush()?;
        }
        self.flush()?;
        self.out.flush()
    }
}

/// Reads a buffer back.
pub(crate) fn load(path: &Path, threads: usize) -> Result<Buffer> {
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    let size = file.metadata().map_err(|source| io_error(path, source))?.len();
    let mut source = Source { path: path.into(), file: BufReader::new(file), index: 0, data: Vec::new(), used: 0 };
    let (config, next_batch) = source.header(size, threads)?;
    let buffer = Buffer::new(config).map_err(|error| match error {
        Error::Memory(_) => error,
        error => source.corrupt(format!("header: {error}")),
    })?;
    buffer.set_next_batch(next_batch);

    let length = buffer.rings.length() as u64;
    let fields = buffer.layout().fields();
    let mut row = vec![0; fields.iter().map(|field| field.bytes).sum::<usize>() + 1];
    for env in 0..buffer.rings.num_envs() {
        let written = u64::from_le_bytes(source.array()?);
        if written > u64::MAX / 2 {
            return Err(source.corrupt(format!("env {env} has {written} rows")));
        }
        buffer.rings.start_at(env, written.saturating_sub(length));
        for _ in 0..written.min(length) {
            source.read(&mut row)?;
            buffer.rings.push(env, row[0] != 0, |index| {
                let mut rest = &row[1..];
                for field in fields {
                    let (bytes, later) = rest.split_at(field.bytes);
                    buffer.rings.write(index, *field, bytes);
                    rest = later;
                }
            });
        }
    }
    source.finish()?;
    Ok(buffer)
}

/// A snapshot as it is read: nothing of a block is passed on before its checksum was right.
struct Source {
    path: PathBuf,
    file: BufReader<File>,
    index: u64,
    data: Vec<u8>,
    used: usize,
}

impl Source {
    fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::Corrupt { path: self.path.clone(), what: what.into() }
    }

    /// Reads from the file itself; an early end is a corrupt snapshot.
    fn raw(&mut self, bytes: &mut [u8], part: &str) -> Result<()> {
        self.file.read_exact(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.corrupt(format!("{part}: the file ends early")),
            _ => io_error(&self.path, source),
        })
    }

    fn header(&mut self, size: u64, threads: usize) -> Result<(Config, u64)> {
        let mut preamble = [0; 20];
        self.raw(&mut preamble, "header")?;
        let word = |at: usize| u32::from_le_bytes([preamble[at], preamble[at + 1], preamble[at + 2], preamble[at + 3]]);
        if preamble[..8] != MAGIC {
            return Err(self.corrupt("not a saved buffer: the first bytes are not those of one"));
        }
        if word(8) != VERSION {
            return Err(self.corrupt(format!("format version {}; this version of crl reads {VERSION}", word(8))));
        }
        let length = word(12) as usize;
        if length > MAX_HEADER {
            return Err(self.corrupt(format!("header: {length} bytes, more than the limit of {MAX_HEADER}")));
        }
        let mut header = vec![0; length];
        self.raw(&mut header, "header")?;
        if crc(0, &header) != word(16) {
            return Err(self.corrupt("header: the checksum does not match"));
        }
        let mut header = Header(&header);
        let (config, next_batch) = header.parse(threads).map_err(|what| self.corrupt(format!("header: {what}")))?;
        if config.num_envs as u64 > size / 8 {
            return Err(self.corrupt(format!("header: {} envs do not fit the file", config.num_envs)));
        }
        Ok((config, next_batch))
    }

    /// Makes the next block the current one; `false` at the last, empty one.
    fn block(&mut self) -> Result<bool> {
        let part = format!("block {}", self.index);
        let (mut length, mut sum) = ([0; 4], [0; 4]);
        self.raw(&mut length, &part)?;
        self.raw(&mut sum, &part)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > BLOCK {
            return Err(self.corrupt(format!("{part}: {length} bytes, more than the limit of {BLOCK}")));
        }
        let mut data = std::mem::take(&mut self.data);
        data.resize(length, 0);
        self.raw(&mut data, &part)?;
        if crc(self.index, &data) != u32::from_le_bytes(sum) {
            return Err(self.corrupt(format!("{part}: the checksum does not match")));
        }
        (self.data, self.used) = (data, 0);
        self.index += 1;
        Ok(length > 0)
    }

    fn read(&mut self, mut bytes: &mut [u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.used == self.data.len() && !self.block()? {
                return Err(self.corrupt(format!("block {}: the rows end early", self.index - 1)));
            }
            let count = bytes.len().min(self.data.len() - self.used);
            let (now, later) = bytes.split_at_mut(count);
            now.copy_from_slice(&self.data[self.used..self.used + count]);
            (self.used, bytes) = (self.used + count, later);
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn finish(mut self) -> Result<()> {
        let rows_end = self.used == self.data.len() && !self.block()?;
        let mut more = [0];
        if !rows_end || self.file.read(&mut more).map_err(|source| io_error(&self.path, source))? > 0 {
            return Err(self.corrupt(format!("block {}: data after the last row", self.index)));
        }
        Ok(())
    }
}

/// The rest of the header, read from the front.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn take<const N: usize>(&mut self) -> std::result::Result<[u8; N], String> {
        let (first, rest) = self.0.split_first_chunk().ok_or("it ends early")?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> std::result::Result<u64, String> {
        self.take().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> std::result::Result<usize, String> {
        let number = self.number()?;
        usize::try_from(number).map_err(|_| format!("{number} is no size on this machine"))
    }

    fn parse(&mut self, threads: usize) -> std::result::Result<(Config, u64), String> {
        if u32::from_ne_bytes(self.take()?) != ORDER_MARK {
            return Err("saved on a machine of another byte order".into());
        }
        let (seed, next_batch, num_envs, capacity) = (self.number()?, self.number()?, self.size()?, self.size()?);
        let check_finite = self.take::<1>()?[0] != 0;
        let count = usize::from(u16::from_le_bytes(self.take()?));
        if count > MAX_COLUMNS {
            return Err(format!("{count} columns, more than the limit of {MAX_COLUMNS}"));
        }
        let columns = (0..count).map(|_| self.column()).collect::<std::result::Result<_, _>>()?;
        if !self.0.is_empty() {
            return Err("it goes on after the last column".into());
        }
        Ok((Config { num_envs, capacity, columns, seed, check_finite, threads }, next_batch))
    }

    fn column(&mut self) -> std::result::Result<Column, String> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (name, rest) = self.0.split_at_checked(length).ok_or("it ends early")?;
        let name = std::str::from_utf8(name).map_err(|_| "a name is not UTF-8")?.to_owned();
        self.0 = rest;
        let [dtype, axes] = self.take()?;
        let dtype = *DType::ALL.get(usize::from(dtype)).ok_or_else(|| format!("{name}: unknown dtype {dtype}"))?;
        if usize::from(axes) > MAX_AXES {
            return Err(format!("{name}: {axes} axes, more than the limit of {MAX_AXES}"));
        }
        let shape = (0..axes).map(|_| self.size()).collect::<std::result::Result<_, _>>()?;
        Ok(Column { name, dtype, shape })
    }
}

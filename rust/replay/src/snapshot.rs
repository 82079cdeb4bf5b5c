//! A buffer in a file, and back.
//!
//! ```text
//! header        as crate::header describes it, with the magic "CRLBUF\r\n"
//! blocks        length u32, crc32 u32 of (block number u64, data), data of at most 4 MiB; the last one is empty
//! data          for each env: rows ever written u64, then runs of rows until the last one written
//! run           number of its first row u64, rows u64, and for each row:
//!               1 where a trajectory starts, else 0; then the bytes of each column
//! ```
//!
//! Rows that come in while a buffer is saved are not saved, and those that they overwrite are left out where the copy
//! came too late: a run that does not begin where the one before ended takes the place of all before. So a snapshot
//! holds, of each environment, the newest rows of one moment. Where some are missing, the rows of a loaded ring are
//! numbered from 0. In version 1 each environment had all its stored rows in one run without a head.
//!
//! Numbers are little-endian; columns keep the byte order of the machine, which the header tells. Every length is
//! checked before memory is taken for it, and rows come back through the same [`Rings::push`] that wrote them
//! first, so that no file can make a ring that writing could not.
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::buffer::{Buffer, Config};
use crate::error::{Error, Result};
use crate::header::{self, PREAMBLE, Preamble, crc};
use crate::ring::{Place, Rings};
use crate::row_file::sync_folder;

const MAGIC: [u8; 8] = *b"CRLBUF\r\n";
const VERSION: u32 = 2;
pub(crate) const BLOCK: usize = 4 << 20;

/// Saves under another name, and takes the right one when everything is on the disk.
pub(crate) fn save(buffer: &Buffer, path: &Path) -> Result<()> {
    static SAVES: AtomicU64 = AtomicU64::new(0);
    let fail = |source| Error::Io { path: path.into(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{}.tmp", process::id(), SAVES.fetch_add(1, Relaxed)));
    let unfinished = path.with_file_name(name);
    let saved = File::create(&unfinished).map_err(fail).and_then(|file| {
        write(buffer, &file, fail)?;
        let kept = file.sync_all().and_then(|()| fs::rename(&unfinished, path)).and_then(|()| sync_folder(path));
        kept.map_err(fail)
    });
    if saved.is_err() {
        let _ = fs::remove_file(&unfinished); // The first error is the one to tell.
    }
    saved
}

pub(crate) fn write(buffer: &Buffer, mut out: impl Write, fail: impl Fn(io::Error) -> Error) -> Result<()> {
    let cut = cut(&buffer.rings);
    let header = header::encode(MAGIC, VERSION, buffer.config(), buffer.next_batch());
    out.write_all(&header).map_err(&fail)?;
    let mut blocks = BlockWriter { out, index: 0, data: Vec::with_capacity(HEAD + BLOCK) };
    let row_bytes = row_bytes(buffer);
    let mut rows = vec![0; row_bytes * (BLOCK / row_bytes).max(1)];
    for (env, &written) in cut.iter().enumerate() {
        write_env(buffer, env, written, &mut rows, |bytes| blocks.push(bytes).map_err(&fail))?;
    }
    blocks.finish().map_err(&fail)
}

/// Bytes of a row in a snapshot.
fn row_bytes(buffer: &Buffer) -> usize {
    1 + buffer.layout().fields().iter().map(|field| field.bytes).sum::<usize>()
}

/// Rows ever written by each environment, at one moment: counters that stood still while they were read twice. A writer
/// that never pauses for so long gets each counter as it was when it was read.
fn cut(rings: &Rings) -> Vec<u64> {
    const TRIES: usize = 1000;
    let read = || (0..rings.num_envs()).map(|env| rings.published(env)).collect::<Vec<_>>();
    let mut before = read();
    for _ in 0..TRIES {
        let now = read();
        if now == before {
            break;
        }
        before = now;
    }
    before
}

/// Passes on one environment in runs, copied as a sampler copies. What was overwritten meanwhile is left out.
fn write_env(
    buffer: &Buffer,
    env: usize,
    written: u64,
    rows: &mut [u8],
    mut push: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (rings, length, row_bytes) = (&buffer.rings, buffer.rings.length() as u64, row_bytes(buffer));
    push(&written.to_le_bytes())?;
    let mut t = rings.oldest(env);
    let mut saved = 0; // The end of the last run.
    let mut before = None;
    while t < written {
        let first = t;
        for row in rows.chunks_exact_mut(row_bytes).take(usize::try_from(written - t).unwrap_or(usize::MAX)) {
            let slot = usize::try_from(t % length).unwrap_or_default();
            let place = Place { env, slot, ..Place::default() };
            let trajectory = Some(rings.trajectory(env, slot));
            row[0] = u8::from(trajectory != before);
            before = trajectory;
            let mut from = 1;
            for &field in buffer.layout().fields() {
                rings.read(rings.record(place), field, &mut row[from..from + field.bytes]);
                from += field.bytes;
            }
            t += 1;
        }
        Rings::settle();
        let oldest = rings.oldest(env);
        if oldest < t {
            let from = first.max(oldest);
            push(&from.to_le_bytes())?;
            push(&(t - from).to_le_bytes())?;
            let at = |t: u64| usize::try_from(t - first).unwrap_or_default() * row_bytes;
            push(&rows[at(from)..at(t)])?;
            saved = t;
        }
        t = t.max(oldest);
    }
    if written > 0 && saved != written {
        return Err(Error::Busy(format!(
            "save: env {env} was written faster than it could be copied; pause its writer"
        )));
    }
    Ok(())
}

/// Length and checksum, before the data of a block.
const HEAD: usize = 8;

/// Collects data into blocks, head included, and passes on each with one call.
struct BlockWriter<W: Write> {
    out: W,
    index: u64,
    data: Vec<u8>,
}

impl<W: Write> BlockWriter<W> {
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.data.resize(self.data.len().max(HEAD), 0);
            let (now, later) = bytes.split_at(bytes.len().min(HEAD + BLOCK - self.data.len()));
            self.data.extend_from_slice(now);
            bytes = later;
            if self.data.len() == HEAD + BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.data.resize(self.data.len().max(HEAD), 0);
        let (head, data) = self.data.split_at_mut(HEAD);
        head[..4].copy_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
        head[4..].copy_from_slice(&crc(self.index, data).to_le_bytes());
        self.out.write_all(&self.data)?;
        self.index += 1;
        self.data.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if !self.data.is_empty() {
            self.flush()?;
        }
        self.flush()
    }
}

/// Reads a buffer back.
pub(crate) fn load(path: &Path, threads: usize) -> Result<Buffer> {
    let fail = |source| Error::Io { path: path.into(), source };
    let file = File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    let file = BufReader::new(file);
    let mut source = Source { path: path.into(), file, size, index: 0, data: Vec::new(), used: 0 };
    let (version, config, next_batch) = source.header(threads)?;
    let buffer = Buffer::to_load(config, size).map_err(|error| match error {
        Error::Memory(_) => error,
        error => source.corrupt(format!("header: {error}")),
    })?;
    buffer.set_next_batch(next_batch);
    for env in 0..buffer.rings.num_envs() {
        source.env(&buffer, env, version)?;
    }
    source.finish()?;
    buffer.rings.use_large_pages();
    Ok(buffer)
}

/// A snapshot as it is read: nothing of a block is passed on before its checksum was right.
struct Source {
    path: PathBuf,
    file: BufReader<File>,
    size: u64,
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
            _ => Error::Io { path: self.path.clone(), source },
        })
    }

    fn header(&mut self, threads: usize) -> Result<(u32, Config, u64)> {
        let mut preamble = [0; PREAMBLE];
        self.raw(&mut preamble, "header")?;
        let preamble = Preamble::parse(&preamble, MAGIC, VERSION, "saved buffer").map_err(|what| self.corrupt(what))?;
        let mut header = vec![0; preamble.length];
        self.raw(&mut header, "header")?;
        let (config, next_batch) = preamble.config(&header, threads).map_err(|what| self.corrupt(what))?;
        if config.num_envs as u64 > self.size / 8 {
            return Err(self.corrupt(format!("header: {} envs do not fit the file", config.num_envs)));
        }
        Ok((preamble.version, config, next_batch))
    }

    /// Reads one environment into its empty ring.
    fn env(&mut self, buffer: &Buffer, env: usize, version: u32) -> Result<()> {
        let (rings, length, row_bytes) = (&buffer.rings, buffer.rings.length() as u64, row_bytes(buffer));
        let written = self.number()?;
        if written > u64::MAX / 2 {
            return Err(self.corrupt(format!("env {env} has {written} rows")));
        }
        let mut next = 0;
        let mut row = Vec::new();
        while next < written {
            let oldest = written.saturating_sub(length);
            let (first, count) =
                if version == 1 { (oldest, written - oldest) } else { (self.number()?, self.number()?) };
            let end = first.checked_add(count).filter(|end| *end <= written && count > 0 && first >= next.max(oldest));
            let end = end.ok_or_else(|| {
                self.corrupt(format!(
                    "env {env} has {written} rows, {next} of them read, and then {count} from {first} on"
                ))
            })?;
            if count.checked_mul(row_bytes as u64).is_none_or(|bytes| bytes > self.size) {
                return Err(self.corrupt(format!("env {env}: {count} rows of {row_bytes} bytes do not fit the file")));
            }
            if first != next || next == 0 {
                // Numbers begin beyond 0 only where a ring's worth of rows follows.
                rings.start_at(env, if written - first == length { first } else { 0 });
            }
            row.resize(row_bytes, 0);
            for _ in 0..count {
                self.read(&mut row)?;
                rings.push(env, row[0] != 0, |index| {
                    let mut rest = &row[1..];
                    for field in buffer.layout().fields() {
                        let (bytes, later) = rest.split_at(field.bytes);
                        rings.write(index, *field, bytes);
                        rest = later;
                    }
                });
            }
            next = end;
        }
        Ok(())
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

    fn number(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn finish(mut self) -> Result<()> {
        let rows_end = self.used == self.data.len() && !self.block()?;
        let more = self.file.read(&mut [0]).map_err(|source| Error::Io { path: self.path.clone(), source })?;
        if !rows_end || more > 0 {
            return Err(self.corrupt(format!("block {}: data after the last row", self.index)));
        }
        Ok(())
    }
}

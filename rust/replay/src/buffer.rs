//! The buffer: rings, a sampler's position, and the files that rows live in or are saved to. How rows come in is told in
//! `writer.rs`.
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::error::{Error, Result};
use crate::goal::Goals;
use crate::layout::{Column, Layout};
use crate::n_step::NStep;
use crate::pool::Pool;
use crate::ring::{MAX_LENGTH, Rings};
use crate::row_file::RowFile;
use crate::sample::{Request, Sampler};
use crate::segments::{SegmentRequest, SegmentSampler, Segments};
use crate::snapshot;
use crate::storage::Source;
use crate::sync;
use crate::writer::Writers;

/// What a buffer is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Environments, each with a ring of its own.
    pub num_envs: usize,
    /// Rows in all; each environment keeps `capacity / num_envs`.
    pub capacity: usize,
    /// The columns of a row. One must be called `achieved_goal`, or `observation`, for goals to be sampled.
    pub columns: Vec<Column>,
    /// The seed of the sampler.
    pub seed: u64,
    /// Refuse NaN and infinity in floating-point columns.
    pub check_finite: bool,
    /// Threads that share a large batch; 0 takes one for each core.
    pub threads: usize,
}

/// A buffer of trajectories. All of it works through `&self`: share it behind an [`Arc`](std::sync::Arc).
pub struct Buffer {
    pub(crate) rings: Rings,
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) writers: Writers,
    pub(crate) file: Option<RowFile>,
    /// The number of the next batch, unless a file has it.
    next_batch: sync::AtomicU64,
    pool: Pool,
    closed: AtomicBool,
}

impl Buffer {
    /// An empty buffer. Its memory is taken from the system as rows come in.
    ///
    /// # Errors
    /// `Invalid` for sizes that make no buffer, `Memory` if the system refuses.
    pub fn new(config: Config) -> Result<Self> {
        let (length, layout) = plan(&config)?;
        Self::made(config, length, layout, None, Source::Memory)
    }

    /// An empty buffer for the rows of a file of `size` bytes: a small file must not take much memory.
    pub(crate) fn to_load(config: Config, size: u64) -> Result<Self> {
        let (length, layout) = plan(&config)?;
        let words = Rings::words(config.num_envs, length, &layout).map_or(usize::MAX, |[_, _, rows]| rows);
        // A word is eight bytes: the file would fill less than an eighth of the rings.
        let source = if words as u64 > size { Source::Sparse } else { Source::Memory };
        Self::made(config, length, layout, None, source)
    }

    /// A buffer whose rows live in a file, which may be larger than the memory: what the system does not need
    /// otherwise keeps parts of it at hand. Its space is reserved when it is made. A file that is there goes on where
    /// it ended, sampler included, even if its writer was killed; only one buffer at a time may have it open.
    ///
    /// # Errors
    /// Those of [`Buffer::new`]; `Space` if the disk is too full; `Busy` if the file is open elsewhere; `Invalid` if it
    /// was made with other settings; `Corrupt` if it is no such file, or if it was being written when its machine
    /// stopped; `Io` from the file system.
    pub fn open(path: &Path, config: Config) -> Result<Self> {
        let (length, layout) = plan(&config)?;
        let (file, source) = RowFile::open(path, &config, &layout, length)?;
        let buffer = Self::made(config, length, layout, Some(file), source)?;
        for env in 0..buffer.rings.num_envs() {
            buffer.rings.resume(env).map_err(|what| Error::Corrupt { path: path.into(), what })?;
        }
        Ok(buffer)
    }

    fn made(config: Config, length: usize, layout: Layout, file: Option<RowFile>, mut source: Source) -> Result<Self> {
        let Config { num_envs, capacity, .. } = config;
        let rings = Rings::new(&mut source, num_envs, length, &layout).ok_or_else(|| {
            let gib = (num_envs * length).saturating_mul(layout.words() * 8) >> 30;
            Error::Memory(format!("capacity: {capacity} rows take {gib} GiB, which the system refuses; ask for fewer"))
        })?;
        let (pool, writers) = (Pool::new(config.threads), Writers::default());
        let (next_batch, closed) = (sync::AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { rings, config, layout, writers, file, next_batch, pool, closed })
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its columns.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Rows that it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.rings.num_envs() * self.rings.length()
    }

    fn sum(&self, of: impl Fn(usize) -> u64) -> u64 {
        (0..self.rings.num_envs()).map(of).sum()
    }

    /// Rows stored now.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.sum(|env| self.rings.stored(env))
    }

    /// Rows ever written.
    #[must_use]
    pub fn rows_written(&self) -> u64 {
        self.sum(|env| self.rings.published(env))
    }

    /// Trajectories with at least one stored row.
    #[must_use]
    pub fn trajectories(&self) -> u64 {
        self.sum(|env| self.rings.trajectories(env))
    }

    /// Bytes of memory that it takes when full.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.rings.bytes()
    }

    /// The number of the batch that [`Buffer::sample`] draws next.
    #[must_use]
    pub fn next_batch(&self) -> u64 {
        self.position().load(Relaxed)
    }

    fn position(&self) -> &sync::AtomicU64 {
        self.file.as_ref().map_or(&self.next_batch, RowFile::next_batch)
    }

    pub(crate) fn set_next_batch(&self, batch: u64) {
        self.position().store(batch, Relaxed);
    }

    /// Takes the next `count` batch numbers for the caller, and gives the first.
    #[must_use]
    pub fn reserve(&self, count: u64) -> u64 {
        self.position().fetch_add(count, Relaxed)
    }

    /// Gives back the batch numbers `unused..end`, if nobody has taken later ones: as if they had not been reserved.
    pub fn give_back(&self, unused: u64, end: u64) {
        let _ = self.position().compare_exchange(end, unused, Relaxed, Relaxed);
    }

    /// What to sample: the law of the goal, and the outputs by name. `offset` is the distance of the goal; `goal` what was
    /// achieved there; a column's name means its value at the row, with the prefix `next_` or `goal_` at the next row
    /// or at the goal's.
    ///
    /// # Errors
    /// `Invalid` for a name that is no output.
    pub fn request(&self, goals: Goals, names: &[String]) -> Result<Request> {
        Request::new(&self.layout, goals, None, names)
    }

    /// The same, with the outputs of [`crate::n_step`] too: `n_step_return`, `n_step_discount`, `n_step_offset`, and
    /// `n_step_` before a column for its value at the row that is reached.
    ///
    /// # Errors
    /// `Invalid` for a name that is no output, or without a column of rewards.
    pub fn request_n_step(&self, goals: Goals, n_step: NStep, names: &[String]) -> Result<Request> {
        Request::new(&self.layout, goals, Some(n_step), names)
    }

    /// Draws `num_batches` batches of `batch_size` rows into the caller's memory, one slice for each output of the
    /// request, and returns the number of the first. `first_batch` is one that was reserved, or `None` for the next.
    ///
    /// While nobody writes, a batch depends on the seed, its number, and the data, and on nothing else.
    ///
    /// # Errors
    /// `Empty` if no row has a later one in its trajectory, `Invalid` if a slice has the wrong length, `Busy` if
    /// writers lap the sampler again and again.
    pub fn sample(
        &self,
        request: &Request,
        batch_size: usize,
        num_batches: usize,
        first_batch: Option<u64>,
        outputs: &mut [&mut [u8]],
    ) -> Result<u64> {
        let bytes = request.bytes();
        let (rows, first_batch) = self.begin(batch_size, num_batches, first_batch, bytes, outputs)?;
        let sampler = Sampler { rings: &self.rings, request, seed: self.config.seed, first_batch, batch_size };
        self.pool.share(rows, bytes, outputs, |from, rows, outputs| sampler.fill(from, rows, outputs))?;
        Ok(first_batch)
    }

    /// What to sample: segments, the law of their goals, and outputs by name. They are those of [`Buffer::request`], with
    /// one row for each of the segment but for the goal's, and `mask`, which tells rows from padding.
    ///
    /// # Errors
    /// `Invalid` for a name that is no output, or a length that no ring could hold.
    pub fn segment_request(&self, segments: Segments, goals: Goals, names: &[String]) -> Result<SegmentRequest> {
        let Segments { length, partial, .. } = segments;
        let most = if partial { MAX_LENGTH } else { self.rings.length() - 1 };
        if !(1..=most).contains(&(length as usize)) {
            return Err(Error::Invalid(format!(
                "length: expected 1 to {most}; got {length}: each environment keeps {} rows, and the last row of a \
                 trajectory has no successor",
                self.rings.length()
            )));
        }
        SegmentRequest::new(&self.layout, segments, goals, names)
    }

    /// Draws segments as [`Buffer::sample`] draws rows, uniformly among all that lie in one trajectory, each of their
    /// rows with a successor there. Where shorter ones are wanted, a segment begins at any row that has a successor.
    ///
    /// # Errors
    /// Those of [`Buffer::sample`]; `Empty` also if no trajectory is long enough.
    pub fn sample_segments(
        &self,
        request: &SegmentRequest,
        batch_size: usize,
        num_batches: usize,
        first_batch: Option<u64>,
        outputs: &mut [&mut [u8]],
    ) -> Result<u64> {
        let bytes = request.bytes();
        let (rows, first_batch) = self.begin(batch_size, num_batches, first_batch, bytes, outputs)?;
        let sampler = SegmentSampler { rings: &self.rings, request, seed: self.config.seed, first_batch, batch_size };
        self.pool.share(rows, bytes, outputs, |from, rows, outputs| sampler.fill(from, rows, outputs))?;
        Ok(first_batch)
    }

    /// Checks the memory for a call's rows, and takes batch numbers. Gives the rows and the first number.
    fn begin(
        &self,
        batch_size: usize,
        num_batches: usize,
        first_batch: Option<u64>,
        bytes: &[usize],
        outputs: &[&mut [u8]],
    ) -> Result<(usize, u64)> {
        self.check_open("sample")?;
        let rows = batch_size.checked_mul(num_batches).filter(|rows| *rows > 0);
        let rows = rows.ok_or_else(|| Error::Invalid(format!("batch_size: expected at least 1; got {batch_size}")))?;
        let got = || outputs.iter().map(|memory| memory.len());
        let expected = || bytes.iter().map(|bytes| rows.saturating_mul(*bytes));
        if !got().eq(expected()) {
            let (got, expected) = (got().collect::<Vec<_>>(), expected().collect::<Vec<_>>());
            return Err(Error::Invalid(format!("out: expected arrays of {expected:?} bytes; got {got:?}")));
        }
        Ok((rows, first_batch.unwrap_or_else(|| self.reserve(num_batches as u64))))
    }

    /// Brings what was added before the call onto the disk, if the rows live in a file. Until rows are added again, the
    /// file then outlives a power failure; that it outlives its process takes no call.
    ///
    /// # Errors
    /// `Io` from the file system.
    pub fn flush(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), RowFile::flush)
    }

    /// Ends all use of the buffer: a file is flushed, and others may open it. Closing twice does nothing.
    ///
    /// # Errors
    /// `Io` from the file system.
    pub fn close(&self) -> Result<()> {
        if self.closed.swap(true, SeqCst) {
            return Ok(());
        }
        self.file.as_ref().map_or(Ok(()), RowFile::close)
    }

    pub(crate) fn check_open(&self, call: &str) -> Result<()> {
        if self.closed.load(SeqCst) {
            return Err(Error::Busy(format!("{call}: the buffer was closed")));
        }
        Ok(())
    }

    /// Saves rows, trajectories, seed and the sampler's position. The file appears whole or not at all.
    ///
    /// # Errors
    /// `Io` from the file system; `Busy` if writers overwrite rows while they are being saved.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.check_open("save")?;
        snapshot::save(self, path)
    }

    /// Reads a buffer back.
    ///
    /// # Errors
    /// `Io` from the file system; `Corrupt` if the file is not whole, was altered or is no snapshot; `Memory`.
    pub fn load(path: &Path, threads: usize) -> Result<Self> {
        snapshot::load(path, threads)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = self.close(); // Nobody is left to tell.
    }
}

/// The rows of one ring, and the layout; or why there can be no such buffer.
fn plan(config: &Config) -> Result<(usize, Layout)> {
    let &Config { num_envs, capacity, .. } = config;
    if num_envs == 0 {
        return Err(Error::Invalid("num_envs: expected at least 1; got 0".into()));
    }
    let length = capacity / num_envs;
    if !(2..=MAX_LENGTH).contains(&length) {
        return Err(Error::Invalid(format!(
            "capacity: expected 2 to {MAX_LENGTH} rows for each of the {num_envs} envs; got {capacity}, {length} for each"
        )));
    }
    Ok((length, Layout::new(config.columns.clone())?))
}

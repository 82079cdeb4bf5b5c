//! The buffer: rings, a sampler's position, and who may write where.
use std::path::Path;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Bytes of a call's output from which several threads share it: below, waking them costs more than they save.
const PARALLEL_BYTES: usize = 4 << 20;

/// Rows between the one that is written and the one whose memory is asked for.
const AHEAD: usize = 16;

/// What a buffer is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Environments, each with a ring of its own.
    pub num_envs: usize,
    /// Rows in all; each environment keeps `capacity / num_envs`.
    pub capacity: usize,
    /// The columns of a row. One must be called `achieved_goal` for goals to be sampled.
    pub columns: Vec<Column>,
    /// The seed of the sampler.
    pub seed: u64,
    /// Refuse NaN and infinity in floating-point columns.
    pub check_finite: bool,
    /// Threads that share a large batch; 0 takes one for each core.
    pub threads: usize,
}

/// A buffer of trajectories. All of it works through `&self`: share it behind an [`Arc`].
pub struct Buffer {
    pub(crate) rings: Rings,
    pub(crate) config: Config,
    layout: Layout,
    /// The number of the next batch, unless a file has it.
    next_batch: sync::AtomicU64,
    pool: Pool,
    writers: Writers,
    file: Option<RowFile>,
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
        let (next_batch, closed) = (sync::AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { rings, config, layout, next_batch, pool: Pool::default(), writers: Writers::default(), file, closed })
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
        self.share(rows, bytes, outputs, |from, rows, outputs| sampler.fill(from, rows, outputs))?;
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
        self.share(rows, bytes, outputs, |from, rows, outputs| sampler.fill(from, rows, outputs))?;
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

    /// Fills `rows` rows of `bytes` each in every output: alone, or with the pool where that pays.
    fn share(
        &self,
        rows: usize,
        bytes: &[usize],
        outputs: &mut [&mut [u8]],
        fill: impl Fn(usize, usize, &mut [&mut [u8]]) -> Result<()> + Sync,
    ) -> Result<()> {
        let large = outputs.iter().map(|memory| memory.len()).sum::<usize>() >= PARALLEL_BYTES;
        let Some(pool) = large.then(|| self.pool()).flatten() else {
            return fill(0, rows, outputs);
        };
        let share = rows.div_ceil(pool.current_num_threads() * 4);
        let share = share.next_multiple_of(share.min(64)); // Samplers go in blocks of so many rows.
        let mut pieces: Vec<_> =
            outputs.iter_mut().zip(bytes).map(|(memory, bytes)| memory.chunks_mut(share * bytes)).collect();
        let failure = Mutex::new(None);
        pool.in_place_scope(|scope| {
            for from in (0..rows).step_by(share) {
                let mut mine: Vec<&mut [u8]> = pieces.iter_mut().filter_map(Iterator::next).collect();
                let (fill, failure) = (&fill, &failure);
                scope.spawn(move |_| {
                    if let Err(error) = fill(from, share.min(rows - from), &mut mine) {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                });
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn pool(&self) -> Option<Arc<rayon::ThreadPool>> {
        let threads = match self.config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        if threads > 1 { self.pool.get(threads) } else { None }
    }

    /// The exclusive writer of the environments `first..last`, until it is dropped.
    ///
    /// # Errors
    /// `Invalid` for a range that is empty or too far, `Busy` if somebody is writing any of it.
    pub fn writer(self: &Arc<Self>, first: usize, last: usize) -> Result<Writer> {
        let envs = self.rings.num_envs();
        if first >= last || last > envs {
            return Err(Error::Invalid(format!(
                "writer: expected 0 <= first_env < last_env <= {envs}; got first_env={first}, last_env={last}"
            )));
        }
        self.writers.range(first, last)?;
        Ok(Writer { buffer: Arc::clone(self), first, last })
    }

    /// Appends `steps` rows to every environment: see [`Writer::add`].
    ///
    /// # Errors
    /// Those of [`Buffer::writer`] and [`Writer::add`].
    pub fn add(&self, steps: usize, columns: &[&[u8]], starts: &[u8]) -> Result<()> {
        let _whole = self.writers.whole()?;
        self.append(0, self.rings.num_envs(), steps, columns, starts)
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

    fn check_open(&self, call: &str) -> Result<()> {
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

    fn append(&self, first: usize, last: usize, steps: usize, columns: &[&[u8]], starts: &[u8]) -> Result<()> {
        let (envs, fields) = (last - first, self.layout.fields());
        let rows = steps * envs;
        if columns.len() != fields.len() || starts.len() != rows {
            return Err(Error::Invalid(format!("add: expected {} columns of {rows} rows", fields.len())));
        }
        for ((column, field), bytes) in self.layout.columns().iter().zip(fields).zip(columns) {
            let (name, expected) = (&column.name, rows * field.bytes);
            if bytes.len() != expected {
                return Err(Error::Invalid(format!("{name}: expected {expected} bytes; got {}", bytes.len())));
            }
            // Nothing is written before everything is known to be right.
            if let Some(at) = column.dtype.first_nonfinite(bytes).filter(|_| self.config.check_finite) {
                let row = at * column.dtype.size() / field.bytes;
                return Err(Error::Invalid(format!(
                    "{name}: expected finite numbers; got NaN or infinity in env {}{}",
                    first + row % envs,
                    if steps > 1 { format!(", step {}", row / envs) } else { String::new() }
                )));
            }
        }
        let _adding = self.file.as_ref().map(RowFile::adding).transpose()?;
        self.check_open("add")?;
        for (step, starts) in starts.chunks_exact(envs).enumerate() {
            for (env, starts) in starts.iter().enumerate() {
                // The rows of one step lie far apart: several of them are on their way at once.
                if env + AHEAD < envs {
                    self.rings.prefetch_next(first + env + AHEAD);
                }
                let row = step * envs + env;
                self.rings.push(first + env, *starts != 0, |index| {
                    for (field, bytes) in fields.iter().zip(columns) {
                        self.rings.write(index, *field, &bytes[row * field.bytes..(row + 1) * field.bytes]);
                    }
                });
            }
        }
        Ok(())
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

/// Who is writing: nobody, the buffer itself, or writers of ranges.
///
/// The state is one word, 0 for nobody, [`Writers::WHOLE`] for an `add` to all environments, or the number of ranges;
/// so adding takes no lock. The ranges are looked at only when a writer comes or goes.
#[derive(Default)]
struct Writers {
    state: AtomicU64,
    ranges: Mutex<Vec<(usize, usize)>>,
}

impl Writers {
    const WHOLE: u64 = u64::MAX;

    /// Takes all environments until the guard is dropped.
    fn whole(&self) -> Result<Whole<'_>> {
        match self.state.compare_exchange(0, Self::WHOLE, AcqRel, Relaxed) {
            Ok(_) => Ok(Whole(self)),
            Err(Self::WHOLE) => Err(Error::Busy(
                "add: another thread is adding to this buffer; give each thread its own buffer.writer(first_env, last_env)"
                    .into(),
            )),
            Err(_) => {
                let ranges = self.lock();
                let held: Vec<_> = ranges.iter().map(|(a, b)| format!("[{a}, {b})")).collect();
                Err(Error::Busy(format!("add: writers hold envs {}; close them or add through them", held.join(", "))))
            }
        }
    }

    fn range(&self, first: usize, last: usize) -> Result<()> {
        let mut ranges = self.lock();
        if let Some((a, b)) = ranges.iter().find(|(a, b)| first < *b && *a < last) {
            return Err(Error::Busy(format!(
                "writer: envs [{first}, {last}) overlap envs [{a}, {b}), which have a writer already; close it first"
            )));
        }
        let one_more = |state: u64| (state != Self::WHOLE).then(|| state + 1);
        self.state
            .fetch_update(AcqRel, Relaxed, one_more)
            .map_err(|_| Error::Busy("writer: another thread is adding to the whole buffer".into()))?;
        ranges.push((first, last));
        Ok(())
    }

    fn release(&self, range: (usize, usize)) {
        self.lock().retain(|taken| *taken != range);
        self.state.fetch_sub(1, Release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, usize)>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All environments, for as long as it lives.
struct Whole<'a>(&'a Writers);

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        self.0.state.store(0, Release);
    }
}

/// The exclusive writer of a range of environments.
pub struct Writer {
    buffer: Arc<Buffer>,
    first: usize,
    last: usize,
}

impl Writer {
    /// Its environments.
    #[must_use]
    pub fn envs(&self) -> (usize, usize) {
        (self.first, self.last)
    }

    /// Appends `steps` rows to each of its environments. `columns` has one slice for each column of the layout and
    /// `starts` one byte a row, not 0 where a trajectory begins; both run over steps, then environments.
    ///
    /// # Errors
    /// `Invalid` for slices of the wrong length, or for NaN and infinity if the buffer checks; then nothing is written.
    pub fn add(&mut self, steps: usize, columns: &[&[u8]], starts: &[u8]) -> Result<()> {
        self.buffer.append(self.first, self.last, steps, columns, starts)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.buffer.writers.release((self.first, self.last));
    }
}

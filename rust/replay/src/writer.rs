//! Rows on their way in: who may write which environments, and the writing.
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::row_file::RowFile;

/// Rows between the one that is written and the one whose memory is asked for.
const AHEAD: usize = 16;

impl Buffer {
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
        self.writers.take(&(first..last))?;
        Ok(Writer { buffer: Arc::clone(self), envs: first..last })
    }

    /// Appends `steps` rows to every environment: see [`Writer::add`].
    ///
    /// # Errors
    /// Those of [`Buffer::writer`] and [`Writer::add`].
    pub fn add(&self, steps: usize, columns: &[&[u8]], starts: &[u8]) -> Result<()> {
        let _all = self.writers.take_all()?;
        self.append(0..self.rings.num_envs(), steps, columns, starts)
    }

    fn append(&self, envs: Range<usize>, steps: usize, columns: &[&[u8]], starts: &[u8]) -> Result<()> {
        // Nothing is written before everything is known to be right.
        self.check_rows(&envs, steps, columns, starts)?;
        let _adding = self.file.as_ref().map(RowFile::adding).transpose()?;
        self.check_open("add")?;
        for (step, starts) in starts.chunks_exact(envs.len()).enumerate() {
            for (i, (env, starts)) in envs.clone().zip(starts).enumerate() {
                // The rows of one step lie far apart: several of them are on their way at once.
                if i + AHEAD < envs.len() {
                    self.rings.prefetch_next(env + AHEAD);
                }
                let row = step * envs.len() + i;
                self.rings.push(env, *starts != 0, |index| {
                    for (field, bytes) in self.layout.fields().iter().zip(columns) {
                        self.rings.write(index, *field, &bytes[row * field.bytes..(row + 1) * field.bytes]);
                    }
                });
            }
        }
        Ok(())
    }

    fn check_rows(&self, envs: &Range<usize>, steps: usize, columns: &[&[u8]], starts: &[u8]) -> Result<()> {
        let (fields, rows) = (self.layout.fields(), steps * envs.len());
        if columns.len() != fields.len() || starts.len() != rows {
            return Err(Error::Invalid(format!("add: expected {} columns of {rows} rows", fields.len())));
        }
        for ((column, field), bytes) in self.layout.columns().iter().zip(fields).zip(columns) {
            let (name, expected) = (&column.name, rows * field.bytes);
            if bytes.len() != expected {
                return Err(Error::Invalid(format!("{name}: expected {expected} bytes; got {}", bytes.len())));
            }
            if let Some(at) = column.dtype.first_nonfinite(bytes).filter(|_| self.config.check_finite) {
                let row = at * column.dtype.size() / field.bytes;
                return Err(Error::Invalid(format!(
                    "{name}: expected finite numbers; got NaN or infinity in env {}{}",
                    envs.start + row % envs.len(),
                    if steps > 1 { format!(", step {}", row / envs.len()) } else { String::new() }
                )));
            }
        }
        Ok(())
    }
}

/// Who is writing: nobody, an `add` to all environments, or writers of ranges.
///
/// The state is one word, 0 for nobody, [`Writers::ALL`] for an `add` to all, or the number of ranges; so adding takes
/// no lock. The ranges are looked at only when a writer comes or goes.
#[derive(Default)]
pub(crate) struct Writers {
    state: AtomicU64,
    ranges: Mutex<Vec<Range<usize>>>,
}

impl Writers {
    const ALL: u64 = u64::MAX;

    /// Takes all environments until the guard is dropped.
    fn take_all(&self) -> Result<All<'_>> {
        match self.state.compare_exchange(0, Self::ALL, AcqRel, Relaxed) {
            Ok(_) => Ok(All(self)),
            Err(Self::ALL) => Err(Error::Busy(
                "add: another thread is adding to this buffer; give each thread its own buffer.writer(first_env, last_env)"
                    .into(),
            )),
            Err(_) => {
                let ranges = self.lock().map_or_else(Vec::new, |ranges| ranges.clone());
                let held: Vec<_> = ranges.iter().map(|envs| format!("[{}, {})", envs.start, envs.end)).collect();
                Err(Error::Busy(format!("add: writers hold envs {}; close them or add through them", held.join(", "))))
            }
        }
    }

    /// Takes a range of environments until it is given back.
    fn take(&self, envs: &Range<usize>) -> Result<()> {
        let mut ranges = self.lock().ok_or_else(|| {
            Error::Busy(
                "writer: the process was forked while a thread of its parent took a writer; take it before".into(),
            )
        })?;
        if let Some(taken) = ranges.iter().find(|taken| envs.start < taken.end && taken.start < envs.end) {
            return Err(Error::Busy(format!(
                "writer: envs [{}, {}) overlap envs [{}, {}), which have a writer already; close it first",
                envs.start, envs.end, taken.start, taken.end
            )));
        }
        let one_more = |state: u64| (state != Self::ALL).then(|| state + 1);
        self.state
            .fetch_update(AcqRel, Relaxed, one_more)
            .map_err(|_| Error::Busy("writer: another thread is adding to the whole buffer".into()))?;
        ranges.push(envs.clone());
        Ok(())
    }

    fn give_back(&self, envs: &Range<usize>) {
        if let Some(mut ranges) = self.lock() {
            ranges.retain(|taken| taken != envs);
        }
        self.state.fetch_sub(1, Release);
    }

    /// The ranges that are taken. Nobody keeps them for longer than a look, but the thread that has them when its
    /// process is forked does not come along to the child: `None` there, instead of waiting for ever.
    fn lock(&self) -> Option<MutexGuard<'_, Vec<Range<usize>>>> {
        let patience = Instant::now() + Duration::from_secs(1);
        loop {
            match self.ranges.try_lock() {
                Ok(ranges) => return Some(ranges),
                Err(TryLockError::Poisoned(ranges)) => return Some(ranges.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => thread::yield_now(),
                Err(TryLockError::WouldBlock) => return None,
            }
        }
    }
}

/// All environments, for as long as it lives.
struct All<'a>(&'a Writers);

impl Drop for All<'_> {
    fn drop(&mut self) {
        self.0.state.store(0, Release);
    }
}

/// The exclusive writer of a range of environments.
pub struct Writer {
    buffer: Arc<Buffer>,
    envs: Range<usize>,
}

impl Writer {
    /// Appends `steps` rows to each of its environments. `columns` has one slice for each column of the layout and
    /// `starts` one byte a row, not 0 where a trajectory begins; both run over steps, then environments.
    ///
    /// # Errors
    /// `Invalid` for slices of the wrong length, or for NaN and infinity if the buffer checks; then nothing is written.
    pub fn add(&mut self, steps: usize, columns: &[&[u8]], starts: &[u8]) -> Result<()> {
        self.buffer.append(self.envs.clone(), steps, columns, starts)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.buffer.writers.give_back(&self.envs);
    }
}

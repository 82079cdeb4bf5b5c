//! One ring of rows for each environment: claim, write, publish; which rows may be read; where trajectories end.
//!
//! Rows of an environment are numbered from 0 for ever; row `t` lies in slot `t % length` of its ring. The ring's one
//! writer *claims* row `n` by storing `n + 1`, writes it, and *publishes* it by storing `n + 1` again. A reader
//! loads what is published, copies, and then looks at the claim: row `t` was overwritten, perhaps while it was being
//! copied, if and only if row `t + length` has been claimed. Nobody waits for anybody.
//!
//! Trajectories of an environment are numbered from 0 too. A row carries the number of its own, and a table says
//! where trajectory `j` ended, at `j % length`: as every trajectory has a row, the entry is not used again before the
//! last row of `j` has been overwritten, and the same look at the claim covers it.
use crate::layout::{Field, LINE, Layout};
use crate::storage::{Source, Words};
use crate::sync::{self, AtomicU64, Ordering::Relaxed, fence_after_claim, fence_before_check};
pub(crate) use crate::words::Record;
use crate::words::Slab;

/// In the table of ends: the trajectory is still being written.
const OPEN: u64 = u64::MAX;
/// The longest ring: distances within it fit the offset of a goal, an `i32`.
pub(crate) const MAX_LENGTH: usize = i32::MAX as usize;

/// The counters of one environment, on a cache line of their own. Only its writer stores them.
struct Counters<'a> {
    /// Rows whose writing has begun, since ever.
    claimed: &'a AtomicU64,
    /// Rows whose writing has finished, since ever.
    published: &'a AtomicU64,
    /// Trajectories begun, since ever.
    begun: &'a AtomicU64,
}

/// A row that was stored when a reader looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) env: usize,
    /// Its slot in the ring.
    pub(crate) slot: usize,
    /// Its number within its environment.
    pub(crate) t: u64,
    /// Later stored rows of its environment.
    pub(crate) newer: u32,
}

/// The rings of all environments.
pub(crate) struct Rings {
    num_envs: usize,
    /// A cache line for each environment: see [`Counters`].
    counters: Words,
    /// For each trajectory, modulo the length, and environment: the row after its last one, or [`OPEN`].
    ends: Words,
    slab: Slab,
    length: usize,
    /// 2⁶⁴ / `length`, rounded up.
    reciprocal: u64,
    /// Rows stored by the fullest ring. It only narrows where to draw: the ring itself has the last word.
    fullest: AtomicU64,
}

impl Rings {
    /// Rings of `length` rows from `source`, empty if it is; `None` if it has not enough.
    pub(crate) fn new(source: &mut Source, num_envs: usize, length: usize, layout: &Layout) -> Option<Self> {
        debug_assert!(length <= MAX_LENGTH);
        let [counters, ends, _] = Self::words(num_envs, length, layout)?;
        let (counters, ends) = (source.words(counters)?, source.words(ends)?);
        let slab = Slab::new(source, num_envs * length, layout.words())?;
        let reciprocal = u64::MAX / length as u64 + 1;
        Some(Self { num_envs, counters, ends, slab, length, reciprocal, fullest: AtomicU64::new(0) })
    }

    /// The words of counters, table of ends and rows; `None` if there cannot be so many.
    pub(crate) fn words(num_envs: usize, length: usize, layout: &Layout) -> Option<[usize; 3]> {
        let rows = num_envs.checked_mul(length)?;
        Some([num_envs.checked_mul(LINE)?, rows, rows.checked_mul(layout.words())?])
    }

    /// Ends the thrift of [`Source::Sparse`].
    pub(crate) fn use_large_pages(&self) {
        self.slab.use_large_pages();
    }

    fn counters(&self, env: usize) -> Counters<'_> {
        let line = &self.counters.as_chunks::<LINE>().0[env];
        Counters { claimed: &line[0], published: &line[1], begun: &line[2] }
    }

    pub(crate) fn num_envs(&self) -> usize {
        self.num_envs
    }

    /// Rows of one ring.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Bytes taken when every trajectory is a single row; the table of ends takes less when they are longer.
    pub(crate) fn bytes(&self) -> usize {
        self.slab.bytes() + size_of_val(&*self.ends) + size_of_val(&*self.counters)
    }

    /// Rows stored by the fullest ring.
    pub(crate) fn fullest(&self) -> u64 {
        self.fullest.load(Relaxed)
    }

    /// Rows ever published by this environment.
    pub(crate) fn published(&self, env: usize) -> u64 {
        sync::published(self.counters(env).published)
    }

    /// Rows stored now by this environment.
    pub(crate) fn stored(&self, env: usize) -> u64 {
        self.published(env).min(self.length as u64)
    }

    /// Trajectories of this environment with at least one stored row: from that of the oldest to that of the newest.
    pub(crate) fn trajectories(&self, env: usize) -> u64 {
        loop {
            let n = self.published(env);
            let Some(newest) = n.checked_sub(1) else { return 0 };
            // Not by `n`: a writer that was stopped in a row leaves the oldest one overwritten for ever.
            let oldest = self.oldest(env);
            let of = |t| self.trajectory(env, self.slot(t));
            let count = of(newest).wrapping_sub(of(oldest)).wrapping_add(1);
            Self::settle();
            if oldest <= newest && self.lives(env, oldest) {
                return count;
            }
        }
    }

    // --- the writer's side -----------------------------------------------------------------------------------------

    /// Appends a row; `write` stores its fields through [`Rings::write`] to the record it is given.
    ///
    /// Only one thread at a time may push to one environment: [`crate::writer::Writer`] sees to it. If `write` panics
    /// the row stays claimed and unpublished: readers lose the oldest row, and the next push takes the same place.
    pub(crate) fn push(&self, env: usize, starts: bool, write: impl FnOnce(Record)) {
        let counters = self.counters(env);
        let n = counters.published.load(Relaxed);
        let record = self.at(env, self.slot(n));

        counters.claimed.store(n + 1, Relaxed);
        fence_after_claim();
        write(record);
        let mut begun = counters.begun.load(Relaxed);
        if starts || begun == 0 {
            if let Some(last) = begun.checked_sub(1) {
                self.end(env, last).store(n, Relaxed);
            }
            self.end(env, begun).store(OPEN, Relaxed);
            begun += 1;
            counters.begun.store(begun, Relaxed);
        }
        self.slab.store(record, 0, begun - 1);
        sync::publish(counters.published, n + 1);

        let stored = (n + 1).min(self.length as u64);
        if stored > self.fullest.load(Relaxed) {
            self.fullest.fetch_max(stored, Relaxed);
        }
    }

    /// Asks for the cache lines that the next row of this environment will be written to.
    #[inline]
    pub(crate) fn prefetch_next(&self, env: usize) {
        let n = self.counters(env).published.load(Relaxed);
        self.slab.prefetch_record(self.at(env, self.slot(n)));
    }

    /// Stores one field of a record.
    pub(crate) fn write(&self, record: Record, field: Field, bytes: &[u8]) {
        self.slab.write(record, field, bytes);
    }

    /// Empties a ring that nobody else uses, and takes up its numbering at row `n`, as if `n` rows had come and gone.
    pub(crate) fn start_at(&self, env: usize, n: u64) {
        let counters = self.counters(env);
        counters.begun.store(0, Relaxed);
        counters.claimed.store(n, Relaxed);
        sync::publish(counters.published, n);
    }

    /// Goes on with a ring whose writer may have been stopped at any point: a row that was claimed and not published
    /// counts as not written, and so does a trajectory that began with it. Says what cannot be the work of a writer.
    pub(crate) fn resume(&self, env: usize) -> Result<(), String> {
        let counters = self.counters(env);
        let [claimed, published, begun] =
            [counters.claimed, counters.published, counters.begun].map(|counter| counter.load(Relaxed));
        let trajectories =
            published.checked_sub(1).map_or(0, |newest| self.trajectory(env, self.slot(newest)).wrapping_add(1));
        let plausible = published < u64::MAX / 2 && (0..=1).contains(&claimed.wrapping_sub(published));
        // One more may have begun; not more than rows.
        if !plausible || trajectories > published || begun.wrapping_sub(trajectories) > claimed - published {
            return Err(format!(
                "env {env}: {claimed} rows claimed, {published} published, {begun} trajectories begun"
            ));
        }
        counters.begun.store(trajectories, Relaxed);
        if let Some(last) = trajectories.checked_sub(1) {
            self.end(env, last).store(OPEN, Relaxed);
        }
        self.fullest.fetch_max(published.min(self.length as u64), Relaxed);
        Ok(())
    }

    // --- the reader's side -----------------------------------------------------------------------------------------

    /// The stored row in this slot, if there is one.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // Distances within a ring.
    pub(crate) fn find(&self, env: usize, slot: usize) -> Option<Place> {
        let n = self.published(env);
        if slot as u64 >= n {
            return None;
        }
        // Rows from this one to the newest, both counted.
        let head = self.slot(n);
        // No branch: nobody can guess on which side of the head a random slot lies.
        let age = head + usize::from(slot >= head) * self.length - slot;
        Some(Place { env, slot, t: n - age as u64, newer: (age - 1) as u32 })
    }

    /// Row `t`, if it is stored.
    #[inline]
    pub(crate) fn row(&self, env: usize, t: u64) -> Option<Place> {
        self.find(env, self.slot(t)).filter(|place| place.t == t)
    }

    /// What is stored of each trajectory of an environment, the newest first: its first row and the row after its last.
    pub(crate) fn runs(&self, env: usize) -> impl Iterator<Item = (u64, u64)> {
        let n = self.published(env);
        let oldest = n.saturating_sub(self.length as u64);
        let mut end = n;
        let mut j = n.checked_sub(1).map_or(0, |newest| self.trajectory(env, self.slot(newest)));
        std::iter::from_fn(move || {
            if end == oldest {
                return None;
            }
            // A trajectory begins where the one before ended. An entry of which no row is left may have been used
            // again, by a trajectory that ends later than this one.
            let before = j.checked_sub(1).map(|before| self.end(env, before).load(Relaxed));
            let first = before.filter(|first| (oldest..end).contains(first)).unwrap_or(oldest);
            let run = (first, end);
            (end, j) = (first, j.saturating_sub(1));
            Some(run)
        })
    }

    /// Later stored rows of the same trajectory. It looks into the record.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // Not above `newer`.
    pub(crate) fn later(&self, place: Place) -> u32 {
        let end = self.end(place.env, self.trajectory(place.env, place.slot)).load(Relaxed);
        // An open trajectory reaches to the newest row. So does, for this reader, one that was ended after it looked.
        (end.wrapping_sub(place.t + 1)).min(u64::from(place.newer)) as u32
    }

    /// The number of the trajectory of the row in this slot.
    #[inline]
    pub(crate) fn trajectory(&self, env: usize, slot: usize) -> u64 {
        self.slab.load(self.at(env, slot), 0)
    }

    /// The row `k` later in the same ring; there must be one.
    #[inline]
    pub(crate) fn ahead(&self, place: Place, k: u32) -> Place {
        let slot = place.slot + k as usize;
        let slot = if slot >= self.length { slot - self.length } else { slot };
        Place { slot, t: place.t + u64::from(k), newer: place.newer - k, ..place }
    }

    /// The row in the next slot, whichever it is.
    #[inline]
    pub(crate) fn beside(&self, place: Place) -> Place {
        Place { slot: if place.slot + 1 == self.length { 0 } else { place.slot + 1 }, ..place }
    }

    /// The record of a row.
    #[inline]
    pub(crate) fn record(&self, place: Place) -> Record {
        self.at(place.env, place.slot)
    }

    /// Copies one field of a record. What it gives counts only if the row still [`Rings::lives`] after
    /// [`Rings::settle`].
    #[inline]
    pub(crate) fn read(&self, record: Record, field: Field, bytes: &mut [u8]) {
        self.slab.read(record, field, bytes);
    }

    /// Copies one field of these records, row after row: as [`Rings::read`]. It calls `between` with the place of each.
    #[inline]
    pub(crate) fn gather(&self, records: &[Record], field: Field, bytes: &mut [u8], between: impl FnMut(usize)) {
        self.slab.gather(records, field, bytes, between);
    }

    /// Asks for the cache lines of these words of a record.
    #[inline]
    pub(crate) fn prefetch(&self, record: Record, words: &[usize]) {
        self.slab.prefetch(record, words);
    }

    /// To be called between copying rows and asking whether they live.
    #[inline]
    pub(crate) fn settle() {
        fence_before_check();
    }

    /// The oldest row that nothing has begun to overwrite: this one and all later ones [`Rings::lives`].
    #[inline]
    pub(crate) fn oldest(&self, env: usize) -> u64 {
        self.counters(env).claimed.load(Relaxed).saturating_sub(self.length as u64)
    }

    /// Whether nothing has begun to overwrite row `t`. Later rows then live too.
    #[inline]
    pub(crate) fn lives(&self, env: usize, t: u64) -> bool {
        self.oldest(env) <= t
    }

    /// Where trajectory `j` ends. Environments lie side by side, so that what is used of the table is dense.
    #[inline]
    fn end(&self, env: usize, j: u64) -> &AtomicU64 {
        &self.ends[self.slot(j) * self.num_envs + env]
    }

    #[inline]
    fn at(&self, env: usize, slot: usize) -> Record {
        self.slab.record(env * self.length + slot)
    }

    /// `n % length`, for a narrow `n` without a division (Lemire, Kaser, Kurz, 2019).
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // Below the length.
    fn slot(&self, n: u64) -> usize {
        if n < self.length as u64 {
            n as usize
        } else if let Ok(narrow) = u32::try_from(n) {
            let fraction = self.reciprocal.wrapping_mul(narrow.into());
            ((u128::from(fraction) * self.length as u128) >> 64) as usize
        } else {
            (n % self.length as u64) as usize
        }
    }
}

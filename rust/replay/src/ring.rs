//! One ring of rows for each environment: claim, write, publish; which rows may be read; where trajectories end.
//!
//! Rows of an environment are numbered from 0 for ever; row `t` lies in slot `t % length` of its ring. The ring's one
//! writer *claims* row `n` by storing `n + 1`, writes it, and *publishes* it by storing `n + 1` again. A reader
//! loads what is published, copies, and then looks at the claim: row `t` was overwritten, perhaps while it was being
//! copied, if and only if row `t + length` has been claimed. Nobody waits for anybody.
use crate::layout::{Field, Layout};
use crate::sync::{
    ACQUIRE_PUBLISHED, AtomicU32, AtomicU64, Ordering::Relaxed, PUBLISH, fence_after_claim, fence_before_check, zeroed,
};
use crate::words::Slab;

/// In [`Rings::later`]: the trajectory of this row is not finished.
const OPEN: u32 = u32::MAX;
/// The longest ring: every distance within it lies below [`OPEN`].
pub(crate) const MAX_LENGTH: usize = OPEN as usize - 1;

/// The counters of one environment, on a cache line of their own. Only its writer stores them.
#[derive(Default)]
#[repr(align(64))]
struct Counters {
    /// Rows whose writing has begun, since ever.
    claimed: AtomicU64,
    /// Rows whose writing has finished, since ever.
    published: AtomicU64,
    /// The first row that was pushed: 0, but for a ring that was loaded.
    born: AtomicU64,
    /// The first row of the trajectory that is being written.
    open: AtomicU64,
    /// Trajectories that have at least one stored row.
    trajectories: AtomicU64,
}

/// A stored row, as a reader found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) env: usize,
    /// Its number within its environment.
    pub(crate) t: u64,
    /// Its slot in the ring.
    pub(crate) slot: usize,
    /// Later stored rows of its trajectory.
    pub(crate) later: u32,
}

/// The rings of all environments.
pub(crate) struct Rings {
    counters: Box<[Counters]>,
    /// For each slot: later rows of the row's trajectory, or [`OPEN`].
    later: Box<[AtomicU32]>,
    slab: Slab,
    length: usize,
    /// Rows stored by the fullest ring. It only narrows where to draw: the ring itself has the last word.
    fullest: AtomicU64,
}

impl Rings {
    /// Empty rings of `length` rows; `None` if the memory cannot be had.
    pub(crate) fn new(num_envs: usize, length: usize, layout: &Layout) -> Option<Self> {
        debug_assert!(length <= MAX_LENGTH);
        let rows = num_envs.checked_mul(length)?;
        let slab = Slab::new(rows, layout.words())?;
        let later = zeroed(rows)?;
        let mut counters = Vec::new();
        counters.try_reserve_exact(num_envs).ok()?;
        counters.resize_with(num_envs, Counters::default);
        Some(Self { counters: counters.into(), later, slab, length, fullest: AtomicU64::new(0) })
    }

    pub(crate) fn num_envs(&self) -> usize {
        self.counters.len()
    }

    /// Rows of one ring.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Bytes taken.
    pub(crate) fn bytes(&self) -> usize {
        self.slab.bytes() + size_of_val(&*self.later) + size_of_val(&*self.counters)
    }

    /// Rows stored by the fullest ring.
    pub(crate) fn fullest(&self) -> u64 {
        self.fullest.load(Relaxed)
    }

    /// Rows ever published by this environment.
    pub(crate) fn published(&self, env: usize) -> u64 {
        self.counters[env].published.load(ACQUIRE_PUBLISHED)
    }

    /// Rows stored now by this environment.
    pub(crate) fn stored(&self, env: usize) -> u64 {
        self.published(env).min(self.length as u64)
    }

    /// Trajectories of this environment with at least one stored row.
    pub(crate) fn trajectories(&self, env: usize) -> u64 {
        self.counters[env].trajectories.load(Relaxed)
    }

    // --- the writer's side -----------------------------------------------------------------------------------------

    /// Appends a row; `write` stores its fields through [`Rings::write`] at the index it is given.
    ///
    /// Only one thread at a time may push to one environment: [`crate::buffer::Writer`] sees to it. If `write` panics
    /// the row stays claimed and unpublished: readers lose the oldest row, and the next push takes the same place.
    pub(crate) fn push(&self, env: usize, starts: bool, write: impl FnOnce(usize)) {
        let ring = &self.counters[env];
        let (n, length) = (ring.published.load(Relaxed), self.length as u64);
        let first = env * self.length;
        let slot = self.slot(n);

        ring.claimed.store(n + 1, Relaxed);
        fence_after_claim();
        write(first + slot);
        let mut trajectories = ring.trajectories.load(Relaxed);
        let born = ring.born.load(Relaxed);
        if n >= born + length && self.later[first + slot].load(Relaxed) == 0 {
            trajectories -= 1; // The row that makes room was the last one of its trajectory.
        }
        if starts || n == born {
            self.close(env, ring.open.load(Relaxed).max((n + 1).saturating_sub(length)), n);
            ring.open.store(n, Relaxed);
            trajectories += 1;
        }
        self.later[first + slot].store(OPEN, Relaxed);
        ring.trajectories.store(trajectories, Relaxed);
        ring.published.store(n + 1, PUBLISH);

        let stored = (n + 1).min(length);
        if stored > self.fullest.load(Relaxed) {
            self.fullest.fetch_max(stored, Relaxed);
        }
    }

    /// Notes at the rows `from..end` how many rows follow them.
    #[allow(clippy::cast_possible_truncation)] // A distance within a ring.
    fn close(&self, env: usize, from: u64, end: u64) {
        let first = env * self.length;
        let mut slot = self.slot(from);
        for t in from..end {
            self.later[first + slot].store((end - 1 - t) as u32, Relaxed);
            slot = if slot + 1 == self.length { 0 } else { slot + 1 };
        }
    }

    /// Stores one field of the row at `index`.
    pub(crate) fn write(&self, index: usize, field: Field, bytes: &[u8]) {
        self.slab.write(index, field, bytes);
    }

    /// Takes up the numbering of an empty ring at row `n`, as if `n` rows had come and gone.
    pub(crate) fn start_at(&self, env: usize, n: u64) {
        let ring = &self.counters[env];
        ring.claimed.store(n, Relaxed);
        ring.born.store(n, Relaxed);
        ring.open.store(n, Relaxed);
        ring.published.store(n, PUBLISH);
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
        let age = if slot < head { head - slot } else { head + self.length - slot };
        let newest = (age - 1) as u32;
        // While a batch of rows is being written, a trajectory may end after what is published: not beyond it here.
        let later = self.later[env * self.length + slot].load(Relaxed).min(newest);
        Some(Place { env, t: n - age as u64, slot, later })
    }

    /// The row `k` later in the same ring.
    #[inline]
    pub(crate) fn ahead(&self, place: Place, k: u32) -> Place {
        let slot = place.slot + k as usize;
        let slot = if slot >= self.length { slot - self.length } else { slot };
        Place { slot, t: place.t + u64::from(k), later: place.later - k, ..place }
    }

    /// Where the record of a row lies, for [`Rings::read`] and [`Rings::touch`].
    #[inline]
    pub(crate) fn index(&self, place: Place) -> usize {
        place.env * self.length + place.slot
    }

    /// Copies one field of the record at `index`. What it gives counts only if the row still [`Rings::lives`]
    /// after [`Rings::settle`].
    #[inline]
    pub(crate) fn read(&self, index: usize, field: Field, bytes: &mut [u8]) {
        self.slab.read(index, field, bytes);
    }

    /// Brings one cache line near.
    #[inline]
    pub(crate) fn touch(&self, index: usize, word: usize) -> u64 {
        self.slab.touch(index, word)
    }

    /// To be called between copying rows and asking whether they live.
    #[inline]
    pub(crate) fn settle() {
        fence_before_check();
    }

    /// Whether nothing has begun to overwrite row `t`. Later rows then live too.
    #[inline]
    pub(crate) fn lives(&self, env: usize, t: u64) -> bool {
        self.counters[env].claimed.load(Relaxed) <= t + self.length as u64
    }

    /// `n % length`, by a narrow division where that is enough.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // Checked, or below the length.
    fn slot(&self, n: u64) -> usize {
        match u32::try_from(n) {
            Ok(narrow) => (narrow % self.length as u32) as usize,
            Err(_) => (n % self.length as u64) as usize,
        }
    }
}

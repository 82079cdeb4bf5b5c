//! The threads that share a large batch: made when first needed, and again in a forked child.
use std::iter;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::Result;

/// Bytes of a call's output from which several threads share it: below, waking them costs more than they save.
const PARALLEL_BYTES: usize = 4 << 20;

/// Parts of a batch for each thread: who is late, or has other work beside it, takes fewer.
const SHARES: usize = 4;

/// Threads beside the caller's, which no other library shares.
pub(crate) struct Pool {
    /// How many with the caller's; 0 is one for each core.
    threads: usize,
    /// The pool, and the process that its threads run in.
    made: Mutex<Option<(u32, Arc<ThreadPool>)>>,
}

impl Pool {
    /// A pool that makes the caller one of so many threads, 0 for one for each core. None is started yet.
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, made: Mutex::default() }
    }

    /// Has `fill(from, rows, outputs)` fill `rows` rows of `bytes` each in every output: in one go, or shared where that
    /// pays.
    pub(crate) fn share(
        &self,
        rows: usize,
        bytes: &[usize],
        outputs: &mut [&mut [u8]],
        fill: impl Fn(usize, usize, &mut [&mut [u8]]) -> Result<()> + Sync,
    ) -> Result<()> {
        let large = outputs.iter().map(|memory| memory.len()).sum::<usize>() >= PARALLEL_BYTES;
        let Some(pool) = large.then(|| self.get()).flatten() else {
            return fill(0, rows, outputs);
        };
        let share = rows.div_ceil((pool.current_num_threads() + 1) * SHARES);
        let share = share.next_multiple_of(share.min(64)); // Samplers go in blocks of so many rows.
        let mut pieces: Vec<_> =
            outputs.iter_mut().zip(bytes).map(|(memory, bytes)| memory.chunks_mut(share * bytes)).collect();
        let mut shares = (0..rows).step_by(share);
        let shares = Mutex::new(iter::from_fn(|| {
            let from = shares.next()?;
            Some((from, pieces.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()))
        }));
        let failure = Mutex::new(None);
        let next = || shares.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((from, mut mine)) = next() {
                if let Err(error) = fill(from, share.min(rows - from), &mut mine) {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        };
        pool.in_place_scope(|scope| {
            (0..pool.current_num_threads()).for_each(|_| scope.spawn(|_| work()));
            work(); // The caller begins at once, while the others wake.
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The threads, or `None` where the caller had better work alone: it is to be one, more cannot be had, or the lock is
    /// taken, perhaps for ever by a thread that did not come along into this forked process.
    fn get(&self) -> Option<Arc<ThreadPool>> {
        let threads = match self.threads {
            0 => available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        if threads == 1 {
            return None;
        }
        let mut made = self.made.try_lock().ok()?;
        let pid = process::id();
        if let Some((owner, pool)) = &*made
            && *owner == pid
        {
            return Some(Arc::clone(pool));
        }
        let pool = ThreadPoolBuilder::new().num_threads(threads - 1).thread_name(|i| format!("crl-sample-{i}")).build();
        let pool = Arc::new(pool.ok()?);
        if let Some(inherited) = made.replace((pid, Arc::clone(&pool))) {
            // Its threads stayed in the parent: dropping it would wait for them.
            std::mem::forget(inherited);
        }
        Some(pool)
    }
}

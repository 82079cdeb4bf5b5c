//! The threads that share a large batch: made when first needed, and again in a forked child.
use std::process;
use std::sync::{Arc, Mutex};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool of a fixed size that no other library shares.
#[derive(Default)]
pub(crate) struct Pool {
    /// The pool, and the process that its threads run in.
    made: Mutex<Option<(u32, Arc<ThreadPool>)>>,
}

impl Pool {
    /// The pool, or `None` where the caller had better work alone: threads cannot be had, or the lock is taken,
    /// perhaps for ever by a thread that did not come along into this forked process.
    pub(crate) fn get(&self, threads: usize) -> Option<Arc<ThreadPool>> {
        let mut made = self.made.try_lock().ok()?;
        let pid = process::id();
        if let Some((owner, pool)) = &*made
            && *owner == pid
        {
            return Some(Arc::clone(pool));
        }
        let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("crl-sample-{i}")).build();
        let pool = Arc::new(pool.ok()?);
        if let Some(inherited) = made.replace((pid, Arc::clone(&pool))) {
            // Its threads stayed in the parent: dropping it would wait for them.
            std::mem::forget(inherited);
        }
        Some(pool)
    }
}

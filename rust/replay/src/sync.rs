//! The one door to the atomics that rows pass through, and to the lock of the loader's ring: `std` in a build, `loom`
//! under `--cfg loom`, `shuttle` under `--cfg shuttle`.
//!
//! The four orderings of the row protocol are here, two pairs (the table is in the crate's documentation), and the call
//! that ends a wait. Under loom each can be left out on purpose, so that the models can show that they notice.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering, fence},
};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering, fence},
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering, fence},
};

/// One half of a pair: of orderings, or of a wait and what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Publish,
    Published,
    AfterClaim,
    BeforeCheck,
    Notify,
}

/// A row becomes visible. Pairs with [`published`].
#[inline]
pub(crate) fn publish(counter: &AtomicU64, rows: u64) {
    counter.store(rows, if kept(Half::Publish) { Ordering::Release } else { Ordering::Relaxed });
}

/// A reader learns which rows it may read. Pairs with [`publish`].
#[inline]
pub(crate) fn published(counter: &AtomicU64) -> u64 {
    counter.load(if kept(Half::Published) { Ordering::Acquire } else { Ordering::Relaxed })
}

/// After a claim, before the first word of the row. Pairs with [`fence_before_check`].
#[inline]
pub(crate) fn fence_after_claim() {
    if kept(Half::AfterClaim) {
        fence(Ordering::Release);
    }
}

/// After the last word was copied, before the claim is read again. Pairs with [`fence_after_claim`].
#[inline]
pub(crate) fn fence_before_check() {
    if kept(Half::BeforeCheck) {
        fence(Ordering::Acquire);
    }
}

/// What others wait for may have come true.
pub(crate) fn notify(changed: &Condvar) {
    if kept(Half::Notify) {
        changed.notify_all();
    }
}

/// Whether this thread belongs to a model that has failed: in a deadlock loom's locks cannot be taken any more.
pub(crate) fn is_taken_down() -> bool {
    cfg!(loom) && std::thread::panicking()
}

#[cfg(not(loom))]
#[inline]
const fn kept(_: Half) -> bool {
    true
}

#[cfg(loom)]
std::thread_local! {
    /// What the models of this thread do without: loom runs the threads of a model on the thread that explores it.
    pub(crate) static OMITTED: std::cell::Cell<Option<Half>> = const { std::cell::Cell::new(None) };
}

#[cfg(loom)]
fn kept(half: Half) -> bool {
    OMITTED.get() != Some(half)
}

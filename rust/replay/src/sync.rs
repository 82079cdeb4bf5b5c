//! The one door to atomics: `std` in a build, `loom` under `--cfg loom`. Nothing else imports them.
//!
//! The orderings of the row protocol are named here, each with its partner (the table is in the crate's
//! documentation). `--cfg crl_mutant="…"` weakens one of them on purpose, so that the loom model can show that it
//! would notice.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A row becomes visible. Pairs with [`ACQUIRE_PUBLISHED`].
pub(crate) const PUBLISH: Ordering = if cfg!(crl_mutant = "publish") { Ordering::Relaxed } else { Ordering::Release };

/// A reader learns which rows it may read. Pairs with [`PUBLISH`].
pub(crate) const ACQUIRE_PUBLISHED: Ordering =
    if cfg!(crl_mutant = "acquire") { Ordering::Relaxed } else { Ordering::Acquire };

/// After a claim, before the first word of the row. Pairs with [`fence_before_check`].
pub(crate) fn fence_after_claim() {
    if !cfg!(crl_mutant = "claim") {
        fence(Ordering::Release);
    }
}

/// After the last word was copied, before the claim is read again. Pairs with [`fence_after_claim`].
pub(crate) fn fence_before_check() {
    if !cfg!(crl_mutant = "check") {
        fence(Ordering::Acquire);
    }
}

/// Zeroed atomics. Fails, rather than aborts, where the memory cannot be had.
#[cfg(not(loom))]
pub(crate) fn zeroed<T: bytemuck::Zeroable>(len: usize) -> Option<Box<[T]>> {
    bytemuck::allocation::try_zeroed_slice_box(len).ok()
}

/// Zeroed atomics, made one by one: those of loom are not plain memory.
#[cfg(loom)]
pub(crate) fn zeroed<T: Default>(len: usize) -> Option<Box<[T]>> {
    Some((0..len).map(|_| T::default()).collect())
}

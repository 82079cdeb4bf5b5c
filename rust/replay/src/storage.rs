//! Where a buffer's words lie: in memory of its own, or in a mapped file.
use std::ops::Deref;
use std::sync::Arc;

use memmap2::MmapRaw;

use crate::sync::AtomicU64;

/// Each part of a mapped file starts at a multiple of this.
pub(crate) const PAGE: usize = 4096;

/// What words are taken from, part by part.
pub(crate) enum Source {
    Memory,
    /// Memory of which little will be touched at first: large pages would take much more of it than is used.
    Sparse,
    /// A file, and where in it the next part starts.
    File(Arc<MmapRaw>, usize),
}

impl Source {
    /// The next `count` words, the first at the start of a cache line; zero, but for a file that was written before.
    /// `None` if there are not so many.
    pub(crate) fn words(&mut self, count: usize) -> Option<Words> {
        match self {
            Self::Memory | Self::Sparse => Words::zeroed(count),
            Self::File(map, at) => {
                let words = Words::mapped(map, *at, count)?;
                *at = at.checked_add(size_of_val(&*words))?.next_multiple_of(PAGE);
                Some(words)
            }
        }
    }
}

#[cfg(not(any(loom, shuttle)))]
mod words {
    use std::ptr::NonNull;

    use super::{Arc, AtomicU64, Deref, MmapRaw, PAGE};
    use crate::layout::{LINE, WORD};

    /// Atomic words, and what keeps them where they are.
    pub(crate) struct Words {
        first: NonNull<AtomicU64>,
        count: usize,
        _owner: Owner,
    }

    /// Held, not looked at: [`Words::first`] points into it.
    #[allow(dead_code)]
    enum Owner {
        Memory(Vec<AtomicU64>),
        File(Arc<MmapRaw>),
    }

    impl Words {
        /// Straight from the system, which hands out pages of zeros as they are first touched.
        pub(super) fn zeroed(count: usize) -> Option<Self> {
            let memory: Vec<AtomicU64> = bytemuck::allocation::try_zeroed_vec(count.checked_add(LINE - 1)?).ok()?;
            let skipped = memory.as_ptr().align_offset(LINE * WORD).min(LINE - 1);
            let first = NonNull::from(&memory[skipped..]).cast();
            Some(Self { first, count, _owner: Owner::Memory(memory) })
        }

        pub(super) fn mapped(map: &Arc<MmapRaw>, at: usize, count: usize) -> Option<Self> {
            let end = count.checked_mul(WORD)?.checked_add(at)?;
            if !at.is_multiple_of(PAGE) || end > map.len() {
                return None;
            }
            let first = NonNull::new(map.as_mut_ptr().wrapping_add(at).cast())?;
            Some(Self { first, count, _owner: Owner::File(Arc::clone(map)) })
        }
    }

    impl Deref for Words {
        type Target = [AtomicU64];

        #[inline]
        #[allow(unsafe_code)]
        fn deref(&self) -> &[AtomicU64] {
            // SAFETY: `first` is aligned and starts `count` words within memory that `_owner` holds and never moves: a
            // vector that is not touched any more, or a mapping. Both are initialised, any bits are a word, and they
            // are reached through atomics alone.
            unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
        }
    }

    #[allow(unsafe_code)]
    // SAFETY: words are shared as the slice of atomics that they are; the pointer stays valid on any thread, and both
    // owners may be dropped on any.
    unsafe impl Send for Words {}
    #[allow(unsafe_code)]
    // SAFETY: the same.
    unsafe impl Sync for Words {}
}

/// The atomics of loom and shuttle are not plain memory: they are made one by one, and never lie in a file.
#[cfg(any(loom, shuttle))]
mod words {
    use super::{Arc, AtomicU64, Deref, MmapRaw};

    pub(crate) struct Words(Box<[AtomicU64]>);

    impl Words {
        #[allow(clippy::unnecessary_wraps)] // The same signature in both.
        pub(super) fn zeroed(count: usize) -> Option<Self> {
            Some(Self((0..count).map(|_| AtomicU64::default()).collect()))
        }

        pub(super) fn mapped(_: &Arc<MmapRaw>, _: usize, _: usize) -> Option<Self> {
            None
        }
    }

    impl Deref for Words {
        type Target = [AtomicU64];

        fn deref(&self) -> &[AtomicU64] {
            &self.0
        }
    }
}

pub(crate) use words::Words;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sync::Ordering::Relaxed;

    #[test]
    fn words_are_zero_and_start_at_cache_lines() {
        for count in [0, 1, 7, 8, 1000, 1 << 20] {
            let words = Source::Memory.words(count).unwrap();
            assert_eq!((words.len(), words.as_ptr() as usize % 64), (count, 0));
            assert!(words.iter().all(|word| word.load(Relaxed) == 0));
        }
        assert!(Source::Memory.words(usize::MAX).is_none());
        assert!(Source::Memory.words(1 << 60).is_none());
    }
}

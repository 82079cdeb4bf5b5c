//! The slab of rows: memory made of atomic words, so that a copy which races a writer is no undefined behaviour.
//!
//! A relaxed load or store of a word is a plain move on every common processor; what makes a row whole is the
//! protocol of [`crate::ring`]. Words are taken in native byte order, so a column is stored as it lies in memory.
use crate::layout::{Field, WORD};
use crate::storage::{Source, Words};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Equal records of words, the first at the start of a cache line.
pub(crate) struct Slab {
    words: Words,
    record: usize,
}

impl Slab {
    /// `rows` records of `record` words from `source`; `None` if they cannot be had.
    pub(crate) fn new(source: &mut Source, rows: usize, record: usize) -> Option<Self> {
        let words = source.words(rows.checked_mul(record)?)?;
        let slab = Self { words, record };
        if !matches!(source, Source::Sparse) {
            slab.use_large_pages();
        }
        Some(slab)
    }

    /// From here on, memory comes in large pages where the system has them.
    pub(crate) fn use_large_pages(&self) {
        advise_huge_pages(&self.words);
    }

    /// Bytes taken.
    pub(crate) fn bytes(&self) -> usize {
        self.words.len() * WORD
    }

    fn field(&self, row: usize, field: Field) -> &[AtomicU64] {
        let first = row * self.record + field.word;
        &self.words[first..first + field.bytes.div_ceil(WORD)]
    }

    /// Stores one field of one record. `bytes` is exactly the field.
    pub(crate) fn write(&self, row: usize, field: Field, bytes: &[u8]) {
        debug_assert_eq!(bytes.len(), field.bytes);
        let (chunks, rest) = bytes.as_chunks::<WORD>();
        let words = self.field(row, field);
        for (word, chunk) in words.iter().zip(chunks) {
            word.store(u64::from_ne_bytes(*chunk), Relaxed);
        }
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            words[chunks.len()].store(u64::from_ne_bytes(last), Relaxed);
        }
    }

    /// Copies one field of one record into `bytes`, which is exactly as long.
    #[inline]
    pub(crate) fn read(&self, row: usize, field: Field, bytes: &mut [u8]) {
        debug_assert_eq!(bytes.len(), field.bytes);
        let (chunks, rest) = bytes.as_chunks_mut::<WORD>();
        let words = self.field(row, field);
        for (word, chunk) in words.iter().zip(chunks.iter_mut()) {
            *chunk = word.load(Relaxed).to_ne_bytes();
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&words[chunks.len()].load(Relaxed).to_ne_bytes()[..rest.len()]);
        }
    }

    /// Loads one word of a record.
    #[inline]
    pub(crate) fn load(&self, row: usize, word: usize) -> u64 {
        self.words[row * self.record + word].load(Relaxed)
    }

    /// Stores one word of a record.
    pub(crate) fn store(&self, row: usize, word: usize, value: u64) {
        self.words[row * self.record + word].store(value, Relaxed);
    }
}

/// Asks for large pages, before the first touch: rows are read at random, and with small pages most reads would wait
/// for an address to be looked up. Without them the slab works as well, only slower, so a refusal is no error.
#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
#[allow(unsafe_code)]
fn advise_huge_pages(words: &[AtomicU64]) {
    const PAGE: usize = 4096;
    let inside = words.as_ptr_range();
    let start = (inside.start as usize).next_multiple_of(PAGE);
    let length = (inside.end as usize).saturating_sub(start) / PAGE * PAGE;
    if length >= 4 << 20 {
        let skipped = start - inside.start as usize;
        debug_assert!(skipped + length <= size_of_val(words));
        // SAFETY: the range lies within memory that `words` borrows, and this advice changes no content.
        unsafe {
            libc::madvise(words.as_ptr().wrapping_byte_add(skipped).cast_mut().cast(), length, libc::MADV_HUGEPAGE);
        }
    }
}

#[cfg(not(all(target_os = "linux", not(any(loom, shuttle)))))]
fn advise_huge_pages(_: &[AtomicU64]) {}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn records_start_at_cache_lines_and_keep_their_bytes() {
        let slab = Slab::new(&mut Source::Memory, 3, 8).unwrap();
        assert_eq!(slab.words.as_ptr() as usize % 64, 0);
        for bytes in 1..=24 {
            let field = Field { word: 2, bytes };
            let data: Vec<u8> = (0..bytes).map(|i| u8::try_from(i).unwrap() + 1).collect();
            slab.write(1, field, &data);
            let mut back = vec![0; bytes];
            slab.read(1, field, &mut back);
            assert_eq!(back, data);
            assert_eq!((slab.load(1, 0), slab.load(0, 7), slab.load(2, 0)), (0, 0, 0));
        }
        assert!(Slab::new(&mut Source::Memory, usize::MAX / 2, 4).is_none());
        assert!(Slab::new(&mut Source::Memory, 1 << 50, 8).is_none());
    }
}

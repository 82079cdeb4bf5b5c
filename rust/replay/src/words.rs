//! The slab of rows: memory made of atomic words, so that a copy which races a writer is no undefined behaviour.
//!
//! A relaxed load or store of a word is a plain move on every common processor; what makes a row whole is the
//! protocol of [`crate::ring`]. Words are taken in native byte order, so a column is stored as it lies in memory.
use crate::layout::{FETCHED_LINES, Field, LINE, WORD};
use crate::storage::{Source, Words};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Bytes of half a word.
const HALF: usize = WORD / 2;

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
        if let Some(word) = words.get(chunks.len()) {
            let mut last = [0; WORD];
            match rest.len() {
                HALF => last[..HALF].copy_from_slice(rest),
                length => last[..length].copy_from_slice(rest),
            }
            word.store(u64::from_ne_bytes(last), Relaxed);
        }
    }

    /// Copies one field of one record into `bytes`, which is exactly as long.
    #[inline]
    pub(crate) fn read(&self, row: usize, field: Field, bytes: &mut [u8]) {
        debug_assert_eq!(bytes.len(), field.bytes);
        copy(self.field(row, field), bytes);
    }

    /// Copies one field of many records into `bytes`, row after row.
    #[inline]
    pub(crate) fn gather(&self, rows: impl Iterator<Item = usize>, field: Field, bytes: &mut [u8]) {
        let rows = rows.zip(bytes.chunks_exact_mut(field.bytes));
        // Where the compiler knows how many words there are, a copy is that many moves and no loop.
        macro_rules! known {
            ($($words:literal)*) => {
                match field.bytes.div_ceil(WORD) {
                    $($words => rows.for_each(|(row, bytes)| {
                        if let Some(words) = self.field(row, field).first_chunk::<$words>() {
                            copy(words, bytes);
                        }
                    }),)*
                    _ => rows.for_each(|(row, bytes)| copy(self.field(row, field), bytes)),
                }
            };
        }
        known!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }

    /// Asks for the cache line of one word of a record.
    #[inline]
    pub(crate) fn prefetch(&self, row: usize, word: usize) {
        prefetch(self.words.as_ptr().wrapping_add(row * self.record + word));
    }

    /// Asks for the cache lines of a record; the processor follows a long one by itself.
    #[inline]
    pub(crate) fn prefetch_record(&self, row: usize) {
        for word in (0..self.record).step_by(LINE).take(FETCHED_LINES) {
            self.prefetch(row, word);
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

/// Copies words to as many bytes as they hold, or to fewer by less than a word.
#[allow(clippy::inline_always)] // Where it is called the number of words is known.
#[inline(always)]
fn copy(words: &[AtomicU64], bytes: &mut [u8]) {
    let Some((last, whole)) = words.split_last() else { return };
    let (chunks, rest) = bytes.split_at_mut(whole.len() * WORD);
    for (word, chunk) in whole.iter().zip(chunks.as_chunks_mut::<WORD>().0) {
        *chunk = word.load(Relaxed).to_ne_bytes();
    }
    let last = last.load(Relaxed).to_ne_bytes();
    // Most columns end with a whole word or half of one, and a copy of a known length is one move.
    match rest.len() {
        WORD => rest.copy_from_slice(&last),
        HALF => rest.copy_from_slice(&last[..HALF]),
        length => rest.copy_from_slice(&last[..length]),
    }
}

/// Asks for large pages, before the first touch: rows are read at random, and with small pages most reads would wait
/// for an address to be looked up. Without them the slab works as well, only slower, so a refusal is no error.
#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
#[allow(unsafe_code)]
pub(crate) fn advise_huge_pages<T>(words: &[T]) {
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
pub(crate) fn advise_huge_pages<T>(_: &[T]) {}

/// Asks the processor to bring the cache line of an address near, and goes on without waiting for it. Into the
/// second-level cache: the first has few slots for lines that are on their way, and with them taken everything waits.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[allow(unsafe_code)]
#[inline]
pub(crate) fn prefetch<T>(address: *const T) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a hint, which no program can see the effect of; there is no address that makes it fault.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
}

/// Elsewhere the processor's own ways of looking ahead must do.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
pub(crate) fn prefetch<T>(_: *const T) {}

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

//! The slab of rows: memory made of atomic words, so that a copy which races a writer is no undefined behaviour.
//!
//! A relaxed load or store of a word is a plain move on every common processor; what makes a row whole is the
//! protocol of [`crate::ring`]. Words are taken in native byte order, so a column is stored as it lies in memory.
use crate::layout::{FETCHED_LINES, Field, LINE, WORD};
use crate::storage::{Source, Words};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Bytes of half a word.
const HALF: usize = WORD / 2;

/// The first word of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record(usize);

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

    /// The record of this number.
    #[inline]
    pub(crate) fn record(&self, number: usize) -> Record {
        Record(number * self.record)
    }

    fn field(&self, record: Record, field: Field) -> &[AtomicU64] {
        &self.words[record.0 + field.word..][..field.bytes.div_ceil(WORD)]
    }

    /// Stores one field of one record. `bytes` is exactly the field.
    pub(crate) fn write(&self, record: Record, field: Field, bytes: &[u8]) {
        debug_assert_eq!(bytes.len(), field.bytes);
        let (chunks, rest) = bytes.as_chunks::<WORD>();
        let words = self.field(record, field);
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
    pub(crate) fn read(&self, record: Record, field: Field, bytes: &mut [u8]) {
        debug_assert_eq!(bytes.len(), field.bytes);
        copy(self.field(record, field), bytes);
    }

    /// Copies one field of many records into `bytes`, row after row, and calls `between` with the place of each.
    #[inline]
    pub(crate) fn gather(&self, records: &[Record], field: Field, bytes: &mut [u8], mut between: impl FnMut(usize)) {
        let rows = records.iter().zip(bytes.chunks_exact_mut(field.bytes)).enumerate();
        let slab = &*self.words; // Or the compiler looks it up for every row.
        let count = field.bytes.div_ceil(WORD);
        // Where the compiler knows how many words there are, a copy is that many moves and no loop.
        macro_rules! known {
            ($($words:literal)*) => {
                match count {
                    $($words => rows.for_each(|(i, (record, bytes))| {
                        between(i);
                        let words = slab.get(record.0 + field.word..).and_then(<[_]>::first_chunk::<$words>);
                        if let Some(words) = words {
                            copy(words, bytes);
                        }
                    }),)*
                    _ => rows.for_each(|(i, (record, bytes))| {
                        between(i);
                        copy(&slab[record.0 + field.word..][..count], bytes);
                    }),
                }
            };
        }
        known!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }

    /// Asks for the cache lines of these words of a record.
    #[inline]
    pub(crate) fn prefetch(&self, record: Record, words: &[usize]) {
        let first = self.words.as_ptr().wrapping_add(record.0);
        let ask = |word: &usize| prefetch(first.wrapping_add(*word));
        // Most rows lie on few lines, for which a loop is more work than they are.
        match words {
            [] => {}
            [a] => ask(a),
            [a, b] => [a, b].into_iter().for_each(ask),
            [a, b, c] => [a, b, c].into_iter().for_each(ask),
            many => many.iter().for_each(ask),
        }
    }

    /// Asks for the cache lines of a record; the processor follows a long one by itself.
    #[inline]
    pub(crate) fn prefetch_record(&self, record: Record) {
        let first = self.words.as_ptr().wrapping_add(record.0);
        (0..self.record).step_by(LINE).take(FETCHED_LINES).for_each(|word| prefetch(first.wrapping_add(word)));
    }

    /// Loads one word of a record.
    #[inline]
    pub(crate) fn load(&self, record: Record, word: usize) -> u64 {
        self.words[record.0 + word].load(Relaxed)
    }

    /// Stores one word of a record.
    pub(crate) fn store(&self, record: Record, word: usize, value: u64) {
        self.words[record.0 + word].store(value, Relaxed);
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

/// The same into the first-level cache.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[allow(unsafe_code)]
#[inline]
pub(crate) fn prefetch_near<T>(address: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: as above.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

/// Elsewhere the processor's own ways of looking ahead must do.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
pub(crate) fn prefetch<T>(_: *const T) {}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
pub(crate) fn prefetch_near<T>(_: *const T) {}

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
            let [before, record, after] = [0, 1, 2].map(|number| slab.record(number));
            slab.write(record, field, &data);
            let mut back = vec![0; bytes];
            slab.read(record, field, &mut back);
            assert_eq!(back, data);
            assert_eq!((slab.load(record, 0), slab.load(before, 7), slab.load(after, 0)), (0, 0, 0));
        }
        assert!(Slab::new(&mut Source::Memory, usize::MAX / 2, 4).is_none());
        assert!(Slab::new(&mut Source::Memory, 1 << 50, 8).is_none());
    }
}

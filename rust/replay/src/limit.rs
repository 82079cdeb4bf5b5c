//! The yardstick of sampling: how fast rows can be gathered at random at all.
//!
//! One array for each column, rows chosen beforehand, plain copies of what a prefetch has brought near: no ring, no
//! draw, no law, no look whether a row is whole. It comes as anybody would write it, with prefetches into the
//! first-level cache, and tuned: into the second, which takes more lines at a time.
use crate::error::{Error, Result};
use crate::layout::LINE_BYTES;
use crate::words::{advise_huge_pages, prefetch, prefetch_near};

/// Cache lines on their way at once.
const LINES_AHEAD: usize = 80;

/// One column to gather from.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Its rows, end to end.
    pub rows: &'a [u8],
    /// Bytes of one row.
    pub bytes: usize,
    /// Which rows to take, batch after batch.
    pub indices: &'a [u32],
}

/// Memory like that of the buffer, in large pages and touched, for [`Part::rows`].
#[must_use]
pub fn memory(bytes: usize) -> Vec<u8> {
    let mut memory = Vec::with_capacity(bytes);
    advise_huge_pages(memory.spare_capacity_mut());
    memory.resize(bytes, 1);
    memory
}

/// Copies batches of `batch_size` rows into `outputs`, one slice for each part, each batch over the one before it; tuned,
/// or as anybody would write it.
/// Indices that fill no batch are left out.
///
/// # Errors
/// `Invalid` if a part lacks a row that it is asked for, or lengths do not fit each other.
pub fn gather(parts: &[Part<'_>], batch_size: usize, tuned: bool, outputs: &mut [&mut [u8]]) -> Result<()> {
    let count = parts.first().map_or(0, |part| part.indices.len());
    let fits = |(part, output): (&Part<'_>, &&mut [u8])| {
        let rows = part.rows.len().checked_div(part.bytes).unwrap_or(0);
        let last = part.indices.iter().fold(0, |last, index| last.max(*index)) as usize;
        part.indices.len() == count && last < rows && output.len() == batch_size * part.bytes
    };
    if batch_size == 0 || parts.len() != outputs.len() || !parts.iter().zip(&*outputs).all(fits) {
        return Err(Error::Invalid(format!(
            "gather_limit: expected for each column as many indices below its rows, and {batch_size} rows of output"
        )));
    }
    // Where the compiler knows the lengths, a copy is a few moves: those of an ant and of a humanoid.
    let widths: Vec<_> = parts.iter().map(|part| part.bytes).collect();
    match (tuned, &widths[..]) {
        (true, [116, 32, 8]) => known::<true, 116, 32, 8>(parts, batch_size, outputs),
        (true, [1072, 68, 12]) => known::<true, 1072, 68, 12>(parts, batch_size, outputs),
        (true, _) => any::<true>(parts, batch_size, outputs),
        (false, [116, 32, 8]) => known::<false, 116, 32, 8>(parts, batch_size, outputs),
        (false, [1072, 68, 12]) => known::<false, 1072, 68, 12>(parts, batch_size, outputs),
        (false, _) => any::<false>(parts, batch_size, outputs),
    }
    Ok(())
}

const fn ahead(bytes: usize) -> usize {
    let rows = LINES_AHEAD * LINE_BYTES / bytes;
    if rows > 16 { 16 } else { rows + 1 }
}

#[inline]
fn fetch<const TUNED: bool>(row: &[u8]) {
    // Past the last byte by up to a line: a row that begins within a line ends within one more.
    (0..row.len() + LINE_BYTES).step_by(LINE_BYTES).for_each(|byte| {
        let byte = &raw const row[byte.min(row.len() - 1)];
        if TUNED { prefetch(byte) } else { prefetch_near(byte) }
    });
}

fn known<const TUNED: bool, const OBSERVATION: usize, const ACTION: usize, const GOAL: usize>(
    parts: &[Part<'_>],
    batch_size: usize,
    outputs: &mut [&mut [u8]],
) {
    let ([first, second, third], [to_first, to_second, to_third]) = (parts, outputs) else { return };
    let observations = first.rows.as_chunks::<OBSERVATION>().0;
    let actions = second.rows.as_chunks::<ACTION>().0;
    let goals = third.rows.as_chunks::<GOAL>().0;
    let to_observations = to_first.as_chunks_mut::<OBSERVATION>().0;
    let to_actions = to_second.as_chunks_mut::<ACTION>().0;
    let to_goals = to_third.as_chunks_mut::<GOAL>().0;
    let batches = first.indices.len() / batch_size;
    for from in (0..batches * batch_size).step_by(batch_size) {
        let [of_first, of_second, of_third] = [first, second, third].map(|part| &part.indices[from..from + batch_size]);
        let rows = |i: usize| {
            let observation = &observations[of_first[i] as usize];
            (observation, &actions[of_second[i] as usize], &goals[of_third[i] as usize])
        };
        let fetch = |i: usize| {
            let (observation, action, goal) = rows(i);
            fetch::<TUNED>(observation);
            fetch::<TUNED>(action);
            fetch::<TUNED>(goal);
        };
        let ahead = const { ahead(OBSERVATION + ACTION + GOAL) };
        (0..ahead.min(batch_size)).for_each(fetch);
        for i in 0..batch_size {
            if i + ahead < batch_size {
                fetch(i + ahead);
            }
            let (observation, action, goal) = rows(i);
            to_observations[i] = *observation;
            to_actions[i] = *action;
            to_goals[i] = *goal;
        }
    }
}

fn any<const TUNED: bool>(parts: &[Part<'_>], batch_size: usize, outputs: &mut [&mut [u8]]) {
    let batches = parts.first().map_or(0, |part| part.indices.len() / batch_size);
    let ahead = ahead(parts.iter().map(|part| part.bytes).sum());
    let row =
        |part: &Part<'_>, i: usize| part.indices[i] as usize * part.bytes..(part.indices[i] as usize + 1) * part.bytes;
    for from in (0..batches * batch_size).step_by(batch_size) {
        let fetch = |i: usize| parts.iter().for_each(|part| fetch::<TUNED>(&part.rows[row(part, from + i)]));
        (0..ahead.min(batch_size)).for_each(fetch);
        for i in 0..batch_size {
            if i + ahead < batch_size {
                fetch(i + ahead);
            }
            for (part, output) in parts.iter().zip(&mut *outputs) {
                output[i * part.bytes..(i + 1) * part.bytes].copy_from_slice(&part.rows[row(part, from + i)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_what_it_is_told() {
        for widths in [[116, 32, 8], [1072, 68, 12], [5, 1, 64]] {
            let arrays = widths.map(|bytes| {
                let mut array = memory(bytes * 50);
                array.iter_mut().enumerate().for_each(|(i, byte)| *byte = u8::try_from(i / bytes).unwrap());
                array
            });
            let indices: Vec<u32> = (0..70).map(|i| i * 17 % 50).collect();
            let part = |k: usize| Part { rows: &arrays[k], bytes: widths[k], indices: &indices };
            let mut outputs = widths.map(|bytes| vec![0; bytes * 32]);
            let mut slices = outputs.iter_mut().map(|output| &mut output[..]).collect::<Vec<_>>();
            gather(&[part(0), part(1), part(2)], 32, true, &mut slices).unwrap();
            let none = Part { indices: &[50], ..part(0) };
            assert!(gather(&[none], 1, true, &mut slices[..1]).is_err());
            for (output, bytes) in outputs.iter().zip(widths) {
                for (row, index) in output.chunks(bytes).zip(&indices[32..64]) {
                    assert!(row.iter().all(|byte| u32::from(*byte) == *index));
                }
            }
        }
    }
}

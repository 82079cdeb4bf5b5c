//! Addressable randomness: word `j` of row `i` of batch `k` is a function of `(seed, k, i, j)` and of nothing else.
//!
//! A batch is therefore the same whatever the number of threads that draw it, and the sampler's whole state is
//! the number of the next batch. The generator is `SplitMix64` (Steele, Lea, Flood, 2014) started at a hash of the
//! address; its output function is Stafford's variant 13. Integers are drawn by Lemire's method (2019), without bias.

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A bijection of 64-bit words in which every input bit moves every output bit.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The randomness of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The randomness of batch `batch` under `seed`.
    #[must_use]
    pub fn new(seed: u64, batch: u64) -> Self {
        let seeded = mix(seed.wrapping_add(GOLDEN));
        Self { key: mix(seeded ^ mix(batch.wrapping_add(GOLDEN).wrapping_mul(GOLDEN))) }
    }

    /// The words of row `row`: as many as are asked for.
    #[must_use]
    #[inline]
    pub fn row(self, row: u64) -> Words {
        Words { state: mix(self.key.wrapping_add(row.wrapping_add(1).wrapping_mul(GOLDEN))) }
    }
}

/// The random words of one row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words {
    state: u64,
}

impl Words {
    /// The next 64 uniform bits.
    #[inline]
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻⁵³.
    #[inline]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_wrap)] // 53 bits fit an i64 and an f64 exactly.
    pub fn unit(&mut self) -> f64 {
        // Processors convert an i64 in one step, and a u64 in several.
        (self.word() >> 11) as i64 as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform in `0..n`, exactly. `n` must not be 0.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        self.below_both(1, n).1
    }

    /// Uniform in `0..a` and in `0..b` from one word, exactly: the quotient and remainder by `b` of a uniform
    /// integer below `a * b`, without the division. `a * b` must fit 64 bits and not be 0.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // Taking the halves of a product apart.
    pub fn below_both(&mut self, a: u64, b: u64) -> (u64, u64) {
        let product = a * b;
        loop {
            let first = u128::from(self.word()) * u128::from(a);
            let second = u128::from(first as u64) * u128::from(b);
            let low = second as u64;
            // The low half is what Lemire's method compares; the threshold is computed only when it can matter.
            if low >= product || low >= threshold(product) {
                return ((first >> 64) as u64, (second >> 64) as u64);
            }
        }
    }
}

/// 2⁶⁴ modulo `n`.
#[cold]
fn threshold(n: u64) -> u64 {
    n.wrapping_neg() % n
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with arbitrary-precision integers: on every machine and in every later version the same.
    const PINNED: [u64; 4] =
        [0xCBF4_0CAA_79B4_E078, 0xCA4D_D413_4009_7EBB, 0xCE2F_5D8B_922B_74AC, 0xD234_B93B_2989_E459];

    #[test]
    fn first_words_are_pinned() {
        let words: Vec<u64> = (0..4).map(|row| Stream::new(0, 0).row(row).word()).collect();
        assert_eq!(words, PINNED);
    }

    #[test]
    fn bounded_integers_cover_their_range_evenly() {
        let mut counts = [0_u32; 15];
        let mut words = Stream::new(7, 3).row(0);
        for _ in 0..150_000 {
            let (a, b) = words.below_both(3, 5);
            counts[usize::try_from(a * 5 + b).unwrap()] += 1;
        }
        for count in counts {
            assert!((9_500..10_500).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn rows_batches_and_seeds_differ() {
        let first = |seed, batch, row| Stream::new(seed, batch).row(row).word();
        let all = [first(0, 0, 0), first(0, 0, 1), first(0, 1, 0), first(1, 0, 0), first(1, 1, 1)];
        let mut unique = all.to_vec();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), all.len());
    }
}

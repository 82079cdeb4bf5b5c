//! The law of the offset: how far in the future the goal lies.

/// The truncated geometric law `P(k) ∝ γ^k` on `k = 1..=H`, by inverse CDF.
///
/// It is truncated and renormalised, not clamped: a clamped law piles the mass of the whole tail on the last row
/// of a trajectory, and that row would be learnt as a goal far more often than it is reached. With
/// `F(k) = (1 − γ^k) / (1 − γ^H)` the smallest `k` with `F(k) > u` is
///
/// `k = 1 + ⌊ln(1 − u (1 − γ^H)) / ln γ⌋`,
///
/// and `γ = 1` is its limit, the uniform law `1 + ⌊u H⌋`.
///
/// ```
/// use crl_replay::geometric::Geometric;
/// let law = Geometric::new(0.5).unwrap();
/// // H = 2: P(1) = 2/3, P(2) = 1/3.
/// assert_eq!(law.offset(0.0, 2), 1);
/// assert_eq!(law.offset(0.66, 2), 1);
/// assert_eq!(law.offset(0.67, 2), 2);
/// assert_eq!(law.offset(1.0 - f64::EPSILON, 2), 2);
/// // A horizon of one leaves no choice, and γ = 1 is uniform.
/// assert_eq!(law.offset(0.9, 1), 1);
/// assert_eq!(Geometric::new(1.0).unwrap().offset(0.5, 10), 6);
/// assert!(Geometric::new(0.0).is_none() && Geometric::new(1.1).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometric {
    ln_gamma: f64,
}

impl Geometric {
    /// The law for one discount; `None` unless `0 < gamma <= 1`.
    #[must_use]
    pub fn new(gamma: f64) -> Option<Self> {
        (gamma > 0.0 && gamma <= 1.0).then(|| Self { ln_gamma: gamma.ln() })
    }

    /// The offset that belongs to `u` in `[0, 1)`: an integer in `1..=horizon`. `horizon` must not be 0.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Rounding down, and clamped from both sides.
    pub fn offset(self, u: f64, horizon: u32) -> u32 {
        debug_assert!(horizon > 0 && (0.0..1.0).contains(&u));
        let length = f64::from(horizon);
        let steps = if self.ln_gamma == 0.0 {
            u * length
        } else {
            // 1 − γ^H and ln(1 − x) in the forms that stay exact as γ → 1, where both come close to 0.
            let mass = -(self.ln_gamma * length).exp_m1();
            (-u * mass).ln_1p() / self.ln_gamma
        };
        // Rounding can carry the quotient to `horizon` itself as u → 1: the clamp takes back that last bit only.
        (steps as u32).saturating_add(1).min(horizon)
    }
}

/// Horizons up to this one are answered from a table.
const TABLED: usize = 4096;
/// Cells of the guide; it fits a first-level cache beside the rows being copied.
const CELLS: usize = 1 << CELL_BITS;
const CELL_BITS: u32 = 12;

/// [`Geometric`] without a logarithm for each draw: the same offsets for horizons up to `TABLED`, by the guide-table
/// method (Chen and Asau, 1974), which costs about one step; the closed form beyond.
#[derive(Clone, Debug)]
pub struct Table {
    law: Geometric,
    /// The longest horizon that is answered from here.
    tabled: usize,
    /// `1 − γ^k` for `k = 0..=TABLED`: never decreasing.
    mass: Box<[f64]>,
    /// For each cell of masses the smallest `k` that belongs to one in it.
    guide: Box<[u16; CELLS]>,
}

impl Table {
    /// The table of a law.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // At most `TABLED`.
    pub fn new(law: Geometric) -> Self {
        let mass: Box<[f64]> = (0_u32..=TABLED as u32).map(|k| -(law.ln_gamma * f64::from(k)).exp_m1()).collect();
        let mut guide = Box::new([0; CELLS]);
        for (cell, guide) in (0_u32..).zip(&mut *guide) {
            // What `cell` rounds up into a cell may lie below it by so much.
            let least = f64::from(cell) / CELLS as f64 - f64::EPSILON;
            *guide = mass.partition_point(|mass| *mass <= least).max(1) as u16;
        }
        // A law so close to uniform that all of the table lies in few cells would walk far through it.
        let tabled = if law.ln_gamma > -1e-4 { 0 } else { TABLED };
        Self { law, tabled, mass, guide }
    }

    /// The offset that belongs to `u` in `[0, 1)`: an integer in `1..=horizon`. `horizon` must not be 0.
    #[must_use]
    #[allow(clippy::inline_always)] // Once a row, and a call costs as much as it does.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // At most `TABLED`.
    pub fn offset(&self, u: f64, horizon: u32) -> u32 {
        let last = horizon as usize;
        if last > self.tabled {
            return self.law.offset(u, horizon);
        }
        let mass = u * self.mass[last];
        let mut k = usize::from(self.guide[cell(mass)]);
        // The first step has no branch: nobody can guess whether it is needed.
        k += usize::from(self.mass[k] <= mass);
        while k < last && self.mass[k] <= mass {
            k += 1;
        }
        k.min(last) as u32
    }
}

/// The cell of the guide for a mass in `[0, 1)`, or the one above if it is as close to that as rounding carries: the
/// first bits of the fraction, which cost a conversion less than a multiplication and the integer below. What rounds
/// up to 1 belongs to no cell, and the first one leads to everything.
#[inline]
#[allow(clippy::cast_possible_truncation)] // So many bits.
fn cell(mass: f64) -> usize {
    ((1.0 + mass).to_bits() >> (f64::MANTISSA_DIGITS - 1 - CELL_BITS)) as usize % CELLS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn the_table_gives_what_the_closed_form_gives() {
        for gamma in [1e-9, 0.2, 0.9, 0.99, 0.999, 0.9998, 0.99999, 1.0] {
            let law = Geometric::new(gamma).unwrap();
            let table = Table::new(law);
            let mut words = Stream::new(0, 0).row(0);
            for horizon in [1, 2, 3, 10, 62, 999, 4095, 4096, 4097, 100_000] {
                for u in (0..2000).map(|_| words.unit()).chain([0.0]) {
                    assert_eq!(table.offset(u, horizon), law.offset(u, horizon), "{gamma} {horizon} {u}");
                }
                assert!((1..=horizon).contains(&table.offset(1.0 - f64::EPSILON / 2.0, horizon)));
            }
        }
    }

    #[test]
    fn edges_stay_in_range() {
        let almost_one = 1.0 - f64::EPSILON / 2.0;
        for gamma in [f64::MIN_POSITIVE, 1e-300, 1e-3, 0.5, 0.999, 1.0 - 1e-12, almost_one, 1.0] {
            let law = Geometric::new(gamma).unwrap();
            for horizon in [1, 2, 3, 1000, u32::MAX - 1, u32::MAX] {
                for u in [0.0, f64::MIN_POSITIVE, 1e-16, 0.5, almost_one] {
                    let k = law.offset(u, horizon);
                    assert!((1..=horizon).contains(&k), "{gamma} {horizon} {u} {k}");
                }
                assert_eq!(law.offset(0.0, horizon), 1);
            }
        }
        assert!(Geometric::new(f64::NAN).is_none());
    }

    #[test]
    fn nearly_one_is_nearly_uniform() {
        let law = Geometric::new(1.0 - 1e-13).unwrap();
        for i in 0..1000 {
            let u = (f64::from(i) + 0.5) / 1000.0;
            assert_eq!(law.offset(u, 1000), u32::try_from(i).unwrap() + 1);
        }
    }

    #[test]
    fn inverts_the_distribution_function() {
        for gamma in [0.3, 0.9, 0.99, 0.999] {
            let law = Geometric::new(gamma).unwrap();
            for horizon in [1_u32, 2, 10, 500] {
                let total: f64 = (1..=horizon).map(|k| gamma.powf(f64::from(k))).sum();
                let mut below = 0.0;
                for k in 1..=horizon {
                    let mass = gamma.powf(f64::from(k)) / total;
                    if mass > 1e-7 {
                        assert_eq!(law.offset((below + mass * 1e-6).min(1.0 - 1e-16), horizon), k);
                        assert_eq!(law.offset(below + mass * (1.0 - 1e-6), horizon), k);
                    }
                    below += mass;
                }
            }
        }
    }
}

//! Which row of the future becomes the goal.
use crate::error::{Error, Result};
use crate::geometric::{Geometric, Table};
use crate::rng::Words;

/// One way to choose a goal for a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// `k` later with `P(k) ∝ γ^k`, within the row's trajectory.
    #[default]
    Geometric,
    /// Any later row of its trajectory, all alike.
    Uniform,
    /// The last row of its trajectory.
    Final,
    /// The next row.
    Next,
    /// Any stored row of any trajectory; its offset is 0.
    Random,
}

impl Strategy {
    const ALL: [(&'static str, Self); 5] = [
        ("geometric", Self::Geometric),
        ("uniform", Self::Uniform),
        ("final", Self::Final),
        ("next", Self::Next),
        ("random", Self::Random),
    ];

    /// The strategy called so.
    ///
    /// # Errors
    /// `Invalid` for any other name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, strategy)| strategy).ok_or_else(|| {
            let known = Self::ALL.map(|(known, _)| format!("{known:?}")).join(", ");
            Error::Invalid(format!("goal: expected one of {known}, or a dict of these with weights; got {name:?}"))
        })
    }
}

/// A mixture of strategies, and the discount of the geometric one.
#[derive(Clone, Debug)]
pub struct Goals {
    /// Strategies, each with the first word that is not its own any more.
    bounds: Vec<(u64, Strategy)>,
    last: Strategy,
    law: Table,
}

impl Goals {
    /// Strategies with their weights, which need not add up to one.
    ///
    /// # Errors
    /// `Invalid` for a discount outside `(0, 1]`, a negative or infinite weight, or no positive one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn new(gamma: f64, weights: &[(Strategy, f64)]) -> Result<Self> {
        let law = Geometric::new(gamma)
            .ok_or_else(|| Error::Invalid(format!("gamma: expected a number in (0, 1]; got {gamma}")))?;
        if let Some((_, weight)) = weights.iter().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0)) {
            return Err(Error::Invalid(format!("goal: expected finite weights of at least 0; got {weight}")));
        }
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let positive: Vec<_> = weights.iter().filter(|(_, weight)| *weight > 0.0).collect();
        let Some((&&(last, _), others)) = positive.split_last().filter(|_| total.is_finite()) else {
            return Err(Error::Invalid("goal: expected at least one weight above 0, of a finite sum".into()));
        };
        let mut reached = 0.0;
        let bounds = others.iter().map(|(strategy, weight)| {
            reached += weight / total;
            ((reached * (u64::MAX as f64)) as u64, *strategy)
        });
        Ok(Self { bounds: bounds.collect(), last, law: Table::new(law) })
    }

    /// The strategy of every row, if there is but one.
    #[inline]
    pub(crate) fn only(&self) -> Option<Strategy> {
        self.bounds.is_empty().then_some(self.last)
    }

    /// The strategy for one row. A single one costs no randomness.
    #[inline]
    pub(crate) fn choose(&self, words: &mut Words) -> Strategy {
        if let Some(only) = self.only() {
            return only;
        }
        let word = words.word();
        self.bounds.iter().find(|(bound, _)| word < *bound).map_or(self.last, |&(_, strategy)| strategy)
    }

    /// How far ahead the goal lies when `later` rows follow. Not for [`Strategy::Random`].
    #[allow(clippy::inline_always)] // As the table's.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // At most `later`.
    pub(crate) fn offset(&self, strategy: Strategy, later: u32, words: &mut Words) -> u32 {
        match strategy {
            Strategy::Geometric => self.law.offset(words.unit(), later),
            Strategy::Uniform => words.below(u64::from(later)) as u32 + 1,
            Strategy::Final => later,
            Strategy::Next => 1,
            Strategy::Random => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn a_mixture_keeps_its_weights() {
        let goals = Goals::new(0.9, &[(Strategy::Next, 1.0), (Strategy::Final, 0.0), (Strategy::Random, 3.0)]).unwrap();
        let mut words = Stream::new(1, 2).row(3);
        let next = (0..40_000).filter(|_| goals.choose(&mut words) == Strategy::Next).count();
        assert!((9_600..10_400).contains(&next), "{next}");
        let offsets: Vec<_> =
            [Strategy::Next, Strategy::Final, Strategy::Random].map(|s| goals.offset(s, 7, &mut words)).into();
        assert_eq!(offsets, [1, 7, 0]);
        assert!((0..1000).all(|_| (1..=7).contains(&goals.offset(Strategy::Uniform, 7, &mut words))));
    }

    #[test]
    fn refuses_nonsense() {
        let one = [(Strategy::Next, 1.0)];
        for gamma in [0.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            assert!(Goals::new(gamma, &one).is_err());
        }
        for weight in [-1.0, f64::NAN, f64::INFINITY, 0.0] {
            assert!(Goals::new(0.9, &[(Strategy::Next, weight)]).is_err());
        }
        assert!(Goals::new(0.9, &[(Strategy::Next, f64::MAX), (Strategy::Final, f64::MAX)]).is_err());
        assert!(Goals::new(0.9, &[]).is_err());
        assert!(Strategy::parse("later").unwrap_err().to_string().contains("\"geometric\""));
    }
}

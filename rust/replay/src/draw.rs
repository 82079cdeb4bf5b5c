//! Which row is drawn: a uniform one among all stored rows that enough later rows of their trajectory follow.
use std::iter;

use crate::error::{Error, Result};
use crate::ring::{Place, Rings};
use crate::rng::Words;

/// Draws that may be rejected in a row before the eligible rows are listed.
const TRIES: usize = 64;
/// Times that writers may overtake one row before the sampler gives up.
pub(crate) const ROUNDS: usize = 1000;

/// Draws rows that `need` later rows of their trajectory follow.
///
/// Every slot below the fill of the fullest ring is drawn alike, and those without an eligible row are rejected:
/// what remains is uniform over the eligible rows of all environments, however unequal their fill. A row that is
/// rejected `TRIES` times is chosen from a list of all eligible rows instead, which is uniform too: the rejections
/// say nothing about which eligible row would have come.
pub(crate) struct Draw<'a> {
    rings: &'a Rings,
    need: u32,
    /// Environments, and slots below the fill of the fullest ring when the draw began.
    envs: u64,
    slots: u64,
    listed: Option<Runs>,
}

/// Runs of eligible rows that follow each other.
#[derive(Default)]
struct Runs {
    list: Vec<Run>,
    /// Rows in all runs together.
    total: u64,
    /// Rows of the longest trajectory, eligible or not.
    longest: u64,
}

struct Run {
    env: usize,
    first: u64,
    /// Rows in the runs before this one.
    before: u64,
}

impl<'a> Draw<'a> {
    pub(crate) fn new(rings: &'a Rings, need: u32) -> Self {
        let (envs, slots) = (rings.num_envs() as u64, rings.fullest().max(1));
        Self { rings, need, envs, slots, listed: None }
    }

    /// Environment and slot, uniform below the fill of the fullest ring.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // Below the number of envs and of slots.
    pub(crate) fn slot(&self, words: &mut Words) -> (usize, usize) {
        let (env, slot) = words.below_both(self.envs, self.slots);
        (env as usize, slot as usize)
    }

    /// The row in such a slot, if there is one: eligible or not.
    #[inline]
    fn candidate(&self, words: &mut Words) -> Option<Place> {
        let (env, slot) = self.slot(words);
        self.rings.find(env, slot)
    }

    #[inline]
    fn is_eligible(&self, place: &Place) -> bool {
        self.rings.later(*place) >= self.need
    }

    /// An eligible row.
    pub(crate) fn row(&mut self, words: &mut Words) -> Result<Place> {
        match self.candidate(words).filter(|place| self.is_eligible(place)) {
            Some(place) => Ok(place),
            None => self.other(words),
        }
    }

    /// An eligible row, drawn after a first candidate was rejected.
    #[cold]
    pub(crate) fn other(&mut self, words: &mut Words) -> Result<Place> {
        let found = (0..TRIES).find_map(|_| self.candidate(words).filter(|place| self.is_eligible(place)));
        found.map_or_else(|| self.rare(words), Ok)
    }

    /// A choice from the list: where few rows are eligible, rejection would take for ever.
    #[cold]
    fn rare(&mut self, words: &mut Words) -> Result<Place> {
        for _ in 0..ROUNDS {
            let listed = self.listed.take().unwrap_or_else(|| self.list());
            if listed.total == 0 {
                return Err(self.nothing(listed.longest));
            }
            let found = (0..TRIES).find_map(|_| {
                let (env, t) = listed.nth(words.below(listed.total));
                self.rings.row(env, t).filter(|place| self.is_eligible(place))
            });
            if let Some(place) = found {
                self.listed = Some(listed);
                return Ok(place);
            } // Otherwise writers have changed what the list says.
        }
        Err(overtaken())
    }

    fn list(&self) -> Runs {
        let need = u64::from(self.need);
        let mut listed = Runs::default();
        for env in 0..self.rings.num_envs() {
            for (first, end) in self.rings.runs(env) {
                let rows = end - first;
                listed.longest = listed.longest.max(rows);
                if rows > need {
                    listed.list.push(Run { env, first, before: listed.total });
                    listed.total += rows - need;
                }
            }
        }
        listed
    }

    /// A row drawn uniformly among all that are stored.
    #[allow(clippy::cast_possible_truncation)] // Below the number of slots.
    pub(crate) fn any(&self, words: &mut Words) -> Result<Place> {
        if let Some(place) = iter::repeat_with(|| self.candidate(words)).take(TRIES).find_map(|place| place) {
            return Ok(place);
        }
        let envs = || 0..self.rings.num_envs();
        let mut nth = words.below(envs().map(|env| self.rings.stored(env)).sum::<u64>().max(1));
        for env in envs() {
            let stored = self.rings.stored(env);
            if nth < stored {
                return self.rings.find(env, nth as usize).ok_or_else(overtaken);
            }
            nth -= stored;
        }
        Err(self.nothing(0))
    }

    fn nothing(&self, longest: u64) -> Error {
        let stored: u64 = (0..self.rings.num_envs()).map(|env| self.rings.stored(env)).sum();
        Error::Empty(match (stored, longest) {
            (0, _) => "sample: the buffer is empty; add rows first".into(),
            (_, 0..2) => format!(
                "sample: none of the {stored} stored rows has a successor in its trajectory; add a second row to one \
                 (episode_start is true only at the first row of a trajectory)"
            ),
            _ => format!(
                "length: expected at most {}, for the longest stored trajectory has {longest} rows, the last of them \
                 without a successor; got {}; take shorter segments, or partial=True",
                longest - 1,
                self.need
            ),
        })
    }
}

impl Runs {
    /// Environment and number of row `nth` of all runs.
    fn nth(&self, nth: u64) -> (usize, u64) {
        let run = &self.list[self.list.partition_point(|run| run.before <= nth) - 1];
        (run.env, run.first + nth - run.before)
    }
}

#[cold]
pub(crate) fn overtaken() -> Error {
    Error::Busy("sample: writers overwrite rows faster than they can be copied; give the buffer more capacity".into())
}

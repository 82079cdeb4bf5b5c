//! Drawing batches: (seed, batch, row) → (environment, row, offset) → bytes in the caller's memory.
//!
//! Rows go in blocks. A block is drawn first, then the cache lines it needs are touched, so that many of them travel
//! at once, and then each output is copied in one pass; at last the block asks which of its rows were overwritten
//! meanwhile, and draws those again.
use std::cell::OnceCell;
use std::hint::black_box;

use crate::error::{Error, Result};
use crate::goal::{Goals, Strategy};
use crate::layout::{Field, LINE, Layout, WORD};
use crate::ring::{Place, Rings};
use crate::rng::{Stream, Words};

/// Rows drawn, then touched, then copied together.
const BLOCK: usize = 64;
/// Cache lines touched ahead in one record; the processor follows a longer one by itself.
const TOUCHED_LINES: usize = 4;
/// Draws that may be rejected in a row before the eligible rows are listed.
const TRIES: usize = 64;
/// Times one row may be lost to writers, or found without eligible rows, before the sampler gives up.
const ROUNDS: usize = 1000;

/// The row that an output is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The row drawn.
    Row,
    /// The one after it.
    Next,
    /// The goal.
    Goal,
}

/// One column of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A stored column of one of the three rows.
    Field(Source, Field),
    /// How many rows after the row the goal lies: an `i32`.
    Offset,
}

impl Output {
    /// Bytes of one row of it.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Field(_, field) => field.bytes,
            Self::Offset => size_of::<i32>(),
        }
    }
}

/// What to sample: the law of the goal, and the columns to copy.
#[derive(Clone, Debug)]
pub struct Request {
    goals: Goals,
    outputs: Vec<Output>,
    /// One word on each cache line that the outputs need of the row and the next, and of the goal.
    row_touches: Vec<(Source, usize)>,
    goal_touches: Vec<(Source, usize)>,
}

impl Request {
    /// A request for these outputs.
    #[must_use]
    pub fn new(goals: Goals, outputs: Vec<Output>) -> Self {
        let mut touches = vec![(Source::Row, 0)]; // The header tells the trajectory.
        for output in &outputs {
            if let Output::Field(source, field) = *output {
                let end = field.word + field.bytes.div_ceil(WORD);
                for line in (field.word / LINE..end.div_ceil(LINE)).take(TOUCHED_LINES) {
                    let word = (line * LINE).max(field.word);
                    if !touches.iter().any(|&(other, at)| other == source && at / LINE == line) {
                        touches.push((source, word));
                    }
                }
            }
        }
        let (goal_touches, row_touches) = touches.into_iter().partition(|(source, _)| *source == Source::Goal);
        Self { goals, outputs, row_touches, goal_touches }
    }

    /// The outputs, in the order of the memory that [`crate::Buffer::sample`] is given.
    #[must_use]
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }
}

/// The output called so: `offset`, `goal` (the achieved goal of the goal row), a column, or a column with the prefix
/// `next_` or `goal_` for the next row's or the goal row's.
pub(crate) fn output(layout: &Layout, name: &str) -> Option<(Output, usize)> {
    let (source, column) = match name {
        "goal" => (Source::Goal, "achieved_goal"),
        _ if layout.find(name).is_some() => (Source::Row, name),
        _ => match (name.strip_prefix("next_"), name.strip_prefix("goal_")) {
            (Some(column), _) => (Source::Next, column),
            (_, Some(column)) => (Source::Goal, column),
            _ => return None,
        },
    };
    let index = layout.find(column)?;
    Some((Output::Field(source, layout.fields()[index]), index))
}

/// One row of a batch: where its parts lie, and what tells whether they still do.
#[derive(Clone, Copy, Default)]
struct Pick {
    /// Records of the row, the next and the goal.
    index: [usize; 3],
    row: Place,
    goal: Place,
    offset: u32,
    strategy: Strategy,
    words: Words,
}

impl Pick {
    fn of(&self, source: Source) -> usize {
        self.index[source as usize]
    }
}

/// Rows that can be drawn, listed when drawing at random keeps missing them.
type Eligible = OnceCell<Vec<(usize, usize)>>;

/// Draws the rows of some consecutive batches.
pub(crate) struct Sampler<'a> {
    pub(crate) rings: &'a Rings,
    pub(crate) request: &'a Request,
    pub(crate) seed: u64,
    pub(crate) first_batch: u64,
    pub(crate) batch_size: usize,
}

impl Sampler<'_> {
    /// Fills `rows` rows of each output, the first being row `from` of the batches laid end to end.
    pub(crate) fn fill(&self, from: usize, rows: usize, outputs: &mut [&mut [u8]]) -> Result<()> {
        let mut picks = [Pick::default(); BLOCK];
        let mut eligible = Eligible::new();
        let (mut batch, mut row) = (from / self.batch_size, from % self.batch_size);
        let mut stream = Stream::new(self.seed, self.first_batch + batch as u64);
        for done in (0..rows).step_by(BLOCK) {
            let picks = &mut picks[..BLOCK.min(rows - done)];
            for pick in &mut *picks {
                if row == self.batch_size {
                    (batch, row) = (batch + 1, 0);
                    stream = Stream::new(self.seed, self.first_batch + batch as u64);
                }
                *pick = self.begin(stream.row(row as u64), &mut eligible)?;
                row += 1;
            }
            self.touch(picks, &self.request.row_touches);
            for pick in &mut *picks {
                self.complete(pick, &mut eligible)?;
            }
            self.touch(picks, &self.request.goal_touches);
            self.copy(picks, done, outputs);
            Rings::settle();
            for (i, pick) in picks.iter().enumerate() {
                if !self.lives(pick) {
                    self.again(*pick, done + i, outputs, &mut eligible)?;
                }
            }
        }
        Ok(())
    }

    /// Chooses the strategy of a row, and a first candidate for the row itself.
    #[inline]
    fn begin(&self, mut words: Words, eligible: &mut Eligible) -> Result<Pick> {
        let strategy = self.request.goals.choose(&mut words);
        let row = match self.try_stored(&mut words) {
            Some(row) => row,
            None => self.other_row(&mut words, eligible)?,
        };
        let here = self.rings.index(row);
        // The next row's record most often follows; to touch a wrong one costs little.
        Ok(Pick {
            index: [here, self.rings.index(self.rings.beside(row)), here],
            row,
            strategy,
            words,
            ..Pick::default()
        })
    }

    /// Rejects the candidate if nothing follows it in its trajectory, and draws the goal.
    ///
    /// Every slot below the fill of the fullest ring is drawn alike, and those without an eligible row are rejected:
    /// what remains is uniform over the eligible rows of all environments, however unequal their fill.
    #[inline]
    fn complete(&self, pick: &mut Pick, eligible: &mut Eligible) -> Result<()> {
        let mut later = self.rings.later(pick.row);
        while later == 0 {
            pick.row = self.other_row(&mut pick.words, eligible)?;
            later = self.rings.later(pick.row);
        }
        pick.offset = self.request.goals.offset(pick.strategy, later, &mut pick.words);
        pick.goal = match pick.strategy {
            Strategy::Random => self.any_row(&mut pick.words)?,
            _ => self.rings.ahead(pick.row, pick.offset),
        };
        pick.index = [pick.row, self.rings.ahead(pick.row, 1), pick.goal].map(|place| self.rings.index(place));
        Ok(())
    }

    /// The row in a uniform slot below the fill of the fullest ring, if there is one.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // Below the number of envs and of slots.
    fn try_stored(&self, words: &mut Words) -> Option<Place> {
        let fullest = self.rings.fullest();
        if fullest == 0 {
            return None;
        }
        let (env, slot) = words.below_both(self.rings.num_envs() as u64, fullest);
        self.rings.find(env as usize, slot as usize)
    }

    fn follows(&self, place: &Place) -> bool {
        self.rings.later(*place) > 0
    }

    /// A row drawn after a first candidate was rejected: a uniform one among the eligible.
    #[cold]
    fn other_row(&self, words: &mut Words, eligible: &mut Eligible) -> Result<Place> {
        let found = (0..TRIES).find_map(|_| self.try_stored(words).filter(|place| self.follows(place)));
        found.map_or_else(|| self.rare_row(words, eligible), Ok)
    }

    /// A uniform choice from a list of all eligible rows: where few rows are eligible, rejection would take for ever.
    /// It follows `TRIES` rejections, which say nothing about which eligible row would have come: still uniform.
    #[cold]
    #[allow(clippy::cast_possible_truncation)] // Below the length of a list.
    fn rare_row(&self, words: &mut Words, eligible: &mut Eligible) -> Result<Place> {
        for _ in 0..ROUNDS {
            let listed = eligible.get_or_init(|| self.list());
            if listed.is_empty() {
                return Err(self.nothing());
            }
            for _ in 0..TRIES {
                let (env, slot) = listed[words.below(listed.len() as u64) as usize];
                if let Some(place) = self.rings.find(env, slot).filter(|place| self.follows(place)) {
                    return Ok(place);
                }
            }
            eligible.take(); // Writers have changed what the list says.
        }
        Err(overtaken())
    }

    fn list(&self) -> Vec<(usize, usize)> {
        let slots = |env| (0..self.rings.length()).map(move |slot| (env, slot));
        let follows = |&(env, slot): &_| self.rings.find(env, slot).is_some_and(|place| self.follows(&place));
        (0..self.rings.num_envs()).flat_map(slots).filter(follows).collect()
    }

    /// A row drawn uniformly among all that are stored.
    #[allow(clippy::cast_possible_truncation)] // Below the number of slots.
    fn any_row(&self, words: &mut Words) -> Result<Place> {
        for _ in 0..TRIES {
            if let Some(place) = self.try_stored(words) {
                return Ok(place);
            }
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
        Err(self.nothing())
    }

    fn nothing(&self) -> Error {
        let stored: u64 = (0..self.rings.num_envs()).map(|env| self.rings.stored(env)).sum();
        Error::Empty(if stored == 0 {
            "sample: the buffer is empty; add rows first".into()
        } else {
            format!(
                "sample: none of the {stored} stored rows has a successor in its trajectory; add a second row to one \
                 (episode_start is true only at the first row of a trajectory)"
            )
        })
    }

    /// Loads a word of each of these cache lines of every pick. The loads do not depend on each other, so they overlap
    /// as prefetches would.
    fn touch(&self, picks: &[Pick], touches: &[(Source, usize)]) {
        for &(source, word) in touches {
            black_box(picks.iter().fold(0, |sum, pick| sum ^ self.rings.touch(pick.of(source), word)));
        }
    }

    /// Copies the picks to the rows of the outputs from `first` on.
    fn copy(&self, picks: &[Pick], first: usize, outputs: &mut [&mut [u8]]) {
        for (output, memory) in self.request.outputs.iter().zip(outputs) {
            let bytes = output.bytes();
            let rows = memory[first * bytes..(first + picks.len()) * bytes].chunks_exact_mut(bytes);
            match *output {
                Output::Offset => {
                    for (pick, row) in picks.iter().zip(rows) {
                        row.copy_from_slice(&pick.offset.to_ne_bytes());
                    }
                }
                Output::Field(source, field) => {
                    for (pick, row) in picks.iter().zip(rows) {
                        self.rings.read(pick.of(source), field, row);
                    }
                }
            }
        }
    }

    fn lives(&self, pick: &Pick) -> bool {
        let lives = |place: Place| self.rings.lives(place.env, place.t);
        // A goal in the row's own trajectory is later, so it lives as long.
        lives(pick.row) && (pick.strategy != Strategy::Random || lives(pick.goal))
    }

    /// Draws a row again, with further words of its own, until no writer overtakes it.
    #[cold]
    fn again(&self, mut pick: Pick, row: usize, outputs: &mut [&mut [u8]], eligible: &mut Eligible) -> Result<()> {
        for _ in 0..ROUNDS {
            pick.row = self.other_row(&mut pick.words, eligible)?;
            self.complete(&mut pick, eligible)?;
            self.copy(&[pick], row, outputs);
            Rings::settle();
            if self.lives(&pick) {
                return Ok(());
            }
        }
        Err(overtaken())
    }
}

#[cold]
fn overtaken() -> Error {
    Error::Busy("sample: writers overwrite rows faster than they can be copied; give the buffer more capacity".into())
}

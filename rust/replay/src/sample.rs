//! Drawing batches: (seed, batch, row) → (environment, row, offset) → bytes in the caller's memory.
//!
//! Rows go in blocks. A block is drawn first, then the cache lines it needs are touched, so that many of them travel
//! at once, and then each output is copied in one pass; at last the block asks which of its rows were overwritten
//! meanwhile, and draws those again.
use std::hint::black_box;

use crate::draw::{Draw, ROUNDS, overtaken};
use crate::error::{Error, Result};
use crate::goal::{Goals, Strategy};
use crate::layout::{Column, DType, Field, LINE, Layout, WORD};
use crate::n_step::{Ahead, NStep};
use crate::ring::{Place, Rings};
use crate::rng::{Stream, Words};

/// Rows drawn, then touched, then copied together.
const BLOCK: usize = 64;
/// Cache lines touched ahead in one record; the processor follows a longer one by itself.
const TOUCHED_LINES: usize = 4;
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// A stored column of one of the three rows.
    Field(Source, Field),
    /// How many rows after the row the goal lies: an `i32`.
    Offset,
    /// What the next rows together tell.
    Ahead(Ahead),
}

impl Output {
    /// Bytes of one row of it.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Field(_, field) => field.bytes,
            Self::Offset => size_of::<i32>(),
            Self::Ahead(ahead) => ahead.bytes(),
        }
    }
}

/// What to sample: the law of the goal, and the columns to copy.
#[derive(Clone, Debug)]
pub struct Request {
    goals: Goals,
    outputs: Vec<Output>,
    columns: Vec<Column>,
    /// One word on each cache line that the outputs need of the row and the next, and of the goal.
    row_touches: Vec<(Source, usize)>,
    goal_touches: Vec<(Source, usize)>,
}

impl Request {
    /// A request for the outputs of these names, which [`crate::Buffer::request`] explains.
    pub(crate) fn new(layout: &Layout, goals: Goals, n_step: Option<NStep>, names: &[String]) -> Result<Self> {
        let found = names.iter().map(|name| output(layout, n_step, name));
        let (outputs, columns): (Vec<_>, _) = found.collect::<Result<Vec<_>>>()?.into_iter().unzip();
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
        Ok(Self { goals, outputs, columns, row_touches, goal_touches })
    }

    /// The outputs, in the order of the memory that [`crate::Buffer::sample`] is given.
    #[must_use]
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Name, type and shape of one row of each output.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }
}

/// The output called so, described as a column.
fn output(layout: &Layout, n_step: Option<NStep>, name: &str) -> Result<(Output, Column)> {
    if name == "offset" {
        return Ok((Output::Offset, Column { name: name.into(), dtype: DType::I32, shape: vec![] }));
    }
    if let Some((source, index)) = stored(layout, name) {
        let column = Column { name: name.into(), ..layout.columns()[index].clone() };
        return Ok((Output::Field(source, layout.fields()[index]), column));
    }
    match (name.strip_prefix("n_step_"), n_step) {
        (Some(what), Some(n_step)) => n_step.output(layout, what).map(|(ahead, column)| (Output::Ahead(ahead), column)),
        (Some(_), None) => {
            Err(Error::Invalid(format!("columns: {name} needs n_step, the number of rows to look ahead")))
        }
        (None, _) => Err(unknown(layout, name)),
    }
}

pub(crate) fn unknown(layout: &Layout, name: &str) -> Error {
    let known: Vec<_> = layout.columns().iter().map(|column| column.name.as_str()).collect();
    let known = known.join(", ");
    Error::Invalid(format!("columns: expected one of {known}, each also with the prefix next_ or goal_; got {name:?}"))
}

/// The row and the index of the column that `name` stands for: `goal` (the achieved goal of the goal row), a column,
/// or a column with the prefix `next_` or `goal_` for the next row's or the goal row's.
pub(crate) fn stored(layout: &Layout, name: &str) -> Option<(Source, usize)> {
    let (source, column) = match name {
        "goal" => (Source::Goal, "achieved_goal"),
        _ if layout.find(name).is_some() => (Source::Row, name),
        _ => match (name.strip_prefix("next_"), name.strip_prefix("goal_")) {
            (Some(column), _) => (Source::Next, column),
            (_, Some(column)) => (Source::Goal, column),
            _ => return None,
        },
    };
    layout.find(column).map(|index| (source, index))
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
        let mut draw = Draw::new(self.rings, 1);
        let (mut batch, mut row) = (from / self.batch_size, from % self.batch_size);
        let mut stream = Stream::new(self.seed, self.first_batch + batch as u64);
        for done in (0..rows).step_by(BLOCK) {
            let picks = &mut picks[..BLOCK.min(rows - done)];
            for pick in &mut *picks {
                if row == self.batch_size {
                    (batch, row) = (batch + 1, 0);
                    stream = Stream::new(self.seed, self.first_batch + batch as u64);
                }
                *pick = self.begin(stream.row(row as u64), &mut draw)?;
                row += 1;
            }
            self.touch(picks, &self.request.row_touches);
            for pick in &mut *picks {
                self.complete(pick, &mut draw)?;
            }
            self.touch(picks, &self.request.goal_touches);
            self.copy(picks, done, outputs);
            Rings::settle();
            for (i, pick) in picks.iter().enumerate() {
                if !self.lives(pick) {
                    self.again(*pick, done + i, outputs, &mut draw)?;
                }
            }
        }
        Ok(())
    }

    /// Chooses the strategy of a row, and a first candidate for the row itself.
    #[inline]
    fn begin(&self, mut words: Words, draw: &mut Draw<'_>) -> Result<Pick> {
        let strategy = self.request.goals.choose(&mut words);
        let row = match draw.candidate(&mut words) {
            Some(row) => row,
            None => draw.other(&mut words)?,
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
    #[inline]
    fn complete(&self, pick: &mut Pick, draw: &mut Draw<'_>) -> Result<()> {
        let mut later = self.rings.later(pick.row);
        while later == 0 {
            pick.row = draw.other(&mut pick.words)?;
            later = self.rings.later(pick.row);
        }
        pick.offset = self.request.goals.offset(pick.strategy, later, &mut pick.words);
        pick.goal = match pick.strategy {
            Strategy::Random => draw.any(&mut pick.words)?,
            _ => self.rings.ahead(pick.row, pick.offset),
        };
        pick.index = [pick.row, self.rings.ahead(pick.row, 1), pick.goal].map(|place| self.rings.index(place));
        Ok(())
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
                Output::Ahead(ahead) => {
                    for (pick, row) in picks.iter().zip(rows) {
                        ahead.read(self.rings, pick.row, row);
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
    fn again(&self, mut pick: Pick, row: usize, outputs: &mut [&mut [u8]], draw: &mut Draw<'_>) -> Result<()> {
        for _ in 0..ROUNDS {
            pick.row = draw.other(&mut pick.words)?;
            self.complete(&mut pick, draw)?;
            self.copy(&[pick], row, outputs);
            Rings::settle();
            if self.lives(&pick) {
                return Ok(());
            }
        }
        Err(overtaken())
    }
}

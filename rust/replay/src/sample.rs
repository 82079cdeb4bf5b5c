//! Drawing batches: (seed, batch, row) → (environment, row, offset) → bytes in the caller's memory.
//!
//! Rows go in blocks through three stages. The first draws rows and asks for their cache lines. The second, a block
//! later, looks into the rows, draws their goals and asks for the lines of these. The third copies each output in one
//! pass, asks which rows were overwritten meanwhile, and draws those again. So nobody waits for memory: while lines
//! travel, the other stages work on other blocks.
use std::slice;

use crate::draw::{Draw, ROUNDS, overtaken};
use crate::error::{Error, Result};
use crate::goal::{Goals, Strategy};
use crate::layout::{Column, DType, FETCHED_LINES, Field, LINE, LINE_BYTES, Layout, WORD};
use crate::n_step::{Ahead, NStep};
use crate::ring::{Place, Rings};
use crate::rng::{Stream, Words};
use crate::words::prefetch;

/// Rows that go through a stage together.
const BLOCK: usize = 32;
const STAGES: usize = 3;
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
    bytes: Vec<usize>,
    /// One word on each cache line that the outputs need of the row, of the next, and of the goal.
    lines: [Vec<usize>; 3],
}

impl Request {
    /// A request for the outputs of these names, which [`crate::Buffer::request`] explains.
    pub(crate) fn new(layout: &Layout, goals: Goals, n_step: Option<NStep>, names: &[String]) -> Result<Self> {
        let found = names.iter().map(|name| output(layout, n_step, name));
        let (outputs, columns): (Vec<_>, _) = found.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let mut lines = [vec![0], vec![], vec![]]; // The header of the row tells the trajectory.
        for output in &outputs {
            if let Output::Field(source, field) = *output {
                let lines = &mut lines[source as usize];
                let end = field.word + field.bytes.div_ceil(WORD);
                for line in (field.word / LINE..end.div_ceil(LINE)).take(FETCHED_LINES) {
                    if !lines.iter().any(|word| word / LINE == line) {
                        lines.push((line * LINE).max(field.word));
                    }
                }
            }
        }
        let bytes = outputs.iter().map(|output| output.bytes()).collect();
        Ok(Self { goals, outputs, columns, bytes, lines })
    }

    /// The outputs, in the order of the memory that [`crate::Buffer::sample`] is given.
    #[must_use]
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Bytes of one row of each output.
    pub(crate) fn bytes(&self) -> &[usize] {
        &self.bytes
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
    row: Place,
    /// Records of the row and the goal.
    index: usize,
    goal_index: usize,
    /// The goal, where it is not in the row's own trajectory.
    stranger: Place,
    /// Rows that follow it in its trajectory, and how many of them the goal is ahead.
    later: u32,
    offset: u32,
    strategy: Strategy,
    words: Words,
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
        let mut draw = Draw::new(self.rings, 1);
        let mut addresses = self.addresses(from);
        let mut stages = [[Pick::default(); BLOCK]; STAGES];
        let blocks = rows.div_ceil(BLOCK);
        let size = |block: usize| BLOCK.min(rows - block * BLOCK);
        for step in 0..blocks + STAGES - 1 {
            if step < blocks {
                self.begin(&mut stages[step % STAGES][..size(step)], &mut addresses, &mut draw)?;
                self.fetch_outputs(step * BLOCK, size(step), outputs);
            }
            if let Some(block) = step.checked_sub(1).filter(|block| *block < blocks) {
                self.complete(&mut stages[block % STAGES][..size(block)], &mut draw)?;
            }
            let mut fresh = stages[step % STAGES][..if step < blocks { size(step) } else { 0 }].iter();
            if let Some(block) = step.checked_sub(2) {
                let picks = &stages[block % STAGES][..size(block)];
                self.deliver(picks, &mut fresh, block * BLOCK, outputs, &mut draw)?;
            }
            fresh.for_each(|pick| self.fetch(pick));
        }
        Ok(())
    }

    /// The randomness of each row from `from` on, through consecutive batches.
    fn addresses(&self, from: usize) -> impl FnMut() -> Words {
        let (mut batch, mut row) = (self.first_batch + (from / self.batch_size) as u64, from % self.batch_size);
        let (seed, batch_size) = (self.seed, self.batch_size);
        let mut stream = Stream::new(seed, batch);
        move || {
            if row == batch_size {
                (batch, row) = (batch + 1, 0);
                stream = Stream::new(seed, batch);
            }
            row += 1;
            stream.row(row as u64 - 1)
        }
    }

    /// Chooses the strategy of each row, and a first candidate for the row itself.
    ///
    /// Short loops, one after the other: what a row waits for in one of them is little, so the processor, which looks
    /// some hundred instructions ahead, works on many rows at once.
    #[inline(never)]
    fn begin(&self, picks: &mut [Pick], addresses: &mut impl FnMut() -> Words, draw: &mut Draw<'_>) -> Result<()> {
        for pick in &mut *picks {
            pick.words = addresses();
            pick.strategy = self.request.goals.choose(&mut pick.words);
            (pick.row.env, pick.row.slot) = draw.slot(&mut pick.words);
        }
        for pick in &mut *picks {
            pick.row = match self.rings.find(pick.row.env, pick.row.slot) {
                Some(row) => row,
                None => draw.other(&mut pick.words)?,
            };
            pick.index = self.rings.index(pick.row);
        }
        Ok(())
    }

    /// Asks for the cache lines of a row and of the next.
    #[inline]
    fn fetch(&self, pick: &Pick) {
        let [row_lines, next_lines, _] = &self.request.lines;
        for word in row_lines {
            self.rings.prefetch(pick.index, *word);
        }
        if !next_lines.is_empty() {
            let next = self.next(pick);
            for word in next_lines {
                self.rings.prefetch(next, *word);
            }
        }
    }

    /// Rejects candidates that nothing follows in their trajectory, and draws the goals.
    #[inline(never)]
    fn complete(&self, picks: &mut [Pick], draw: &mut Draw<'_>) -> Result<()> {
        for pick in &mut *picks {
            pick.later = self.rings.later(pick.row);
            while pick.later == 0 {
                pick.row = draw.other(&mut pick.words)?;
                pick.later = self.rings.later(pick.row);
                pick.index = self.rings.index(pick.row);
            }
        }
        for pick in &mut *picks {
            pick.offset = self.request.goals.offset(pick.strategy, pick.later, &mut pick.words);
        }
        for pick in &mut *picks {
            pick.goal_index = if pick.strategy == Strategy::Random {
                pick.stranger = draw.any(&mut pick.words)?;
                self.rings.index(pick.stranger)
            } else {
                self.rings.index(self.rings.ahead(pick.row, pick.offset))
            };
        }
        let goal_lines = &self.request.lines[Source::Goal as usize];
        for pick in &*picks {
            for word in goal_lines {
                self.rings.prefetch(pick.goal_index, *word);
            }
        }
        Ok(())
    }

    /// Copies the picks to the rows of the outputs from `first` on, and draws those again that a writer overtook.
    #[inline(never)]
    fn deliver(
        &self,
        picks: &[Pick],
        fresh: &mut slice::Iter<'_, Pick>,
        first: usize,
        outputs: &mut [&mut [u8]],
        draw: &mut Draw<'_>,
    ) -> Result<()> {
        self.copy(picks, fresh, first, outputs);
        Rings::settle();
        for (i, pick) in picks.iter().enumerate() {
            if !self.lives(pick) {
                self.again(*pick, first + i, outputs, draw)?;
            }
        }
        Ok(())
    }

    /// The record of the row after this one.
    #[inline]
    fn next(&self, pick: &Pick) -> usize {
        self.rings.index(self.rings.beside(pick.row))
    }

    /// Asks for the cache lines that are going to be written: words are stored one by one, and to a line that is far
    /// away few stores can be under way.
    fn fetch_outputs(&self, first: usize, rows: usize, outputs: &[&mut [u8]]) {
        for (output, memory) in self.request.outputs.iter().zip(outputs) {
            let bytes = output.bytes();
            let memory = &memory[first * bytes..(first + rows) * bytes];
            memory.iter().step_by(LINE_BYTES).for_each(|byte| prefetch(byte));
        }
    }

    /// Copies the picks to the rows of the outputs from `first` on. With each row it asks for the lines of one of the
    /// fresh picks: memory takes as many at a time as it can, and copies while it works.
    fn copy(&self, picks: &[Pick], fresh: &mut slice::Iter<'_, Pick>, first: usize, outputs: &mut [&mut [u8]]) {
        for (output, memory) in self.request.outputs.iter().zip(outputs) {
            let bytes = output.bytes();
            let memory = &mut memory[first * bytes..(first + picks.len()) * bytes];
            match *output {
                Output::Offset => {
                    let (rows, _) = memory.as_chunks_mut();
                    picks.iter().zip(rows).for_each(|(pick, row)| *row = pick.offset.to_ne_bytes());
                }
                Output::Field(source, field) => {
                    let record = |pick: &Pick| {
                        if let Some(pick) = fresh.next() {
                            self.fetch(pick);
                        }
                        match source {
                            Source::Row => pick.index,
                            Source::Next => self.next(pick),
                            Source::Goal => pick.goal_index,
                        }
                    };
                    self.rings.gather(picks.iter().map(record), field, memory);
                }
                Output::Ahead(ahead) => {
                    for (pick, row) in picks.iter().zip(memory.chunks_exact_mut(bytes)) {
                        ahead.read(self.rings, pick.row, row);
                    }
                }
            }
        }
    }

    fn lives(&self, pick: &Pick) -> bool {
        let lives = |place: Place| self.rings.lives(place.env, place.t);
        // A goal in the row's own trajectory is later, so it lives as long.
        lives(pick.row) && (pick.strategy != Strategy::Random || lives(pick.stranger))
    }

    /// Draws a row again, with further words of its own, until no writer overtakes it.
    #[cold]
    fn again(&self, mut pick: Pick, row: usize, outputs: &mut [&mut [u8]], draw: &mut Draw<'_>) -> Result<()> {
        for _ in 0..ROUNDS {
            pick.row = draw.other(&mut pick.words)?;
            pick.index = self.rings.index(pick.row);
            self.complete(slice::from_mut(&mut pick), draw)?;
            self.copy(&[pick], &mut [].iter(), row, outputs);
            Rings::settle();
            if self.lives(&pick) {
                return Ok(());
            }
        }
        Err(overtaken())
    }
}

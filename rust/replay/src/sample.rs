//! Drawing batches: (seed, batch, row) → (environment, row, offset) → bytes in the caller's memory.
//!
//! Rows go in blocks through three stages. The first draws rows, and asks for the cache line of each that tells its
//! trajectory. The second, a block later, looks into the rows, draws their goals, and asks for the lines of these. The
//! third copies each output in one pass, asks which rows were overwritten meanwhile, and draws those again; with each
//! row that it copies it asks for the other lines of a row that the first stage drew. So nobody waits for memory, and
//! it brings lines all the time: asked for all at once they would stand in a queue, and then nobody has asked for any.
use crate::draw::{Draw, ROUNDS, overtaken};
use crate::error::{Error, Result};
use crate::goal::{Goals, Strategy};
use crate::layout::{Column, DType, FETCHED_LINES, Field, LINE, Layout, WORD};
use crate::n_step::{Ahead, NStep};
use crate::ring::{Place, Record, Rings};
use crate::rng::{Stream, Words};

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
    /// One word on each cache line that the outputs need of the row, without the first, of the next, and of the goal.
    lines: [Vec<usize>; 3],
    /// The stored column that takes longest to copy.
    longest: Option<usize>,
}

impl Request {
    /// A request for the outputs of these names, which [`crate::Buffer::request`] explains.
    pub(crate) fn new(layout: &Layout, goals: Goals, n_step: Option<NStep>, names: &[String]) -> Result<Self> {
        let found = names.iter().map(|name| output(layout, n_step, name));
        let (outputs, columns): (Vec<_>, _) = found.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let mut lines = [vec![], vec![], vec![]];
        for output in &outputs {
            if let Output::Field(source, field) = *output {
                let lines = &mut lines[source as usize];
                let end = field.word + field.bytes.div_ceil(WORD);
                for line in (field.word / LINE..end.div_ceil(LINE)).take(FETCHED_LINES) {
                    let is_asked_already = source == Source::Row && line == 0;
                    if !is_asked_already && !lines.iter().any(|word| word / LINE == line) {
                        lines.push((line * LINE).max(field.word));
                    }
                }
            }
        }
        let bytes: Vec<_> = outputs.iter().map(|output| output.bytes()).collect();
        let stored = |index: &usize| matches!(outputs[*index], Output::Field(..));
        let longest = (0..outputs.len()).filter(stored).max_by_key(|index| bytes[*index]);
        Ok(Self { goals, outputs, columns, bytes, lines, longest })
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

/// The row and the index of the column that `name` stands for: `goal` (the achieved goal of the goal row, or, if rows
/// have none, its observation), a column, or a column with the prefix `next_` or `goal_` for the next row's or the
/// goal row's.
pub(crate) fn stored(layout: &Layout, name: &str) -> Option<(Source, usize)> {
    let (source, column) = match name {
        "goal" if layout.find("achieved_goal").is_none() => (Source::Goal, "observation"),
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

/// One row of a batch, and what tells whether it still lives.
#[derive(Clone, Copy, Default)]
struct Pick {
    row: Place,
    /// Environment and number of the goal, where it is not in the row's own trajectory.
    stranger: (usize, u64),
    /// Rows that follow it in its trajectory.
    later: u32,
    strategy: Strategy,
    words: Words,
}

/// Rows that go through a stage together.
#[derive(Clone, Copy)]
struct Block<const N: usize = BLOCK> {
    rows: usize,
    picks: [Pick; N],
    /// How many rows after its row each goal lies.
    offsets: [u32; N],
    /// Where to copy from: for each [`Source`] the records.
    records: [[Record; N]; 3],
}

impl<const N: usize> Default for Block<N> {
    fn default() -> Self {
        Self { rows: 0, picks: [Pick::default(); N], offsets: [0; N], records: [[Record::default(); N]; 3] }
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
        let mut draw = Draw::new(self.rings, 1);
        let mut blocks = [Block::default(); STAGES];
        let [mut first, mut second, mut third] = blocks.each_mut();
        for step in 0..rows.div_ceil(BLOCK) + STAGES - 1 {
            first.rows = BLOCK.min(rows.saturating_sub(step * BLOCK));
            self.begin(first, from + step * BLOCK, &mut draw)?;
            self.complete(second, &mut draw)?;
            let [records, nexts, _] = &first.records;
            let wanted = [&records[..first.rows], &nexts[..first.rows]];
            self.deliver(third, &wanted, (step * BLOCK).saturating_sub(2 * BLOCK), outputs, &mut draw)?;
            let asked = self.request.longest.map_or(0, |_| third.rows);
            (asked..BLOCK).for_each(|i| self.fetch(&wanted, i));
            (first, second, third) = (third, first, second);
        }
        Ok(())
    }

    /// Asks for the cache lines that the outputs need of the row at place `i` and of the next.
    #[inline]
    fn fetch(&self, records: &[&[Record]; 2], i: usize) {
        for (records, lines) in records.iter().zip(&self.request.lines) {
            if let Some(record) = records.get(i) {
                self.rings.prefetch(*record, lines);
            }
        }
    }

    /// Chooses the strategy of each row, and a first candidate for the row itself.
    ///
    /// Short loops, one after the other: what a row waits for in one of them is little, so the processor, which looks
    /// some hundred instructions ahead, works on many rows at once.
    #[inline(never)]
    fn begin(&self, block: &mut Block, from: usize, draw: &mut Draw<'_>) -> Result<()> {
        let mut batch = self.first_batch.wrapping_add((from / self.batch_size) as u64);
        let mut row = from % self.batch_size;
        let only = self.request.goals.only();
        let picks = &mut block.picks[..block.rows];
        let mut rest = &mut *picks;
        while !rest.is_empty() {
            let (these, others) = rest.split_at_mut(rest.len().min(self.batch_size - row));
            let stream = Stream::new(self.seed, batch);
            for (row, pick) in (row as u64..).zip(these) {
                pick.words = stream.row(row);
                pick.strategy = only.unwrap_or_else(|| self.request.goals.choose(&mut pick.words));
                (pick.row.env, pick.row.slot) = draw.slot(&mut pick.words);
            }
            (rest, batch, row) = (others, batch.wrapping_add(1), 0);
        }
        let [records, nexts, _] = &mut block.records;
        for (pick, record) in picks.iter_mut().zip(&mut *records) {
            pick.row = match self.rings.find(pick.row.env, pick.row.slot) {
                Some(row) => row,
                None => draw.other(&mut pick.words)?,
            };
            *record = self.rings.record(pick.row);
            self.rings.prefetch(*record, &[0]);
        }
        if !self.request.lines[Source::Next as usize].is_empty() {
            for (pick, next) in picks.iter().zip(nexts) {
                *next = self.rings.record(self.rings.beside(pick.row));
            }
        }
        Ok(())
    }

    /// Rejects candidates that nothing follows in their trajectory, and draws the goals.
    #[inline(never)]
    fn complete<const N: usize>(&self, block: &mut Block<N>, draw: &mut Draw<'_>) -> Result<()> {
        let [records, nexts, goals] = &mut block.records;
        let picks = &mut block.picks[..block.rows];
        for (i, pick) in picks.iter_mut().enumerate() {
            pick.later = self.rings.later(pick.row);
            while pick.later == 0 {
                pick.row = draw.other(&mut pick.words)?;
                pick.later = self.rings.later(pick.row);
                records[i] = self.rings.record(pick.row);
                nexts[i] = self.rings.record(self.rings.beside(pick.row));
            }
        }
        for (pick, offset) in picks.iter_mut().zip(&mut block.offsets) {
            *offset = self.request.goals.offset(pick.strategy, pick.later, &mut pick.words);
        }
        for ((pick, offset), goal) in picks.iter_mut().zip(&block.offsets).zip(&mut *goals) {
            *goal = if pick.strategy == Strategy::Random {
                let stranger = draw.any(&mut pick.words)?;
                pick.stranger = (stranger.env, stranger.t);
                self.rings.record(stranger)
            } else {
                self.rings.record(self.rings.ahead(pick.row, *offset))
            };
            self.rings.prefetch(*goal, &self.request.lines[2]);
        }
        Ok(())
    }

    /// Copies a block to the rows of the outputs from `first` on, and draws those again that a writer overtook.
    #[inline(never)]
    fn deliver(
        &self,
        block: &Block,
        wanted: &[&[Record]; 2],
        first: usize,
        outputs: &mut [&mut [u8]],
        draw: &mut Draw<'_>,
    ) -> Result<()> {
        self.copy(block, wanted, first, outputs);
        Rings::settle();
        for (i, pick) in block.picks[..block.rows].iter().enumerate() {
            if !self.lives(pick) {
                self.again(*pick, first + i, outputs, draw)?;
            }
        }
        Ok(())
    }

    /// Copies a block to the rows of the outputs from `first` on. With each row of the longest output it asks for the
    /// other lines of the wanted records at one place.
    fn copy<const N: usize>(&self, block: &Block<N>, wanted: &[&[Record]; 2], first: usize, outputs: &mut [&mut [u8]]) {
        let rows = block.rows;
        for (i, (output, memory)) in self.request.outputs.iter().zip(outputs).enumerate() {
            let bytes = output.bytes();
            let memory = &mut memory[first * bytes..(first + rows) * bytes];
            match *output {
                Output::Offset => memory.copy_from_slice(bytemuck::cast_slice(&block.offsets[..rows])),
                Output::Field(source, field) => {
                    let records = &block.records[source as usize][..rows];
                    if Some(i) == self.request.longest {
                        self.rings.gather(records, field, memory, |i| self.fetch(wanted, i));
                    } else {
                        self.rings.gather(records, field, memory, |_| ());
                    }
                }
                Output::Ahead(ahead) => {
                    for (pick, row) in block.picks.iter().zip(memory.chunks_exact_mut(bytes)) {
                        ahead.read(self.rings, pick.row, row);
                    }
                }
            }
        }
    }

    #[inline]
    fn lives(&self, pick: &Pick) -> bool {
        let (env, t) = pick.stranger;
        // A goal in the row's own trajectory is later, so it lives as long.
        self.rings.lives(pick.row.env, pick.row.t) && (pick.strategy != Strategy::Random || self.rings.lives(env, t))
    }

    /// Draws a row again, with further words of its own, until no writer overtakes it.
    #[cold]
    fn again(&self, pick: Pick, row: usize, outputs: &mut [&mut [u8]], draw: &mut Draw<'_>) -> Result<()> {
        let mut block = Block { rows: 1, picks: [pick], offsets: [0], records: [[Record::default()]; 3] };
        for _ in 0..ROUNDS {
            let [pick] = &mut block.picks;
            pick.row = draw.other(&mut pick.words)?;
            block.records[0] = [self.rings.record(pick.row)];
            block.records[1] = [self.rings.record(self.rings.beside(pick.row))];
            self.complete(&mut block, draw)?;
            self.copy(&block, &[&[]; 2], row, outputs);
            Rings::settle();
            if self.lives(&block.picks[0]) {
                return Ok(());
            }
        }
        Err(overtaken())
    }
}

//! Segments: consecutive rows of one trajectory, for models of sequences.
use crate::draw::{Draw, ROUNDS, overtaken};
use crate::error::{Error, Result};
use crate::goal::{Goals, Strategy};
use crate::layout::{Column, DType, Field, Layout};
use crate::ring::{Place, Rings};
use crate::rng::{Stream, Words};
use crate::sample::{Source, stored, unknown};

/// The row of a segment in whose future its goal lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoalFrom {
    /// The first: the goal may be reached within the segment.
    First,
    /// The last: the goal lies beyond the segment.
    Last,
}

impl GoalFrom {
    /// The row called so.
    ///
    /// # Errors
    /// `Invalid` for any other name than `first` and `last`.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "first" => Ok(Self::First),
            "last" => Ok(Self::Last),
            _ => Err(Error::Invalid(format!("goal_from: expected \"first\" or \"last\"; got {name:?}"))),
        }
    }
}

/// The segments that are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    /// Rows of a segment.
    pub length: u32,
    /// Whether segments that the end of their trajectory cuts short are wanted too.
    pub partial: bool,
    /// The row in whose future the goal lies.
    pub goal_from: GoalFrom,
}

/// What to sample: which segments, the law of the goal, and the columns to copy.
#[derive(Clone, Debug)]
pub struct SegmentRequest {
    segments: Segments,
    goals: Goals,
    parts: Vec<Part>,
    columns: Vec<Column>,
    /// Bytes of one segment of each output.
    bytes: Vec<usize>,
}

/// One column of a batch of segments.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// A column of each row, or of the one after each.
    Rows(Field, u32),
    Goal(Field),
    Offset,
    /// Which rows there are: the rest is padding.
    Mask,
}

impl SegmentRequest {
    pub(crate) fn new(layout: &Layout, segments: Segments, goals: Goals, names: &[String]) -> Result<Self> {
        let length = segments.length as usize;
        let column = |name: &String| {
            let (part, shape, dtype) = match name.as_str() {
                "offset" => (Part::Offset, vec![], DType::I32),
                "mask" => (Part::Mask, vec![length], DType::Bool),
                name => {
                    let (source, index) = stored(layout, name).ok_or_else(|| unknown(layout, name))?;
                    let (field, column) = (layout.fields()[index], &layout.columns()[index]);
                    let (part, lead) = match source {
                        Source::Row => (Part::Rows(field, 0), Some(length)),
                        Source::Next => (Part::Rows(field, 1), Some(length)),
                        Source::Goal => (Part::Goal(field), None),
                    };
                    (part, lead.into_iter().chain(column.shape.iter().copied()).collect(), column.dtype)
                }
            };
            Ok((part, Column { name: name.clone(), dtype, shape }))
        };
        let (parts, columns): (_, Vec<_>) = names.iter().map(column).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        // An overflow is no array that a caller could have.
        let bytes = columns.iter().map(|column| column.bytes().unwrap_or(usize::MAX)).collect();
        Ok(Self { segments, goals, parts, columns, bytes })
    }

    /// Name, type and shape of one segment of each output.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Bytes of one segment of each output.
    pub(crate) fn bytes(&self) -> &[usize] {
        &self.bytes
    }
}

/// Draws the segments of some consecutive batches.
pub(crate) struct SegmentSampler<'a> {
    pub(crate) rings: &'a Rings,
    pub(crate) request: &'a SegmentRequest,
    pub(crate) seed: u64,
    pub(crate) first_batch: u64,
    pub(crate) batch_size: usize,
}

/// A segment that was drawn.
struct Segment {
    first: Place,
    rows: u32,
    goal: Place,
    offset: u32,
}

impl SegmentSampler<'_> {
    /// Fills `count` segments of each output, the first being segment `from` of the batches laid end to end.
    pub(crate) fn fill(&self, from: usize, count: usize, outputs: &mut [&mut [u8]]) -> Result<()> {
        let Segments { length, partial, .. } = self.request.segments;
        let mut draw = Draw::new(self.rings, if partial { 1 } else { length });
        for i in 0..count {
            let (batch, row) = ((from + i) / self.batch_size, (from + i) % self.batch_size);
            let mut words = Stream::new(self.seed, self.first_batch + batch as u64).row(row as u64);
            self.fill_one(&mut words, &mut draw, i, outputs)?;
        }
        Ok(())
    }

    /// Draws and copies a segment, and does so again if a writer has overtaken it.
    fn fill_one(&self, words: &mut Words, draw: &mut Draw<'_>, at: usize, outputs: &mut [&mut [u8]]) -> Result<()> {
        let strategy = self.request.goals.choose(words);
        for _ in 0..ROUNDS {
            let Some(segment) = self.draw(strategy, words, draw)? else { continue };
            self.copy(&segment, at, outputs);
            Rings::settle();
            let lives = |place: Place| self.rings.lives(place.env, place.t);
            // All rows of the segment are later than its first, and so is a goal of its own trajectory.
            if lives(segment.first) && (strategy != Strategy::Random || lives(segment.goal)) {
                return Ok(());
            }
        }
        Err(overtaken())
    }

    fn draw(&self, strategy: Strategy, words: &mut Words, draw: &mut Draw<'_>) -> Result<Option<Segment>> {
        let Segments { length, partial, goal_from } = self.request.segments;
        let first = draw.row(words)?;
        let later = self.rings.later(first);
        if later < if partial { 1 } else { length } {
            return Ok(None); // It was overwritten since.
        }
        let rows = later.min(length);
        let base = match goal_from {
            GoalFrom::First => 0,
            GoalFrom::Last => rows - 1,
        };
        let offset = self.request.goals.offset(strategy, later - base, words);
        let goal = match strategy {
            Strategy::Random => draw.any(words)?,
            _ => self.rings.ahead(first, base + offset),
        };
        Ok(Some(Segment { first, rows, goal, offset }))
    }

    /// Copies a segment to place `at` of each output.
    fn copy(&self, segment: &Segment, at: usize, outputs: &mut [&mut [u8]]) {
        let rows = segment.rows as usize;
        for ((part, bytes), memory) in self.request.parts.iter().zip(self.request.bytes()).zip(outputs) {
            let memory = &mut memory[at * bytes..(at + 1) * bytes];
            match *part {
                Part::Rows(field, ahead) => {
                    let (copied, padding) = memory.split_at_mut(rows * field.bytes);
                    for (k, row) in (ahead..).zip(copied.chunks_exact_mut(field.bytes)) {
                        self.rings.read(self.rings.record(self.rings.ahead(segment.first, k)), field, row);
                    }
                    padding.fill(0);
                }
                Part::Goal(field) => self.rings.read(self.rings.record(segment.goal), field, memory),
                Part::Offset => memory.copy_from_slice(&segment.offset.to_ne_bytes()),
                Part::Mask => {
                    let (there, padding) = memory.split_at_mut(rows);
                    there.fill(1);
                    padding.fill(0);
                }
            }
        }
    }
}

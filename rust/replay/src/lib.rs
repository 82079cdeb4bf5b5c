//! A lock-free trajectory buffer with exact truncated-geometric future-goal sampling.
//!
//! Rows of many environments go into one ring each; batches of (row, future row of the same trajectory) come out.
//! One writer for each environment, any number of samplers, no lock on either path: a writer never waits, and a
//! sampler never sees half a row, a goal of another trajectory, or a row that was overwritten while it was copied.
//!
//! # The protocol of a row, and its memory orderings
//!
//! Writer: `claimed = n + 1`; fence; write the words of row `n`; `published = n + 1`. Reader: read `published`, choose
//! a row `t` and a later one, copy words, fence; if `claimed > t + length`, row `t` may have been overwritten: draw again.
//! The words themselves are relaxed atomics, because a plain copy that races a writer is undefined even when it is
//! thrown away.
//!
//! | operation | ordering | pairs with | without it |
//! |---|---|---|---|
//! | writer: store `claimed` | relaxed, then release fence | the reader's acquire fence | a reader copies new words and still finds the old claim: a torn row |
//! | writer: store words and ends of trajectories | relaxed | | |
//! | writer: store `published` | release | the reader's load of `published` | a reader is sent to a row whose words it cannot see yet |
//! | reader: load `published` | acquire | the writer's store of it | the same, from the other side |
//! | reader: load words and ends of trajectories | relaxed | | |
//! | reader: acquire fence, then load `claimed` | relaxed after the fence | the writer's release fence | the claim is read before the words: a torn row |
//!
//! If any word that a reader copied was stored after a claim, the two fences order that claim before the reader's
//! second look at it, so the look shows it. A goal is later than its row, so one look covers both.
//!
//! `make loom` explores the interleavings of writers and a reader on toy rings, up to three preemptions, and shows for
//! each of the four orderings that without it a model fails (`interleavings.rs`); likewise the loader's ring
//! (`prefetch_interleavings.rs`). `make shuttle` tries the whole buffer under
//! random schedules of four threads (`schedules.rs`).
//!
//! `unsafe` is denied but for two calls in `words.rs`, which ask Linux for large pages and the processor for a cache line,
//! and three lines of `storage.rs`, which lend words out as the slice of atomics that they are, be they in memory or in a
//! mapped file.
pub mod buffer;
mod draw;
pub mod error;
#[cfg(all(test, not(any(loom, shuttle))))]
mod files;
pub mod geometric;
pub mod goal;
mod header;
#[cfg(all(test, loom))]
mod interleavings;
pub mod layout;
pub mod limit;
pub mod n_step;
mod pool;
pub mod prefetch;
#[cfg(all(test, loom))]
mod prefetch_interleavings;
#[cfg(all(test, not(any(loom, shuttle))))]
mod properties;
mod ring;
pub mod rng;
mod row_file;
pub mod sample;
#[cfg(all(test, shuttle))]
mod schedules;
pub mod segments;
mod snapshot;
mod storage;
mod sync;
mod words;
pub mod writer;

pub use buffer::{Buffer, Config};
pub use error::{Error, Result};
pub use writer::Writer;

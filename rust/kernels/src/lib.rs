//! What the learner does between its matrix products, on a CPU, in float32, on the calling thread.
//!
//! A library of single operations passes over memory once for each of them. Between two products of 256 by 256 that
//! takes as long as a third of the products; here a row is gone through while it is in the nearest cache.
// What is compiled for several processors has to be inlined into the function that names one.
#![allow(clippy::inline_always)]

pub mod distances;
pub mod norm_swish;
mod processor;

/// A length that does not fit the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misfit {
    /// Of what.
    pub name: &'static str,
    /// Its length.
    pub got: usize,
    /// The length that the others ask for.
    pub expected: usize,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} has {} entries, expected {}", self.name, self.got, self.expected)
    }
}

impl std::error::Error for Misfit {}

fn check(name: &'static str, slice: &[f32], expected: usize) -> Result<(), Misfit> {
    if slice.len() == expected { Ok(()) } else { Err(Misfit { name, got: slice.len(), expected }) }
}

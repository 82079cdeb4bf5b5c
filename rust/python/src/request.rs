//! Requests, and the descriptions of columns that go either way.
use crl_replay::buffer::Buffer as Core;
use crl_replay::error::Error;
use crl_replay::goal::{Goals, Strategy};
use crl_replay::layout::Column;
use crl_replay::sample::Request as RowRequest;
use crl_replay::segments::SegmentRequest;
use pyo3::prelude::*;

/// A column: name, name of its type, shape.
pub(crate) type Spec = (String, String, Vec<usize>);

pub(crate) fn spec(column: &Column) -> Spec {
    (column.name.clone(), column.dtype.name().into(), column.shape.clone())
}

/// A request that was understood: see `Buffer.request`.
#[pyclass(frozen)]
pub(crate) struct Request(pub(crate) Wanted);

pub(crate) enum Wanted {
    Rows(RowRequest),
    Segments(SegmentRequest),
}

impl Wanted {
    pub(crate) fn columns(&self) -> &[Column] {
        match self {
            Self::Rows(request) => request.columns(),
            Self::Segments(request) => request.columns(),
        }
    }

    pub(crate) fn sample(
        &self,
        core: &Core,
        batch_size: usize,
        num_batches: usize,
        first_batch: Option<u64>,
        outputs: &mut [&mut [u8]],
    ) -> Result<u64, Error> {
        match self {
            Self::Rows(request) => core.sample(request, batch_size, num_batches, first_batch, outputs),
            Self::Segments(request) => core.sample_segments(request, batch_size, num_batches, first_batch, outputs),
        }
    }
}

#[pymethods]
impl Request {
    #[getter]
    fn columns(&self) -> Vec<Spec> {
        self.0.columns().iter().map(spec).collect()
    }
}

/// Strategies with weights, as a law of goals.
pub(crate) fn laws(gamma: f64, goals: Vec<(String, f64)>) -> Result<Goals, Error> {
    let parse = |(name, weight): (String, f64)| Ok((Strategy::parse(&name)?, weight));
    Goals::new(gamma, &goals.into_iter().map(parse).collect::<Result<Vec<_>, Error>>()?)
}

//! `_core.Buffer`.
use std::path::PathBuf;
use std::sync::Arc;

use crl_replay::buffer::{Buffer as Core, Config};
use crl_replay::error::Error;
use crl_replay::layout::{Column, DType};
use crl_replay::n_step::NStep;
use crl_replay::segments::{GoalFrom, Segments};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::arrays::{Rows, Targets};
use crate::prefetch::Prefetch;
use crate::request::{Request, Spec, Wanted, laws, spec};
use crate::run;
use crate::writer::Writer;

/// The buffer behind `crl.TrajectoryBuffer`.
#[pyclass(frozen)]
pub(crate) struct Buffer(Arc<Core>);

#[pymethods]
impl Buffer {
    #[new]
    #[allow(clippy::too_many_arguments)] // By position, from one caller.
    fn new(
        py: Python<'_>,
        num_envs: usize,
        capacity: usize,
        columns: Vec<Spec>,
        seed: u64,
        check_finite: bool,
        threads: usize,
        path: Option<PathBuf>,
    ) -> PyResult<Self> {
        run(py, || {
            let column = |(name, dtype, shape): Spec| Ok(Column { name, dtype: DType::parse(&dtype)?, shape });
            let columns = columns.into_iter().map(column).collect::<Result<_, Error>>()?;
            let config = Config { num_envs, capacity, columns, seed, check_finite, threads };
            let core = match path {
                None => Core::new(config),
                Some(path) => Core::open(&path, config),
            };
            core.map(|core| Self(core.into()))
        })
    }

    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, threads: usize) -> PyResult<Self> {
        run(py, || Core::load(&path, threads).map(|core| Self(core.into())))
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        run(py, || self.0.save(&path))
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        run(py, || self.0.flush())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        run(py, || self.0.close())
    }

    fn add(
        &self,
        py: Python<'_>,
        lead: Vec<usize>,
        columns: Bound<'_, PyTuple>,
        starts: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let rows = Rows::new(self.0.layout().columns(), lead, &columns, &starts)?;
        let (columns, starts) = rows.bytes()?;
        run(py, || self.0.add(rows.steps, &columns, starts))
    }

    fn writer(&self, py: Python<'_>, first: usize, last: usize) -> PyResult<Writer> {
        let buffer = Arc::clone(&self.0);
        run(py, || Writer::new(buffer, first, last))
    }

    fn request(
        &self,
        py: Python<'_>,
        gamma: f64,
        goals: Vec<(String, f64)>,
        columns: Vec<String>,
        n_step: Option<(u32, f64)>,
    ) -> PyResult<Request> {
        run(py, || {
            let goals = laws(gamma, goals)?;
            let request = match n_step {
                None => self.0.request(goals, &columns),
                Some((steps, discount)) => self.0.request_n_step(goals, NStep::new(steps, discount)?, &columns),
            };
            request.map(|request| Request(Wanted::Rows(request)))
        })
    }

    #[allow(clippy::too_many_arguments)] // PyO3 takes them one by one.
    fn segment_request(
        &self,
        py: Python<'_>,
        gamma: f64,
        goals: Vec<(String, f64)>,
        columns: Vec<String>,
        length: u32,
        partial: bool,
        goal_from: String,
    ) -> PyResult<Request> {
        run(py, || {
            let segments = Segments { length, partial, goal_from: GoalFrom::parse(&goal_from)? };
            let request = self.0.segment_request(segments, laws(gamma, goals)?, &columns);
            request.map(|request| Request(Wanted::Segments(request)))
        })
    }

    fn sample(
        &self,
        py: Python<'_>,
        request: &Request,
        lead: Vec<usize>,
        first_batch: Option<u64>,
        arrays: Bound<'_, PyTuple>,
    ) -> PyResult<u64> {
        let mut targets = Targets::new(request.0.columns(), &lead, arrays)?;
        let mut outputs = targets.bytes()?;
        let [num_batches, batch_size] = match *lead {
            [batch_size] => [1, batch_size],
            [num_batches, batch_size] => [num_batches, batch_size],
            _ => return Err(PyTypeError::new_err("expected one or two leading axes")),
        };
        run(py, || request.0.sample(&self.0, batch_size, num_batches, first_batch, &mut outputs))
    }

    /// Fills slots of arrays with the batches `first..end`, one call for all of them: see `Prefetch`.
    #[allow(clippy::too_many_arguments)] // PyO3 takes them one by one.
    fn fill_ahead(
        &self,
        py: Python<'_>,
        prefetch: &Prefetch,
        request: &Request,
        batch_size: usize,
        first: u64,
        end: u64,
        slots: Vec<Vec<Bound<'_, PyAny>>>,
    ) -> PyResult<()> {
        let targets = |arrays| Targets::new(request.0.columns(), &[batch_size], arrays);
        let mut slots = slots.into_iter().map(targets).collect::<PyResult<Vec<_>>>()?;
        let mut outputs = slots.iter_mut().map(Targets::bytes).collect::<PyResult<Vec<_>>>()?;
        run(py, || {
            prefetch.0.run(first..end, |number, slot| {
                request.0.sample(&self.0, batch_size, 1, Some(number), &mut outputs[slot]).map(drop)
            })
        })
    }

    fn reserve(&self, count: u64) -> u64 {
        self.0.reserve(count)
    }

    fn give_back(&self, unused: u64, end: u64) {
        self.0.give_back(unused, end);
    }

    #[getter]
    fn columns(&self) -> Vec<Spec> {
        self.0.layout().columns().iter().map(spec).collect()
    }

    #[getter]
    fn num_envs(&self) -> usize {
        self.0.config().num_envs
    }

    #[getter]
    fn capacity(&self) -> usize {
        self.0.capacity()
    }

    #[getter]
    fn next_batch(&self) -> u64 {
        self.0.next_batch()
    }

    #[getter]
    fn rows(&self) -> u64 {
        self.0.rows()
    }

    #[getter]
    fn rows_written(&self) -> u64 {
        self.0.rows_written()
    }

    #[getter]
    fn num_trajectories(&self) -> u64 {
        self.0.trajectories()
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.0.nbytes()
    }
}

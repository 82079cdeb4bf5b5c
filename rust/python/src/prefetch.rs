//! `_core.Prefetch`.
use crl_replay::prefetch::Prefetch as Core;
use pyo3::prelude::*;

use crate::run;

/// The turns of a ring of slots that one thread fills, in `Buffer.fill_ahead`, and another takes and gives back.
#[pyclass(frozen)]
pub(crate) struct Prefetch(pub(crate) Core);

#[pymethods]
impl Prefetch {
    #[new]
    fn new(py: Python<'_>, slots: usize) -> PyResult<Self> {
        run(py, || Core::new(slots).map(Self))
    }

    fn take(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        run(py, || self.0.take())
    }

    fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    fn give_back(&self) {
        self.0.give_back();
    }

    fn stop(&self) {
        self.0.stop();
    }
}

//! `_core.Writer`.
use std::sync::{Arc, Mutex, TryLockError};

use crl_replay::buffer::Buffer as Core;
use crl_replay::error::Error;
use crl_replay::writer::Writer as CoreWriter;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::arrays::Rows;
use crate::run;

/// The writer behind `crl.Writer`; `None` once closed. The lock is only ever tried.
#[pyclass(frozen)]
pub(crate) struct Writer {
    core: Mutex<Option<CoreWriter>>,
    buffer: Arc<Core>,
}

#[pymethods]
impl Writer {
    fn add(
        &self,
        py: Python<'_>,
        lead: Vec<usize>,
        columns: Bound<'_, PyTuple>,
        starts: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let rows = Rows::new(self.buffer.layout().columns(), lead, &columns, &starts)?;
        let (columns, starts) = rows.bytes()?;
        run(py, || {
            self.with(|writer| match writer {
                Some(writer) => writer.add(rows.steps, &columns, starts),
                None => Err(Error::Busy("writer: it was closed; ask the buffer for a new one".into())),
            })
        })
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        run(py, || {
            self.with(|writer| {
                *writer = None;
                Ok(())
            })
        })
    }
}

impl Writer {
    pub(crate) fn new(buffer: Arc<Core>, first: usize, last: usize) -> Result<Self, Error> {
        Ok(Self { core: Mutex::new(Some(buffer.writer(first, last)?)), buffer })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<CoreWriter>) -> Result<T, Error>) -> Result<T, Error> {
        match self.core.try_lock() {
            Ok(mut writer) => work(&mut writer),
            Err(TryLockError::Poisoned(poisoned)) => work(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(Error::Busy("writer: another thread is using it; one for each thread".into()))
            }
        }
    }
}

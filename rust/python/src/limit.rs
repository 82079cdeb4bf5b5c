//! The yardstick that benchmarks measure the buffer with.
use crl_replay::limit::{self, Part};
use numpy::{PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::arrays::{bytes, not_contiguous};
use crate::run;

/// Gathers rows at random as fast as this machine can: see `crl_replay::limit`.
#[pyfunction]
pub(crate) fn gather_limit(
    py: Python<'_>,
    columns: Vec<Bound<'_, PyAny>>,
    indices: Vec<PyReadonlyArray1<'_, u32>>,
    batch_size: usize,
    tuned: bool,
    out: Vec<Bound<'_, PyAny>>,
) -> PyResult<()> {
    let columns = columns.iter().map(|array| Ok(bytes(array)?.try_readonly()?)).collect::<PyResult<Vec<_>>>()?;
    let mut out = out.iter().map(|array| Ok(bytes(array)?.try_readwrite()?)).collect::<PyResult<Vec<_>>>()?;
    let outputs = out.iter_mut().map(|array| array.as_slice_mut().map_err(|_| not_contiguous()));
    let mut outputs = outputs.collect::<PyResult<Vec<_>>>()?;
    let mut parts = Vec::new();
    for ((rows, indices), output) in columns.iter().zip(&indices).zip(&outputs) {
        let rows = rows.as_slice().map_err(|_| not_contiguous())?;
        let indices = indices.as_slice().map_err(|_| not_contiguous())?;
        parts.push(Part { rows, bytes: output.len() / batch_size.max(1), indices });
    }
    run(py, || limit::gather(&parts, batch_size, tuned, &mut outputs))
}

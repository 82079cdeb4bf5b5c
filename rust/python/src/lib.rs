//! Python binding of `crl-replay` and `crl-kernels`: check, detach, call, convert.
//!
//! Nothing is decided here: `crl.buffer` checks arguments, and lengths are checked again below.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands arguments over by value.

mod arrays;
mod buffer;
mod kernels;

mod limit;
mod prefetch;
mod request;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crl_replay::error::Error;
use pyo3::create_exception;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

create_exception!(crl, InternalError, PyRuntimeError, "A bug in crl: please report it.");
create_exception!(crl, SnapshotError, PyValueError, "A file of a buffer that is not whole, or no such file.");

/// Python's `errno.ENOSPC`, on every system.
const ENOSPC: i32 = 28;

/// The one door: releases the GIL, turns errors into exceptions and a panic into [`InternalError`].
fn run<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(result) => result.map_err(exception),
        Err(panic) => {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panic");
            Err(InternalError::new_err(format!("crl has a bug: {what}. Please report it, with the traceback above.")))
        }
    }
}

fn exception(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Invalid(_) | Error::Empty(_) => PyValueError::new_err(text),
        Error::Busy(_) => PyRuntimeError::new_err(text),
        Error::Memory(_) => PyMemoryError::new_err(text),
        Error::Io { path, source } => match source.raw_os_error() {
            // With a number, OSError becomes FileNotFoundError and the like by itself.
            Some(number) => {
                let text = source.to_string();
                let text = text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text);
                PyOSError::new_err((number, text.to_owned(), path.into_os_string()))
            }
            None => PyOSError::new_err(text),
        },
        Error::Space { path, .. } => PyOSError::new_err((ENOSPC, text, path.into_os_string())),
        Error::Corrupt { .. } => SnapshotError::new_err(text),
    }
}

/// Panics behind the door, so that a test can see what comes out of it.
#[pyfunction]
fn panic_for_test(py: Python<'_>) -> PyResult<()> {
    run(py, || panic!("asked to"))
}

/// The native part of `crl`.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::{
        InternalError, SnapshotError, buffer::Buffer, kernels::distances, kernels::distances_backward,
        kernels::norm_swish, kernels::norm_swish_backward, limit::gather_limit, panic_for_test, prefetch::Prefetch,
        request::Request, writer::Writer,
    };

    /// "release" or "debug": a benchmark of the latter means nothing.
    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
}

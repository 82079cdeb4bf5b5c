//! Python binding of `crl-replay`: check, detach, call, convert.
use pyo3::prelude::*;

/// The native part of `crl`.
#[pymodule(gil_used = false)]
mod _core {}

//! Distances, and `LayerNorm` with swish, forward and backward: see `crl_kernels`.
use crl_kernels::norm_swish::{Backward, Forward};
use crl_kernels::{Misfit, distances as pairs};
use crl_replay::error::Error;
use numpy::{PyReadonlyArrayDyn, PyReadwriteArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::arrays::not_contiguous;
use crate::run;

type In<'py> = PyReadonlyArrayDyn<'py, f32>;
type Out<'py> = PyReadwriteArrayDyn<'py, f32>;

// What is contiguous in the order of Fortran would be lent out as a slice as well.
fn read<'a>(array: &'a In<'_>) -> PyResult<&'a [f32]> {
    if array.is_c_contiguous() { array.as_slice().map_err(|_| not_contiguous()) } else { Err(not_contiguous()) }
}

fn write<'a>(array: &'a mut Out<'_>) -> PyResult<&'a mut [f32]> {
    if array.is_c_contiguous() { array.as_slice_mut().map_err(|_| not_contiguous()) } else { Err(not_contiguous()) }
}

fn invalid(misfit: Misfit) -> Error {
    Error::Invalid(misfit.to_string())
}

/// Fills moments, sigmoid and swish.
#[pyfunction]
pub(crate) fn norm_swish(
    py: Python<'_>,
    dense: In<'_>,
    norm: (In<'_>, In<'_>),
    epsilon: f32,
    mut moments: (Out<'_>, Out<'_>),
    mut sigmoid: Out<'_>,
    mut swish: Out<'_>,
) -> PyResult<()> {
    let forward = Forward {
        dense: read(&dense)?,
        norm: [read(&norm.0)?, read(&norm.1)?],
        epsilon,
        moments: [write(&mut moments.0)?, write(&mut moments.1)?],
        sigmoid: write(&mut sigmoid)?,
        swish: write(&mut swish)?,
    };
    run(py, || forward.run().map_err(invalid))
}

/// Fills `dense_gradient` and, if given, the gradients of the norm's weight, of its bias, and of the product's bias.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn norm_swish_backward(
    py: Python<'_>,
    gradient: In<'_>,
    scale: f32,
    dense: In<'_>,
    norm_weight: In<'_>,
    moments: (In<'_>, In<'_>),
    sigmoid: In<'_>,
    swish: In<'_>,
    mut dense_gradient: Out<'_>,
    mut learnt: Option<(Out<'_>, Out<'_>, Out<'_>)>,
) -> PyResult<()> {
    let learnt = match &mut learnt {
        Some((weight, bias, dense_bias)) => Some([write(weight)?, write(bias)?, write(dense_bias)?]),
        None => None,
    };
    let backward = Backward {
        gradient: read(&gradient)?,
        scale,
        dense: read(&dense)?,
        norm_weight: read(&norm_weight)?,
        moments: [read(&moments.0)?, read(&moments.1)?],
        sigmoid: read(&sigmoid)?,
        swish: read(&swish)?,
        dense_gradient: write(&mut dense_gradient)?,
        learnt,
    };
    run(py, || backward.run().map_err(invalid))
}

/// Fills `out` with the distances of all rows of x from all rows of y.
#[pyfunction]
pub(crate) fn distances(py: Python<'_>, x: In<'_>, y: In<'_>, mut out: Out<'_>) -> PyResult<()> {
    let width = x.shape().last().copied().unwrap_or(0);
    let forward = pairs::Forward { width, x: read(&x)?, y: read(&y)?, distances: write(&mut out)? };
    run(py, || forward.run().map_err(invalid))
}

/// Fills `of_x` and `of_y`, the gradients, from that of the distances.
#[pyfunction]
pub(crate) fn distances_backward(
    py: Python<'_>,
    x: In<'_>,
    y: In<'_>,
    distances: In<'_>,
    gradient: In<'_>,
    mut of_x: Out<'_>,
    mut of_y: Out<'_>,
) -> PyResult<()> {
    let backward = pairs::Backward {
        width: x.shape().last().copied().unwrap_or(0),
        x: read(&x)?,
        y: read(&y)?,
        distances: read(&distances)?,
        gradient: read(&gradient)?,
        of_x: write(&mut of_x)?,
        of_y: write(&mut of_y)?,
    };
    run(py, || backward.run().map_err(invalid))
}

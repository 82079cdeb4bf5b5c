//! `NumPy` arrays as bytes, without copies: rows that come in, and memory that batches go out to.
//!
//! What arrives must be exactly right, C-contiguous and of the column's type and shape, and is refused otherwise:
//! `crl.buffer` then converts it, or finds the words for a user.
use crl_replay::layout::{Column, DType};
use numpy::{
    PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyReadwriteArrayDyn, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Arrays by type, so that their bytes are had without a view made for each call; rarer types go through one.
macro_rules! by_type {
    ($($variant:ident $number:ty),*) => {
        /// An array of the type and shape of a column.
        enum Array<'py> {
            $($variant(Bound<'py, PyArrayDyn<$number>>),)*
        }

        /// One that is being read.
        enum Readable<'py> {
            $($variant(PyReadonlyArrayDyn<'py, $number>),)*
        }

        /// One that is being written.
        enum Writable<'py> {
            $($variant(PyReadwriteArrayDyn<'py, $number>),)*
        }

        impl<'py> Array<'py> {
            fn readable(&self) -> PyResult<Readable<'py>> {
                Ok(match self {
                    $(Self::$variant(array) => Readable::$variant(array.try_readonly()?),)*
                })
            }

            fn writable(&self) -> PyResult<Writable<'py>> {
                Ok(match self {
                    $(Self::$variant(array) => Writable::$variant(array.try_readwrite()?),)*
                })
            }
        }

        impl Readable<'_> {
            fn bytes(&self) -> PyResult<&[u8]> {
                match self {
                    $(Self::$variant(array) => array.as_slice().map(bytemuck::cast_slice),)*
                }
                .map_err(|_| not_contiguous())
            }
        }

        impl Writable<'_> {
            fn bytes(&mut self) -> PyResult<&mut [u8]> {
                match self {
                    $(Self::$variant(array) => array.as_slice_mut().map(bytemuck::cast_slice_mut),)*
                }
                .map_err(|_| not_contiguous())
            }
        }
    };
}

by_type!(F32 f32, I32 i32, Bytes u8);

impl<'py> Array<'py> {
    /// Takes an array of exactly the column's type, whose shape is `lead` and then that of a row.
    fn new(array: &Bound<'py, PyAny>, column: &Column, lead: &[usize]) -> PyResult<Self> {
        let untyped = array.cast_exact::<PyUntypedArray>()?;
        if !untyped.shape().iter().eq(lead.iter().chain(&column.shape)) {
            return Err(PyTypeError::new_err("expected arrays of other shapes"));
        }
        // What is contiguous in the order of Fortran is as well lent out as a slice.
        if !untyped.is_c_contiguous() || !untyped.is_aligned() {
            return Err(not_contiguous());
        }
        Ok(match column.dtype {
            DType::F32 => Self::F32(array.cast::<PyArrayDyn<f32>>()?.clone()),
            DType::I32 => Self::I32(array.cast::<PyArrayDyn<i32>>()?.clone()),
            DType::U8 => Self::Bytes(array.cast::<PyArrayDyn<u8>>()?.clone()),
            dtype if untyped.dtype().str()?.to_cow()? != dtype.name() => {
                return Err(PyTypeError::new_err(format!("expected {}", dtype.name())));
            }
            _ => Self::Bytes(bytes(array)?),
        })
    }
}

/// Rows to be added: `lead` is [envs] or [steps, envs].
pub(crate) struct Rows<'py> {
    pub(crate) steps: usize,
    columns: Vec<Readable<'py>>,
    starts: PyReadonlyArrayDyn<'py, bool>,
}

impl<'py> Rows<'py> {
    pub(crate) fn new(
        columns: &[Column],
        lead: Vec<usize>,
        arrays: &Bound<'py, PyTuple>,
        starts: &Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        let readable = |(array, column): (Bound<'py, PyAny>, _)| Array::new(&array, column, &lead)?.readable();
        let columns = arrays.iter().zip(columns).map(readable).collect::<PyResult<_>>()?;
        let starts = starts.cast_exact::<PyUntypedArray>()?.cast::<PyArrayDyn<bool>>()?.try_readonly()?;
        if starts.shape() != lead || !starts.is_c_contiguous() {
            return Err(PyTypeError::new_err("expected starts of another shape"));
        }
        Ok(Self { steps: if lead.len() > 1 { lead[0] } else { 1 }, columns, starts })
    }

    /// One slice for each column, and the starts.
    pub(crate) fn bytes(&self) -> PyResult<(Vec<&[u8]>, &[u8])> {
        let columns = self.columns.iter().map(Readable::bytes).collect::<PyResult<_>>()?;
        Ok((columns, bytemuck::cast_slice(self.starts.as_slice().map_err(|_| not_contiguous())?)))
    }
}

/// Arrays to be filled, one for each column: `lead` is [batch] or [batches, batch].
pub(crate) struct Targets<'py>(Vec<Writable<'py>>);

impl<'py> Targets<'py> {
    pub(crate) fn new(
        columns: &[Column],
        lead: &[usize],
        arrays: impl IntoIterator<Item = Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let writable = |(array, column)| Array::new(&array, column, lead)?.writable();
        arrays.into_iter().zip(columns).map(writable).collect::<PyResult<_>>().map(Self)
    }

    /// One slice for each column.
    pub(crate) fn bytes(&mut self) -> PyResult<Vec<&mut [u8]>> {
        self.0.iter_mut().map(Writable::bytes).collect()
    }
}

/// The bytes of an array of any type.
pub(crate) fn bytes<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
    let py = array.py();
    Ok(array.call_method1(intern!(py, "view"), (intern!(py, "uint8"),))?.cast_into()?)
}

pub(crate) fn not_contiguous() -> PyErr {
    PyTypeError::new_err("expected C-contiguous arrays")
}

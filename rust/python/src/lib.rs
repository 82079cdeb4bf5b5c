//! Python binding of `crl-replay`: check, detach, call, convert.
//!
//! Arrays arrive C-contiguous and of the right type (`crl.buffer` sees to it) and are taken as bytes, through `NumPy`'s
//! own view of them as `uint8`; lengths are checked again below. Nothing is decided here.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands arguments over by value.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};

use crl_replay::buffer::{Buffer as Core, Config, Writer as CoreWriter};
use crl_replay::error::Error;
use crl_replay::goal::{Goals, Strategy};
use crl_replay::layout::{Column, DType};
use crl_replay::limit;
use crl_replay::n_step::NStep;
use crl_replay::prefetch::Prefetch as CorePrefetch;
use crl_replay::sample::Request as RowRequest;
use crl_replay::segments::{GoalFrom, SegmentRequest, Segments};
use numpy::{
    PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyReadonlyArrayDyn, PyReadwriteArrayDyn, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{create_exception, intern};

create_exception!(crl, InternalError, PyRuntimeError, "A bug in crl: please report it.");
create_exception!(crl, SnapshotError, PyValueError, "A file of a buffer that is not whole, or no such file.");

/// Python's `errno.ENOSPC`, on every system.
const ENOSPC: i32 = 28;

/// Name, dtype name, shape.
type Spec = (String, String, Vec<usize>);

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

/// The bytes of an array, without a copy.
fn bytes<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
    let py = array.py();
    Ok(array.call_method1(intern!(py, "view"), (intern!(py, "uint8"),))?.cast_into()?)
}

fn inputs<'py>(arrays: &[Bound<'py, PyAny>]) -> PyResult<Vec<PyReadonlyArrayDyn<'py, u8>>> {
    arrays.iter().map(|array| Ok(bytes(array)?.try_readonly()?)).collect()
}

fn slices<'a>(arrays: &'a [PyReadonlyArrayDyn<'_, u8>]) -> PyResult<Vec<&'a [u8]>> {
    arrays.iter().map(|array| array.as_slice().map_err(|_| not_contiguous())).collect()
}

/// Arrays to be filled.
fn memory<'py>(arrays: &[Bound<'py, PyAny>]) -> PyResult<Vec<PyReadwriteArrayDyn<'py, u8>>> {
    arrays.iter().map(|array| Ok(bytes(array)?.try_readwrite()?)).collect()
}

fn filled<'a>(arrays: &'a mut [PyReadwriteArrayDyn<'_, u8>]) -> PyResult<Vec<&'a mut [u8]>> {
    arrays.iter_mut().map(|array| array.as_slice_mut().map_err(|_| not_contiguous())).collect()
}

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
    /// Takes an array of exactly the column's type, whose shape is `lead` and then that of a row. `crl.buffer` finds the
    /// words for a user when this refuses.
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
struct Rows<'py> {
    steps: usize,
    columns: Vec<Readable<'py>>,
    starts: PyReadonlyArrayDyn<'py, bool>,
}

impl<'py> Rows<'py> {
    fn new(
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

    fn bytes(&self) -> PyResult<(Vec<&[u8]>, &[u8])> {
        let columns = self.columns.iter().map(Readable::bytes).collect::<PyResult<_>>()?;
        Ok((columns, bytemuck::cast_slice(self.starts.as_slice().map_err(|_| not_contiguous())?)))
    }
}

fn not_contiguous() -> PyErr {
    PyTypeError::new_err("expected C-contiguous arrays")
}

/// A request that was understood: see `Buffer.request`.
#[pyclass(frozen)]
struct Request(Wanted);

enum Wanted {
    Rows(RowRequest),
    Segments(SegmentRequest),
}

impl Wanted {
    fn sample(
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

impl Wanted {
    fn columns(&self) -> &[Column] {
        match self {
            Self::Rows(request) => request.columns(),
            Self::Segments(request) => request.columns(),
        }
    }
}

/// Strategies with weights, as a law of goals.
fn laws(gamma: f64, goals: Vec<(String, f64)>) -> Result<Goals, Error> {
    let parse = |(name, weight): (String, f64)| Ok((Strategy::parse(&name)?, weight));
    Goals::new(gamma, &goals.into_iter().map(parse).collect::<Result<Vec<_>, Error>>()?)
}

/// The buffer behind `crl.TrajectoryBuffer`.
#[pyclass(frozen)]
struct Buffer(Arc<Core>);

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
        run(py, || Ok(Writer { core: Mutex::new(Some(buffer.writer(first, last)?)), buffer }))
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
        let targets = arrays.iter().zip(request.0.columns()).map(|(array, column)| Array::new(&array, column, &lead));
        let targets = targets.collect::<PyResult<Vec<_>>>()?;
        let mut taken = targets.iter().map(Array::writable).collect::<PyResult<Vec<_>>>()?;
        let mut slices = taken.iter_mut().map(Writable::bytes).collect::<PyResult<Vec<_>>>()?;
        let [num_batches, batch_size] = match *lead {
            [batch_size] => [1, batch_size],
            [num_batches, batch_size] => [num_batches, batch_size],
            _ => return Err(PyTypeError::new_err("expected one or two leading axes")),
        };
        run(py, || request.0.sample(&self.0, batch_size, num_batches, first_batch, &mut slices))
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
        let mut taken = slots.iter().map(|arrays| memory(arrays)).collect::<PyResult<Vec<_>>>()?;
        let mut slots = taken.iter_mut().map(|slot| filled(slot)).collect::<PyResult<Vec<_>>>()?;
        run(py, || {
            prefetch.0.run(first..end, |number, slot| {
                request.0.sample(&self.0, batch_size, 1, Some(number), &mut slots[slot]).map(drop)
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
    fn seed(&self) -> u64 {
        self.0.config().seed
    }

    #[getter]
    fn check_finite(&self) -> bool {
        self.0.config().check_finite
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

fn spec(column: &Column) -> Spec {
    (column.name.clone(), column.dtype.name().into(), column.shape.clone())
}

/// The writer behind `crl.Writer`; `None` once closed. The lock is only ever tried.
#[pyclass(frozen)]
struct Writer {
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

/// The turns of a ring of slots that one thread fills, in `Buffer.fill_ahead`, and another takes and gives back.
#[pyclass(frozen)]
struct Prefetch(CorePrefetch);

#[pymethods]
impl Prefetch {
    #[new]
    fn new(py: Python<'_>, slots: usize) -> PyResult<Self> {
        run(py, || CorePrefetch::new(slots).map(Self))
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

/// Gathers rows at random as fast as this machine can: see `crl_replay::limit`.
#[pyfunction]
fn gather_limit(
    py: Python<'_>,
    columns: Vec<Bound<'_, PyAny>>,
    indices: Vec<PyReadonlyArray1<'_, u32>>,
    batch_size: usize,
    out: Vec<Bound<'_, PyAny>>,
) -> PyResult<()> {
    let columns = inputs(&columns)?;
    let views = out.iter().map(bytes).collect::<PyResult<Vec<_>>>()?;
    let mut out = views.iter().map(|view| Ok(view.try_readwrite()?)).collect::<PyResult<Vec<_>>>()?;
    let mut outputs = Vec::new();
    for array in &mut out {
        outputs.push(array.as_slice_mut().map_err(|_| not_contiguous())?);
    }
    let mut parts = Vec::new();
    for ((rows, indices), output) in slices(&columns)?.into_iter().zip(&indices).zip(&outputs) {
        let indices = indices.as_slice().map_err(|_| not_contiguous())?;
        parts.push(limit::Part { rows, bytes: output.len() / batch_size.max(1), indices });
    }
    run(py, || limit::gather(&parts, batch_size, &mut outputs))
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
    use super::{Buffer, InternalError, Prefetch, Request, SnapshotError, Writer, gather_limit, panic_for_test};

    /// "release" or "debug": a benchmark of the latter means nothing.
    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
}

//! The file that a buffer's rows can live in: reserved, locked, mapped, and fit to go on with after its writer was
//! killed.
//!
//! ```text
//! header    as crate::header describes it, with the magic "CRLROWS\n"
//! state     number of the next batch u64, boot u128
//! counters  for each env a line of 64 bytes: rows claimed, rows published, trajectories begun
//! ends      capacity × u64
//! rows      records, as crate::layout lays them out
//! ```
//!
//! Each part starts at a multiple of 4096 bytes, and all but the header is in the machine's byte order.
//!
//! What a process has stored in a mapped file outlives it: it is the system that writes it to the disk. So a writer may
//! be killed anywhere, and [`Rings::resume`] takes back the row that it was at. When the machine stops, though, some
//! pages were written and others not, in no order. Therefore `boot` tells since which start of the machine the file has
//! been written, and is 0 when all of it is on the disk: a file that was being written when its machine stopped is
//! refused. It is set, and synced, before the first row after a flush.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use fs4::{FileExt, TryLockError};
use memmap2::MmapRaw;

use crate::buffer::Config;
use crate::error::{Error, Result};
use crate::header::{self, PREAMBLE, Preamble};
use crate::layout::{Layout, WORD};
use crate::ring::Rings;
use crate::storage::{PAGE, Source, Words};
use crate::sync::{AtomicU64, Ordering::Relaxed};

const MAGIC: [u8; 8] = *b"CRLROWS\n";
const VERSION: u32 = 1;

/// Words of the state: the next batch, then the boot.
const STATE: usize = 3;

/// A file that this process alone may write.
pub(crate) struct RowFile {
    path: PathBuf,
    /// Holds the lock.
    file: File,
    map: Arc<MmapRaw>,
    state: Words,
    /// Where the state lies in the file.
    state_at: usize,
    /// The process that opened it: a forked child shares the rows, and must not write them too.
    owner: u32,
    /// The file says that it is being written.
    marked: AtomicBool,
    /// Calls that are adding rows.
    adding: AtomicUsize,
    marking: Mutex<()>,
}

impl RowFile {
    /// Makes the file, or opens it if it fits the settings; and the source of the buffer's words.
    pub(crate) fn open(path: &Path, config: &Config, layout: &Layout, length: usize) -> Result<(Self, Source)> {
        let fail = |source| Error::Io { path: path.into(), source };
        let header = header::encode(MAGIC, VERSION, config, 0);
        let state_at = header.len().next_multiple_of(PAGE);
        let parts = Rings::words(config.num_envs, length, layout);
        let size = parts.and_then(|parts| [&[STATE], parts.as_slice()].concat().into_iter().try_fold(state_at, after));
        let size = size.ok_or_else(|| Error::Memory(format!("capacity: no file can hold {} rows", config.capacity)))?;

        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let (mut file, made) = match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (options.open(path).map_err(fail)?, false),
            file => (file.map_err(fail)?, true),
        };
        FileExt::try_lock(&file).map_err(|error| match error {
            TryLockError::WouldBlock => Error::Busy(format!(
                "path: {} is open in another buffer or process; close that one, or choose another file",
                path.display()
            )),
            TryLockError::Error(source) => fail(source),
        })?;
        if made {
            let written = reserve(&file, path, size as u64).and_then(|()| {
                file.write_all(&header).and_then(|()| file.sync_all()).and_then(|()| sync_folder(path)).map_err(fail)
            });
            if written.is_err() {
                let _ = fs::remove_file(path); // The first error is the one to tell.
            }
            written?;
        } else {
            let metadata = file.metadata().map_err(fail)?;
            check(&mut file, &metadata, config, length).map_err(|what| match what {
                Refused::Damaged(what) => Error::Corrupt { path: path.into(), what },
                Refused::Different(what) => Error::Invalid(format!("path: {}: {what}", path.display())),
                Refused::Io(source) => fail(source),
            })?;
            if metadata.len() != size as u64 {
                let what = format!("expected {size} bytes; got {}", metadata.len());
                return Err(Error::Corrupt { path: path.into(), what });
            }
            reserve(&file, path, size as u64)?; // A copy of a file may have lost the space that nothing was written to.
        }

        let map = MmapRaw::map_raw(&file).map_err(fail)?;
        #[cfg(unix)] // Rows are read at random: reading ahead of them would only crowd out others.
        let _ = map.advise(memmap2::Advice::Random);
        let map = Arc::new(map);
        let mut source = Source::File(Arc::clone(&map), state_at);
        let state = source.words(STATE).ok_or_else(|| fail(io::ErrorKind::UnexpectedEof.into()))?;
        let boot = [&state[1], &state[2]].map(|word| word.load(Relaxed));
        if boot != [0; 2] && Some(boot) != this_boot() {
            let what = "it was being written when its machine stopped, so that rows may be missing; only a file that \
                        was flushed or closed outlives that";
            return Err(Error::Corrupt { path: path.into(), what: what.into() });
        }
        let (owner, marked) = (process::id(), AtomicBool::new(boot != [0; 2]));
        let (adding, marking) = (AtomicUsize::new(0), Mutex::new(()));
        Ok((Self { path: path.into(), file, map, state, state_at, owner, marked, adding, marking }, source))
    }

    /// The number of the next batch.
    pub(crate) fn next_batch(&self) -> &AtomicU64 {
        &self.state[0]
    }

    /// To be called before rows are added; they have been when the result is dropped.
    pub(crate) fn adding(&self) -> Result<Adding<'_>> {
        if process::id() != self.owner {
            return Err(Error::Busy(format!(
                "add: {} belongs to the process that this one was forked from; sample here, and add there",
                self.path.display()
            )));
        }
        self.adding.fetch_add(1, SeqCst);
        let adding = Adding(self);
        if !self.marked.load(SeqCst) {
            self.mark()?;
        }
        Ok(adding)
    }

    fn mark(&self) -> Result<()> {
        let _one = self.marking.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.marked.load(SeqCst) {
            self.set_boot(this_boot().unwrap_or([u64::MAX; 2]))?;
            self.marked.store(true, SeqCst);
        }
        Ok(())
    }

    fn set_boot(&self, boot: [u64; 2]) -> Result<()> {
        self.state[1].store(boot[0], Relaxed);
        self.state[2].store(boot[1], Relaxed);
        let flushed = self.map.flush_range(self.state_at, STATE * WORD);
        flushed.map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// Everything that was added before the call is on the disk after it.
    pub(crate) fn flush(&self) -> Result<()> {
        if process::id() != self.owner {
            return Ok(());
        }
        // Whoever begins to add from here on marks the file again, and whoever has begun keeps it marked.
        self.marked.store(false, SeqCst);
        let quiet = self.adding.load(SeqCst) == 0;
        self.map.flush().map_err(|source| Error::Io { path: self.path.clone(), source })?;
        let _one = self.marking.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet && !self.marked.load(SeqCst) { self.set_boot([0; 2]) } else { Ok(()) }
    }

    /// Flushes, and lets others open the file. Nobody may begin to add any more.
    pub(crate) fn close(&self) -> Result<()> {
        if process::id() != self.owner {
            return Ok(());
        }
        while self.adding.load(SeqCst) > 0 {
            std::thread::yield_now();
        }
        let flushed = self.flush();
        let unlocked = FileExt::unlock(&self.file).map_err(|source| Error::Io { path: self.path.clone(), source });
        flushed.and(unlocked)
    }
}

/// A call that is adding rows.
pub(crate) struct Adding<'a>(&'a RowFile);

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        self.0.adding.fetch_sub(1, SeqCst);
    }
}

/// Where the part after one of so many words starts.
fn after(at: usize, words: usize) -> Option<usize> {
    words.checked_mul(WORD)?.checked_add(at)?.checked_next_multiple_of(PAGE)
}

/// Makes the file `size` bytes long, and sure of its space: a write to a mapped page that finds none ends the process.
fn reserve(file: &File, path: &Path, size: u64) -> Result<()> {
    let fail = |source| Error::Io { path: path.into(), source };
    let missing = size.saturating_sub(FileExt::allocated_size(file).map_err(fail)?);
    let free = fs4::available_space(path).map_err(fail)?;
    let full = || Error::Space { path: path.into(), needed: missing, free };
    if missing > free {
        return Err(full());
    }
    match FileExt::allocate(file, size) {
        // A file system that cannot reserve takes zeros for it.
        Err(error) if error.kind() == io::ErrorKind::Unsupported && missing >= size => {
            io::copy(&mut io::repeat(0).take(size), &mut &*file).and_then(|_| io::Seek::rewind(&mut &*file))
        }
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        done => done,
    }
    .and_then(|()| if file.metadata()?.len() < size { file.set_len(size) } else { Ok(()) })
    .map_err(|error| if error.kind() == io::ErrorKind::StorageFull { full() } else { fail(error) })
}

/// Why a file is not opened.
enum Refused {
    Damaged(String),
    Different(String),
    Io(io::Error),
}

/// Whether the header is that of a buffer with these settings.
fn check(file: &mut File, metadata: &fs::Metadata, config: &Config, length: usize) -> std::result::Result<(), Refused> {
    if !metadata.is_file() {
        return Err(Refused::Different("expected a file".into()));
    }
    let mut read = |bytes: &mut [u8]| {
        file.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Refused::Damaged("header: the file ends early".into()),
            _ => Refused::Io(error),
        })
    };
    let mut preamble = [0; PREAMBLE];
    read(&mut preamble)?;
    let preamble = Preamble::parse(&preamble, MAGIC, VERSION, "file of rows").map_err(Refused::Damaged)?;
    let mut bytes = vec![0; preamble.length];
    read(&mut bytes)?;
    let (found, _) = preamble.config(&bytes, 0).map_err(Refused::Damaged)?;

    let same = |field: &str, file: String, got: String| {
        let what = || format!("{field}: expected {file}, which the file was made with; got {got}");
        if file == got { Ok(()) } else { Err(Refused::Different(what())) }
    };
    same("num_envs", found.num_envs.to_string(), config.num_envs.to_string())?;
    let rows = |length: usize| format!("{length} rows for each env");
    same("capacity", rows(found.capacity / found.num_envs.max(1)), rows(length))?;
    same("seed", found.seed.to_string(), config.seed.to_string())?;
    let names =
        |config: &Config| config.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(", ");
    same("columns", names(&found), names(config))?;
    for (found, column) in found.columns.iter().zip(&config.columns) {
        let spec = |of: &crate::layout::Column| format!("{} {:?}", of.dtype.name(), of.shape);
        same(&column.name, spec(found), spec(column))?;
    }
    Ok(())
}

/// What tells this start of the machine from all others, where the system says.
fn this_boot() -> Option<[u64; 2]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let half = |digits| u64::from_str_radix(digits?, 16).ok();
    Some([half(digits.get(..16))?, half(digits.get(16..32))?])
}

/// Makes the name of a file outlive the machine.
#[cfg(unix)]
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // The same signature everywhere.
pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

//! What can go wrong, in words meant for the person who called.
use std::fmt;
use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that this crate refuses.
#[derive(Debug)]
pub enum Error {
    /// An argument is not what was expected: the message names it, what was expected and what came.
    Invalid(String),
    /// Nothing can be drawn: no row, or no row that another one follows.
    Empty(String),
    /// Somebody else is writing these environments, or writers lap the samplers.
    Busy(String),
    /// The rows do not fit into memory.
    Memory(String),
    /// The rows do not fit onto the disk.
    Space {
        /// The file.
        path: PathBuf,
        /// Bytes that it would still take.
        needed: u64,
        /// Bytes that there are.
        free: u64,
    },
    /// The file system refused.
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// A file that is not whole, or not what it should be.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where and what.
        what: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(what) | Self::Empty(what) | Self::Busy(what) | Self::Memory(what) => f.write_str(what),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Space { needed, free, .. } => write!(
                f,
                "the rows take {needed} bytes more, and {free} are free there; ask for a smaller capacity, or choose \
                 another disk"
            ),
            Self::Corrupt { path, what } => write!(f, "{}: {what}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

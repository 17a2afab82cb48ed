//! Small files that must be whole, private, and on the disk when we say so.
//!
//! Always true: a reader sees the old content or the new one, never half of it; a secret is in a regular file that belongs to us and that nobody
//! else can open. It does not know what is in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use thiserror::Error;
use zeroize::Zeroizing;

/// Permission bits of anyone but the owner.
pub(crate) const OTHERS: u32 = 0o077;

/// Why a small file could not be read or written.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else than a regular file has that name.
    #[error("{} is not a regular file; move it away", path.display())]
    NotAFile {
        /// Which file.
        path: PathBuf,
    },
    /// Somebody else owns it, and so knows what is in it.
    #[error("{} belongs to user {uid}, not to the user of this program; run as that user, or give it a file of its own", path.display())]
    NotOurs {
        /// Which file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others may open it.
    #[error("{} can be opened by other users (mode {mode:04o}); run: chmod 600 '{}'", path.display(), path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Longer than such a file can be.
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// How long it may be.
        limit: u64,
    },
    /// Not UTF-8.
    #[error("{} is not text", path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
    },
}

impl FileError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether there simply is no such file.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a text file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<String, FileError> {
    // Not waiting for the other end of a pipe somebody put there.
    let file = open(path, OFlags::NONBLOCK)?;
    text_of(file, path, limit).map(|text| text.as_str().to_owned())
}

/// Reads a secret of at most `limit` bytes, if nobody else can.
pub fn read_secret(path: &Path, limit: u64) -> Result<Zeroizing<String>, FileError> {
    let file = open(path, OFlags::NONBLOCK | OFlags::NOFOLLOW)?;
    let metadata = file.metadata().map_err(FileError::io("look at", path))?;
    if metadata.is_file() && metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(FileError::NotOurs { path: path.to_owned(), uid: metadata.uid() });
    }
    if metadata.is_file() && metadata.mode() & OTHERS != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o777 });
    }
    text_of(file, path, limit)
}

fn open(path: &Path, flags: OFlags) -> Result<File, FileError> {
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(FileError::io("open", path))
}

fn text_of(file: File, path: &Path, limit: u64) -> Result<Zeroizing<String>, FileError> {
    let metadata = file.metadata().map_err(FileError::io("look at", path))?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > limit {
        return Err(FileError::TooLong { path: path.to_owned(), limit });
    }
    // Reserved at once, so that a secret leaves no copies behind as the buffer grows.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(limit).unwrap_or(0)));
    file.take(limit).read_to_string(&mut text).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => FileError::NotText { path: path.to_owned() },
        _ => FileError::io("read", path)(source),
    })?;
    Ok(text)
}

/// Replaces a file (mode 0600) at once: the bytes are on the disk under the final name when this returns.
///
/// Only one process may do so in a directory; the lock of the data directory sees to that.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(FileError::io("remove", &draft)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(FileError::io("create", &draft))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(FileError::io("write", &draft))?;
    std::fs::rename(&draft, path).map_err(FileError::io("put in place", path))?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(FileError::io("sync", directory))
}

//! The node's way into a session's workspace: upload, download, list, look, remove.
//!
//! Always true: every path is resolved by the kernel from the workspace's own descriptor, beneath it, without following any link
//! or crossing a mount, so a tool that changes the tree meanwhile can make an operation fail but not leave the workspace. Only
//! regular files with one name are read. Uploads appear whole or not at all.
//!
//! It knows nothing of running tools: a file that a tool is writing is read as it is at that moment.

mod download;
mod inside;
mod list;
mod path;
mod upload;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};
use thiserror::Error;

pub use download::Reader;
pub use list::Listing;
pub use path::{PathError, WorkPath};
pub use upload::Upload;

use crate::limits::SessionLimits;
use crate::quota::{self, Held};
use crate::session::{STAGING, WORK};
use crate::sys;
use inside::Inside;
use upload::Uploads;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link. Listed, never followed.
    Link,
    /// A fifo, socket or device. Listed, never opened.
    Other,
}

/// One entry of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: WorkPath,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a regular file, otherwise zero.
    pub size: u64,
    /// Last change of its content.
    pub modified: SystemTime,
    /// True for a regular file its owner may execute.
    pub executable: bool,
}

/// A file that is small enough to be held in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Small {
    /// Where it is.
    pub path: WorkPath,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// One of many things to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A directory, with those above it. One that is there stays as it is.
    Directory(WorkPath),
    /// A file.
    File(Small),
}

impl Item {
    fn bytes(&self) -> u64 {
        match self {
            Self::Directory(_) => 0,
            Self::File(small) => small.bytes.len() as u64,
        }
    }
}

/// Why a file operation did not happen.
#[derive(Debug, Error)]
pub enum FileError {
    /// The name is not acceptable.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Nothing there.
    #[error("there is no such file in the workspace")]
    Missing,
    /// A link at the path or on the way to it.
    #[error("the path leads through a symbolic link")]
    Link,
    /// A fifo, socket or device.
    #[error("not a regular file")]
    NotRegular,
    /// The file has other names, perhaps outside the workspace.
    #[error("the file has more than one name (hard links)")]
    HardLinked,
    /// A directory where a file is meant.
    #[error("a directory")]
    IsDirectory,
    /// A file where a directory is meant.
    #[error("not a directory")]
    NotDirectory,
    /// A tool made it inaccessible.
    #[error("the workspace does not permit access to it")]
    Denied,
    /// Leads to another file system.
    #[error("the path leaves the workspace")]
    Leaves,
    /// Longer than announced or allowed.
    #[error("longer than the allowed {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// There is no upload to this path that broke off.
    #[error("no upload to this path can go on")]
    NothingToResume,
    /// The upload that broke off is another, or elsewhere.
    #[error("the upload that broke off holds {held} of {size} bytes")]
    WrongOffset {
        /// Bytes that arrived.
        held: u64,
        /// Bytes of the whole.
        size: u64,
    },
    /// Too many at the same time.
    #[error("the session has {limit} uploads under way, and no more at once")]
    TooManyUploads {
        /// Most at once.
        limit: usize,
    },
    /// The session's limits are used up.
    #[error("the workspace is full")]
    WorkspaceFull,
    /// The operating system refused.
    #[error("the workspace cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// Access to one workspace. Cheap to clone; useless, but harmless, after the session has closed.
#[derive(Debug, Clone)]
pub struct Files {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    inside: Inside,
    /// The session's directory, for measuring.
    session: OwnedFd,
    limits: SessionLimits,
    measure: Measure,
    uploads: Uploads,
    /// Whose files they are, when that is not this process's user: all that is made or changed is made and changed as that one.
    user: Option<u32>,
}

/// How it is known what a workspace holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// It is a file system of its own.
    Filesystem,
    /// It has to be added up.
    Scan,
}

impl Files {
    pub(crate) fn open(session: OwnedFd, limits: SessionLimits, measure: Measure, user: Option<u32>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let part = |name: &str| rustix::fs::openat(&session, name, flags, Mode::empty()).map_err(io::Error::from);
        let inside = Inside { work: part(WORK)?, staging: part(STAGING)? };
        Ok(Self { inner: Arc::new(Inner { inside, session, limits, measure, uploads: Uploads::default(), user }) })
    }

    /// Checks a name without looking at the disk.
    pub fn validate_path(name: &str) -> Result<WorkPath, PathError> {
        WorkPath::parse(name)
    }

    /// Begins an upload of at most `bytes_max` bytes, for which there has to be room. Missing directories above it are made. Nothing is at the path, or what was
    /// there before stays, until [`Upload::commit`].
    pub async fn create_write(&self, path: &WorkPath, executable: bool, bytes_max: u64) -> Result<Upload, FileError> {
        let (path, place) = (path.clone(), self.inner.uploads.place()?);
        let begun = self.blocking(move |inner| {
            inner.forget_unfinished(&path);
            let reserved = inner.reserve(bytes_max)?;
            inner.inside.check_replaceable(&path)?;
            let begun = inner.inside.begin(executable)?;
            Ok((path, begun, reserved))
        });
        let (path, begun, reserved) = begun.await?;
        Ok(Upload::new(Arc::clone(&self.inner), path, executable, begun, reserved, place))
    }

    /// Goes on with an upload of `bytes_max` bytes that broke off after `offset` of them and was kept.
    pub async fn resume_write(&self, path: &WorkPath, executable: bool, offset: u64, bytes_max: u64) -> Result<Upload, FileError> {
        let (path, place) = (path.clone(), self.inner.uploads.place()?);
        self.blocking(move |inner| Upload::resume(inner, path, executable, offset, bytes_max, place)).await
    }

    /// Uploads that broke off and can go on: path, bytes held, bytes of the whole.
    #[must_use]
    pub fn unfinished(&self) -> Vec<(WorkPath, u64, u64)> {
        self.inner.uploads.unfinished()
    }

    /// Opens a regular file for reading. It may grow while it is read; no more is read than it has now.
    pub async fn open_read(&self, path: &WorkPath) -> Result<Reader, FileError> {
        let path = path.clone();
        let (file, size, version) = self.blocking(move |inner| inner.inside.open_read(&path)).await?;
        Ok(Reader::new(file, size, version))
    }

    /// What is at a path, without following it, and a number that is another one after every change.
    pub async fn stat(&self, path: &WorkPath) -> Result<(Entry, u64), FileError> {
        let path = path.clone();
        self.blocking(move |inner| inner.inside.stat(&path)).await
    }

    /// Everything below a directory (`None`: the workspace) that comes after a path, in the order of a walk, at most `limit` entries.
    pub async fn list(&self, below: Option<&WorkPath>, after: Option<&WorkPath>, limit: usize) -> Result<Listing, FileError> {
        let (below, after) = (below.cloned(), after.cloned());
        self.blocking(move |inner| list::list(&inner.inside, below.as_ref(), after.as_ref(), limit)).await
    }

    /// Removes a file, link or whole directory, and an upload to it that broke off. A link's target is not touched.
    pub async fn remove(&self, path: &WorkPath) -> Result<(), FileError> {
        let path = path.clone();
        self.blocking(move |inner| {
            let was_unfinished = inner.forget_unfinished(&path);
            match inner.inside.remove(&path) {
                Err(FileError::Missing) if was_unfinished => Ok(()),
                removed => removed,
            }
        })
        .await
    }

    /// Stores small files and makes directories one after the other, each whole or not at all, in place of files that were there.
    pub async fn store_small(&self, items: Vec<Item>) -> Result<Vec<Result<(), FileError>>, FileError> {
        let bytes = items.iter().map(Item::bytes).sum();
        self.blocking(move |inner| {
            let reserved = inner.reserve(bytes)?;
            let stored = items.iter().map(|item| inner.inside.store(item)).collect();
            drop(reserved);
            Ok(stored)
        })
        .await
    }

    /// Reads small files, of `limit` bytes at most each.
    pub async fn load_small(&self, paths: Vec<WorkPath>, limit: u64) -> Result<Vec<Result<Small, FileError>>, FileError> {
        self.blocking(move |inner| Ok(paths.into_iter().map(|path| inner.inside.load(path, limit)).collect())).await
    }

    /// True when the session holds more than its limits allow.
    pub(crate) async fn is_full(&self) -> Result<bool, FileError> {
        if self.inner.measure == Measure::Filesystem {
            // One call that touches no disk.
            return Ok(self.inner.room()?.is_none());
        }
        self.blocking(|inner| Ok(inner.room()?.is_none())).await
    }

    async fn blocking<T, F>(&self, work: F) -> Result<T, FileError>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Inner>) -> Result<T, FileError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let joined = tokio::task::spawn_blocking(move || inner.as_owner(|| work(&inner))).await;
        joined.map_err(|error| FileError::Io(io::Error::other(error)))?
    }
}

impl Inner {
    /// Bytes that still fit. `None` when it is full, in bytes or entries.
    fn room(&self) -> io::Result<Option<u64>> {
        if self.measure == Measure::Filesystem {
            let held = rustix::fs::fstatvfs(&self.session)?;
            return Ok((held.f_bavail > 0 && held.f_favail > 0).then(|| held.f_bavail.saturating_mul(held.f_frsize)));
        }
        match quota::scan(self.session.as_fd(), &self.limits)? {
            Held::Within(bytes) => Ok(Some(self.limits.workspace_bytes.saturating_sub(bytes))),
            Held::Above => Ok(None),
        }
    }

    /// Does something as the user whose files these are.
    fn as_owner<T>(&self, work: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
        let _acting = self.user.map(sys::act_as).transpose()?;
        work()
    }
}

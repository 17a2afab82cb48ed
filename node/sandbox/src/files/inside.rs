//! File operations beneath the workspace's descriptor. All of them block.
//!
//! Always true: no path is resolved any other way than by `openat2` beneath that descriptor, or as a single name in a directory
//! that was opened so.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{Entry, FileError, Item, Kind, Small, WorkPath};
use crate::removal;

pub(super) const WITHIN: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// Names of unfinished uploads are unique in this process, and the directory is as old as the session.
static NEXT_UPLOAD: AtomicU64 = AtomicU64::new(0);

/// The two directories that file operations touch.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) work: OwnedFd,
    /// Same file system, outside the tool's workspace: unfinished uploads and what is being removed.
    pub(super) staging: OwnedFd,
}

/// An upload that has begun: its name in the staging directory.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) name: String,
    pub(super) file: File,
}

impl Inside {
    pub(super) fn open_read(&self, path: &WorkPath) -> Result<(File, u64, u64), FileError> {
        // Looked at before it is opened: opening a device can already do something.
        regular(&self.look(path)?)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = self.open(path.as_str(), flags)?;
        let stat = rustix::fs::fstat(&file).map_err(refusal)?;
        regular(&stat)?;
        Ok((File::from(file), u64::try_from(stat.st_size).unwrap_or(0), version(&stat)))
    }

    pub(super) fn stat(&self, path: &WorkPath) -> Result<(Entry, u64), FileError> {
        let stat = self.look(path)?;
        Ok((entry(path.clone(), &stat), version(&stat)))
    }

    pub(super) fn remove(&self, path: &WorkPath) -> Result<(), FileError> {
        self.look(path)?;
        let parent = self.open_parent(path)?;
        let (_, name) = path.split();
        let name = CString::new(name).map_err(|_| super::PathError::Nul)?;
        Ok(removal::remove_tree(parent.as_fd(), &name, self.staging.as_fd())?)
    }

    /// An empty file in the staging directory.
    pub(super) fn begin(&self, executable: bool) -> Result<Begun, FileError> {
        let name = format!("upload-{}", NEXT_UPLOAD.fetch_add(1, Ordering::Relaxed));
        let mode = if executable { Mode::RWXU } else { Mode::RUSR | Mode::WUSR };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.staging, name.as_str(), flags, mode).map_err(refusal)?;
        Ok(Begun { name, file: File::from(file) })
    }

    /// Fails early where a commit would fail later.
    pub(super) fn check_replaceable(&self, path: &WorkPath) -> Result<(), FileError> {
        self.make_parent(path)?;
        match self.look(path) {
            Ok(stat) if kind(&stat) == Kind::Directory => Err(FileError::IsDirectory),
            Ok(_) | Err(FileError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Puts a finished upload in its place; a link that is there is replaced, not followed.
    pub(super) fn place(&self, upload: &str, path: &WorkPath) -> Result<(), FileError> {
        let parent = self.make_parent(path)?;
        let (_, name) = path.split();
        rustix::fs::renameat(&self.staging, upload, &parent, name).map_err(|error| match error {
            Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY => FileError::IsDirectory,
            other => refusal(other),
        })
    }

    /// A directory, or a whole small file put in its place.
    pub(super) fn store(&self, item: &Item) -> Result<(), FileError> {
        let small = match item {
            Item::Directory(path) => return self.make_directory(path),
            Item::File(small) => small,
        };
        let Begun { name, mut file } = self.begin(small.executable)?;
        let placed = file.write_all(&small.bytes).map_err(full_or_broken).and_then(|()| self.place(&name, &small.path));
        if placed.is_err() {
            self.discard(&name);
        }
        placed
    }

    /// A whole small file.
    pub(super) fn load(&self, path: WorkPath, limit: u64) -> Result<Small, FileError> {
        let (file, size, _) = self.open_read(&path)?;
        let stat = rustix::fs::fstat(&file).map_err(refusal)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(limit)).unwrap_or(0));
        // A byte more than allowed shows that there is more.
        let count = file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if count as u64 > limit {
            return Err(FileError::TooLarge { limit });
        }
        Ok(Small { executable: entry(path.clone(), &stat).executable, path, bytes })
    }

    fn make_directory(&self, path: &WorkPath) -> Result<(), FileError> {
        let parent = self.make_parent(path)?;
        make_step(parent.as_fd(), path.split().1).map(drop)
    }

    pub(super) fn discard(&self, upload: &str) {
        // What cannot be removed now goes with the session.
        let _ = rustix::fs::unlinkat(&self.staging, upload, AtFlags::empty());
    }

    pub(super) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, FileError> {
        rustix::fs::openat2(&self.work, path, flags, Mode::empty(), WITHIN).map_err(refusal)
    }

    /// What is there, a link itself included.
    pub(super) fn look(&self, path: &WorkPath) -> Result<Stat, FileError> {
        let handle = self.open(path.as_str(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
        rustix::fs::fstat(handle).map_err(refusal)
    }

    fn open_parent(&self, path: &WorkPath) -> Result<OwnedFd, FileError> {
        let above = path.as_str().rsplit_once('/').map_or(".", |(above, _)| above);
        self.open(above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)
    }

    fn make_parent(&self, path: &WorkPath) -> Result<OwnedFd, FileError> {
        let mut directory = self.open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        let (above, _) = path.split();
        for part in above {
            directory = make_step(directory.as_fd(), part)?;
        }
        Ok(directory)
    }
}

/// One directory further down, made if it is not there.
fn make_step(directory: BorrowedFd<'_>, part: &str) -> Result<OwnedFd, FileError> {
    match step(directory, part) {
        Err(FileError::Missing) => {}
        found => return found,
    }
    match rustix::fs::mkdirat(directory, part, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => step(directory, part),
        Err(error) => Err(refusal(error)),
    }
}

/// One directory further down.
fn step(directory: BorrowedFd<'_>, part: &str) -> Result<OwnedFd, FileError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let next = rustix::fs::openat2(directory, part, flags, Mode::empty(), WITHIN).map_err(refusal)?;
    match kind(&rustix::fs::fstat(&next).map_err(refusal)?) {
        Kind::Directory => Ok(next),
        Kind::Link => Err(FileError::Link),
        Kind::File | Kind::Other => Err(FileError::NotDirectory),
    }
}

fn regular(stat: &Stat) -> Result<(), FileError> {
    match kind(stat) {
        Kind::Directory => Err(FileError::IsDirectory),
        Kind::Link => Err(FileError::Link),
        Kind::Other => Err(FileError::NotRegular),
        Kind::File if stat.st_nlink > 1 => Err(FileError::HardLinked),
        Kind::File => Ok(()),
    }
}

pub(super) fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    }
}

/// Another number after every change of a file that its file system noticed: which inode, how long, last written and changed when.
fn version(stat: &Stat) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in [stat.st_ino.to_le_bytes(), stat.st_size.to_le_bytes()] {
        hasher.update(&part);
    }
    for part in [stat.st_mtime, stat.st_ctime] {
        hasher.update(&part.to_le_bytes());
    }
    hasher.update(&stat.st_mtime_nsec.to_le_bytes()).update(&stat.st_ctime_nsec.to_le_bytes());
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    u64::from_le_bytes(number)
}

pub(super) fn entry(path: WorkPath, stat: &Stat) -> Entry {
    let kind = kind(stat);
    let is_file = kind == Kind::File;
    let nanos = u32::try_from(stat.st_mtime_nsec).ok().filter(|nanos| *nanos < 1_000_000_000).unwrap_or(0);
    let since = Duration::new(u64::try_from(stat.st_mtime).unwrap_or(0), nanos);
    Entry {
        path,
        kind,
        size: if is_file { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        // A tool may set a time that no clock can show.
        modified: SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH),
        executable: is_file && Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR),
    }
}

pub(super) fn refusal(error: Errno) -> FileError {
    match error {
        Errno::NOENT => FileError::Missing,
        Errno::LOOP => FileError::Link,
        Errno::NOTDIR => FileError::NotDirectory,
        Errno::ISDIR => FileError::IsDirectory,
        Errno::ACCESS | Errno::PERM => FileError::Denied,
        Errno::XDEV => FileError::Leaves,
        Errno::NOSPC | Errno::DQUOT => FileError::WorkspaceFull,
        // A socket cannot be opened at all.
        Errno::NXIO => FileError::NotRegular,
        other => FileError::Io(other.into()),
    }
}

/// A file system of limited size says so when it is full.
pub(super) fn full_or_broken(error: io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FileError::WorkspaceFull,
        _ => FileError::Io(error),
    }
}

//! Measures how much a workspace holds.
//!
//! Always true: a scan's memory and time are bounded by the limits it checks against: it stops at the first sign that one is
//! exceeded, and a tree nested too deeply to be named counts as exceeding them. It does not see files that are open but no longer
//! have a name; the file size and descriptor limits of each process bound those.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::limits::SessionLimits;
use crate::removal;

/// The kernel's limit for a path, which is also the deepest a tool can name in one call.
const PATH_BYTES_MAX: usize = 4000;
/// Directories waiting to be looked at, as bytes of their paths.
const PENDING_BYTES_MAX: usize = 32 << 20;
/// What `st_blocks` counts in.
const BLOCK_BYTES: u64 = 512;

/// What a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Bytes on disk.
    Within(u64),
    Above,
}

/// Adds up a directory. Blocks.
pub(crate) fn scan(root: BorrowedFd<'_>, limits: &SessionLimits) -> io::Result<Held> {
    let mut scan = Scan { bytes: 0, entries: 0, pending: vec![b".".to_vec()], pending_bytes: 1 };
    while let Some(path) = scan.pending.pop() {
        scan.pending_bytes -= path.len();
        let Some(directory) = open(root, &path)? else { continue };
        if !scan.directory(&directory, &path)? || scan.bytes > limits.workspace_bytes || scan.entries > limits.workspace_entries.into() {
            return Ok(Held::Above);
        }
    }
    Ok(Held::Within(scan.bytes))
}

struct Scan {
    bytes: u64,
    entries: u64,
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
}

impl Scan {
    /// False when the scan's own bounds are reached.
    fn directory(&mut self, directory: &OwnedFd, path: &[u8]) -> io::Result<bool> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if removal::is_self_or_parent(name) {
                continue;
            }
            self.entries += 1;
            let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
            self.bytes = self.bytes.saturating_add(blocks.saturating_mul(BLOCK_BYTES));
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && !self.enter(directory, path, name, stat.st_mode) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn enter(&mut self, parent: &OwnedFd, path: &[u8], name: &CStr, mode: u32) -> bool {
        let mode = Mode::from_raw_mode(mode);
        if !mode.contains(Mode::RUSR | Mode::XUSR) {
            // A tool could hide its files behind a directory nobody may open, itself included.
            let _ = removal::chmod(parent.as_fd(), name, mode | Mode::RUSR | Mode::XUSR);
        }
        let inner = [path, b"/", name.to_bytes()].concat();
        self.pending_bytes += inner.len();
        let fits = inner.len() <= PATH_BYTES_MAX && self.pending_bytes <= PENDING_BYTES_MAX;
        self.pending.push(inner);
        fits
    }
}

/// `None` for a directory that was removed or replaced since it was seen.
fn open(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), within) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::XDEV | Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn scanned(path: &std::path::Path, bytes: u64, entries: u32) -> Held {
        let root = fs::File::open(path).unwrap();
        let limits = SessionLimits { workspace_bytes: bytes, workspace_entries: entries, parallel_runs: 1 };
        scan(root.as_fd(), &limits).unwrap()
    }

    #[test]
    fn bytes_entries_and_depth_are_all_limits() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("a/b")).unwrap();
        fs::write(base.path().join("a/b/file"), vec![1; 100_000]).unwrap();
        assert!(matches!(scanned(base.path(), 1 << 20, 3), Held::Within(bytes) if bytes >= 100_000));
        assert_eq!(scanned(base.path(), 99_000, 100), Held::Above);
        assert_eq!(scanned(base.path(), 1 << 20, 2), Held::Above);
        fs::set_permissions(base.path().join("a"), fs::Permissions::from_mode(0o0)).unwrap();
        assert_eq!(scanned(base.path(), 99_000, 100), Held::Above, "nothing hides behind a shut directory");
        let mut inner = fs::File::open(base.path()).unwrap();
        for _ in 0..2_500 {
            rustix::fs::mkdirat(&inner, "d", Mode::RWXU).unwrap();
            inner = rustix::fs::openat(&inner, "d", OFlags::RDONLY, Mode::empty()).unwrap().into();
        }
        assert_eq!(scanned(base.path(), 1 << 40, 1_000_000), Held::Above);
        // Too deep for the temporary directory's own removal.
        fs::create_dir(base.path().join("trash")).unwrap();
        let (root, trash) = (fs::File::open(base.path()).unwrap(), fs::File::open(base.path().join("trash")).unwrap());
        removal::remove_tree(root.as_fd(), c"d", trash.as_fd()).unwrap();
    }
}

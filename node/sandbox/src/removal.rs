//! Removes directory trees that a hostile tool has built.
//!
//! Always true: no symbolic link is followed, nothing outside the named entry is touched, and depth costs neither stack nor
//! descriptors. Instead of descending, every directory inside is moved up next to the others and emptied there, so a path of any
//! length is only ever handled one name at a time. Directories that the tool made inaccessible are opened up first.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags};
use rustix::io::Errno;

/// Names of piles are unique in this process; a name left by an earlier one is skipped.
static NEXT_PILE: AtomicU64 = AtomicU64::new(0);
/// Left-over piles of earlier processes that are skipped over before giving up.
const PILE_ATTEMPTS_MAX: u32 = 10_000;
/// Passes in which nothing could be removed: what is left then is reported.
const IDLE_PASSES_MAX: u32 = 2;

/// Removes one entry of `parent` and everything below it. `trash` is a directory on the same file system in which nobody
/// else makes entries named as piles are. Fine if the entry does not exist. Blocks.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &CStr, trash: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS) => {}
        Err(error) => return Err(error.into()),
    }
    let (pile_name, pile) = new_pile(trash)?;
    let moved = move_directory(parent, name, pile.as_fd(), "0");
    if let Err(error) = moved {
        let _ = rustix::fs::unlinkat(trash, pile_name.as_str(), AtFlags::REMOVEDIR);
        return if error == Errno::NOENT { Ok(()) } else { Err(error.into()) };
    }
    empty_pile(pile.as_fd())?;
    Ok(rustix::fs::unlinkat(trash, pile_name.as_str(), AtFlags::REMOVEDIR)?)
}

/// Finishes what an earlier process left in the trash. Blocks.
pub(crate) fn empty_trash(trash: BorrowedFd<'_>) -> io::Result<()> {
    // Each entry is a pile, and a pile among others is emptied the same way as any directory in one.
    Ok(empty_pile(trash)?)
}

fn new_pile(trash: BorrowedFd<'_>) -> rustix::io::Result<(String, OwnedFd)> {
    for _ in 0..PILE_ATTEMPTS_MAX {
        let name = format!("pile-{}", NEXT_PILE.fetch_add(1, Ordering::Relaxed));
        match rustix::fs::mkdirat(trash, name.as_str(), Mode::RWXU) {
            Ok(()) => {
                let pile = open_directory(trash, name.as_str())?;
                return Ok((name, pile));
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EXIST)
}

/// Empties a directory by passes over it. Each pass removes files, and dissolves directories into the pile itself.
fn empty_pile(pile: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut next_name = 0;
    let mut idle = 0;
    loop {
        let mut progress = false;
        let mut problem = None;
        let mut left = false;
        for entry in Dir::read_from(pile)? {
            let entry = entry?;
            if is_self_or_parent(entry.file_name()) {
                continue;
            }
            left = true;
            match dissolve(pile, entry.file_name(), &mut next_name) {
                Ok(()) => progress = true,
                Err(error) => problem = Some(error),
            }
        }
        if !left {
            return Ok(());
        }
        idle = if progress { 0 } else { idle + 1 };
        if idle >= IDLE_PASSES_MAX {
            return Err(problem.unwrap_or(Errno::NOTEMPTY));
        }
    }
}

/// Removes one entry of the pile; the directories in it become entries of the pile.
fn dissolve(pile: BorrowedFd<'_>, name: &CStr, next_name: &mut u64) -> rustix::io::Result<()> {
    match unlink(pile, name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error),
    }
    let directory = open_forced(pile, name)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let inner = entry.file_name();
        if is_self_or_parent(inner) {
            continue;
        }
        // Where the file system does not say what an entry is, removing it as a file tells.
        let is_directory = match entry.file_type() {
            FileType::Directory => true,
            _ => unlink(directory.as_fd(), inner) == Err(Errno::ISDIR),
        };
        if is_directory {
            move_up(directory.as_fd(), inner, pile, next_name)?;
        }
    }
    match rustix::fs::unlinkat(pile, name, AtFlags::REMOVEDIR) {
        // Something was not seen while the directory changed under the reading: the next pass will.
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Everything in the pile is to be removed, so a name that is taken only means trying the next.
fn move_up(from: BorrowedFd<'_>, name: &CStr, pile: BorrowedFd<'_>, next_name: &mut u64) -> rustix::io::Result<()> {
    loop {
        *next_name += 1;
        match move_directory(from, name, pile, &next_name.to_string()) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            Err(Errno::NOENT) => return Ok(()),
            other => return other,
        }
    }
}

/// Moving a directory to another parent needs the right to write in it.
fn move_directory(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, new: &str) -> rustix::io::Result<()> {
    match rustix::fs::renameat(from, name, to, new) {
        Err(Errno::ACCESS | Errno::PERM) => {
            drop(open_forced(from, name)?);
            rustix::fs::renameat(from, name, to, new)
        }
        other => other,
    }
}

/// Says `ISDIR` for a directory, also on systems that answer otherwise.
fn unlink(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::PERM | Errno::ACCESS) => {
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Err(Errno::ISDIR);
            }
            clear_flags(parent, name);
            rustix::fs::unlinkat(parent, name, AtFlags::empty())
        }
        other => other,
    }
}

/// A tool that runs as root can mark files immutable; as the same user we can undo it.
fn clear_flags(parent: BorrowedFd<'_>, name: &CStr) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(parent, name, flags, Mode::empty()) {
        // Where this is not supported there is nothing to undo.
        let _ = rustix::fs::ioctl_setflags(&file, IFlags::empty());
    }
}

fn open_directory<P: rustix::path::Arg>(parent: BorrowedFd<'_>, name: P) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens a directory after making it ours to read, search and change.
fn open_forced(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    chmod(parent, name, Mode::RWXU)?;
    let directory = open_directory(parent, name)?;
    let _ = rustix::fs::ioctl_setflags(&directory, IFlags::empty());
    Ok(directory)
}

/// Changes the mode of exactly this directory: a link with this name is not followed.
pub(crate) fn chmod(parent: BorrowedFd<'_>, name: &CStr, mode: Mode) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let changed = rustix::fs::chmodat(CWD, path.as_str(), mode, AtFlags::empty());
    match changed {
        // Marked immutable, which the flags say only after it is opened.
        Err(Errno::PERM) => {
            clear_flags(parent, name);
            rustix::fs::chmodat(CWD, path.as_str(), mode, AtFlags::empty())
        }
        other => other,
    }
}

/// Names in a directory.
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !is_self_or_parent(entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

pub(crate) fn is_self_or_parent(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_tree_far_deeper_than_any_path_and_inaccessible_directories_are_removed_and_links_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        let trash = base.path().join("trash");
        let hostile = base.path().join("hostile");
        fs::create_dir(&trash).unwrap();
        fs::create_dir(&hostile).unwrap();
        fs::write(base.path().join("keep"), "kept").unwrap();
        symlink(base.path(), hostile.join("up")).unwrap();
        let mut inner = open_directory(CWD, hostile.as_path()).unwrap();
        for _ in 0..6_000 {
            rustix::fs::mkdirat(&inner, "d", Mode::RWXU).unwrap();
            inner = open_directory(inner.as_fd(), c"d").unwrap();
        }
        fs::create_dir_all(hostile.join("shut/inside")).unwrap();
        fs::write(hostile.join("shut/inside/file"), "x").unwrap();
        fs::set_permissions(hostile.join("shut/inside"), fs::Permissions::from_mode(0o0)).unwrap();
        fs::set_permissions(hostile.join("shut"), fs::Permissions::from_mode(0o0)).unwrap();

        let parent = open_directory(CWD, base.path()).unwrap();
        let trash = open_directory(CWD, trash.as_path()).unwrap();
        remove_tree(parent.as_fd(), c"hostile", trash.as_fd()).unwrap();
        remove_tree(parent.as_fd(), c"hostile", trash.as_fd()).unwrap();
        assert!(!hostile.exists());
        assert!(names(trash.as_fd()).unwrap().is_empty());
        assert_eq!(fs::read(base.path().join("keep")).unwrap(), b"kept");
    }

    #[test]
    fn trash_of_an_earlier_process_is_finished() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("pile-0/7/a/b")).unwrap();
        fs::create_dir_all(base.path().join("1/b")).unwrap();
        let trash = open_directory(CWD, base.path()).unwrap();
        empty_trash(trash.as_fd()).unwrap();
        assert!(names(trash.as_fd()).unwrap().is_empty());
    }
}

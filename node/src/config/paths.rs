//! Whether a path of this machine may be shown to tools.
//!
//! Always true of a path that passed when it was looked at: it is a directory or a file and not reached through a link, it does not lie in, hold or equal the
//! node's own data directory, and nothing in it is a socket, a pipe or a device, through which a read-only view could be answered, filled or worse.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::findings::quote;

/// Entries looked at below one path; more would hold up the start of the node, and no set of resources for a tool is that large.
const ENTRIES_MAX: usize = 100_000;

/// Looks at paths; the host's own, or a test's.
pub trait Paths {
    /// Whether a tool may be shown this absolute path and everything below it.
    fn look(&self, path: &Path) -> Result<(), PathFault>;

    /// Whether anything is there at all.
    fn is_there(&self, path: &Path) -> bool;
}

/// Why a path is not shown to tools.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathFault {
    /// Nothing is there.
    #[error("{} is not on this machine", shown(.0))]
    Absent(PathBuf),
    /// A link on the way.
    #[error("{} is a link: whoever can change it decides what tools see", shown(.at))]
    Link {
        /// The link.
        at: PathBuf,
        /// Where the whole path really leads, if it leads anywhere.
        real: Option<PathBuf>,
    },
    /// It concerns the node's keys and books.
    #[error("it would show tools the node's own data directory {}", shown(.0))]
    OwnData(PathBuf),
    /// A socket, a pipe or a device; a view that cannot be written still lets a program connect to these.
    #[error("{} is a {kind}", shown(.at))]
    Special {
        /// What was found first.
        at: PathBuf,
        /// Its kind.
        kind: &'static str,
    },
    /// Too much to look at.
    #[error("more than {ENTRIES_MAX} entries lie below it, too many to look for sockets and devices")]
    TooMany,
    /// The node may not look there.
    #[error("{} cannot be looked at: {why}", shown(.at))]
    Unreadable {
        /// What.
        at: PathBuf,
        /// The system's reason.
        why: String,
    },
}

/// A path in a finding: names below a shared folder may hold anything.
fn shown(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

impl PathFault {
    /// What to write or do instead.
    pub fn fix(&self) -> String {
        match self {
            Self::Absent(_) => "make it, or correct the path".to_owned(),
            Self::Link { real: Some(real), .. } => format!("write the real path, {}", shown(real)),
            Self::Link { real: None, .. } => "write the real path".to_owned(),
            Self::OwnData(_) => "put what tools need into a folder of its own".to_owned(),
            Self::Special { .. } => "share a folder that holds only files and folders".to_owned(),
            Self::TooMany => "share only the part of it that the tool needs".to_owned(),
            Self::Unreadable { .. } => "let the node's user read it, or share only the part that it can read".to_owned(),
        }
    }
}

/// The paths of this machine.
#[derive(Clone, Debug, Default)]
pub struct HostPaths {
    data_dir: Option<PathBuf>,
}

impl HostPaths {
    /// For a node whose keys and books are in this directory, which need not exist yet.
    pub fn beside(data_dir: &Path) -> Self {
        Self { data_dir: Some(real(data_dir)) }
    }
}

/// A path with all links followed as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in path.ancestors() {
        if let (Ok(found), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
            // Joining nothing would add a slash.
            return if rest.as_os_str().is_empty() { found } else { found.join(rest) };
        }
    }
    path
}

impl Paths for HostPaths {
    fn look(&self, path: &Path) -> Result<(), PathFault> {
        for part in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            let metadata = part.symlink_metadata().map_err(|error| unreadable(part, &error))?;
            if metadata.is_symlink() {
                return Err(PathFault::Link { at: part.to_owned(), real: path.canonicalize().ok() });
            }
        }
        if let Some(data) = self.data_dir.as_ref().filter(|data| data.starts_with(path) || path.starts_with(data)) {
            return Err(PathFault::OwnData(data.clone()));
        }
        let kind = path.symlink_metadata().map_err(|error| unreadable(path, &error))?.file_type();
        if let Some(kind) = special(kind) {
            return Err(PathFault::Special { at: path.to_owned(), kind });
        }
        if kind.is_dir() { walk(path, ENTRIES_MAX) } else { Ok(()) }
    }

    fn is_there(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }
}

/// Looks at everything below a directory, following no link.
fn walk(top: &Path, entries_max: usize) -> Result<(), PathFault> {
    let mut seen = 0_usize;
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory).map_err(|error| unreadable(&directory, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&directory, &error))?;
            seen = seen.saturating_add(1);
            if seen > entries_max {
                return Err(PathFault::TooMany);
            }
            let kind = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
            if let Some(kind) = special(kind) {
                return Err(PathFault::Special { at: entry.path(), kind });
            }
            if kind.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(())
}

fn special(kind: std::fs::FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt;
    if kind.is_socket() {
        Some("socket")
    } else if kind.is_fifo() {
        Some("pipe")
    } else if kind.is_block_device() || kind.is_char_device() {
        Some("device")
    } else {
        None
    }
}

fn unreadable(at: &Path, error: &io::Error) -> PathFault {
    if error.kind() == io::ErrorKind::NotFound {
        return PathFault::Absent(at.to_owned());
    }
    PathFault::Unreadable { at: at.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    #[test]
    fn a_plain_folder_or_file_passes_with_links_inside_and_what_is_absent_does_not() {
        let (_folder, path) = folder();
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::fs::write(path.join("a/b/file"), "x").unwrap();
        symlink("/dev/null", path.join("a/link")).unwrap();
        let host = HostPaths::default();
        assert_eq!(host.look(&path), Ok(()));
        assert_eq!(host.look(&path.join("a/b/file")), Ok(()));
        assert!(host.is_there(&path.join("a/link")) && !host.is_there(&path.join("a/c")));
        assert_eq!(host.look(&path.join("a/c/d")), Err(PathFault::Absent(path.join("a/c"))));
        assert!(matches!(host.look(&path.join("a/b/file/x")), Err(PathFault::Unreadable { .. })));
    }

    #[test]
    fn a_link_anywhere_in_the_path_is_refused_and_the_real_path_named() {
        let (_folder, path) = folder();
        std::fs::create_dir_all(path.join("real/below")).unwrap();
        symlink(path.join("real"), path.join("link")).unwrap();
        symlink("nowhere", path.join("broken")).unwrap();
        let host = HostPaths::default();
        for (given, at, real) in [("link", "link", Some("real")), ("link/below", "link", Some("real/below")), ("broken", "broken", None)] {
            let fault = PathFault::Link { at: path.join(at), real: real.map(|real| path.join(real)) };
            assert_eq!(host.look(&path.join(given)), Err(fault), "{given}");
        }
    }

    #[test]
    fn sockets_pipes_and_devices_are_found_however_deep_they_lie() {
        for kind in ["socket", "pipe"] {
            let (_folder, path) = folder();
            let deep = path.join("a/b/c");
            std::fs::create_dir_all(&deep).unwrap();
            let at = deep.join("x");
            if kind == "socket" {
                drop(std::os::unix::net::UnixListener::bind(&at).unwrap());
            } else {
                assert!(std::process::Command::new("mkfifo").arg(&at).status().unwrap().success());
            }
            let fault = Err(PathFault::Special { at: at.clone(), kind });
            assert_eq!(HostPaths::default().look(&path), fault);
            assert_eq!(HostPaths::default().look(&at), fault);
        }
        let device = PathFault::Special { at: PathBuf::from("/dev/null"), kind: "device" };
        assert_eq!(HostPaths::default().look(Path::new("/dev/null")), Err(device));
    }

    #[test]
    fn the_data_directory_is_refused_from_above_and_below_before_and_after_it_is_made() {
        let (_folder, path) = folder();
        std::fs::create_dir_all(path.join("lib")).unwrap();
        std::fs::create_dir_all(path.join("library")).unwrap();
        symlink(path.join("lib"), path.join("via")).unwrap();
        for _ in 0..2 {
            // Named through a link, as a service file may do it.
            let host = HostPaths::beside(&path.join("via/orien/node"));
            let own = path.join("lib/orien/node");
            assert_eq!(host.look(&path), Err(PathFault::OwnData(own.clone())));
            assert_eq!(host.look(&path.join("lib")), Err(PathFault::OwnData(own.clone())));
            assert_eq!(host.look(&path.join("library")), Ok(()));
            std::fs::create_dir_all(own.join("workspaces")).unwrap();
        }
        let host = HostPaths::beside(&path.join("via/orien/node"));
        assert!(matches!(host.look(&path.join("lib/orien/node")), Err(PathFault::OwnData(_))));
        assert!(matches!(host.look(&path.join("lib/orien/node/workspaces")), Err(PathFault::OwnData(_))));
    }

    #[test]
    fn a_tree_is_looked_through_to_its_bound_and_refused_beyond() {
        let (_folder, path) = folder();
        for name in ["a", "b", "c"] {
            std::fs::create_dir(path.join(name)).unwrap();
            std::fs::write(path.join(name).join("file"), "").unwrap();
        }
        assert_eq!(walk(&path, 6), Ok(()));
        assert_eq!(walk(&path, 5), Err(PathFault::TooMany));
    }
}

//! The directory in which a peer keeps everything: keys, stores, the token of its local door.
//!
//! Always true while a [`DataDir`] exists: nobody but its owner can enter the directory, no other process of ours uses it, and what is in it was
//! written by this version for this role. The lock ends with the value, or with the process.
//!
//! It does not know what is in the files whose places it names.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::files::{self, FileError, OTHERS};

/// The layout of data directories that this program reads and writes.
const VERSION: &str = "1";

/// Longest `VERSION`, `ROLE` or `lock` file; each holds one word.
const WORD_LIMIT: u64 = 64;

/// What a peer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleName {
    /// Introduces peers and keeps the catalogue.
    Bootstrap,
    /// A provider's daemon.
    Node,
    /// The agent's side.
    Gateway,
    /// Reservations and the ledger.
    Settlement,
}

impl RoleName {
    /// The name of the subcommand, and what stands in a data directory's `ROLE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Node => "node",
            Self::Gateway => "gateway",
            Self::Settlement => "settlement",
        }
    }
}

impl std::fmt::Display for RoleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum OpenDataDirError {
    /// Others may enter it.
    #[error("the data directory {} can be entered by other users (mode {mode:04o}); run: chmod 700 '{}'", path.display(), path.display())]
    Exposed {
        /// Which directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else owns it.
    #[error("the data directory {} belongs to user {uid}, not to the user of this program; run as that user or choose another directory", path.display())]
    NotOurs {
        /// Which directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// It is something else.
    #[error("{} is not a directory; choose another one", path.display())]
    NotADirectory {
        /// Which path.
        path: PathBuf,
    },
    /// Another process uses it.
    #[error("the data directory {} is in use by {holder}; stop that first, or choose another directory", path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
        /// The process, as far as it can be told.
        holder: String,
    },
    /// Another version of the program made it.
    #[error("the data directory {} has layout version `{found}`, and this program knows version {VERSION}; use the program that made it", path.display())]
    OtherVersion {
        /// Which directory.
        path: PathBuf,
        /// What its `VERSION` says, cut short.
        found: String,
    },
    /// Another role lives in it: its keys must not be used for two things.
    #[error("the data directory {} belongs to a {found}, and this is a {wanted}; every role needs a directory of its own", path.display())]
    OtherRole {
        /// Which directory.
        path: PathBuf,
        /// What its `ROLE` says, cut short.
        found: String,
        /// The role that was started.
        wanted: RoleName,
    },
    /// A file or the directory itself could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A data directory that is ours alone.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens or makes (0700) the directory and locks it.
    pub fn open(path: &Path, role: RoleName) -> Result<Self, OpenDataDirError> {
        make(path)?;
        let metadata = std::fs::metadata(path).map_err(FileError::io("look at", path))?;
        if !metadata.is_dir() {
            return Err(OpenDataDirError::NotADirectory { path: path.to_owned() });
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(OpenDataDirError::NotOurs { path: path.to_owned(), uid: metadata.uid() });
        }
        if metadata.mode() & OTHERS != 0 {
            return Err(OpenDataDirError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o777 });
        }
        // Absolute, because the path is handed to others (`door.json`) and outlives a change of the working directory.
        let path = path.canonicalize().map_err(FileError::io("look at", path))?;
        let lock = lock(&path)?;
        let version = word(&path.join("VERSION"), VERSION)?;
        if version != VERSION {
            return Err(OpenDataDirError::OtherVersion { path, found: version });
        }
        let found = word(&path.join("ROLE"), role.name())?;
        if found != role.name() {
            return Err(OpenDataDirError::OtherRole { path, found, wanted: role });
        }
        Ok(Self { path, _lock: lock })
    }

    /// The directory itself, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Seed of the peer's network identity.
    pub fn peer_key(&self) -> PathBuf {
        self.path.join("peer.key")
    }

    /// The key that moves money.
    pub fn money_key(&self) -> PathBuf {
        self.path.join("money.key")
    }

    /// Which network this peer belongs to.
    pub fn network_file(&self) -> PathBuf {
        self.path.join("network.toml")
    }

    /// The database called `name`: `catalogue` is this crate's, every other name is the role's.
    pub fn store(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.redb"))
    }

    /// The token of the local door.
    pub fn door_token(&self) -> PathBuf {
        self.path.join("door.token")
    }

    /// Where the local door is, for other commands of the program.
    pub fn door_file(&self) -> PathBuf {
        door_file_in(&self.path)
    }
}

/// Where a data directory that may belong to a running peer says where that peer's door is.
pub(crate) fn door_file_in(directory: &Path) -> PathBuf {
    directory.join("door.json")
}

fn make(path: &Path) -> Result<(), FileError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(FileError::io("create", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(FileError::io("create", path)(error)),
        _ => Ok(()),
    }
}

/// Takes the lock and writes our process id into it, for the error of whoever comes second.
fn lock(directory: &Path) -> Result<File, OpenDataDirError> {
    let path = directory.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(FileError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenDataDirError::InUse { path: directory.to_owned(), holder: holder(&path) });
        }
        Err(TryLockError::Error(error)) => return Err(FileError::io("lock", &path)(error).into()),
    }
    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(FileError::io("write", &path))?;
    Ok(file)
}

fn holder(lock: &Path) -> String {
    match files::read(lock, WORD_LIMIT).ok().and_then(|text| text.trim().parse::<u32>().ok()) {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// What a one-word file says; written first if it is not there.
fn word(path: &Path, initial: &str) -> Result<String, FileError> {
    match files::read(path, WORD_LIMIT) {
        Ok(text) => Ok(text.trim().escape_debug().to_string()),
        Err(error) if error.is_absent() => {
            files::replace(path, format!("{initial}\n").as_bytes())?;
            Ok(initial.to_owned())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/data");
        (parent, path)
    }

    #[test]
    fn a_new_directory_is_private_and_says_its_version() {
        let (_parent, path) = place();
        let data = DataDir::open(&path, RoleName::Node).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_to_string(path.join("VERSION")).unwrap(), "1\n");
        assert!(data.store("catalogue").is_absolute());
    }

    #[test]
    fn a_second_opening_names_the_process_that_holds_it_and_succeeds_after_it() {
        let (_parent, path) = place();
        let first = DataDir::open(&path, RoleName::Node).unwrap();
        let error = DataDir::open(&path, RoleName::Node).unwrap_err();
        assert!(matches!(error, OpenDataDirError::InUse { .. }));
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        DataDir::open(&path, RoleName::Node).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused_with_the_fix() {
        let (_parent, path) = place();
        drop(DataDir::open(&path, RoleName::Node).unwrap());
        std::fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        let error = DataDir::open(&path, RoleName::Node).unwrap_err().to_string();
        assert!(error.contains("mode 0750") && error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn another_version_another_role_and_a_file_are_refused() {
        let (_parent, path) = place();
        drop(DataDir::open(&path, RoleName::Node).unwrap());
        let error = DataDir::open(&path, RoleName::Gateway).unwrap_err().to_string();
        assert!(error.contains("belongs to a node, and this is a gateway"), "{error}");
        std::fs::write(path.join("VERSION"), "2\n").unwrap();
        let error = DataDir::open(&path, RoleName::Node).unwrap_err();
        assert!(matches!(error, OpenDataDirError::OtherVersion { ref found, .. } if found == "2"), "{error}");
        let file = path.with_file_name("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(DataDir::open(&file, RoleName::Node), Err(OpenDataDirError::NotADirectory { .. })));
    }

    #[test]
    fn a_draft_left_by_a_crash_does_not_stand_in_the_way() {
        let (_parent, path) = place();
        drop(DataDir::open(&path, RoleName::Node).unwrap());
        std::fs::remove_file(path.join("VERSION")).unwrap();
        std::fs::write(path.join("VERSION.new"), "half").unwrap();
        DataDir::open(&path, RoleName::Node).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("VERSION")).unwrap(), "1\n");
    }
}

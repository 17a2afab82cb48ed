//! The sandbox of a node: where workspaces are, and what an earlier process left there.
//!
//! Always true: after [`Sandbox::open`] nothing of an earlier process is left: no process of its tools and no workspace. Two
//! sandboxes never share a root; the node's lock on its data directory sees to that.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::limits::{Level, SessionLimits};
use crate::session::{Place, STAGING, SessionSandbox, TMP, WORK};
use crate::{removal, survivors};

/// Session ids are shorter.
const NAME_BYTES_MAX: usize = 64;
/// Where trees wait for their removal. Not a valid session name, and made first, so it marks a directory as a sandbox's.
const TRASH: &str = ".trash";

/// Where the sandbox lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxConfig {
    /// Directory for workspaces. Everything in it belongs to the sandbox, and is removed when it opens.
    pub root: PathBuf,
    /// The program that calls [`crate::run_if_helper`] first thing in its `main`.
    pub helper: PathBuf,
}

impl SandboxConfig {
    /// With the running program as the helper, also after its file was replaced by a newer one.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, helper: PathBuf::from("/proc/self/exe") }
    }
}

/// Why the sandbox cannot be used on this host or in this place.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory cannot be made or opened.
    #[error("the directory for workspaces {path} cannot be used: {source}")]
    Root {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Tools get the path in their environment.
    #[error("the path of the directory for workspaces has to be UTF-8: {0}")]
    NotUtf8(PathBuf),
    /// The kernel lacks `openat2` (Linux 5.6), or something filters it.
    #[error("this system cannot confine file access (openat2: {0})")]
    Unsupported(io::Error),
    /// It holds something, but not what a sandbox leaves. Refused, because everything in it would be removed.
    #[error("{0} already holds something else; give the sandbox a directory of its own, everything in it is removed at each start")]
    NotOurs(PathBuf),
    /// Processes of an earlier start cannot be killed.
    #[error("{0} processes of an earlier start do not end")]
    Survivors(usize),
}

/// Why a session's workspace was not made.
#[derive(Debug, Error)]
pub enum SessionError {
    /// Letters, digits, `-` and `_`, at most 64.
    #[error("{0:?} is not a name for a workspace")]
    Name(String),
    /// There is a workspace of this name.
    #[error("there already is a workspace {0}")]
    Exists(String),
    /// The operating system refused.
    #[error("the workspace cannot be made: {0}")]
    Io(#[from] io::Error),
}

/// The node's sandbox.
#[derive(Debug)]
pub struct Sandbox {
    helper: PathBuf,
    path: PathBuf,
    root: Arc<OwnedFd>,
    trash: Arc<OwnedFd>,
}

impl Sandbox {
    /// Makes the root directory (0700) and removes what an earlier process left: processes first, then workspaces.
    pub async fn open(config: SandboxConfig) -> Result<Self, OpenError> {
        let path = config.root.clone();
        let opened = tokio::task::spawn_blocking(move || open(&config)).await;
        opened.unwrap_or_else(|error| Err(OpenError::Root { path, source: io::Error::other(error) }))
    }

    /// Makes a fresh workspace.
    pub async fn session(&self, name: &str, limits: SessionLimits) -> Result<SessionSandbox, SessionError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('-') || !name.bytes().all(allowed) {
            return Err(SessionError::Name(name.chars().take(NAME_BYTES_MAX).collect()));
        }
        let path = self.path.join(name);
        let name = name.to_owned();
        let (root, trash) = (Arc::clone(&self.root), Arc::clone(&self.trash));
        let made = tokio::task::spawn_blocking(move || make(root, trash, path, name)).await;
        let place = made.map_err(|error| SessionError::Io(io::Error::other(error)))??;
        Ok(SessionSandbox::new(self.helper.clone(), place, limits))
    }

    /// The directory for workspaces.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// How strongly tools are confined here.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::S0
    }
}

fn open(config: &SandboxConfig) -> Result<Sandbox, OpenError> {
    let refused = |source: io::Error| OpenError::Root { path: config.root.clone(), source };
    std::fs::create_dir_all(&config.root).map_err(refused)?;
    // Links above the root are the operator's own; the kernel shows a process's directory without them.
    let path = config.root.canonicalize().map_err(refused)?;
    if path.to_str().is_none() {
        return Err(OpenError::NotUtf8(path));
    }
    let root = open_directory(CWD, &path).map_err(|error| refused(error.into()))?;
    let names = removal::names(root.as_fd()).map_err(refused)?;
    if !names.is_empty() && !names.iter().any(|name| name.to_bytes() == TRASH.as_bytes()) {
        return Err(OpenError::NotOurs(path));
    }
    rustix::fs::fchmod(&root, Mode::RWXU).map_err(|error| refused(error.into()))?;
    rustix::fs::openat2(&root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH)
        .map_err(|error| OpenError::Unsupported(error.into()))?;
    let left = survivors::kill(&path).map_err(refused)?;
    if left > 0 {
        return Err(OpenError::Survivors(left));
    }
    let inherited = inheritable();
    if !inherited.is_empty() {
        tracing::warn!(descriptors = ?inherited, "the node was started with open descriptors, and tools will have them too");
    }
    let trash = sweep(&root).map_err(refused)?;
    Ok(Sandbox { helper: config.helper.clone(), path, root: Arc::new(root), trash: Arc::new(trash) })
}

/// Descriptors that survive a program's start. We make none such; a careless launcher of the node may have left some.
fn inheritable() -> Vec<i32> {
    let survives = |number: &i32| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        flags.is_some_and(|flags| flags & OFlags::CLOEXEC.bits() == 0)
    };
    let Ok(numbers) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|number| *number > 2).filter(survives).collect()
}

/// Empties the root but for the trash directory, which it makes.
fn sweep(root: &OwnedFd) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(root, TRASH, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let trash = open_directory(root.as_fd(), TRASH)?;
    removal::empty_trash(trash.as_fd())?;
    for name in removal::names(root.as_fd())? {
        if name.to_bytes() != TRASH.as_bytes() {
            tracing::info!(name = %name.to_string_lossy(), "removing a workspace of an earlier start");
            removal::remove_tree(root.as_fd(), &name, trash.as_fd())?;
        }
    }
    Ok(trash)
}

fn make(root: Arc<OwnedFd>, trash: Arc<OwnedFd>, path: PathBuf, name: String) -> Result<Place, SessionError> {
    match rustix::fs::mkdirat(&root, name.as_str(), Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Err(SessionError::Exists(name)),
        Err(error) => return Err(SessionError::Io(error.into())),
    }
    let session = open_directory(root.as_fd(), name.as_str()).map_err(io::Error::from)?;
    let inner = |name: &str| -> io::Result<OwnedFd> {
        rustix::fs::mkdirat(&session, name, Mode::RWXU)?;
        Ok(open_directory(session.as_fd(), name)?)
    };
    let (work, staging) = (inner(WORK)?, inner(STAGING)?);
    inner(TMP)?;
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(Place { path, name, root, trash, session, work, staging })
}

fn open_directory<P: rustix::path::Arg>(parent: std::os::fd::BorrowedFd<'_>, name: P) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

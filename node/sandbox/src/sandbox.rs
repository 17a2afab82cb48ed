//! The sandbox of a node: how strongly it confines here, where workspaces are, and what an earlier process left there.
//!
//! Always true: the level is what a session really held when it was opened and tried at the start, never what versions promise;
//! below the level that is asked for the sandbox does not open. After [`Sandbox::open`] nothing of an earlier process is left: no
//! process of its tools and no workspace. Two sandboxes never share a root; the node's lock on its data directory sees to that.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::egress::{EGRESS_BYTES_DEFAULT, EgressCounters};
use crate::files::{Files, Measure};
use crate::groups::{Groups, SessionGroup};
use crate::holding::Holding;
use crate::limits::{Level, SessionLimits};
use crate::policy::{FIRST_PORT, Layer, Opening, Profile, RunProfile, Storage};
use crate::session::{Parts, Place, STAGING, SessionSandbox, TMP, WORK};
use crate::survey::{self, Survey};
use crate::users::{FIRST_USER_DEFAULT, User, Users};
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
    /// The sandbox does not open when tools cannot be confined at least so strongly here.
    pub min_level: Level,
    /// The strongest level to try. Only tests ask for less than everything.
    pub max_level: Level,
    /// First of the range of users that sessions run as when the node is root; see [`crate::FIRST_USER_DEFAULT`].
    pub first_user: u32,
    /// Use control groups for exact figures even where they cannot hold limits, below [`Level::S3`].
    pub count_in_groups: bool,
    /// Layers left out, to see what each is for. Empty but in tests.
    pub without: Vec<Layer>,
    /// Take the strongest level as given instead of finding out what holds. For tests of single layers: the checks notice most of those
    /// that are left out, and the sandbox would rightly not open.
    pub unchecked: bool,
}

impl SandboxConfig {
    /// With the running program as the helper, also after its file was replaced by a newer one, and [`Level::S2`] as the least.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            helper: PathBuf::from("/proc/self/exe"),
            min_level: Level::S2,
            max_level: Level::S3,
            first_user: FIRST_USER_DEFAULT,
            count_in_groups: false,
            without: Vec::new(),
            unchecked: false,
        }
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
    /// The range of users is empty or holds root.
    #[error("the users from {0} on cannot be used: choose a first user above 0, with {users} more after it", users = crate::users::USERS)]
    Users(u32),
    /// This host confines less strongly than was asked for.
    #[error("tools can be confined at {level} here, and {needed} is asked for: {why}")]
    Weak {
        /// What is possible.
        level: Level,
        /// What was asked for.
        needed: Level,
        /// What is missing, with its remedy.
        why: String,
    },
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
    /// As many sessions as there are users for them.
    #[error("all users for sessions are taken")]
    NoUser,
    /// The session's confinement could not be completed, so there is no session.
    #[error("the session cannot be confined: {stage}: {message}")]
    Setup {
        /// The step that failed.
        stage: String,
        /// What the system said.
        message: String,
    },
}

/// What a session is to be.
#[derive(Debug, Clone)]
pub struct SessionSpec {
    /// What its workspace may hold.
    pub limits: SessionLimits,
    /// Where the workspace is.
    pub storage: Storage,
    /// What its tools may send and receive together, in bytes, where they have a way out.
    pub network_bytes: u64,
    /// The kinds of runs it will have; [`crate::RunSpec::profile`] is an index into them. One that may do nothing special when empty.
    pub profiles: Vec<Profile>,
}

impl Default for SessionSpec {
    fn default() -> Self {
        let limits = SessionLimits::default();
        Self { limits, storage: Storage::default(), network_bytes: EGRESS_BYTES_DEFAULT, profiles: Vec::new() }
    }
}

/// The node's sandbox.
#[derive(Debug)]
pub struct Sandbox {
    helper: PathBuf,
    path: PathBuf,
    root: Arc<OwnedFd>,
    trash: Arc<OwnedFd>,
    survey: Survey,
    without: Vec<Layer>,
    /// Only when the node is root.
    users: Option<Users>,
    /// Or why there are none.
    groups: Result<Groups, String>,
    count_in_groups: bool,
}

impl Sandbox {
    /// Makes the root directory (0700), removes what an earlier process left (processes first, then workspaces), and finds out how
    /// strongly tools can be confined here by doing it once.
    pub async fn open(config: SandboxConfig) -> Result<Self, OpenError> {
        let path = config.root.clone();
        let given = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&given)).await;
        let mut sandbox = opened.unwrap_or_else(|error| Err(OpenError::Root { path, source: io::Error::other(error) }))?;
        if config.unchecked {
            sandbox.survey.level = config.max_level;
            return Ok(sandbox);
        }
        let survey = survey::carry_out(&sandbox, config.max_level).await;
        if survey.level < config.min_level {
            return Err(OpenError::Weak { level: survey.level, needed: config.min_level, why: survey.why_not(config.min_level) });
        }
        sandbox.survey = survey;
        Ok(sandbox)
    }

    /// Makes a fresh workspace and what confines its runs.
    pub async fn session(&self, name: &str, spec: SessionSpec) -> Result<SessionSandbox, SessionError> {
        self.session_at(self.survey.level, name, spec).await
    }

    pub(crate) async fn session_at(&self, level: Level, name: &str, spec: SessionSpec) -> Result<SessionSandbox, SessionError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('-') || !name.bytes().all(allowed) {
            return Err(SessionError::Name(name.chars().take(NAME_BYTES_MAX).collect()));
        }
        let user = self.users.as_ref().map(|users| users.take().ok_or(SessionError::NoUser)).transpose()?;
        // Below that level nothing but disk is there for it, and root without namespaces has no way to give files to another user.
        let user = user.filter(|_| level > Level::S0);
        let in_memory = level >= Level::S2 && spec.storage == Storage::Memory;
        let place = if in_memory { None } else { Some(self.make(name, user.as_ref()).await?) };
        let profiles: Arc<[Profile]> = if spec.profiles.is_empty() { vec![Profile::default()].into() } else { spec.profiles.into() };
        let user_id = user.as_ref().map(|user| user.id);
        let group = self.group(level, name, user_id)?;
        let opening =
            Opening { groups: group.is_some(), ..opening(level, &spec.limits, &profiles, place.as_ref(), user.as_ref(), &self.without) };
        let opened = Holding::open(&self.helper, &opening, group.as_deref()).await;
        let (holding, given) = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                if let Some(place) = place {
                    let _ = removal::remove_tree(place.root.as_fd(), &place.name, place.trash.as_fd());
                }
                return Err(SessionError::Setup { stage: failure.stage, message: failure.message });
            }
        };
        let mut given = given.into_iter();
        let directory = match &place {
            Some(place) => open_directory(place.root.as_fd(), place.name.as_c_str()).map_err(io::Error::from)?,
            None => given.next().ok_or_else(|| SessionError::Io(io::ErrorKind::InvalidData.into()))?,
        };
        let measure = if in_memory { Measure::Filesystem } else { Measure::Scan };
        let files = Files::open(directory, spec.limits.clone(), measure, user_id).map_err(SessionError::Io)?;
        let with_door = profiles.iter().enumerate().filter(|(_, profile)| profile.network.is_some() && level >= Level::S2);
        let doors = with_door.map(|(index, _)| index).zip(given.map(std::net::TcpListener::from)).collect();
        let egress = EgressCounters::new(spec.network_bytes);
        let parts = Parts { egress, holding, level, place, files, limits: spec.limits, profiles, doors, user, group };
        Ok(SessionSandbox::new(parts)?)
    }

    /// A session's control group where there are any.
    fn group(&self, level: Level, name: &str, user: Option<u32>) -> Result<Option<Arc<SessionGroup>>, SessionError> {
        match &self.groups {
            Ok(groups) if level >= Level::S3 || (self.count_in_groups && level >= Level::S2) => Ok(Some(groups.session(name, user)?)),
            _ => Ok(None),
        }
    }

    /// Why control groups do not hold limits here, if they do not.
    pub(crate) fn group_gap(&self) -> Option<String> {
        match &self.groups {
            Ok(groups) if groups.complete => None,
            Ok(groups) => Some(groups.gap()),
            Err(why) => Some(why.clone()),
        }
    }

    async fn make(&self, name: &str, user: Option<&User>) -> Result<Place, SessionError> {
        let (path, name, user) = (self.path.join(name), name.to_owned(), user.map(|user| user.id));
        let (root, trash) = (Arc::clone(&self.root), Arc::clone(&self.trash));
        let made = tokio::task::spawn_blocking(move || make(root, trash, path, name, user)).await;
        made.map_err(|error| SessionError::Io(io::Error::other(error)))?
    }

    /// The directory for workspaces.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// How strongly tools are confined here.
    #[must_use]
    pub fn level(&self) -> Level {
        self.survey.level
    }

    /// What was tried at the start, and how it went.
    #[must_use]
    pub fn survey(&self) -> &Survey {
        &self.survey
    }
}

/// A profile's way out on the session's loopback; profiles that have one are numbered in their order. Without a network of the session's
/// own there is none.
pub(crate) fn port_of(level: Level, profiles: &[Profile], index: usize) -> Option<u16> {
    profiles.get(index)?.network.as_ref().filter(|_| level >= Level::S2)?;
    let before = profiles.iter().take(index).filter(|profile| profile.network.is_some()).count();
    FIRST_PORT.checked_add(u16::try_from(before).ok()?)
}

fn opening(
    level: Level,
    limits: &SessionLimits,
    profiles: &Arc<[Profile]>,
    place: Option<&Place>,
    user: Option<&User>,
    without: &[Layer],
) -> Opening {
    let mut views: Vec<_> = profiles.iter().flat_map(|profile| profile.views.clone()).collect();
    // Parents before children, so that one does not hide the other.
    views.sort();
    views.dedup();
    let of = |(index, profile): (usize, &Profile)| RunProfile {
        views: profile.views.clone(),
        execute_workspace: profile.execute_workspace,
        port: port_of(level, profiles, index),
    };
    Opening {
        level,
        directory: place.map(|place| place.path.clone()),
        bytes: limits.workspace_bytes,
        entries: limits.workspace_entries.into(),
        user: user.map(|user| user.id),
        views,
        profiles: profiles.iter().enumerate().map(of).collect(),
        parallel_runs: limits.parallel_runs,
        groups: false,
        without: without.to_vec(),
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
    let trash = sweep(&root).map_err(refused)?;
    let is_root = rustix::process::geteuid().is_root();
    let users = is_root.then(|| Users::new(config.first_user).ok_or(OpenError::Users(config.first_user))).transpose()?;
    let groups = if config.max_level >= Level::S3 || config.count_in_groups {
        Groups::take_over(&root)
    } else {
        Err("control groups: not asked for".to_owned())
    };
    let (helper, without, count_in_groups) = (config.helper.clone(), config.without.clone(), config.count_in_groups);
    let (root, trash, survey) = (Arc::new(root), Arc::new(trash), Survey::default());
    Ok(Sandbox { helper, path, root, trash, survey, without, users, groups, count_in_groups })
}

/// Empties the root but for the trash directory, which it makes.
fn sweep(root: &OwnedFd) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(root, TRASH, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let trash = open_directory(root.as_fd(), TRASH)?;
    // One tree that refuses must not keep a node from ever starting again: what built it may have been after just that.
    let complain =
        |what: &str, error: &io::Error| tracing::error!(what, %error, "what an earlier start left cannot be removed; do it by hand");
    if let Err(error) = removal::empty_trash(trash.as_fd()) {
        complain(TRASH, &error);
    }
    for name in removal::names(root.as_fd())? {
        if name.to_bytes() != TRASH.as_bytes() {
            tracing::info!(name = %name.to_string_lossy(), "removing a workspace of an earlier start");
            if let Err(error) = removal::remove_tree(root.as_fd(), &name, trash.as_fd()) {
                complain(&name.to_string_lossy(), &error);
            }
        }
    }
    Ok(trash)
}

fn make(root: Arc<OwnedFd>, trash: Arc<OwnedFd>, path: PathBuf, name: String, user: Option<u32>) -> Result<Place, SessionError> {
    match rustix::fs::mkdirat(&root, name.as_str(), Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Err(SessionError::Exists(name)),
        Err(error) => return Err(SessionError::Io(error.into())),
    }
    let session = open_directory(root.as_fd(), name.as_str()).map_err(io::Error::from)?;
    for inner in [WORK, TMP, STAGING] {
        rustix::fs::mkdirat(&session, inner, Mode::RWXU).map_err(io::Error::from)?;
        give(session.as_fd(), inner, user)?;
    }
    give(root.as_fd(), &name, user)?;
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(Place { path, name, root, trash })
}

/// Makes a directory a session user's own.
fn give(parent: std::os::fd::BorrowedFd<'_>, name: &str, user: Option<u32>) -> io::Result<()> {
    let Some(user) = user else { return Ok(()) };
    let (uid, gid) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(user));
    Ok(rustix::fs::chownat(parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
}

fn open_directory<P: rustix::path::Arg>(parent: std::os::fd::BorrowedFd<'_>, name: P) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

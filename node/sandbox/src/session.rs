//! One session's workspace and the runs in it.
//!
//! Always true: the workspace is fresh, private to the session, and gone after [`SessionSandbox::close`]; no run outlives it. A
//! workspace in memory cannot outgrow its limits; one on disk is measured while anything runs, and everything is killed when it does.

use std::ffi::CString;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::egress::{self, EgressCounters, EgressUsage};
use crate::files::Files;
use crate::groups::SessionGroup;
use crate::holding::Holding;
use crate::limits::{Level, SessionLimits};
use crate::policy::{Profile, WORKSPACE};
use crate::removal;
use crate::run::{self, Execution, Launch, RunSpec, StartError, Surroundings};
use crate::sandbox::port_of;
use crate::users::User;

/// A scan of an ordinary workspace takes a few milliseconds.
const SCAN_EVERY: Duration = Duration::from_millis(250);
/// A scan that takes longer is made less often, so that it never takes more than a fifth of one processor.
const SCAN_SHARE: u32 = 4;
/// Killing takes milliseconds; a run whose stub is stuck is given up after less than this.
const RUNS_END_TIME_MAX: Duration = Duration::from_secs(40);

/// Why a workspace could not be removed. What is left is removed at the next start.
#[derive(Debug, Error)]
pub enum CloseError {
    /// Something in the tree refuses, for instance a mount made by root.
    #[error("the workspace {path} cannot be removed: {source}")]
    Remove {
        /// Its directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A run did not end.
    #[error("a run in {0} does not end")]
    Running(PathBuf),
    /// The session's processes did not end.
    #[error("the processes of the session do not end: {0}")]
    Helper(std::io::Error),
}

/// The directories of a session on disk, open.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) name: CString,
    pub(crate) root: Arc<OwnedFd>,
    pub(crate) trash: Arc<OwnedFd>,
}

/// What a session is made of.
pub(crate) struct Parts {
    pub(crate) egress: EgressCounters,
    pub(crate) holding: Holding,
    pub(crate) level: Level,
    /// On disk, where it is.
    pub(crate) place: Option<Place>,
    pub(crate) files: Files,
    pub(crate) limits: SessionLimits,
    pub(crate) profiles: Arc<[Profile]>,
    /// Listening sockets of the profiles that have a way out, with the index of each.
    pub(crate) doors: Vec<(usize, TcpListener)>,
    pub(crate) user: Option<User>,
    pub(crate) group: Option<Arc<SessionGroup>>,
}

/// A session's sandbox. To be closed; when it is only dropped its runs are killed and a workspace in memory is gone, but one on disk
/// stays until the next start.
#[derive(Debug)]
pub struct SessionSandbox {
    holding: Arc<Holding>,
    level: Level,
    place: Option<Place>,
    files: Files,
    limits: SessionLimits,
    profiles: Arc<[Profile]>,
    egress: Arc<EgressCounters>,
    tasks: TaskTracker,
    stop: CancellationToken,
    running: Arc<watch::Sender<u32>>,
    full: Arc<watch::Sender<bool>>,
    group: Option<Arc<SessionGroup>>,
    /// Given back when everything of the session is gone.
    user: Option<User>,
    _stop_on_drop: DropGuard,
}

impl SessionSandbox {
    pub(crate) fn new(parts: Parts) -> std::io::Result<Self> {
        let Parts { egress, holding, level, place, files, limits, profiles, doors, user, group } = parts;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (running, full) = (Arc::new(watch::Sender::new(0)), Arc::new(watch::Sender::new(false)));
        if place.is_some() {
            let guard = Guard { files: files.clone(), running: running.subscribe(), full: Arc::clone(&full) };
            let until = stop.clone();
            tasks.spawn(async move { until.run_until_cancelled_owned(guard.watch()).await });
        }
        let egress = Arc::new(egress);
        for (index, door) in doors {
            let Some(grant) = profiles.get(index).and_then(|profile| profile.network.clone()) else { continue };
            door.set_nonblocking(true)?;
            let door = tokio::net::TcpListener::from_std(door)?;
            tasks.spawn(egress::serve(door, grant, Arc::clone(&egress), stop.clone()));
        }
        let holding = Arc::new(holding);
        let (held, ending) = (Arc::clone(&holding), stop.clone());
        tasks.spawn(async move {
            if ending.run_until_cancelled(held.gone()).await.is_some() {
                tracing::warn!("a session's helper is gone, and the session with it");
                ending.cancel();
            }
        });
        let stop_on_drop = stop.clone().drop_guard();
        let session = Self {
            holding,
            level,
            place,
            files,
            limits,
            profiles,
            egress,
            tasks,
            stop,
            running,
            full,
            group,
            user,
            _stop_on_drop: stop_on_drop,
        };
        Ok(session)
    }

    /// Starts a tool in the workspace. A program that cannot be started is not an error here: its run ends with
    /// [`crate::Cause::SetupFailed`].
    pub async fn start(&self, spec: RunSpec) -> Result<Execution, StartError> {
        if self.stop.is_cancelled() {
            return Err(StartError::Closed);
        }
        if spec.profile >= self.profiles.len() {
            return Err(StartError::Profile(spec.profile));
        }
        let port = port_of(self.level, &self.profiles, spec.profile);
        let (work, temporary) = (self.workspace(), self.temporary());
        let input = spec.input;
        let (profile, job) = spec.into_job(&Surroundings { work: &work, temporary: &temporary, port })?;
        self.launch(profile, job, input).await
    }

    /// Runs the checks of [`crate::selftest`] in place of a tool.
    pub(crate) async fn check(&self, limits: crate::limits::RunLimits) -> Result<Execution, StartError> {
        let directory = self.workspace().to_string_lossy().into_owned();
        let job = crate::wire::Job { program: None, args: Vec::new(), env: Vec::new(), directory, limits };
        self.launch(0, job, false).await
    }

    async fn launch(&self, profile: usize, job: crate::wire::Job, input: bool) -> Result<Execution, StartError> {
        let permit = Permit::take(&self.running, self.limits.parallel_runs).ok_or(StartError::Busy(self.limits.parallel_runs))?;
        let is_full = self.files.is_full().await.map_err(|error| std::io::Error::other(error.to_string()))?;
        self.full.send_replace(is_full && self.place.is_some());
        if is_full {
            return Err(StartError::WorkspaceFull);
        }
        let user = self.user.as_ref().map(|user| user.id);
        let group = self.group.as_ref().map(|group| group.run(&job.limits, user)).transpose()?;
        let launch = Launch {
            group,
            holding: Arc::clone(&self.holding),
            profile,
            job,
            input,
            // In namespaces nothing of a run survives its stub.
            survivors_in: self.place.as_ref().filter(|_| self.level < Level::S2).map(|place| place.path.clone()),
            stop_session: self.stop.clone(),
            full: self.full.subscribe(),
            permit,
        };
        run::launch(launch, &self.tasks).await
    }

    /// Access to the workspace's files.
    #[must_use]
    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// Where its tools see the workspace.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        match &self.place {
            Some(place) if self.level < Level::S2 => place.path.join(WORK),
            _ => PathBuf::from(WORKSPACE),
        }
    }

    fn temporary(&self) -> PathBuf {
        match &self.place {
            Some(place) if self.level < Level::S2 => place.path.join(TMP),
            _ => PathBuf::from("/tmp"),
        }
    }

    /// Process number of its helper on the host, for operators and tests.
    #[must_use]
    pub fn helper_process(&self) -> Option<u32> {
        self.holding.process()
    }

    /// What went through the ways out so far.
    #[must_use]
    pub fn egress(&self) -> EgressUsage {
        self.egress.usage()
    }

    /// Kills whatever runs and removes the workspace.
    pub async fn close(self) -> Result<(), CloseError> {
        let path = self.place.as_ref().map_or_else(|| PathBuf::from(WORKSPACE), |place| place.path.clone());
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(RUNS_END_TIME_MAX, self.tasks.wait()).await.is_err() {
            return Err(CloseError::Running(path));
        }
        match Arc::try_unwrap(self.holding) {
            Ok(holding) => holding.end().await.map_err(CloseError::Helper)?,
            Err(holding) => holding.let_go(),
        }
        // Removed by its owner's end, now that nothing is left in it.
        drop(self.group);
        let Some(place) = self.place else { return Ok(()) };
        let remove = move || removal::remove_tree(place.root.as_fd(), &place.name, place.trash.as_fd());
        let joined = tokio::task::spawn_blocking(remove).await;
        let removed = joined.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        removed.map_err(|source| CloseError::Remove { path, source })
    }
}

/// The tool's directory: its current directory and its home.
pub(crate) const WORK: &str = "work";
/// The tool's directory for temporary files.
pub(crate) const TMP: &str = "tmp";
/// Unfinished uploads, out of the tool's way.
pub(crate) const STAGING: &str = "staging";

/// One of the session's runs, counted while this is held.
#[derive(Debug)]
struct Permit(Arc<watch::Sender<u32>>);

impl Permit {
    fn take(running: &Arc<watch::Sender<u32>>, most: u32) -> Option<Self> {
        let count = |running: &mut u32| {
            let free = *running < most;
            *running += u32::from(free);
            free
        };
        running.send_if_modified(count).then(|| Self(Arc::clone(running)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running = running.saturating_sub(1));
    }
}

/// Measures the workspace while anything runs in it.
struct Guard {
    files: Files,
    running: watch::Receiver<u32>,
    full: Arc<watch::Sender<bool>>,
}

impl Guard {
    async fn watch(mut self) {
        while self.running.wait_for(|running| *running > 0).await.is_ok() {
            let before = Instant::now();
            match self.files.is_full().await {
                Ok(is_full) => drop(self.full.send_replace(is_full)),
                // Not knowing what it holds is no better than knowing that it holds too much.
                Err(error) => {
                    tracing::warn!(%error, "a workspace cannot be measured");
                    self.full.send_replace(true);
                }
            }
            let took = before.elapsed();
            tokio::time::sleep(SCAN_EVERY.max(took.saturating_mul(SCAN_SHARE))).await;
        }
    }
}

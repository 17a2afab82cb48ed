//! One session's workspace and the runs in it.
//!
//! Always true: the workspace is fresh, private to the session, and gone after [`SessionSandbox::close`]; no run outlives it. While
//! anything runs, what the workspace holds is measured, and everything is killed when it outgrows its limits.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::files::Files;
use crate::limits::SessionLimits;
use crate::removal;
use crate::run::{self, Execution, Launch, RunSpec, StartError};

/// A scan of an ordinary workspace takes a few milliseconds.
const SCAN_EVERY: Duration = Duration::from_millis(250);
/// A scan that takes longer is made less often, so that it never takes more than a fifth of one processor.
const SCAN_SHARE: u32 = 4;
/// Killing takes milliseconds; a run whose monitor is stuck is given up after less than this.
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
}

/// The directories of a session, open.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) name: CString,
    pub(crate) root: Arc<OwnedFd>,
    pub(crate) trash: Arc<OwnedFd>,
    pub(crate) session: OwnedFd,
    pub(crate) work: OwnedFd,
    pub(crate) staging: OwnedFd,
}

/// A session's sandbox. To be closed; when it is only dropped its runs are killed, but the workspace stays until the next start.
#[derive(Debug)]
pub struct SessionSandbox {
    helper: PathBuf,
    path: PathBuf,
    name: CString,
    root: Arc<OwnedFd>,
    trash: Arc<OwnedFd>,
    files: Files,
    limits: SessionLimits,
    tasks: TaskTracker,
    stop: CancellationToken,
    running: Arc<watch::Sender<u32>>,
    full: Arc<watch::Sender<bool>>,
    _stop_on_drop: DropGuard,
}

impl SessionSandbox {
    pub(crate) fn new(helper: PathBuf, place: Place, limits: SessionLimits) -> Self {
        let Place { path, name, root, trash, session, work, staging } = place;
        let files = Files::open(session, work, staging, limits.clone());
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let running = Arc::new(watch::Sender::new(0));
        let full = Arc::new(watch::Sender::new(false));
        let guard = Guard { files: files.clone(), running: running.subscribe(), full: Arc::clone(&full) };
        let until = stop.clone();
        tasks.spawn(async move { until.run_until_cancelled_owned(guard.watch()).await });
        let stop_on_drop = stop.clone().drop_guard();
        Self { helper, path, name, root, trash, files, limits, tasks, stop, running, full, _stop_on_drop: stop_on_drop }
    }

    /// Starts a tool in the workspace. A program that cannot be started is not an error here: its run ends with
    /// [`crate::Cause::SetupFailed`].
    pub async fn start(&self, spec: RunSpec) -> Result<Execution, StartError> {
        if self.stop.is_cancelled() {
            return Err(StartError::Closed);
        }
        let job = spec.into_job(&self.path.join(WORK), &self.path.join(TMP))?;
        let permit = Permit::take(&self.running, self.limits.parallel_runs).ok_or(StartError::Busy(self.limits.parallel_runs))?;
        let is_full = self.files.is_full().await.map_err(|error| std::io::Error::other(error.to_string()))?;
        self.full.send_replace(is_full);
        if is_full {
            return Err(StartError::WorkspaceFull);
        }
        let launch = Launch {
            helper: self.helper.clone(),
            job,
            session: self.path.clone(),
            stop_session: self.stop.clone(),
            full: self.full.subscribe(),
            permit,
        };
        run::launch(launch, &self.tasks)
    }

    /// Access to the workspace's files.
    #[must_use]
    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// Kills whatever runs and removes the workspace.
    pub async fn close(self) -> Result<(), CloseError> {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(RUNS_END_TIME_MAX, self.tasks.wait()).await.is_err() {
            return Err(CloseError::Running(self.path.clone()));
        }
        let (root, trash, name) = (Arc::clone(&self.root), Arc::clone(&self.trash), self.name.clone());
        let remove = move || removal::remove_tree(root.as_fd(), &name, trash.as_fd());
        let joined = tokio::task::spawn_blocking(remove).await;
        let removed = joined.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        removed.map_err(|source| CloseError::Remove { path: self.path.clone(), source })
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

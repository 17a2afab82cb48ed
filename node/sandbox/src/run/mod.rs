//! One run of a tool as the node sees it: what to start, the handle to it, its input and output.
//!
//! Always true: whoever drops the [`Execution`] kills the run; there is no way to leave one behind. All figures come from the
//! stub, so they never go back and never exceed the final report.

mod input;
mod output;
mod supervisor;

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::DropGuard;

pub use input::Input;
pub use output::{Chunk, Stream};
pub(crate) use supervisor::{Launch, launch};

use crate::environment::{self, EnvError};
use crate::limits::{LimitError, RunLimits};
use crate::report::{Cause, Report, Usage};
use crate::wire::{Job, KillWhy, Order};

/// The kernel allows more in number, but no template of arguments does.
const ARGS_MAX: usize = 1024;
/// Below what the kernel takes for a single argument. Together with the environment a job also has to fit into one frame.
const ARGS_BYTES_MAX: usize = 96 * 1024;
/// The longest a pause or resume may take to be confirmed. The stub needs milliseconds; a stuck host may need more.
const CONTROL_TIME_MAX: Duration = Duration::from_secs(10);
/// A reason is shown to people and stored in receipts.
const REASON_CHARS_MAX: usize = 200;

/// What to run. `env` must be the provider's own literal values, never an agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// Absolute path; not searched for.
    pub program: PathBuf,
    /// Arguments after the program's name. Passed as they are; there is no shell.
    pub args: Vec<String>,
    /// In addition to the sandbox's own `PATH`, `HOME`, `TMPDIR` and `LANG`.
    pub env: Vec<(String, String)>,
    /// What it may use.
    pub limits: RunLimits,
    /// What it may do: index of one of the session's [`crate::Profile`]s.
    pub profile: usize,
    /// Whether its standard input is a pipe from us, see [`Execution::input`]. Otherwise it is empty.
    pub input: bool,
}

/// Where a run finds itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) work: &'a Path,
    pub(crate) temporary: &'a Path,
    /// Of its way out, on its own loopback.
    pub(crate) port: Option<u16>,
}

/// Why a run was not started. Nothing of it exists.
#[derive(Debug, Error)]
pub enum StartError {
    /// Relative, or not text.
    #[error("the program's path has to be absolute UTF-8 without NUL: {0}")]
    Program(PathBuf),
    /// Too many, too long, or with NUL.
    #[error("the arguments are not acceptable: {0}")]
    Args(&'static str),
    /// A variable is refused.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// A limit is refused.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// The session was opened without it.
    #[error("the session has no profile {0}")]
    Profile(usize),
    /// As many runs as the session allows. Try again when one has ended.
    #[error("the session already has its {0} runs")]
    Busy(u32),
    /// The workspace is above its limits. Remove files first.
    #[error("the workspace is full")]
    WorkspaceFull,
    /// The session is closed or closing.
    #[error("the session is closed")]
    Closed,
    /// The job does not fit into a frame.
    #[error("arguments and environment together are too long")]
    TooLong,
    /// The stub could not be started or the workspace not be read. The host's fault.
    #[error("the run cannot be started: {0}")]
    System(#[from] std::io::Error),
}

/// Why a pause or resume did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ControlError {
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// No confirmation came. The run is being given up.
    #[error("the run's stub does not answer")]
    Unresponsive,
}

impl RunSpec {
    /// Everything decided and checked, for a workspace, with the profile it is for.
    pub(crate) fn into_job(self, around: &Surroundings<'_>) -> Result<(usize, Job), StartError> {
        self.limits.check()?;
        let program = self.program.to_str().filter(|path| path.starts_with('/') && !path.contains('\0'));
        let program = program.ok_or_else(|| StartError::Program(self.program.clone()))?.to_owned();
        if self.args.len() > ARGS_MAX {
            return Err(StartError::Args("more than 1024"));
        }
        if self.args.iter().map(String::len).fold(0, usize::saturating_add) > ARGS_BYTES_MAX {
            return Err(StartError::Args("longer than 96 KiB"));
        }
        if self.args.iter().any(|arg| arg.contains('\0')) {
            return Err(StartError::Args("one holds a NUL"));
        }
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or(StartError::Closed);
        let directory = text(around.work)?;
        let env = environment::build(&self.env, &directory, &text(around.temporary)?, around.port)?;
        Ok((self.profile, Job { program: Some(program), args: self.args, env, directory, limits: self.limits }))
    }
}

/// What is known of a run while it lasts.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) started: bool,
    pub(crate) paused: bool,
    pub(crate) usage: Usage,
    pub(crate) report: Option<Report>,
}

/// A run. Dropping it kills the tool and everything the tool started.
#[derive(Debug)]
pub struct Execution {
    input: Option<Input>,
    output: Option<mpsc::Receiver<Chunk>>,
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<State>,
    _kill_on_drop: DropGuard,
}

impl Execution {
    /// The tool's standard input, if its run was started with one. Dropping it is the end of the input. `None` the second time.
    pub fn input(&mut self) -> Option<Input> {
        self.input.take()
    }

    /// The tool's output, in order within each stream. Bounded: a tool whose output is not taken stops when it writes. `None` the
    /// second time. Once taken it has to be read to its end or dropped, or [`Self::wait`] has nothing to wait for but the reader.
    pub fn output(&mut self) -> Option<mpsc::Receiver<Chunk>> {
        self.output.take()
    }

    /// Waits until the tool's program runs. False when the run ended without.
    pub async fn started(&mut self) -> bool {
        let seen = self.state.wait_for(|state| state.started || state.report.is_some()).await;
        seen.is_ok_and(|state| state.started)
    }

    /// Stops every process of the run. Back when all are stopped; effective time stands still from then on.
    pub async fn pause(&self) -> Result<(), ControlError> {
        self.control(Order::Pause, true).await
    }

    /// Lets a paused run go on.
    pub async fn resume(&self) -> Result<(), ControlError> {
        self.control(Order::Resume, false).await
    }

    /// Asks for the death of the whole tree. Back at once; [`Self::wait`] tells when it has happened. Fine if it has ended.
    pub async fn kill(&self, reason: &str) {
        let reason = reason.chars().take(REASON_CHARS_MAX).collect();
        // Refused only when the run has ended.
        let _ = self.orders.send(Order::Kill(KillWhy::Requested(reason))).await;
    }

    /// Unpaused time since the tool's program started. Sampled by the stub every 100 ms, and final once the run has ended.
    #[must_use]
    pub fn effective(&self) -> Duration {
        self.usage().effective
    }

    /// Use so far, as of the last sample.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.state.borrow();
        state.report.as_ref().map_or(state.usage, |report| report.usage)
    }

    /// True while it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        let state = self.state.borrow();
        state.paused && state.report.is_none()
    }

    /// Waits for the end: nothing of the tree is left, and all output has been handed over. Output that nobody took is thrown
    /// away, and input that nobody took has ended. Can be called again, and gives the same.
    pub async fn wait(&mut self) -> Report {
        self.input = None;
        self.output = None;
        let ended = self.state.wait_for(|state| state.report.is_some()).await;
        let report = ended.ok().and_then(|state| state.report.clone());
        report.unwrap_or_else(|| supervisor::lost(self.usage(), "the supervisor ended early"))
    }

    async fn control(&self, order: Order, paused: bool) -> Result<(), ControlError> {
        let mut state = self.state.clone();
        if state.borrow().report.is_some() {
            return Err(ControlError::Ended);
        }
        self.orders.send(order).await.map_err(|_| ControlError::Ended)?;
        let confirmed = state.wait_for(|state| state.paused == paused || state.report.is_some());
        match tokio::time::timeout(CONTROL_TIME_MAX, confirmed).await {
            // It may have happened and the run have ended since.
            Ok(Ok(state)) if state.paused == paused => Ok(()),
            Ok(_) => Err(ControlError::Ended),
            Err(_) => Err(ControlError::Unresponsive),
        }
    }
}

impl Cause {
    pub(crate) fn lost(message: &str) -> Self {
        Self::Lost { message: message.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(program: &str, args: Vec<String>) -> Result<Job, StartError> {
        let spec = RunSpec { program: program.into(), args, env: Vec::new(), limits: RunLimits::default(), profile: 0, input: false };
        let around = Surroundings { work: Path::new("/w"), temporary: Path::new("/t"), port: None };
        spec.into_job(&around).map(|(_, job)| job)
    }

    #[test]
    fn programs_and_arguments_that_cannot_be_passed_are_refused_before_anything_starts() {
        assert!(matches!(spec("sh", vec![]), Err(StartError::Program(_))));
        assert!(matches!(spec("/bin/s\0h", vec![]), Err(StartError::Program(_))));
        assert!(matches!(spec("/bin/sh", vec!["a\0b".into()]), Err(StartError::Args(_))));
        assert!(matches!(spec("/bin/sh", vec![String::new(); 1025]), Err(StartError::Args(_))));
        assert!(matches!(spec("/bin/sh", vec!["x".repeat(100_000)]), Err(StartError::Args(_))));
    }
}

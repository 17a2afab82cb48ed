//! How strongly tools can be confined on this host: found out by confining something, strongest level first.
//!
//! Always true: the answer names what was tried at each level and what stood in the way, so that an operator knows what to change.

use serde::Serialize;
use tokio::time::{Duration, Instant};

use crate::limits::{Level, RunLimits, SessionLimits};
use crate::report::Cause;
use crate::run::Stream;
use crate::sandbox::{Sandbox, SessionSpec};
use crate::selftest::Check;
use crate::sys;

/// The checks take milliseconds.
const CHECK_TIME_MAX: Duration = Duration::from_secs(20);
/// Enough for the lines of the checks.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Not a name that a session of an agent can have: those are longer.
const NAME: &str = "self-test";

/// What was found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Survey {
    /// The strongest level that held.
    pub level: Level,
    /// Version of the kernel's access rules, none without them.
    pub landlock: Option<u32>,
    /// Whether the node is root and gives each session a user of its own.
    pub own_users: bool,
    /// Each level that was tried, strongest first.
    pub tried: Vec<Trial>,
}

/// One level, tried.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// The level.
    pub level: Level,
    /// Why it is not possible here, if it is not.
    pub failure: Option<String>,
    /// What would change that.
    pub remedy: Option<&'static str>,
    /// What was tried under it.
    pub checks: Vec<Check>,
    /// How long opening a session, the checks, and closing it took, in microseconds.
    pub micros: u64,
}

impl Default for Survey {
    fn default() -> Self {
        Self { level: Level::S0, landlock: None, own_users: false, tried: Vec::new() }
    }
}

impl Survey {
    /// Why a level is not reached.
    pub(crate) fn why_not(&self, level: Level) -> String {
        let failed = |trial: &&Trial| trial.level <= level && trial.failure.is_some();
        // Of those at or below the level, the strongest.
        let trial = self.tried.iter().find(failed);
        let told = trial.and_then(|trial| trial.failure.clone().map(|failure| (failure, trial.remedy)));
        match told {
            Some((failure, Some(remedy))) => format!("{failure}; {remedy}"),
            Some((failure, None)) => failure,
            None => "it was not tried".to_owned(),
        }
    }
}

/// Tries levels from the strongest on, until one holds.
pub(crate) async fn carry_out(sandbox: &Sandbox, strongest: Level) -> Survey {
    let own_users = rustix::process::geteuid().is_root();
    let mut survey = Survey { landlock: sys::landlock_version(), own_users, ..Survey::default() };
    for level in [Level::S3, Level::S2, Level::S1, Level::S0].into_iter().filter(|level| *level <= strongest) {
        let begun = Instant::now();
        let (failure, checks) = match attempt(sandbox, level).await {
            Ok(checks) => (complaint(level, &checks), checks),
            Err(failure) => (Some(failure), Vec::new()),
        };
        let remedy = failure.as_deref().and_then(remedy);
        let held = failure.is_none();
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        survey.tried.push(Trial { level, failure, remedy, checks, micros });
        if held {
            survey.level = level;
            break;
        }
    }
    survey
}

async fn attempt(sandbox: &Sandbox, level: Level) -> Result<Vec<Check>, String> {
    if level == Level::S3
        && let Some(gap) = sandbox.group_gap()
    {
        return Err(gap);
    }
    let limits = SessionLimits { workspace_bytes: 1 << 20, workspace_entries: 64, parallel_runs: 1 };
    let spec = SessionSpec { limits, ..SessionSpec::default() };
    let session = sandbox.session_at(level, NAME, spec).await.map_err(|error| error.to_string())?;
    let checked = tokio::time::timeout(CHECK_TIME_MAX, checks(&session)).await;
    let checked = checked.unwrap_or_else(|_| Err("the checks do not end".to_owned()));
    session.close().await.map_err(|error| error.to_string())?;
    checked
}

async fn checks(session: &crate::session::SessionSandbox) -> Result<Vec<Check>, String> {
    let limits = RunLimits { memory_bytes: 256 << 20, processes: 16, ..RunLimits::default() };
    let mut execution = session.check(limits).await.map_err(|error| error.to_string())?;
    let mut printed = Vec::new();
    if let Some(mut output) = execution.output() {
        while let Some(chunk) = output.recv().await {
            if chunk.stream == Stream::Stdout && printed.len() < OUTPUT_BYTES_MAX {
                printed.extend_from_slice(&chunk.bytes);
            }
        }
    }
    match execution.wait().await.cause {
        Cause::Exited(0) => serde_json::from_slice(&printed).map_err(|error| format!("the checks cannot be read: {error}")),
        Cause::SetupFailed { stage, message } => Err(format!("{stage}: {message}")),
        Cause::Exited(255) if !printed.is_empty() => Err(String::from_utf8_lossy(&printed).into_owned()),
        other => Err(format!("the checks ended unexpectedly: {other:?}")),
    }
}

/// The first check that did not hold though the level demands it.
fn complaint(level: Level, checks: &[Check]) -> Option<String> {
    let failed = checks.iter().find(|check| check.from <= level && !check.held);
    failed.map(|check| format!("under confinement a tool could {}: {}", check.tried, check.outcome))
}

/// What an operator can change about the usual obstacles.
fn remedy(failure: &str) -> Option<&'static str> {
    let known = [
        (
            "control groups",
            "start the node in a delegated group: a systemd unit with Delegate=yes, or `systemd-run --user --scope -p Delegate=yes`",
        ),
        (
            "namespaces",
            "permit user namespaces: sysctl user.max_user_namespaces and, where it exists, kernel.apparmor_restrict_unprivileged_userns=0 or an \
             AppArmor profile for this program; in a container, its seccomp profile has to permit unshare",
        ),
        ("user map", "permit user namespaces, and see that /proc is mounted writable in the container"),
        ("/proc", "the container hides parts of /proc: run it with an unmasked one (docker: --security-opt systempaths=unconfined)"),
        ("landlock", "use a kernel with Landlock (Linux 5.13 with namespaces, 6.12 without) and `landlock` in its lsm= list"),
        ("seccomp", "use a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64"),
    ];
    known.into_iter().find(|(word, _)| failure.contains(word)).map(|(_, remedy)| remedy)
}

//! What a run and a session may use, and how strongly the use is confined.
//!
//! Always true: a checked limit is one the helper can still start under, so a limit that is too small is refused before the
//! start instead of showing up as a strange failure of the tool.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How strongly tools are confined, weakest first. Published in offers and repeated in receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Process tree and resource limits only.
    S0,
    /// Also a file-system and system call filter.
    S1,
    /// Also namespaces of its own.
    S2,
    /// Also control groups.
    S3,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::S0 => "S0",
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
        })
    }
}

/// What happens when a tool writes more than `output_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnOutputLimit {
    /// The rest is read and thrown away; the tool goes on.
    Drain,
    /// The tool is killed with [`crate::Cause::OutputLimit`].
    Kill,
}

/// Limits of one run. Each is enforced by the monitor, by the kernel, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLimits {
    /// Effective (unpaused) time from start to end.
    pub wall: Duration,
    /// CPU time of the whole tree.
    pub cpu: Duration,
    /// Share of the host's processors, in thousandths of one. Held at [`Level::S3`]; below it only `cpu` bounds what a tool takes.
    pub cpu_millis: u32,
    /// Resident memory of the whole tree; also the private data limit of each process.
    pub memory_bytes: u64,
    /// Processes and threads of the tree.
    pub processes: u32,
    /// Open descriptors of each process.
    pub open_files: u32,
    /// Size of any single file the tool writes.
    pub file_bytes: u64,
    /// Standard output and standard error together.
    pub output_bytes: u64,
    /// What happens above `output_bytes`.
    pub on_output_limit: OnOutputLimit,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            wall: Duration::from_mins(5),
            cpu: Duration::from_mins(10),
            cpu_millis: 2000,
            memory_bytes: 4 << 30,
            processes: 512,
            open_files: 1024,
            file_bytes: 1 << 30,
            output_bytes: 16 << 20,
            on_output_limit: OnOutputLimit::Kill,
        }
    }
}

/// The helper allocates before the tool's program replaces it; below this it would die under the tool's own limit.
const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// The dynamic loader and an interpreter need about ten descriptors to start at all.
const OPEN_FILES_MIN: u32 = 16;
/// The kernel counts CPU limits in whole seconds.
const CPU_MIN: Duration = Duration::from_secs(1);
/// A year: later sums of durations cannot overflow, and nobody sells a longer run.
const DURATION_MAX: Duration = Duration::from_hours(365 * 24);

impl RunLimits {
    /// Refuses limits under which no program could start.
    pub fn check(&self) -> Result<(), LimitError> {
        let refuse = |field, why| Err(LimitError { field, why });
        if self.wall.is_zero() || self.wall > DURATION_MAX {
            return refuse("wall", "must be above zero and at most a year");
        }
        if self.cpu < CPU_MIN || self.cpu > DURATION_MAX {
            return refuse("cpu", "must be at least a second and at most a year");
        }
        if self.cpu_millis == 0 {
            return refuse("cpu_millis", "must be at least 1");
        }
        if self.memory_bytes < MEMORY_BYTES_MIN {
            return refuse("memory_bytes", "must be at least 16 MiB");
        }
        if self.processes == 0 {
            return refuse("processes", "must be at least 1");
        }
        if self.open_files < OPEN_FILES_MIN {
            return refuse("open_files", "must be at least 16");
        }
        Ok(())
    }
}

/// Limits of a session's workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimits {
    /// Disk space of the workspace, temporary files included.
    pub workspace_bytes: u64,
    /// Files and directories of the workspace.
    pub workspace_entries: u32,
    /// Runs at the same time.
    pub parallel_runs: u32,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { workspace_bytes: 2 << 30, workspace_entries: 200_000, parallel_runs: 4 }
    }
}

/// A limit under which nothing could run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the limit {field} {why}")]
pub struct LimitError {
    /// Name of the field in [`RunLimits`].
    pub field: &'static str,
    /// What it has to be.
    pub why: &'static str,
}

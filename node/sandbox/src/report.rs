//! What is said about a run: how it ended and what it used.
//!
//! Always true: figures only grow while a run lasts, and the report's are never below any that were shown before it, because
//! all of them come from one clock and one counter: the monitor's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The tool ended by itself with this exit code.
    Exited(i32),
    /// A signal that we did not send ended the tool.
    Signalled(i32),
    /// Effective time reached `wall`.
    TimedOut,
    /// CPU time reached `cpu`, or the tool went on working while it was paused.
    CpuLimit,
    /// The tree's resident memory went above `memory_bytes`.
    MemoryLimit,
    /// The tree had more than `processes` processes and threads.
    ProcessLimit,
    /// It wrote more than `output_bytes`.
    OutputLimit,
    /// The workspace outgrew its limits.
    DiskLimit,
    /// The node killed it.
    Killed {
        /// As given by the caller.
        reason: String,
    },
    /// The tool's program never started. Not the tool's doing.
    SetupFailed {
        /// The step that failed.
        stage: String,
        /// What the system said.
        message: String,
    },
    /// The monitor disappeared or went silent, so how the tool ended is not known. Its processes were killed.
    Lost {
        /// What was seen instead.
        message: String,
    },
}

/// Use so far. CPU time and memory are sampled, so both may be below the truth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time since the program started, minus paused time.
    pub effective: Duration,
    /// User and system time of the tree. A lower bound: a process whose parent ignores its end is not counted after it ended.
    pub cpu: Duration,
    /// Highest resident memory seen. Sampled; pages shared between processes may be counted more than once.
    pub peak_memory_bytes: u64,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Why it ended.
    pub cause: Cause,
    /// Start to end, pauses included.
    pub wall: Duration,
    /// Of that, paused.
    pub paused: Duration,
    /// Effective time, CPU time and memory.
    pub usage: Usage,
    /// Bytes the tool wrote to standard output, also those not passed on.
    pub stdout_bytes: u64,
    /// Bytes the tool wrote to standard error, also those not passed on.
    pub stderr_bytes: u64,
    /// True when bytes beyond `output_bytes` were thrown away.
    pub output_truncated: bool,
    /// Processes of the tree that could not be killed in time (stuck in the kernel). Normally zero.
    pub survivors: u32,
}

impl Report {
    /// True only for exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.cause == Cause::Exited(0)
    }
}

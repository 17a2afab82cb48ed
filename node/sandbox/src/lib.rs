//! The only process confinement: it starts a tool in a session's private workspace, bounds it, measures it, and leaves
//! nothing of it behind.
//!
//! Always true: the node itself never forks and runs no code between fork and exec. It starts its own program again, with an
//! empty environment, as a small monitor per execution; when the node, the monitor's owner, is gone for any reason, the monitor
//! kills the tool's whole tree. A program that uses this crate must call [`run_if_helper`] before anything else in `main`.
//!
//! It knows nothing of sessions' money, of peers, or of what a tool is for. Today's level is [`Level::S0`]: process tree
//! and resource limits, no namespaces and no system call filter.

#[cfg_attr(not(test), expect(dead_code, reason = "sessions serve it once their tools have a network of their own"))]
mod egress;
mod environment;
mod files;
mod helper;
mod limits;
mod proc;
mod quota;
mod removal;
mod report;
mod run;
mod sandbox;
mod session;
mod survivors;
mod wire;

pub use egress::{
    EGRESS_BYTES_DEFAULT, EgressCounters, EgressUsage, HOSTS_MAX, HostError, HostPattern, HostRule, NetworkGrant, PORTS_MAX, RuleError,
};
pub use environment::{EnvError, PATH, VARIABLES_MAX, check_variable};
pub use files::{Entry, FileError, Files, Kind, Listing, PathError, Upload, WorkPath};
pub use helper::{helper_main, is_helper_call, run_if_helper};
pub use limits::{Level, LimitError, OnOutputLimit, RunLimits, SessionLimits};
pub use report::{Cause, Report, Usage};
pub use run::{Chunk, ControlError, Execution, RunSpec, StartError, Stream};
pub use sandbox::{OpenError, Sandbox, SandboxConfig, SessionError};
pub use session::{CloseError, SessionSandbox};

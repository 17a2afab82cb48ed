//! The only process confinement: it starts a tool in a session's private workspace, bounds it, measures it, and leaves
//! nothing of it behind.
//!
//! Always true: the node itself never forks and runs no code between fork and exec. It starts its own program again, with an
//! empty environment, as a small helper per session; when the node, the helper's owner, is gone for any reason, the helper and
//! every process of the session are too. A program that uses this crate must call [`run_if_helper`] before anything else in `main`.
//!
//! It knows nothing of sessions' money, of the network of peers, or of what a tool is for. How strongly it confines depends on the
//! host, and is found out by trying: see [`Level`] and [`Survey`].

mod egress;
mod environment;
mod files;
mod groups;
mod helper;
mod holding;
mod limits;
mod packet;
mod policy;
mod proc;
mod quota;
mod removal;
mod report;
mod run;
mod sandbox;
mod selftest;
mod session;
mod survey;
mod survivors;
mod sys;
mod users;
mod wire;

pub use egress::{
    EGRESS_BYTES_DEFAULT, EgressCounters, EgressUsage, HOSTS_MAX, HostError, HostPattern, HostRule, NetworkGrant, PORTS_MAX, RuleError,
};
pub use environment::{EnvError, PATH, VARIABLES_MAX, check_variable};
pub use files::{Entry, FileError, Files, Item, Kind, Listing, PathError, Reader, Small, Upload, WorkPath};
pub use helper::{helper_main, is_helper_call, run_if_helper};
pub use limits::{Level, LimitError, OnOutputLimit, RunLimits, SessionLimits};
pub use policy::{Layer, Profile, Storage, View, WORKSPACE};
pub use report::{Cause, Report, Usage};
pub use run::{Chunk, ControlError, Execution, Input, RunSpec, StartError, Stream};
pub use sandbox::{OpenError, Sandbox, SandboxConfig, SessionError, SessionSpec};
pub use selftest::Check;
pub use session::{CloseError, SessionSandbox};
pub use survey::{Survey, Trial};
pub use users::{FIRST_USER_DEFAULT, USERS};

//! What a session is confined to: its level, its storage, what it is shown, and what each kind of run in it may do.
//!
//! Always true: a policy is complete. The helper looks nothing up and decides nothing that is not written here.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::egress::NetworkGrant;
use crate::limits::Level;

/// Where a tool sees its workspace at [`Level::S2`] and above.
pub const WORKSPACE: &str = "/workspace";

/// Where a workspace's bytes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Storage {
    /// Memory (tmpfs): limits hold by themselves, and nothing is ever left. Needs [`Level::S2`]; below it, disk is used.
    #[default]
    Memory,
    /// The sandbox's directory: measured while runs last.
    Disk,
}

/// A directory or file of the host that a tool may read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct View {
    /// Where it is, and where the tool sees it.
    pub path: PathBuf,
    /// Whether programs in it may be executed.
    pub execute: bool,
}

/// What one kind of run may do beyond what every run may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// What it is shown beside the system's programs.
    pub views: Vec<View>,
    /// Whether it may execute what it finds or makes in the workspace.
    pub execute_workspace: bool,
    /// Its way out, if it has one.
    pub network: Option<Arc<NetworkGrant>>,
}

/// A layer that can be left out, to see what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer {
    /// The kernel's access rules.
    Landlock,
    /// The system call filter.
    Seccomp,
    /// Capabilities taken away from the tool.
    Capabilities,
    /// The kernel's resource limits.
    Limits,
}

/// A session's policy as the helper gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) level: Level,
    /// The session's directory on the host, for disk storage and for the levels below namespaces.
    pub(crate) directory: Option<PathBuf>,
    /// Size and entries of a workspace in memory.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// Who the session runs as when the node is root.
    pub(crate) user: Option<u32>,
    /// All that any profile is shown.
    pub(crate) views: Vec<View>,
    pub(crate) profiles: Vec<RunProfile>,
    pub(crate) parallel_runs: u32,
    /// Each run's order brings a control group of its own.
    pub(crate) groups: bool,
    /// Layers left out; only the self-test and the tests of the suite ask for that.
    pub(crate) without: Vec<Layer>,
}

/// A [`Profile`] as the helper gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunProfile {
    pub(crate) views: Vec<View>,
    pub(crate) execute_workspace: bool,
    /// Port of its way out, on the session's own loopback.
    pub(crate) port: Option<u16>,
}

/// First port of the ways out; one per profile that has one.
pub(crate) const FIRST_PORT: u16 = 3128;

impl Opening {
    pub(crate) fn has(&self, layer: Layer) -> bool {
        !self.without.contains(&layer)
    }

    pub(crate) fn in_memory(&self) -> bool {
        self.directory.is_none()
    }
}

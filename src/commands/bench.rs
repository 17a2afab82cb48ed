//! `orien bench`: measures this host and this program, each figure beside its floor in the same run.
//!
//! Always true: figures of one run are compared with each other only, because what else the machine does changes from run to run.

mod caller;
mod figures;
mod files;
mod floors;
mod moving;
mod network;
mod pipes;
mod runs;
mod sandbox;
mod ssh;

pub(crate) use files::{FilesPlan, files};
pub(crate) use runs::{RunsPlan, runs};
pub(crate) use sandbox::{Plan, sandbox};

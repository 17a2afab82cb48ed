//! From a job to a started tool: what it is shown, its limits, and its confinement.
//!
//! Always true: nothing of the job is looked up anywhere; a tool whose confinement cannot be completed does not start, and the step
//! that failed is named.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use rlimit::Resource;
use rustix::fs::CWD;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags};

use super::holder::{Kind, Session};
use super::monitor::{Failed, step};
use super::stub::Prepared;
use super::tree::Tree;
use crate::limits::{Level, RunLimits};
use crate::policy::{Layer, WORKSPACE};
use crate::sys::{self, ToolPlan};
use crate::wire::Job;
use crate::{proc, selftest};

/// Address space never below this: runtimes such as node and java reserve gigabytes that they never touch.
const ADDRESS_SPACE_BYTES_MIN: u64 = 4 << 30;
/// Address space above the memory cap, for the same reason.
const ADDRESS_SPACE_FACTOR: u64 = 8;
const STACK_BYTES: u64 = 8 << 20;
const LOCKED_BYTES: u64 = 64 << 10;
/// Queued signals, which also count timers.
const SIGNALS: u64 = 1024;
/// Only old kernels count them.
const FILE_LOCKS: u64 = 1024;

/// A tool whose program runs.
pub(super) struct Started {
    pub(super) tool: Pid,
    /// Readable when it has ended.
    pub(super) handle: OwnedFd,
    pub(super) at: Instant,
}

/// What becomes the tool's standard descriptors.
pub(super) struct Standard {
    /// Nothing to be read if there is none.
    pub(super) input: Option<OwnedFd>,
    pub(super) output: OwnedFd,
    pub(super) errors: OwnedFd,
}

/// Starts the tool.
pub(super) fn start(session: &Session<'_>, kind: &Kind, job: Job, standard: Standard, prepared: &Prepared) -> Result<Started, Failed> {
    let tree = &prepared.tree;
    let own = rustix::process::getpid();
    if tree.is_namespace() && !prepared.is_settled {
        show(session, kind)?;
    }
    let text = |text: String| CString::new(text).map_err(|_| ("arguments", io::ErrorKind::InvalidInput.into()));
    let program = job.program.clone().unwrap_or_default();
    let mut args = vec![text(program.clone())?];
    for arg in job.args {
        args.push(text(arg)?);
    }
    let env = job.env.into_iter().map(|(name, value)| text(format!("{name}={value}"))).collect::<Result<_, _>>()?;
    let level = session.opening.level;
    let landlock = kind.landlock.as_ref().map(|rules| rules.try_clone()).transpose().map_err(step("landlock"))?;
    let plan = ToolPlan {
        program: text(program)?,
        args,
        env,
        directory: text(job.directory)?,
        input: standard.input.map_or_else(|| session.null.try_clone(), Ok).map_err(step("descriptors"))?,
        output: standard.output,
        errors: standard.errors,
        limits: if session.opening.has(Layer::Limits) { limits(&job.limits, session, tree) } else { Vec::new() },
        parent: own,
        drop_capabilities: level >= Level::S1 && session.opening.has(Layer::Capabilities),
        landlock,
        filter: if prepared.is_settled { Vec::new() } else { kind.filter.clone() },
    };
    let started = if job.program.is_some() { sys::vfork_exec(&plan) } else { sys::fork_confined(&plan, selftest::run_checks) };
    // Output ends when the last of the tree has let go of it, and input is refused then, so nothing of either may stay here.
    drop(plan);
    let (pid, at) = started?;
    let tool = Pid::from_raw(pid).ok_or_else(|| ("clone", io::ErrorKind::InvalidData.into()))?;
    // Taken while the child cannot have been collected, so the number is still its own.
    let handle = rustix::process::pidfd_open(tool, PidfdFlags::empty()).map_err(step("handle"))?;
    Ok(Started { tool, handle, at })
}

/// What this run sees of what the session has: in mounts of its own, so that runs at the same time are not concerned.
pub(super) fn show(session: &Session<'_>, kind: &Kind) -> Result<(), Failed> {
    for view in session.opening.views.iter().filter(|view| !kind.profile.views.contains(view)) {
        rustix::mount::unmount(view.path.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(step("shared"))?;
    }
    if kind.profile.execute_workspace {
        for path in [WORKSPACE, "/tmp"] {
            let path = CString::new(path).map_err(step("workspace"))?;
            sys::mount_attributes(CWD.as_fd(), &path, false, 0, libc::MOUNT_ATTR_NOEXEC).map_err(step("workspace"))?;
        }
    }
    Ok(())
}

fn limits(limits: &RunLimits, session: &Session<'_>, tree: &Tree) -> Vec<(Resource, u64, u64)> {
    let address_space = limits.memory_bytes.saturating_mul(ADDRESS_SPACE_FACTOR).max(ADDRESS_SPACE_BYTES_MIN);
    // A soft CPU limit that the tool can survive for a second: its signal tells this end from others.
    let cpu_seconds = limits.cpu.as_secs().saturating_add(u64::from(limits.cpu.subsec_nanos() > 0));
    let same = |resource, value| (resource, value, value);
    let mut list = vec![
        same(Resource::CORE, 0),
        same(Resource::AS, address_space),
        same(Resource::DATA, limits.memory_bytes),
        same(Resource::STACK, STACK_BYTES),
        same(Resource::MEMLOCK, LOCKED_BYTES),
        same(Resource::MSGQUEUE, 0),
        same(Resource::SIGPENDING, SIGNALS),
        same(Resource::LOCKS, FILE_LOCKS),
        same(Resource::NICE, 0),
        same(Resource::RTPRIO, 0),
        same(Resource::NOFILE, limits.open_files.into()),
        same(Resource::FSIZE, limits.file_bytes),
        (Resource::CPU, cpu_seconds, cpu_seconds.saturating_add(1)),
    ];
    list.extend(processes(limits, session, tree).map(|processes| same(Resource::NPROC, processes)));
    list
}

/// The kernel counts processes per user and user namespace; the stub's own count of the tree is what holds for each run alone.
fn processes(limits: &RunLimits, session: &Session<'_>, tree: &Tree) -> Option<u64> {
    let own = u64::from(limits.processes);
    if tree.is_namespace() {
        // The session's namespace: other runs, the holder, the stubs and the spare one are in the count.
        let runs = u64::from(session.opening.parallel_runs);
        return Some(own.saturating_add(own.saturating_add(1).saturating_mul(runs.saturating_sub(1))).saturating_add(3));
    }
    // Root is not subject to it.
    let user = rustix::process::getuid();
    (!user.is_root()).then(|| proc::tasks_of_user(user.as_raw()).saturating_add(own))
}

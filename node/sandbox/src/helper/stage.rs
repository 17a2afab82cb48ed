//! The last stage before the tool: applies the limits to itself, then becomes the tool's program.
//!
//! Always true: either the tool's program runs with every limit in force, or the monitor is told which step failed. The channel
//! to the monitor closes by itself at the moment the program is replaced, so its silent end is the proof of success.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rlimit::Resource;
use rustix::fs::Mode;
use rustix::process::Signal;

use super::control_socket;
use crate::limits::RunLimits;
use crate::proc;
use crate::wire::{self, Decoder, Job, Preparation, SetupFailure};

/// Address space never below this: runtimes such as node and java reserve gigabytes that they never touch.
const ADDRESS_SPACE_BYTES_MIN: u64 = 4 << 30;
/// Address space above the memory cap, for the same reason.
const ADDRESS_SPACE_FACTOR: u64 = 8;
const STACK_BYTES: u64 = 8 << 20;
const LOCKED_BYTES: u64 = 64 << 10;
const READ_BYTES: usize = 64 * 1024;

pub(super) fn run() -> io::Result<()> {
    let mut channel = control_socket()?;
    let preparation = read_job(&mut channel)?;
    let failure = become_tool(&preparation);
    channel.write_all(&wire::encode(&failure)?)
}

fn read_job(channel: &mut impl io::Read) -> io::Result<Preparation> {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if let Some(preparation) = decoder.next()? {
            return Ok(preparation);
        }
        match channel.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => decoder.push(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// Comes back only with a failure.
fn become_tool(preparation: &Preparation) -> SetupFailure {
    let failed = |(stage, error): (&str, io::Error)| SetupFailure { stage: stage.to_owned(), message: error.to_string() };
    let job = &preparation.job;
    if let Err(failure) = confine(preparation.monitor, job) {
        return failed(failure);
    }
    let mut tool = Command::new(&job.program);
    tool.args(&job.args).env_clear().stdin(Stdio::null());
    tool.envs(job.env.iter().map(|(name, value)| (name, value)));
    failed(("exec", tool.exec()))
}

fn confine(monitor: i32, job: &Job) -> Result<(), (&'static str, io::Error)> {
    let step = |stage| move |error| (stage, io::Error::from(error));
    rustix::process::setsid().map_err(step("session"))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(step("parent"))?;
    // The monitor may have died before the line above; then nobody would send that signal any more.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(monitor) {
        return Err(("parent", io::Error::other("the monitor is gone")));
    }
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    rustix::process::chdir(job.directory.as_str()).map_err(step("directory"))?;
    limit(&job.limits).map_err(|error| ("limits", error))?;
    // Set-user-id programs gain nothing from here on, and cannot shed the parent death signal either.
    rustix::thread::set_no_new_privs(true).map_err(step("privileges"))
}

fn limit(limits: &RunLimits) -> io::Result<()> {
    let address_space = limits.memory_bytes.saturating_mul(ADDRESS_SPACE_FACTOR).max(ADDRESS_SPACE_BYTES_MIN);
    // A soft CPU limit that the tool can survive for a second: its signal tells this end from others.
    let cpu_seconds = limits.cpu.as_secs().saturating_add(u64::from(limits.cpu.subsec_nanos() > 0));
    set(Resource::CORE, 0, 0)?;
    set(Resource::AS, address_space, address_space)?;
    set(Resource::DATA, limits.memory_bytes, limits.memory_bytes)?;
    set(Resource::STACK, STACK_BYTES, STACK_BYTES)?;
    set(Resource::MEMLOCK, LOCKED_BYTES, LOCKED_BYTES)?;
    set(Resource::NOFILE, limits.open_files.into(), limits.open_files.into())?;
    set(Resource::FSIZE, limits.file_bytes, limits.file_bytes)?;
    set(Resource::CPU, cpu_seconds, cpu_seconds.saturating_add(1))?;
    // Root is not subject to it, and the kernel counts it per user; the monitor's own count of the tree is what always holds.
    let user = rustix::process::getuid();
    if !user.is_root() {
        // This process is in the count already and becomes the first of the tool's.
        let others = proc::tasks_of_user(user.as_raw()).saturating_sub(1);
        let processes = others.saturating_add(limits.processes.into());
        set(Resource::NPROC, processes, processes)?;
    }
    Ok(())
}

/// Never tries to raise a limit that the node itself is under.
fn set(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let (_, ceiling) = resource.get()?;
    resource.set(soft.min(ceiling), hard.min(ceiling))
}

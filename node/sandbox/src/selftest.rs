//! The checks that a confined process makes of its own confinement: each tries what must not be possible.
//!
//! Always true: a level is only claimed after these ran under it on this host and in this process; nothing is concluded from
//! version numbers. The checks run in a copy of the helper, under exactly the confinement that tools get.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::limits::Level;

/// One thing tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was tried, in words.
    pub tried: String,
    /// True when the outcome is the one that confinement demands.
    pub held: bool,
    /// The outcome.
    pub outcome: String,
    /// The weakest level that demands it.
    pub from: Level,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", if self.held { "ok  " } else { "FAIL" }, self.tried, self.outcome)
    }
}

/// Makes the checks and prints them as one line of JSON. Runs as the tool would; its exit code is 0 when it could print.
pub(crate) fn run_checks() -> u8 {
    let checks = checks();
    let Ok(mut line) = serde_json::to_vec(&checks) else { return 1 };
    line.push(b'\n');
    u8::from(std::io::stdout().write_all(&line).is_err())
}

fn checks() -> Vec<Check> {
    let open = |path: &str| File::open(path).map(drop).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let write = |path: &str| {
        let file = File::options().write(true).create(true).truncate(false).open(path);
        file.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    use rustix::net::{AddressFamily, SocketType};
    let socket = |family, kind| rustix::net::socket(family, kind, None).map(drop);
    let vsock = AddressFamily::from_raw(40);
    vec![
        refused("read the host's password hashes", Level::S1, open("/etc/shadow")),
        refused("read root's home", Level::S1, fs::read_dir("/root").map(drop).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))),
        refused("write to the system's programs", Level::S1, write("/usr/bin/orien-self-test")),
        refused("write to the host's configuration", Level::S1, write("/etc/orien-self-test")),
        refused("set a kernel parameter", Level::S1, write("/proc/sys/kernel/core_pattern")),
        refused("open an internet socket", Level::S1, socket(AddressFamily::INET, SocketType::STREAM)),
        refused("open a datagram socket", Level::S1, socket(AddressFamily::INET, SocketType::DGRAM)),
        refused("open a socket to the hypervisor", Level::S1, socket(vsock, SocketType::STREAM)),
        refused("make a user namespace", Level::S1, crate::sys::unshare(libc::CLONE_NEWUSER).map_err(errno)),
        refused("make a mount namespace", Level::S1, crate::sys::unshare(libc::CLONE_NEWNS).map_err(errno)),
        refused("attach a file system", Level::S1, rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).map(drop)),
        refused("raise a process limit", Level::S0, raise_processes()),
        holds("hold no capability", Level::S1, capabilities()),
        holds("write to the workspace", Level::S0, workspace()),
        holds("see only its own processes", Level::S2, alone()),
        holds("be nobody on the host", Level::S1, not_root()),
        refused("list another process's descriptors", Level::S1, fs::read_dir("/proc/1/fd").map(drop).map_err(errno)),
    ]
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn refused(tried: &str, from: Level, outcome: Result<(), Errno>) -> Check {
    let (held, outcome) = match outcome {
        Ok(()) => (false, "it was possible".to_owned()),
        Err(error) => (true, format!("refused: {}", std::io::Error::from(error))),
    };
    Check { tried: tried.to_owned(), held, outcome, from }
}

fn holds(tried: &str, from: Level, outcome: Result<String, String>) -> Check {
    let held = outcome.is_ok();
    Check { tried: tried.to_owned(), held, outcome: outcome.unwrap_or_else(|why| why), from }
}

fn raise_processes() -> Result<(), Errno> {
    let (_, hard) = rlimit::Resource::CORE.get().map_err(errno)?;
    rlimit::Resource::CORE.set(hard, hard.saturating_add(1)).map_err(errno)
}

fn capabilities() -> Result<String, String> {
    let sets = rustix::thread::capabilities(None).map_err(|error| error.to_string())?;
    let any = sets.effective | sets.permitted | sets.inheritable;
    if any.is_empty() { Ok("it holds none".to_owned()) } else { Err(format!("it holds {any:?}")) }
}

fn workspace() -> Result<String, String> {
    let name = ".orien-self-test";
    let done = fs::write(name, "x").and_then(|()| fs::remove_file(name));
    done.map(|()| "written and removed".to_owned()).map_err(|error| error.to_string())
}

fn alone() -> Result<String, String> {
    let count = crate::proc::all().map_err(|error| error.to_string())?.len();
    if count <= 2 { Ok(format!("{count} processes in sight")) } else { Err(format!("{count} processes in sight")) }
}

fn not_root() -> Result<String, String> {
    let user = rustix::process::getuid();
    if user.is_root() { Err("it runs as root".to_owned()) } else { Ok(format!("it runs as user {}", user.as_raw())) }
}

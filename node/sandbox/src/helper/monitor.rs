//! The outermost process of a session: prepares the ground, starts the holder, and waits for it.
//!
//! Always true: it carries no data and keeps no descriptor once the holder runs. It is never root when it enters namespaces: a root
//! node's sessions run as users of their own, because root in a namespace is still the owner of root's files outside it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Signal, WaitOptions};

use super::holder;
use crate::limits::Level;
use crate::packet;
use crate::policy::Opening;
use crate::sys;
use crate::wire::{FromHolder, SetupFailure};

/// The step and why it failed.
pub(super) type Failed = (&'static str, io::Error);

/// Who a tool is inside its namespaces.
pub(super) const INNER_USER: u32 = 1000;

/// Names the step of an error.
pub(super) fn step<E: Into<io::Error>>(stage: &'static str) -> impl Fn(E) -> Failed {
    move |error| (stage, error.into())
}

/// One session, from its policy to its end.
pub(super) fn run() -> io::Result<()> {
    sys::close_from(3)?;
    let socket = own_socket()?;
    let Some((opening, _)) = packet::receive::<Opening>(&socket)? else { return Ok(()) };
    match prepare(&opening) {
        Ok(true) => wait_for_holder(socket, &opening),
        Ok(false) => holder::run(&socket, &opening),
        Err((stage, error)) => {
            let failure = SetupFailure { stage: stage.to_owned(), message: error.to_string() };
            packet::send(&socket, &FromHolder::Failed(failure), &[])
        }
    }
}

/// The socket that was given as standard input, above 2; 0 to 2 lead nowhere from here on.
fn own_socket() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(socket)
}

/// True when namespaces were entered, and the holder has to be a new process to be the first in them.
fn prepare(opening: &Opening) -> Result<bool, Failed> {
    rustix::process::setsid().map_err(step("session"))?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    if let Some(directory) = &opening.directory {
        // The current directory is the one thing that is carried over into a new mount namespace, and is kept by a user who could
        // not walk there.
        rustix::process::chdir(directory.as_path()).map_err(step("directory"))?;
    }
    if let Some(user) = opening.user {
        sys::become_user(user).map_err(step("user"))?;
    }
    if opening.level < Level::S2 {
        return Ok(false);
    }
    // Otherwise the kernel gives the files below to root, and we could not write our own map.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(step("user"))?;
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if user == 0 {
        return Err(("user", io::Error::other("a tool would be root outside of its namespaces")));
    }
    sys::unshare(sys::SESSION_NAMESPACES).map_err(step("namespaces"))?;
    fs::write("/proc/self/setgroups", "deny").map_err(step("user map"))?;
    fs::write("/proc/self/uid_map", format!("{INNER_USER} {user} 1")).map_err(step("user map"))?;
    fs::write("/proc/self/gid_map", format!("{INNER_USER} {group} 1")).map_err(step("user map"))?;
    Ok(true)
}

fn wait_for_holder(socket: OwnedFd, opening: &Opening) -> io::Result<()> {
    let Some(holder) = sys::fork()? else {
        let done = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
        let done = done.and_then(|()| holder::run(&socket, opening));
        sys::exit_now(i32::from(done.is_err()));
    };
    // The socket's end is how the node learns that the holder is gone, so no copy of it may stay here.
    drop(socket);
    let pid = rustix::process::Pid::from_raw(holder);
    loop {
        match rustix::process::waitpid(pid, WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the program's exit code says, for nobody: output belongs to the tool, and the node sees the socket close.
pub(super) fn exit_code(done: &io::Result<()>) -> ExitCode {
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! The program's other life: started again by the node as the helper of one session.
//!
//! Always true: it is single-threaded, starts with an empty environment, and holds nothing of the node but the socket that is its
//! standard input. It knows no configuration and no session; everything it needs is told to it.
//!
//! ```text
//! node        the provider's daemon: large, many threads; only ever starts the monitor, by posix_spawn
//! monitor     same program, `sandbox-init`: becomes the session's user, enters namespaces, waits
//! holder      first process of the session's namespaces: builds what tools see, makes a stub per run, one ahead
//! stub        first process of the run's namespaces: starts the tool, measures, obeys, kills, reports
//! tool        the provider's program, confined
//! ```

mod access;
mod clock;
mod holder;
mod monitor;
mod root;
pub(crate) mod seccomp;
mod spare;
mod stub;
mod tool;
mod tree;

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::ExitCode;

/// First argument of the helper. The only one: what other processes can read of it says nothing about the host.
pub(crate) const INIT: &str = "sandbox-init";

/// True when these arguments (the program's name first) are a call of the helper.
pub fn is_helper_call<S: AsRef<OsStr>>(args: &[S]) -> bool {
    args.get(1).is_some_and(|first| first.as_ref() == INIT)
}

/// Runs the helper with these arguments (the program's name first). Does nothing but fail for any others.
pub fn helper_main<S: AsRef<OsStr>>(args: &[S]) -> ExitCode {
    let done = if is_helper_call(args) { monitor::run() } else { Err(io::ErrorKind::InvalidInput.into()) };
    monitor::exit_code(&done)
}

/// To be called first thing in `main`, before any runtime, logger or argument parser: when this process was started as the
/// helper, does the helper's work and answers its exit code.
#[must_use]
pub fn run_if_helper() -> Option<ExitCode> {
    let args: Vec<OsString> = std::env::args_os().take(2).collect();
    is_helper_call(&args).then(|| helper_main(&args))
}

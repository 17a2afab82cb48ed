//! The program's other life: started again by the node as the monitor of one run, and by the monitor as the stage that becomes
//! the tool.
//!
//! Always true: it is single-threaded, starts with an empty environment, and holds nothing of the node but the control socket
//! that is its standard input. It knows no configuration and no session; everything it needs is in the job.

mod clock;
mod monitor;
#[cfg_attr(not(test), expect(dead_code, reason = "the stage that becomes the tool does not install it yet"))]
mod seccomp;
mod stage;
mod tree;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// First argument of the monitor.
pub(crate) const INIT: &str = "sandbox-init";
/// First argument of the last stage.
pub(crate) const EXEC: &str = "sandbox-exec";

/// True when these arguments (the program's name first) are a call of the helper.
pub fn is_helper_call<S: AsRef<OsStr>>(args: &[S]) -> bool {
    args.get(1).is_some_and(|first| first.as_ref() == INIT || first.as_ref() == EXEC)
}

/// Runs the helper with these arguments (the program's name first). Does nothing but fail for any others.
pub fn helper_main<S: AsRef<OsStr>>(args: &[S]) -> ExitCode {
    let first = args.get(1).map(AsRef::as_ref);
    let done = if first == Some(OsStr::new(INIT)) {
        monitor::run()
    } else if first == Some(OsStr::new(EXEC)) {
        stage::run()
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    };
    // There is nobody to tell: output belongs to the tool, and the node sees the socket close.
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// To be called first thing in `main`, before any runtime, logger or argument parser: when this process was started as the
/// helper, does the helper's work and answers its exit code.
#[must_use]
pub fn run_if_helper() -> Option<ExitCode> {
    let args: Vec<OsString> = std::env::args_os().take(2).collect();
    is_helper_call(&args).then(|| helper_main(&args))
}

/// The socket that was given as standard input. The copy closes by itself when the tool's program starts.
fn control_socket() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

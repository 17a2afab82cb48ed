//! Finds and kills processes that belong to a workspace but to no living monitor.
//!
//! Always true: only a process that was started with this workspace as its home, or that stands in it without a terminal, is
//! touched; an operator's shell in the directory is left alone. This is the second line: the monitor is the first, and a tool
//! that has both outlived its monitor and hidden these marks is not found.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::proc::{self, Process};

/// Enough for a tree that is still forking when the first rounds hit it.
const ROUNDS_MAX: u32 = 100;
const ROUND_PAUSE: Duration = Duration::from_millis(5);

/// Kills until a look at all processes finds none, or the rounds are used up. Answers how many were left. Blocks.
pub(crate) fn kill(directory: &Path) -> io::Result<usize> {
    let mut left = 0;
    for _ in 0..ROUNDS_MAX {
        let found = find(directory)?;
        left = found.len();
        if left == 0 {
            break;
        }
        for process in found {
            process.signal(Signal::KILL);
        }
        std::thread::sleep(ROUND_PAUSE);
    }
    Ok(left)
}

fn find(directory: &Path) -> io::Result<Vec<Process>> {
    let own = std::process::id();
    let mut home = b"HOME=".to_vec();
    home.extend_from_slice(directory.as_os_str().as_bytes());
    home.push(b'/');
    let pids = proc::all()?.into_iter().filter(|pid| u32::try_from(*pid) != Ok(own));
    let marked = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.thread)).unwrap_or_default();
        let at_home = environment.split(|b| *b == 0).any(|variable| variable.starts_with(&home));
        let stands_in = || fs::read_link(format!("/proc/{}/cwd", process.thread)).is_ok_and(|cwd| cwd.starts_with(directory));
        at_home || (process.terminal == 0 && stands_in())
    };
    Ok(pids.filter_map(Process::read).filter(|process| !process.is_dead() && marked(process)).collect())
}

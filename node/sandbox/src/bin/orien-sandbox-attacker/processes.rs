//! Attacks on other processes: tracing, reading their memory, taking their descriptors, signalling them.

use std::fs::File;
use std::io;

use crate::attack::Attack;
use crate::files::handle;
use crate::raw::{self, Arg};

const SEIZE: u64 = 0x4206;
const TRACE_ME: u64 = 0;
const ATTACH: u64 = 16;

fn others(attack: &Attack) -> Vec<u64> {
    let mut pids = vec![1, u64::from(std::os::unix::process::parent_id())];
    pids.extend(attack.pids());
    pids.dedup();
    pids
}

pub(crate) fn trace(attack: &mut Attack) {
    attack.apart("control", || Ok(0));
    attack.apart("ptrace TRACEME", || {
        raw::call(libc::SYS_ptrace, &mut [Arg::Number(TRACE_ME), Arg::Number(0), Arg::Number(0), Arg::Number(0)]).map(|_| 0)
    });
    // One's own child would be anybody's to trace.
    let child = raw::fork();
    if let Ok(None) = child {
        std::thread::sleep(std::time::Duration::from_secs(60));
        raw::end(0);
    }
    let child = child.ok().flatten().map(|pid| u64::from(pid.cast_unsigned()));
    for pid in others(attack).into_iter().chain(child) {
        let who = if Some(pid) == child { "child".to_owned() } else { pid.to_string() };
        for (name, request) in [("SEIZE", SEIZE), ("ATTACH", ATTACH)] {
            let args = &mut [Arg::Number(request), Arg::Number(pid), Arg::Number(0), Arg::Number(0)];
            attack.call(format!("ptrace {name} {who}"), libc::SYS_ptrace, args);
        }
        let args = || [Arg::Number(pid), Arg::Wild, Arg::Number(1), Arg::Wild, Arg::Number(1), Arg::Number(0)];
        attack.call(format!("process_vm_readv {who}"), libc::SYS_process_vm_readv, &mut args());
        attack.call(format!("process_vm_writev {who}"), libc::SYS_process_vm_writev, &mut args());
        let own = u64::from(std::process::id());
        attack.call(
            format!("kcmp {who}"),
            libc::SYS_kcmp,
            &mut [Arg::Number(own), Arg::Number(pid), Arg::Number(2), Arg::Number(0), Arg::Number(0)],
        );
        attack.note(format!("open /proc/{who}/mem"), File::open(format!("/proc/{pid}/mem")).map(drop));
        // To have a handle on a process is no attack; to take from it is.
        if let Ok(of) = raw::call(libc::SYS_pidfd_open, &mut [Arg::Number(pid), Arg::Number(0)]) {
            attack.call(format!("pidfd_getfd {who}"), libc::SYS_pidfd_getfd, &mut [Arg::Number(of), Arg::Number(0), Arg::Number(0)]);
        }
    }
    if let Some(pid) = child {
        // It may have been left stopped by an attach that worked.
        let _ = raw::call(libc::SYS_kill, &mut [Arg::Number(pid), Arg::Number(9)]);
        let _ = i32::try_from(pid).map(raw::wait);
    }
}

pub(crate) fn signal(attack: &mut Attack) {
    attack.apart("control", || raw::call(libc::SYS_kill, &mut [Arg::Number(std::process::id().into()), Arg::Number(0)]).map(|_| 0));
    for pid in others(attack) {
        for signal in [libc::SIGCONT, libc::SIGSTOP, libc::SIGTERM, libc::SIGKILL] {
            let number = u64::from(signal.cast_unsigned());
            attack.call(format!("kill {pid} with {signal}"), libc::SYS_kill, &mut [Arg::Number(pid), Arg::Number(number)]);
            attack.call(
                format!("tgkill {pid} with {signal}"),
                libc::SYS_tgkill,
                &mut [Arg::Number(pid), Arg::Number(pid), Arg::Number(number)],
            );
        }
        if let Ok(of) = raw::call(libc::SYS_pidfd_open, &mut [Arg::Number(pid), Arg::Number(0)]) {
            let args = &mut [Arg::Number(of), Arg::Number(9), Arg::Number(0), Arg::Number(0)];
            attack.call(format!("pidfd_send_signal {pid}"), libc::SYS_pidfd_send_signal, args);
        }
        attack.note(format!("make {pid} the owner of a pipe's signals"), own_by(pid));
    }
    everybody(attack);
}

/// The kernel sends the signal then, on behalf of whoever set it up. Whether it arrives, only the other process can tell.
fn own_by(pid: u64) -> io::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    let set = |command: i32, value: u64| {
        raw::call(libc::SYS_fcntl, &mut [Arg::Number(handle(&reader)), Arg::Number(u64::from(command.cast_unsigned())), Arg::Number(value)])
    };
    const SET_SIGNAL: i32 = 10;
    set(SET_SIGNAL, 9)?;
    set(libc::F_SETOWN, pid)?;
    set(libc::F_SETFL, u64::from(libc::O_ASYNC.cast_unsigned()))?;
    io::Write::write_all(&mut writer, b"now")
}

fn everybody(attack: &mut Attack) {
    /// In a namespace of its own a tool is among the first processes; on a whole machine this would be the end of it.
    const FIRST_PIDS: u32 = 64;
    if std::process::id() > FIRST_PIDS {
        attack.says("kill everybody", false, "not tried: this is no process namespace of its own");
        return;
    }
    // Not the caller itself: the rest is what it can reach. Group 0 and process 0 would be the caller's own.
    let all = u64::MAX;
    attack.call("kill everybody", libc::SYS_kill, &mut [Arg::Number(all), Arg::Number(9)]);
}

//! Attacks on limits: using up what is counted, raising what is limited, the clock.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::attack::Attack;
use crate::files::handle;
use crate::raw::{self, Arg};

/// Where nothing stops it.
const OPEN_MAX: u64 = 200_000;

/// The kernel walks the list of a file's locks for each new one, so many more than this is an attack on processor time.
const LOCKS_MAX: u64 = 5_000;

/// Does it until it fails, and says how often it worked.
fn exhausted(attack: &mut Attack, what: &str, max: u64, mut one: impl FnMut(u64) -> io::Result<()>) {
    attack.apart(what, || {
        for count in 0..max {
            raw::publish(count);
            one(count)?;
        }
        Ok(max)
    });
}

pub(crate) fn exhaust(attack: &mut Attack) {
    let number = Arg::Number;
    exhausted(attack, "descriptors", OPEN_MAX, |_| raw::call(libc::SYS_dup, &mut [number(0)]).map(drop));
    exhausted(attack, "watchers", OPEN_MAX, |_| raw::call(libc::SYS_inotify_init1, &mut [number(0)]).map(drop));
    watches(attack);
    let mut inner: Option<u64> = None;
    exhausted(attack, "event queues in each other", OPEN_MAX, |_| {
        let outer = raw::call(libc::SYS_epoll_create1, &mut [number(0)])?;
        if let Some(inner) = inner.replace(outer) {
            raw::call(libc::SYS_epoll_ctl, &mut [number(outer), number(1), number(inner), Arg::In(&[1; 12])])?;
        }
        Ok(())
    });
    exhausted(attack, "timers", OPEN_MAX, |_| {
        let mut timer = [0_u8; 8];
        raw::call(libc::SYS_timer_create, &mut [number(1), number(0), Arg::Out(&mut timer)]).map(drop)
    });
    // Records apart from each other cannot be merged.
    if let Some(file) = attack.note("a file to lock", File::create("locked")) {
        exhausted(attack, "locks", LOCKS_MAX, |count| {
            let mut lock = [0_u8; 32];
            lock[0] = 1;
            lock[8..16].copy_from_slice(&(count * 2).to_le_bytes());
            lock[16..24].copy_from_slice(&1_u64.to_le_bytes());
            raw::call(libc::SYS_fcntl, &mut [number(handle(&file)), number(6), Arg::In(&lock)]).map(drop)
        });
    }
    attack.note("open a file again", File::open("/proc/self/status"));
}

/// One on everything that is there to be read, since a second watch on the same file is the first one again. `ENOENT` says that there
/// was no more to watch: nothing stopped it.
fn watches(attack: &mut Attack) {
    let watcher = raw::call(libc::SYS_inotify_init1, &mut [Arg::Number(0)]).unwrap_or(u64::MAX);
    let mut folders = vec![PathBuf::from("/usr")];
    let mut found: Vec<PathBuf> = Vec::new();
    exhausted(attack, "watches", OPEN_MAX, |_| {
        while found.is_empty() {
            let Some(folder) = folders.pop() else { return Err(io::Error::from_raw_os_error(libc::ENOENT)) };
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        let path = found.pop().unwrap_or_default();
        match add_watch(watcher, &path) {
            // Not everything there is for everybody.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::ENOENT)) => Ok(()),
            other => other,
        }
    });
}

fn add_watch(watcher: u64, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    raw::call(libc::SYS_inotify_add_watch, &mut [Arg::Number(watcher), Arg::Text(&path), Arg::Number(0xfff)]).map(drop)
}

pub(crate) fn raise(attack: &mut Attack) {
    let number = Arg::Number;
    let infinite = [0xff_u8; 16];
    let names = [
        ("CPU", 0),
        ("FSIZE", 1),
        ("DATA", 2),
        ("STACK", 3),
        ("CORE", 4),
        ("NPROC", 6),
        ("NOFILE", 7),
        ("MEMLOCK", 8),
        ("AS", 9),
        ("MSGQUEUE", 12),
        ("NICE", 13),
        ("RTPRIO", 14),
    ];
    for (name, resource) in names {
        attack.apart(format!("unlimited {name}"), || {
            raw::call(libc::SYS_prlimit64, &mut [number(0), number(resource), Arg::In(&infinite), number(0)]).map(|_| 0)
        });
    }
    attack.call("limits of process 1", libc::SYS_prlimit64, &mut [number(1), number(7), Arg::In(&infinite), number(0)]);
    attack.apart("nice -20", || {
        raw::call(libc::SYS_setpriority, &mut [number(0), number(0), number(u64::from((-20_i32).cast_unsigned()))]).map(|_| 0)
    });
    attack.apart("nice of process 1", || raw::call(libc::SYS_setpriority, &mut [number(0), number(1), number(19)]).map(|_| 0));
    for (name, policy) in [("first in, first out", 1), ("round robin", 2)] {
        let priority = 50_i32.to_le_bytes();
        attack.apart(name, || raw::call(libc::SYS_sched_setscheduler, &mut [number(0), number(policy), Arg::In(&priority)]).map(|_| 0));
    }
    attack.apart("deadline", || {
        let mut attributes = [0_u8; 48];
        attributes[0] = 48;
        attributes[4] = 6;
        for (field, nanos) in [(24, 10_000_000_u64), (32, 20_000_000), (40, 20_000_000)] {
            attributes[field..field + 8].copy_from_slice(&nanos.to_le_bytes());
        }
        raw::call(libc::SYS_sched_setattr, &mut [number(0), Arg::In(&attributes), number(0)]).map(|_| 0)
    });
    attack.apart("disk before all others", || raw::call(libc::SYS_ioprio_set, &mut [number(1), number(0), number(1 << 13)]).map(|_| 0));
    attack.apart("all memory locked", || {
        raw::call(libc::SYS_mlockall, &mut [number(3)])?;
        raw::occupy(16 << 20, false).map(|()| 0)
    });
    attack.apart("a pipe of 64 MiB", || {
        let (reader, _writer) = io::pipe()?;
        raw::call(libc::SYS_fcntl, &mut [number(handle(&reader)), number(1031), number(64 << 20)]).map(|_| 0)
    });
}

pub(crate) fn core_dump(attack: &mut Attack) {
    let infinite = [0xff_u8; 16];
    let raised = raw::call(libc::SYS_prlimit64, &mut [Arg::Number(0), Arg::Number(4), Arg::In(&infinite), Arg::Number(0)]);
    attack.note("unlimited cores", raised);
    attack.apart("a process of 128 MiB aborts", || {
        raw::occupy(128 << 20, false)?;
        std::process::abort()
    });
    let left = fs::read_dir(".").into_iter().flatten().flatten();
    let cores: Vec<String> =
        left.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name.contains("core")).collect();
    attack.says("a core was left", !cores.is_empty(), cores.join(" "));
}

pub(crate) fn clock(attack: &mut Attack) {
    let number = Arg::Number;
    // Values that no clock takes, so that none is set where nothing forbids it.
    let impossible: Vec<u8> = [0_u64, 5_000_000_000].iter().flat_map(|word| word.to_le_bytes()).collect();
    attack.call("settimeofday", libc::SYS_settimeofday, &mut [Arg::In(&impossible), number(0)]);
    for (name, of) in [("realtime", 0), ("monotonic", 1), ("atomic", 11)] {
        attack.call(format!("clock_settime {name}"), libc::SYS_clock_settime, &mut [number(of), Arg::In(&impossible)]);
    }
    let mut wild = [0xff_u8; 208];
    attack.call("adjtimex", libc::SYS_adjtimex, &mut [Arg::Out(&mut wild)]);
    attack.call("clock_adjtime", libc::SYS_clock_adjtime, &mut [number(0), Arg::Out(&mut wild)]);
    for (name, of) in [("realtime", 8), ("boot time", 9)] {
        attack.call(format!("a timer that wakes the machine, {name}"), libc::SYS_timerfd_create, &mut [number(of), number(0)]);
    }
    let seconds = attack.number("sleep", 0);
    if seconds > 0 {
        attack.tell();
        let start = Instant::now();
        for signal in 1..=64 {
            let _ = raw::ignore(signal);
        }
        while start.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_secs(seconds).saturating_sub(start.elapsed()));
        }
    }
}

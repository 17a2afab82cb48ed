//! Attacks on what is shared: processes, threads, memory, processor time; and processes that will not go.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::attack::Attack;
use crate::raw::{self, Arg};

/// Where nothing stops a bomb it stops itself, so that a failing test does not take the machine with it.
const FORKS_MAX: u64 = 20_000;
const THREADS_MAX: u64 = 20_000;
const BYTES_MAX: u64 = 4 << 30;
const MEBI: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn sleep_long() -> ! {
    loop {
        std::thread::sleep(LONG);
    }
}

pub(crate) fn forks(attack: &mut Attack) {
    let max = attack.number("max", FORKS_MAX);
    if attack.value("mode", "count") == "bomb" {
        attack.says("bomb", true, "from here on every process makes more");
        attack.tell();
        loop {
            // Refusals are expected; the next moment another process may have gone.
            let _ = raw::fork();
        }
    }
    let mut children = Vec::new();
    let end = loop {
        if children.len() as u64 >= max {
            break None;
        }
        match raw::fork() {
            Ok(Some(pid)) => children.push(pid),
            Ok(None) => sleep_long(),
            Err(error) => break Some(error),
        }
    };
    attack.counted("fork", children.len() as u64, end.as_ref());
    for pid in &children {
        let _ = raw::call(libc::SYS_kill, &mut [Arg::Number(u64::from(pid.cast_unsigned())), Arg::Number(9)]);
    }
    for pid in children {
        let _ = raw::wait(pid);
    }
    // The room that was used up comes back.
    attack.apart("fork again", || Ok(0));
}

pub(crate) fn threads(attack: &mut Attack) {
    let max = attack.number("max", THREADS_MAX);
    let mut count = 0;
    let end = loop {
        if count >= max {
            break None;
        }
        match std::thread::Builder::new().stack_size(64 * 1024).spawn(|| sleep_long()) {
            Ok(_) => count += 1,
            Err(error) => break Some(error),
        }
    };
    attack.counted("thread", count, end.as_ref());
}

type Eater = fn(u64) -> io::Result<u64>;

const EATERS: &[(&str, Eater)] = &[
    ("private", private),
    ("shared", shared),
    ("tmpfs", tmpfs),
    ("memfd", memfd),
    ("pipes", pipes),
    ("sockets", sockets),
    ("shm", shm),
    ("cache", cache),
    ("family", family),
];

/// The count is how many bytes were had before the end.
pub(crate) fn memory(attack: &mut Attack) {
    let (how, bytes) = (attack.value("how", ""), attack.number("bytes", BYTES_MAX));
    for (name, eat) in EATERS.iter().filter(|(name, _)| how.is_empty() || *name == how) {
        attack.apart(*name, || eat(bytes));
    }
}

/// Takes a piece after the other, publishing what it has.
fn pieces(bytes: u64, piece: usize, mut take: impl FnMut() -> io::Result<()>) -> io::Result<u64> {
    let mut had = 0;
    while had < bytes {
        take()?;
        had += piece as u64;
        raw::publish(had);
    }
    Ok(had)
}

fn private(bytes: u64) -> io::Result<u64> {
    pieces(bytes, MEBI, || raw::occupy(MEBI, false))
}

fn shared(bytes: u64) -> io::Result<u64> {
    pieces(bytes, MEBI, || raw::occupy(MEBI, true))
}

fn tmpfs(bytes: u64) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open("/tmp/bomb")?;
    let eaten = pieces(bytes, MEBI, || file.write_all(&vec![1; MEBI]));
    // What follows needs the room.
    std::fs::remove_file("/tmp/bomb")?;
    eaten
}

fn memfd(bytes: u64) -> io::Result<u64> {
    raw::ignore(libc::SIGXFSZ)?;
    let mut files = Vec::new();
    pieces(bytes, MEBI, || {
        let number = raw::call(libc::SYS_memfd_create, &mut [Arg::Text(c"bomb"), Arg::Number(8)])?;
        let mut file = OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}"))?;
        file.write_all(&vec![1; MEBI])?;
        files.push(file);
        Ok(())
    })
}

fn pipes(bytes: u64) -> io::Result<u64> {
    const SET_PIPE_SIZE: u64 = 1031;
    let mut ends: Vec<(io::PipeReader, io::PipeWriter)> = Vec::new();
    pieces(bytes, MEBI, || {
        let (reader, mut writer) = io::pipe()?;
        let number = crate::files::handle(&writer);
        raw::call(libc::SYS_fcntl, &mut [Arg::Number(number), Arg::Number(SET_PIPE_SIZE), Arg::Number(MEBI as u64)])?;
        writer.write_all(&vec![1; MEBI])?;
        ends.push((reader, writer));
        Ok(())
    })
}

fn sockets(bytes: u64) -> io::Result<u64> {
    let mut pairs: Vec<(OwnedFd, OwnedFd)> = Vec::new();
    let mut had = 0;
    while had < bytes {
        let (mut one, other) = UnixStream::pair()?;
        one.set_nonblocking(true)?;
        while let Ok(written) = one.write(&[1; 64 * 1024]) {
            had += written as u64;
        }
        raw::publish(had);
        pairs.push((one.into(), other.into()));
    }
    Ok(had)
}

fn shm(bytes: u64) -> io::Result<u64> {
    pieces(bytes, MEBI, || raw::call(libc::SYS_shmget, &mut [Arg::Number(0), Arg::Number(MEBI as u64), Arg::Number(0o600)]).map(drop))
}

/// Pages of a file that is deleted and held open: no name shows what they take.
fn cache(bytes: u64) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open("cache")?;
    std::fs::remove_file("cache")?;
    raw::ignore(libc::SIGXFSZ)?;
    pieces(bytes, MEBI, || file.write_all(&vec![1; MEBI]))
}

/// Many processes, each a little.
fn family(bytes: u64) -> io::Result<u64> {
    const EACH: usize = 32 * MEBI;
    let mut children = Vec::new();
    let mut had = 0;
    let end = loop {
        if had >= bytes {
            break Ok(had);
        }
        let (mut reader, writer) = io::pipe()?;
        match raw::fork() {
            Ok(None) => {
                drop(reader);
                let done = raw::occupy(EACH, false);
                if done.is_err() {
                    raw::end(1);
                }
                // The parent sees the end of this when the memory is had.
                drop(writer);
                sleep_long()
            }
            Ok(Some(pid)) => children.push(pid),
            Err(error) => break Err(error),
        }
        drop(writer);
        io::Read::read_to_end(&mut reader, &mut Vec::new())?;
        had += EACH as u64;
        raw::publish(had);
    };
    for pid in &children {
        raw::call(libc::SYS_kill, &mut [Arg::Number(u64::from(pid.cast_unsigned())), Arg::Number(9)])?;
    }
    end
}

fn spin() -> ! {
    let mut number = 1_u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

pub(crate) fn burn(attack: &mut Attack) {
    let processes = attack.number("processes", 2);
    let made = (1..processes).map_while(|_| raw::fork().ok().map(|child| child.map_or_else(|| spin(), |_| ()))).count();
    attack.counted("processes that burn", made as u64 + 1, None);
    attack.tell();
    spin()
}

pub(crate) fn hidden_burn(attack: &mut Attack) {
    let burnt = Duration::from_millis(attack.number("ms", 200));
    let before = raw::ignore(libc::SIGCHLD);
    attack.note("children are not waited for", before);
    let child = raw::fork();
    if let Ok(None) = child {
        let start = Instant::now();
        while start.elapsed() < burnt {
            std::hint::black_box(start);
        }
        raw::end(0);
    }
    // It goes by itself: that there is nobody to wait for is the point.
    let ended = child.and_then(|child| raw::wait(child.unwrap_or(-1)));
    attack.note("wait", ended);
    attack.counted("milliseconds burnt in a child nobody collects", u64::try_from(burnt.as_millis()).unwrap_or(u64::MAX), None);
}

fn ignore_all() -> u64 {
    (1..=64).filter(|signal| raw::ignore(*signal).is_ok()).count() as u64
}

pub(crate) fn stubborn(attack: &mut Attack) {
    let processes = attack.number("processes", 32);
    let mut made = 0;
    let mut end = None;
    for _ in 0..processes {
        match raw::fork() {
            Ok(Some(_)) => made += 1,
            Ok(None) => {
                ignore_all();
                let _ = raw::call(libc::SYS_setsid, &mut []);
                sleep_long()
            }
            Err(error) => {
                end = Some(error);
                break;
            }
        }
    }
    attack.counted("processes that ignore signals", made, end.as_ref());
    attack.counted("signals ignored", ignore_all(), None);
    attack.tell();
    sleep_long()
}

pub(crate) fn stopped(attack: &mut Attack) {
    const SUSPEND_PARENT: u64 = 0x4000;
    const STOP: u64 = 19;
    let own = || Arg::Number(std::process::id().into());
    let stopped = raw::fork();
    if let Ok(None) = stopped {
        let _ = raw::call(libc::SYS_kill, &mut [own(), Arg::Number(STOP)]);
        sleep_long();
    }
    attack.note("a stopped process", stopped);
    let suspended = raw::fork();
    if let Ok(None) = suspended {
        // Without shared memory this is a fork whose parent waits, unkillable by all but one signal, for a program that never starts.
        let flags = SUSPEND_PARENT | 17;
        let _ = raw::call(libc::SYS_clone, &mut [Arg::Number(flags), Arg::Number(0), Arg::Number(0), Arg::Number(0), Arg::Number(0)]);
        sleep_long();
    }
    attack.note("a suspended process", suspended);
    attack.tell();
    let _ = raw::call(libc::SYS_kill, &mut [own(), Arg::Number(STOP)]);
    sleep_long()
}

pub(crate) fn daemon(attack: &mut Attack) {
    let beat = attack.value("beat", "beat");
    let first = raw::fork();
    if let Ok(None) = first {
        let _ = raw::call(libc::SYS_setsid, &mut []);
        if let Ok(Some(_)) = raw::fork() {
            raw::end(0);
        }
        // Lives on, and shows it. Its parent is whoever collects orphans now.
        ignore_all();
        let mut number = 0_u64;
        loop {
            let _ = std::fs::write(&beat, number.to_string());
            number += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let between = first.and_then(|first| raw::wait(first.unwrap_or(-1)));
    attack.note("a daemon", between);
    // It is there, and not only promised.
    let start = Instant::now();
    while !std::path::Path::new(&beat).exists() && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(5));
    }
    attack.note("its beat", std::fs::metadata(&beat).map(drop));
}

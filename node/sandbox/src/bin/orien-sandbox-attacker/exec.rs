//! Attacks by executing: set-user-id programs, files of one's own, files that exist only in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::attack::Attack;
use crate::files::handle;
use crate::raw::{self, Arg};

const SET_USER_OR_GROUP_ID: u32 = 0o6000;
const HELD_OPEN: &[&str] = &["/usr/bin/su", "/usr/bin/passwd", "/usr/bin/newgrp", "/usr/bin/chsh", "/usr/bin/sudo", "/usr/bin/mount"];

pub(crate) fn set_user_id(attack: &mut Attack) {
    attack.control(Command::new("/usr/bin/true").status().map(drop));
    let mut found = Vec::new();
    for folder in ["/usr/bin", "/usr/sbin", "/usr/lib/dbus-1.0", "/usr/lib/openssh"] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        found.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.mode() & SET_USER_OR_GROUP_ID != 0)),
        );
    }
    attack.says(
        "set-user-id programs that are there",
        true,
        found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "),
    );
    for program in HELD_OPEN.iter().filter(|program| Path::new(program).exists()) {
        // Waits for input that never comes, or has ended already: either way its identity can still be read.
        let started = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = started else {
            attack.note(format!("start {program}"), started.map(drop));
            continue;
        };
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let (user, capabilities) = (line("Uid:"), line("CapEff:"));
        let own = fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or_default().to_string();
        let changed = user.split(' ').any(|id| id != own) || !capabilities.trim_start_matches('0').is_empty();
        attack.says(format!("{program} is somebody else"), changed, format!("user {user}, capabilities {capabilities}"));
        // It has no more to tell.
        let _ = child.kill().and_then(|()| child.wait());
    }
    // A set-user-id file of one's own.
    let made = fs::copy("/usr/bin/id", "id").and_then(|_| fs::set_permissions("id", fs::Permissions::from_mode(0o6755)));
    let ran = made.and_then(|()| Command::new("./id").arg("-u").output());
    attack.read("run a set-user-id file of its own", ran.map(|done| done.stdout));
}

/// This program, as a file of the attacker's own in a directory.
fn plant(folder: &str) -> io::Result<PathBuf> {
    let path = Path::new(folder).join("planted");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&path)?;
    file.write_all(&fs::read("/proc/self/exe")?)?;
    Ok(path)
}

fn started(path: &Path) -> io::Result<Vec<u8>> {
    Command::new(path).arg("--list").output().map(|done| format!("{}", done.status).into_bytes())
}

pub(crate) fn own_file(attack: &mut Attack) {
    attack.control(started(Path::new("/proc/self/exe")).map(drop));
    for folder in ["/workspace", "/tmp", "/dev/shm"] {
        attack.read(format!("execute a file in {folder}"), plant(folder).and_then(|path| started(&path)));
        let by_handle = plant(folder).and_then(File::open).and_then(|file| execute_handle(&file));
        attack.note(format!("execute a file in {folder} by its handle"), by_handle);
    }
    let script = || {
        fs::write("script", "#!/bin/sh\necho it runs\n")?;
        fs::set_permissions("script", fs::Permissions::from_mode(0o755))?;
        Command::new("./script").output().map(|done| done.stdout)
    };
    attack.read("execute a script of its own", script());
    // Reading a script is not executing a file: an interpreter is its own permission.
    attack.read("have a shell read it", Command::new("/bin/sh").arg("script").output().map(|done| done.stdout));
    let nameless = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o755).open("/tmp").and_then(|mut file| {
        file.write_all(&fs::read("/proc/self/exe")?)?;
        let readable = File::open(format!("/proc/self/fd/{}", handle(&file)))?;
        drop(file);
        execute_handle(&readable)
    });
    attack.note("execute a file without a name", nameless);
}

/// `fexecve`, in a process of its own.
fn execute_handle(file: &File) -> io::Result<()> {
    const EMPTY_PATH: u64 = 0x1000;
    let (ended, _) = raw::apart(|| {
        let none = [0_u8; 8];
        raw::call(
            libc::SYS_execveat,
            &mut [Arg::Number(handle(file)), Arg::Text(c""), Arg::In(&none), Arg::In(&none), Arg::Number(EMPTY_PATH)],
        )
    })?;
    match ended {
        // The program that would run now refuses to without arguments, by this code.
        raw::Ended::Exit(crate::REFUSED) => Ok(()),
        raw::Ended::Exit(errno) => Err(io::Error::from_raw_os_error(errno)),
        raw::Ended::Signal(signal) => Err(io::Error::other(format!("signal {signal}"))),
    }
}

pub(crate) fn by_loader(attack: &mut Attack) {
    attack.control(fs::read("/proc/self/exe").map(drop));
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    for folder in ["/workspace", "/tmp"] {
        let Some(path) = attack.note(format!("plant in {folder}"), plant(folder)) else { continue };
        for loader in loaders.iter().filter(|loader| Path::new(loader).exists()) {
            match Command::new(loader).arg(&path).arg("--list").output() {
                Ok(done) => {
                    let said = String::from_utf8_lossy(&done.stderr).chars().take(300).collect::<String>();
                    attack.says(format!("{loader} {}", path.display()), done.status.success(), said);
                }
                Err(error) => drop(attack.note(format!("{loader} {}", path.display()), Err::<(), _>(error))),
            }
        }
        attack.note(format!("map a file in {folder} for execution"), File::open(&path).and_then(|file| raw::map_executable(&file)));
    }
}

pub(crate) fn memory_file(attack: &mut Attack) {
    attack.control(fs::read("/proc/self/exe").map(drop));
    const NO_EXECUTION: u64 = 8;
    const EXECUTION: u64 = 0x10;
    for (what, flags) in [
        ("plain", 0),
        ("with closing at execution", 1),
        ("with seals", 2),
        ("executable", EXECUTION),
        ("sealed against execution", NO_EXECUTION),
    ] {
        let made = raw::call(libc::SYS_memfd_create, &mut [Arg::Text(c"orien"), Arg::Number(flags)]);
        let Some(number) = attack.note(format!("memory file, {what}"), made) else { continue };
        attack.note(format!("make it executable, {what}"), raw::call(libc::SYS_fchmod, &mut [Arg::Number(number), Arg::Number(0o777)]));
        let run = fs::read("/proc/self/exe").and_then(|program| {
            let path = format!("/proc/self/fd/{number}");
            OpenOptions::new().write(true).open(&path)?.write_all(&program)?;
            let readable = File::open(path)?;
            // What is open for writing is not executed by any kernel.
            raw::call(libc::SYS_close, &mut [Arg::Number(number)])?;
            execute_handle(&readable)
        });
        attack.note(format!("write and execute it, {what}"), run);
    }
}

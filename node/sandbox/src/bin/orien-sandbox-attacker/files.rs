//! Attacks by path name: out of the workspace, into other processes' directories, into the kernel's settings.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::attack::Attack;
use crate::raw::{self, Arg};

/// Where every Linux machine has something that is nobody else's business.
const SECRETS: &[&str] = &["/etc/shadow", "/root", "/root/.ssh", "/home", "/var/lib", "/run", "/sys", "/boot"];
/// More than any path here is deep.
const UP: &str = "../../../../../../../../..";

/// What is there: a file's bytes or a directory's names.
pub(crate) fn look(path: &str) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        let mut names: Vec<String> = fs::read_dir(path)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        return Ok(names.join(" ").into_bytes());
    }
    let mut bytes = Vec::new();
    file.take(8192).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn own_file(attack: &mut Attack) {
    let name = "control";
    let written = fs::write(name, "mine").and_then(|()| fs::read(name)).and_then(|_| fs::remove_file(name));
    attack.control(written);
}

pub(crate) fn secrets(attack: &mut Attack) {
    attack.control(look("/proc/self/status").map(drop));
    for path in SECRETS.iter().map(|path| (*path).to_owned()).chain(attack.values("secret")) {
        attack.read(format!("read {path}"), look(&path));
    }
}

pub(crate) fn climb(attack: &mut Attack) {
    attack.control(look(".").map(drop));
    let mut targets = vec!["/etc/shadow".to_owned()];
    targets.extend(attack.values("secret"));
    for target in &targets {
        let path = format!("{UP}{target}");
        attack.read(format!("read ../..{target}"), look(&path));
        let from_top = || {
            std::env::set_current_dir(UP)?;
            look(target.trim_start_matches('/')).map(|_| 0)
        };
        attack.apart(format!("climb, then read {target}"), from_top);
    }
    // The top may be opened: it must be the same as `/`, which is all there is.
    attack.read("list ../..", look(UP));
    attack.read("list /", look("/"));
    let by_handle = File::open(".").and_then(|here| {
        let path = CString::new(format!("{UP}/etc/shadow"))?;
        raw::call(libc::SYS_openat, &mut [Arg::Number(handle(&here)), Arg::Text(&path), Arg::Number(0)])
    });
    attack.note("openat with a directory's handle", by_handle);
}

/// A descriptor as an argument.
pub(crate) fn handle(file: &impl std::os::fd::AsRawFd) -> u64 {
    u64::from(file.as_raw_fd().cast_unsigned())
}

pub(crate) fn links(attack: &mut Attack) {
    own_file(attack);
    let mut targets: Vec<String> =
        ["/etc/shadow", "/proc/1/root/etc/shadow", "/proc/self/root/etc/shadow", "/proc/1/cwd", "/proc/1/environ"]
            .map(String::from)
            .to_vec();
    for secret in attack.values("secret") {
        targets.extend([format!("/proc/1/root{secret}"), format!("/proc/self/root{secret}"), format!("{UP}{secret}"), secret]);
    }
    for target in targets {
        let made = symlink(&target, "link").and_then(|()| look("link"));
        attack.read(format!("link to {target}"), made);
        // The next one needs the name.
        let _ = fs::remove_file("link");
    }
    // A directory in the middle of a path that is a link.
    let middle = symlink("/proc/1", "middle").and_then(|()| look("middle/root/etc"));
    attack.read("link in the middle to /proc/1", middle);
}

pub(crate) fn archives(attack: &mut Attack) {
    own_file(attack);
    let run = |program: &str, args: &[&str]| -> io::Result<Vec<u8>> {
        let done = Command::new(program).args(args).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&done.stderr).chars().take(500).collect::<String>();
        Ok(format!("{} {said}", done.status).into_bytes())
    };
    for (index, file) in attack.values("tar").iter().enumerate() {
        let to = format!("tar{index}");
        attack.read(format!("tar {file}"), fs::create_dir(&to).and_then(|()| run("/usr/bin/tar", &["-xf", file, "-C", &to])));
        let to = format!("tar-as-named{index}");
        attack.read(format!("tar -P {file}"), fs::create_dir(&to).and_then(|()| run("/usr/bin/tar", &["-P", "-xf", file, "-C", &to])));
    }
    for (index, file) in attack.values("zip").iter().enumerate() {
        let to = format!("zip{index}");
        attack.read(format!("unzip {file}"), fs::create_dir(&to).and_then(|()| run("/usr/bin/unzip", &["-o", "-:", file, "-d", &to])));
    }
    for path in attack.values("escape") {
        attack.read(format!("escaped to {path}"), look(&path));
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

pub(crate) fn write_outside(attack: &mut Attack) {
    own_file(attack);
    let mut folders: Vec<String> =
        ["/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/dev", "/proc", "/var", "/bin"].map(String::from).to_vec();
    folders.extend(attack.values("shared"));
    for folder in folders {
        let path = Path::new(&folder).join("orien-attack");
        attack.note(format!("create in {folder}"), create(&path).and_then(|_| fs::remove_file(&path)));
        attack.note(format!("make a directory in {folder}"), fs::create_dir(&path).and_then(|()| fs::remove_dir(&path)));
        attack.note(format!("link into {folder}"), symlink("/etc/shadow", &path).and_then(|()| fs::remove_file(&path)));
        let moved = fs::write("moved", "").and_then(|()| fs::rename("moved", &path)).and_then(|()| fs::remove_file(&path));
        attack.note(format!("rename into {folder}"), moved);
        let hard = fs::write("linked", "").and_then(|()| fs::hard_link("linked", &path)).and_then(|()| fs::remove_file(&path));
        attack.note(format!("hard link into {folder}"), hard);
    }
    // A machine on which these work must survive it: nothing changes then.
    for file in ["/usr/bin/env", "/etc/passwd", "/etc/hosts"] {
        attack.note(format!("open {file} to write"), OpenOptions::new().append(true).open(file));
        attack.note(
            format!("change the mode of {file}"),
            fs::metadata(file).and_then(|found| fs::set_permissions(file, found.permissions())),
        );
        attack.note(format!("hard link of {file}"), fs::hard_link(file, "stolen"));
        attack.note(format!("rename {file} to itself"), fs::rename(file, file));
        attack.note(format!("remove {file} as a directory"), fs::remove_dir(file));
    }
    for file in attack.values("file") {
        attack.note(format!("open {file} to write"), OpenOptions::new().append(true).open(&file));
        attack.note(format!("truncate {file}"), OpenOptions::new().write(true).truncate(true).open(&file));
        attack.note(format!("change the mode of {file}"), fs::set_permissions(&file, fs::Permissions::from_mode(0o777)));
        attack.note(format!("hard link of {file}"), fs::hard_link(&file, "stolen"));
        attack.note(format!("rename {file} away"), fs::rename(&file, "stolen"));
        attack.note(format!("remove {file}"), fs::remove_file(&file));
    }
}

pub(crate) fn kernel_settings(attack: &mut Attack) {
    own_file(attack);
    // Opening decides; nothing is written where that worked, since it could be the machine's own.
    let opened = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sysrq-trigger",
        "/proc/kcore",
        "/proc/1/oom_score_adj",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/cgroup.procs",
        "/dev/mem",
        "/dev/kmsg",
    ];
    for path in opened {
        attack.note(format!("open {path} to write"), OpenOptions::new().write(true).open(path));
    }
    // These concern this process alone.
    let written = [
        ("oom_score_adj", "-1000"),
        ("uid_map", "0 0 1"),
        ("gid_map", "0 0 1"),
        ("setgroups", "allow"),
        ("loginuid", "0"),
        ("coredump_filter", "ff"),
    ];
    for (name, text) in written {
        let path = format!("/proc/self/{name}");
        let done = OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        attack.note(format!("write {path}"), done);
    }
}

pub(crate) fn other_processes(attack: &mut Attack) {
    attack.control(look("/proc/self/environ").map(drop));
    let parent = u64::from(std::os::unix::process::parent_id());
    let mut pids = vec![1, parent];
    pids.extend(attack.pids());
    pids.dedup();
    for pid in pids {
        for name in
            ["environ", "mem", "maps", "fd", "auxv", "io", "stack", "syscall", "ns", "map_files", "task", "cmdline", "status", "mountinfo"]
        {
            let path = format!("/proc/{pid}/{name}");
            attack.read(format!("read {path}"), look(&path));
        }
        for name in ["root", "cwd", "exe", "ns/user", "ns/mnt"] {
            let path = format!("/proc/{pid}/{name}");
            let target = fs::read_link(&path).map(|target| target.into_os_string().into_encoded_bytes());
            attack.read(format!("follow {path}"), target);
        }
        attack.read(format!("list /proc/{pid}/root"), look(&format!("/proc/{pid}/root")));
    }
    let visible = fs::read_dir("/proc").map(|entries| {
        let mut pids: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        pids.retain(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        pids.join(" ").into_bytes()
    });
    attack.read("processes in /proc", visible);
}

/// Only as a handle: nothing can be read through it by itself.
pub(crate) fn path_handle(path: &str) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).map(OwnedFd::from)
}

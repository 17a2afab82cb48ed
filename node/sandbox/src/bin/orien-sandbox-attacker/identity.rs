//! Attacks by becoming something else: namespaces, roots, users, capabilities, devices.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;

use crate::attack::Attack;
use crate::files::{handle, path_handle};
use crate::raw::{self, Arg};

const NAMESPACES: &[(&str, u64)] = &[
    ("user", 0x1000_0000),
    ("mount", 0x0002_0000),
    ("process", 0x2000_0000),
    ("network", 0x4000_0000),
    ("IPC", 0x0800_0000),
    ("UTS", 0x0400_0000),
    ("cgroup", 0x0200_0000),
    ("time", 0x80),
];
const CHILD_SIGNAL: u64 = 17;
/// Size of the first version of `struct clone_args`.
const CLONE_ARGS_BYTES: usize = 64;

fn unit(outcome: io::Result<u64>) -> io::Result<u64> {
    outcome.map(|_| 0)
}

/// A child made by the raw call ends at once; what counts is whether it could be made.
fn cloned(outcome: io::Result<u64>) -> io::Result<u64> {
    if outcome.as_ref().is_ok_and(|pid| *pid == 0) {
        raw::end(0);
    }
    unit(outcome)
}

pub(crate) fn namespaces(attack: &mut Attack) {
    attack.apart("control", || Ok(0));
    for (name, flag) in NAMESPACES {
        attack.apart(format!("unshare {name}"), || unit(raw::call(libc::SYS_unshare, &mut [Arg::Number(*flag)])));
        let high = 0xffff_ffff_0000_0000;
        for (how, flags) in [("clone", flag | CHILD_SIGNAL), ("clone, high bits set,", flag | CHILD_SIGNAL | high)] {
            attack.apart(format!("{how} {name}"), || {
                let none = Arg::Number(0);
                cloned(raw::call(libc::SYS_clone, &mut [Arg::Number(flags), none, Arg::Number(0), Arg::Number(0), Arg::Number(0)]))
            });
        }
        attack.apart(format!("clone3 {name}"), || {
            let mut args = [0_u8; CLONE_ARGS_BYTES];
            args[..8].copy_from_slice(&flag.to_le_bytes());
            args[32..40].copy_from_slice(&CHILD_SIGNAL.to_le_bytes());
            cloned(raw::call(libc::SYS_clone3, &mut [Arg::In(&args), Arg::Number(CLONE_ARGS_BYTES as u64)]))
        });
    }
    attack.apart("clone3 without namespaces", || {
        let mut args = [0_u8; CLONE_ARGS_BYTES];
        args[32..40].copy_from_slice(&CHILD_SIGNAL.to_le_bytes());
        cloned(raw::call(libc::SYS_clone3, &mut [Arg::In(&args), Arg::Number(CLONE_ARGS_BYTES as u64)]))
    });
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        attack.apart(format!("setns to its own {name}"), || {
            let of = File::open(format!("/proc/self/ns/{name}"))?;
            unit(raw::call(libc::SYS_setns, &mut [Arg::Number(handle(&of)), Arg::Number(0)]))
        });
    }
    attack.apart("setns by a process's handle", || {
        let of = raw::call(libc::SYS_pidfd_open, &mut [Arg::Number(1), Arg::Number(0)])?;
        unit(raw::call(libc::SYS_setns, &mut [Arg::Number(of), Arg::Number(0x1000_0000)]))
    });
}

pub(crate) fn mounts(attack: &mut Attack) {
    attack.control(fs::create_dir("mount").and_then(|()| fs::write("mount/file", "")));
    let none = || Arg::Number(0);
    let here = i64::from(libc::AT_FDCWD).cast_unsigned();
    let paths: &[(&str, &CStr, &CStr, &CStr, u64)] = &[
        ("mount tmpfs", c"none", c"mount", c"tmpfs", 0),
        ("mount proc", c"none", c"mount", c"proc", 0),
        ("mount sysfs", c"none", c"mount", c"sysfs", 0),
        ("bind /", c"/", c"mount", c"", libc::MS_BIND | libc::MS_REC),
        ("remount / writable", c"none", c"/", c"", libc::MS_REMOUNT | libc::MS_BIND),
        ("remount /usr writable", c"none", c"/usr", c"", libc::MS_REMOUNT | libc::MS_BIND),
        ("remount the workspace executable", c"none", c"/workspace", c"", libc::MS_REMOUNT | libc::MS_BIND),
        ("share all mounts", c"none", c"/", c"", libc::MS_REC | libc::MS_SHARED),
        ("move /usr", c"/usr", c"mount", c"", libc::MS_MOVE),
    ];
    for (what, source, target, kind, flags) in paths {
        let args = &mut [Arg::Text(source), Arg::Text(target), Arg::Text(kind), Arg::Number(*flags), none()];
        attack.call(*what, libc::SYS_mount, args);
    }
    for (what, target, flags) in
        [("umount /proc", c"/proc", libc::MNT_DETACH), ("umount /usr", c"/usr", libc::MNT_DETACH), ("umount /", c"/", 0)]
    {
        attack.call(what, libc::SYS_umount2, &mut [Arg::Text(target), Arg::Number(u64::from(flags.cast_unsigned()))]);
    }
    attack.call("pivot_root", libc::SYS_pivot_root, &mut [Arg::Text(c"mount"), Arg::Text(c"mount")]);
    attack.apart("chroot", || unit(raw::call(libc::SYS_chroot, &mut [Arg::Text(c"mount")])));
    const CLONE_TREE: u64 = 1;
    attack.call("open_tree", libc::SYS_open_tree, &mut [Arg::Number(here), Arg::Text(c"/"), Arg::Number(CLONE_TREE)]);
    attack.call("open_tree without a copy", libc::SYS_open_tree, &mut [Arg::Number(here), Arg::Text(c"/"), none()]);
    attack.call(
        "move_mount",
        libc::SYS_move_mount,
        &mut [Arg::Number(here), Arg::Text(c"/usr"), Arg::Number(here), Arg::Text(c"mount"), none()],
    );
    attack.call("fsopen", libc::SYS_fsopen, &mut [Arg::Text(c"tmpfs"), none()]);
    attack.call("fsconfig", libc::SYS_fsconfig, &mut [none(), Arg::Number(6), none(), none(), none()]);
    attack.call("fsmount", libc::SYS_fsmount, &mut [none(), none(), none()]);
    attack.call("fspick", libc::SYS_fspick, &mut [Arg::Number(here), Arg::Text(c"/"), none()]);
    let attributes = [0_u8; 32];
    let args = &mut [Arg::Number(here), Arg::Text(c"/"), none(), Arg::In(&attributes), Arg::Number(32)];
    attack.call("mount_setattr", libc::SYS_mount_setattr, args);
    const STATMOUNT: libc::c_long = 457;
    for (what, number) in [("statmount", STATMOUNT), ("listmount", STATMOUNT + 1), ("open_tree_attr", 467)] {
        attack.call(what, number, &mut [Arg::Wild, Arg::Wild, none(), none(), none()]);
    }
}

pub(crate) fn privileges(attack: &mut Attack) {
    attack.apart("control", || unit(raw::call(libc::SYS_getuid, &mut [])));
    let number = Arg::Number;
    attack.apart("setuid 0", || unit(raw::call(libc::SYS_setuid, &mut [number(0)])));
    attack.apart("setgid 0", || unit(raw::call(libc::SYS_setgid, &mut [number(0)])));
    attack.apart("setresuid 0", || unit(raw::call(libc::SYS_setresuid, &mut [number(0), number(0), number(0)])));
    attack.apart("setreuid to another", || unit(raw::call(libc::SYS_setreuid, &mut [number(1), number(1)])));
    attack.apart("setgroups", || unit(raw::call(libc::SYS_setgroups, &mut [number(1), Arg::In(&[0; 4])])));
    attack.apart("setfsuid 0", || {
        raw::call(libc::SYS_setfsuid, &mut [number(0)])?;
        // It never fails; what it answers afterwards is what was.
        let now = raw::call(libc::SYS_setfsuid, &mut [number(u64::from(u32::MAX))])?;
        if now == 0 { Ok(0) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
    });
    /// `_LINUX_CAPABILITY_VERSION_3`, for the caller.
    const HEADER: [u8; 8] = [0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0];
    attack.apart("capset all", || unit(raw::call(libc::SYS_capset, &mut [Arg::In(&HEADER), Arg::In(&[0xff; 24])])));
    for (what, option, values) in [
        ("securebits", libc::PR_SET_SECUREBITS, [0, 0]),
        ("ambient capability", libc::PR_CAP_AMBIENT, [2, 21]),
        ("take new privileges again", libc::PR_SET_NO_NEW_PRIVS, [0, 0]),
        ("drop from the bounding set", libc::PR_CAPBSET_DROP, [21, 0]),
    ] {
        let option = u64::from(option.cast_unsigned());
        attack.apart(what, || {
            unit(raw::call(libc::SYS_prctl, &mut [number(option), number(values[0]), number(values[1]), number(0), number(0)]))
        });
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for name in ["Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let rest = line.trim_start_matches(name).split_whitespace().collect::<Vec<_>>().join(" ");
        attack.says(name, true, rest);
    }
}

pub(crate) fn devices(attack: &mut Attack) {
    let here = i64::from(libc::AT_FDCWD).cast_unsigned();
    let device = |major: u64, minor: u64| major << 8 | minor;
    let high = 0xffff_ffff_ffff_0000;
    let nodes: &[(&str, &CStr, u64, u64)] = &[
        ("fifo", c"fifo", 0o010_666, 0),
        ("socket", c"socket", 0o140_666, 0),
        ("file", c"file", 0o100_666, 0),
        ("character device null", c"null", 0o020_666, device(1, 3)),
        ("character device mem", c"mem", 0o020_666, device(1, 1)),
        ("whiteout", c"whiteout", 0o020_000, 0),
        ("block device", c"block", 0o060_666, device(8, 0)),
        ("character device, high bits", c"high", 0o020_666 | high, device(1, 3)),
        ("block device, high bits", c"high", 0o060_666 | high, device(254, 0)),
    ];
    for (what, name, mode, number) in nodes {
        attack.call(
            format!("mknodat {what}"),
            libc::SYS_mknodat,
            &mut [Arg::Number(here), Arg::Text(name), Arg::Number(*mode), Arg::Number(*number)],
        );
    }
    #[cfg(target_arch = "x86_64")]
    for (what, name, mode, number) in nodes.iter().filter(|node| node.3 > 0) {
        attack.call(format!("mknod {what}"), libc::SYS_mknod, &mut [Arg::Text(name), Arg::Number(*mode), Arg::Number(*number)]);
    }
    for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        attack.note(format!("open {path}"), File::open(path));
    }
    for path in [
        "/dev/mem",
        "/dev/kmsg",
        "/dev/kvm",
        "/dev/fuse",
        "/dev/ptmx",
        "/dev/tty",
        "/dev/console",
        "/dev/vda",
        "/dev/sda",
        "/dev/net/tun",
        "/dev/vsock",
    ] {
        attack.note(format!("open {path}"), File::open(path));
        attack.note(format!("handle of {path}"), path_handle(path));
    }
}

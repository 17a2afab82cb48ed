//! What can be learnt without breaking anything: what was inherited, and what names the host.

use std::fs::{self, OpenOptions};
use std::io;

use crate::attack::Attack;
use crate::files::look;
use crate::raw::{self, Arg};

/// Files that speak of the machine.
const TELLING: &[&str] = &[
    "/proc/self/mountinfo",
    "/proc/self/mounts",
    "/proc/self/cmdline",
    "/proc/self/cgroup",
    "/proc/self/status",
    "/proc/self/uid_map",
    "/proc/self/gid_map",
    "/proc/self/maps",
    "/proc/1/cmdline",
    "/proc/1/mountinfo",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/random/boot_id",
    "/proc/cmdline",
    "/proc/version",
    "/proc/net/unix",
    "/proc/keys",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/machine-id",
    "/etc/mtab",
    "/",
    "/dev",
    "/etc",
];

pub(crate) fn inherited(attack: &mut Attack) {
    let mut environment: Vec<String> =
        std::env::vars_os().map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy())).collect();
    environment.sort();
    let text = environment.join("\n");
    for secret in attack.values("secret") {
        attack.says(format!("environment has {secret}"), text.contains(&secret), "");
        let initial = fs::read("/proc/self/environ").unwrap_or_default();
        let found = initial.windows(secret.len().max(1)).any(|window| window == secret.as_bytes());
        attack.says(format!("/proc/self/environ has {secret}"), found, "");
    }
    attack.says("environment", !text.is_empty(), text);
    for (number, target) in descriptors() {
        attack.says(format!("descriptor {number}"), true, target);
    }
    let keyring = u64::from((-3_i32).cast_unsigned());
    attack.call("session keyring", libc::SYS_keyctl, &mut [Arg::Number(0), Arg::Number(keyring), Arg::Number(0)]);
    attack.call(
        "search a key",
        libc::SYS_keyctl,
        &mut [Arg::Number(10), Arg::Number(keyring), Arg::Text(c"user"), Arg::Text(c"orien"), Arg::Number(0)],
    );
    attack.read("/proc/keys", look("/proc/keys"));
    attack.read("identity", identity());
}

/// Standard input that is a pipe from outside: what else than reading can be done with it.
pub(crate) fn input(attack: &mut Attack) {
    const SET_PIPE_SIZE: u64 = 1031;
    const TYPE_A_CHARACTER: u64 = 0x5412;
    let number = Arg::Number;
    attack.read("descriptor 0", fs::read_link("/proc/self/fd/0").map(|link| link.to_string_lossy().into_owned().into_bytes()));
    attack.call("write to it", libc::SYS_write, &mut [number(0), Arg::In(b"x"), number(1)]);
    for path in ["/proc/self/fd/0", "/dev/stdin", "/dev/fd/0"] {
        attack.note(format!("open {path} for writing"), OpenOptions::new().write(true).open(path));
        attack.note(format!("open {path} for both"), OpenOptions::new().read(true).write(true).open(path));
    }
    attack.call("make it huge", libc::SYS_fcntl, &mut [number(0), number(SET_PIPE_SIZE), number(1 << 28)]);
    attack.call("type into it", libc::SYS_ioctl, &mut [number(0), number(TYPE_A_CHARACTER), Arg::In(b"x")]);
    attack.call("send to it", libc::SYS_sendto, &mut [number(0), Arg::In(b"x"), number(1), number(0), number(0), number(0)]);
    attack.call("go there", libc::SYS_fchdir, &mut [number(0)]);
    attack.call("open from there", libc::SYS_openat, &mut [number(0), Arg::Text(c"../etc/shadow"), number(0)]);
    attack.call("seek in it", libc::SYS_lseek, &mut [number(0), number(0), number(0)]);
    attack.read("open it for reading", look("/dev/stdin"));
    attack.read("what is left", look("/proc/self/fd/0"));
}

/// Every open descriptor and what it is, found by asking for each number: a list in /proc would need one itself.
fn descriptors() -> Vec<(u64, String)> {
    const DESCRIPTORS_MAX: u64 = 4096;
    const GET_FLAGS: u64 = 1;
    let open = |number: &u64| raw::call(libc::SYS_fcntl, &mut [Arg::Number(*number), Arg::Number(GET_FLAGS), Arg::Number(0)]).is_ok();
    let target = |number: u64| {
        let link = fs::read_link(format!("/proc/self/fd/{number}"));
        (number, link.map_or_else(|error| error.to_string(), |link| link.to_string_lossy().into_owned()))
    };
    (0..DESCRIPTORS_MAX).filter(open).map(target).collect()
}

fn identity() -> io::Result<Vec<u8>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let wanted = ["Uid:", "Gid:", "Groups:", "NoNewPrivs:", "Seccomp:", "CapEff:", "CapBnd:", "NSpid:"];
    let lines: Vec<&str> = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).collect();
    Ok(lines.join("\n").into_bytes())
}

pub(crate) fn host_names(attack: &mut Attack) {
    let mut told = Vec::new();
    for path in TELLING {
        let found = look(path);
        // The needles stand in its own arguments.
        if let (Ok(bytes), false) = (&found, *path == "/proc/self/cmdline") {
            told.extend_from_slice(bytes);
        }
        attack.read(*path, found);
    }
    let names = system_names();
    if let Ok(bytes) = &names {
        told.extend_from_slice(bytes);
    }
    attack.read("names of the system", names);
    for needle in attack.values("needle") {
        let found = told.windows(needle.len().max(1)).any(|window| window == needle.as_bytes());
        attack.says(format!("something names {needle}"), found, "");
    }
}

/// As `uname` tells them: system, host, release, version, machine, domain.
fn system_names() -> io::Result<Vec<u8>> {
    const FIELD_BYTES: usize = 65;
    let mut fields = [0_u8; 6 * FIELD_BYTES];
    raw::call(libc::SYS_uname, &mut [Arg::Out(&mut fields)])?;
    let word = |field: &[u8]| field.iter().copied().take_while(|byte| *byte != 0).collect::<Vec<u8>>();
    Ok(fields.chunks(FIELD_BYTES).map(word).collect::<Vec<_>>().join(&b'\n'))
}

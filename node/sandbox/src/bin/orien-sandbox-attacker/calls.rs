//! Attacks by system call number: calls a tool has no business with, other conventions, dangerous requests.

use std::io;

use crate::attack::Attack;
use crate::files::handle;
use crate::raw::{self, Arg};

const X32: libc::c_long = 0x4000_0000;

/// Calls whose arguments are all wrong, so that they do nothing where nothing holds them back: what they say then is `EFAULT`,
/// `EINVAL`, `EBADF` or the like, and a kernel may still say `EPERM` first to whoever lacks the capability.
#[rustfmt::skip]
const FORBIDDEN: &[(&str, libc::c_long)] = &[
    ("io_uring_enter", libc::SYS_io_uring_enter), ("io_uring_register", libc::SYS_io_uring_register),
    ("init_module", libc::SYS_init_module), ("finit_module", libc::SYS_finit_module), ("delete_module", libc::SYS_delete_module),
    ("kexec_load", libc::SYS_kexec_load), ("kexec_file_load", libc::SYS_kexec_file_load), ("swapon", libc::SYS_swapon), ("swapoff", libc::SYS_swapoff),
    ("quotactl", libc::SYS_quotactl), ("quotactl_fd", libc::SYS_quotactl_fd), ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("name_to_handle_at", libc::SYS_name_to_handle_at), ("fanotify_mark", libc::SYS_fanotify_mark), ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key), ("migrate_pages", libc::SYS_migrate_pages), ("move_pages", libc::SYS_move_pages),
    ("mbind", libc::SYS_mbind), ("set_mempolicy", libc::SYS_set_mempolicy), ("set_mempolicy_home_node", libc::SYS_set_mempolicy_home_node),
    ("sethostname", libc::SYS_sethostname), ("setdomainname", libc::SYS_setdomainname), ("settimeofday", libc::SYS_settimeofday),
    ("clock_settime", libc::SYS_clock_settime), ("adjtimex", libc::SYS_adjtimex), ("clock_adjtime", libc::SYS_clock_adjtime),
    ("acct", libc::SYS_acct), ("lookup_dcookie", libc::SYS_lookup_dcookie), ("nfsservctl", libc::SYS_nfsservctl),
    ("shmat", libc::SYS_shmat), ("shmctl", libc::SYS_shmctl), ("shmdt", libc::SYS_shmdt), ("semop", libc::SYS_semop), ("semctl", libc::SYS_semctl),
    ("semtimedop", libc::SYS_semtimedop), ("msgsnd", libc::SYS_msgsnd), ("msgrcv", libc::SYS_msgrcv), ("msgctl", libc::SYS_msgctl),
    ("mq_unlink", libc::SYS_mq_unlink), ("mq_timedsend", libc::SYS_mq_timedsend), ("mq_timedreceive", libc::SYS_mq_timedreceive),
    ("mq_notify", libc::SYS_mq_notify), ("mq_getsetattr", libc::SYS_mq_getsetattr),
];

pub(crate) fn forbidden(attack: &mut Attack) {
    attack.apart("control", || raw::call(libc::SYS_getpid, &mut []).map(|_| 0));
    for (name, number) in FORBIDDEN {
        attack.apart(*name, || raw::call(*number, &mut [Arg::Wild, Arg::Wild, Arg::Wild, Arg::Wild, Arg::Wild, Arg::Wild]).map(|_| 0));
    }
    // With arguments that are right: these make something, and only for this process, or ask.
    let number = Arg::Number;
    let unit = |outcome: io::Result<u64>| outcome.map(|_| 0);
    attack.apart("io_uring_setup", || {
        let mut parameters = [0_u8; 120];
        unit(raw::call(libc::SYS_io_uring_setup, &mut [number(1), Arg::Out(&mut parameters)]))
    });
    attack.apart("userfaultfd", || unit(raw::call(libc::SYS_userfaultfd, &mut [number(1)])));
    attack.apart("bpf, make a map", || {
        // An array with keys of 4 bytes, values of 8, one entry.
        let attributes: Vec<u8> = [2_u32, 4, 8, 1].iter().flat_map(|word| word.to_le_bytes()).chain([0; 112]).collect();
        unit(raw::call(libc::SYS_bpf, &mut [number(0), Arg::In(&attributes), number(128)]))
    });
    attack.apart("perf_event_open", || {
        // A software clock of this process, user mode only.
        let mut attributes = [0_u8; 128];
        attributes[0] = 1;
        attributes[4] = 128;
        attributes[40] = 0x60;
        unit(raw::call(libc::SYS_perf_event_open, &mut [Arg::In(&attributes), number(0), number(u64::MAX), number(u64::MAX), number(0)]))
    });
    attack.apart("keyctl, session keyring", || {
        unit(raw::call(libc::SYS_keyctl, &mut [number(0), number(u64::from((-3_i32).cast_unsigned())), number(0)]))
    });
    attack.apart("fanotify_init", || unit(raw::call(libc::SYS_fanotify_init, &mut [number(0x200), number(0)])));
    attack.apart("memfd_secret", || unit(raw::call(libc::SYS_memfd_secret, &mut [number(0)])));
    attack.apart("syslog, size of the kernel's log", || unit(raw::call(libc::SYS_syslog, &mut [number(10), number(0), number(0)])));
    attack.apart("syslog, read all", || {
        let mut log = [0_u8; 4096];
        unit(raw::call(libc::SYS_syslog, &mut [number(3), Arg::Out(&mut log), number(4096)]))
    });
    attack.apart("shmget", || unit(raw::call(libc::SYS_shmget, &mut [number(0), number(4096), number(0o600)])));
    attack.apart("semget", || unit(raw::call(libc::SYS_semget, &mut [number(0), number(1), number(0o600)])));
    attack.apart("msgget", || unit(raw::call(libc::SYS_msgget, &mut [number(0), number(0o600)])));
    attack.apart("mq_open", || unit(raw::call(libc::SYS_mq_open, &mut [Arg::Text(c"orien"), number(0o102), number(0o600), number(0)])));
    // The magic numbers are wrong: with the right ones this would be the end of the machine.
    attack.apart("reboot", || unit(raw::call(libc::SYS_reboot, &mut [number(1), number(2), number(3), number(0)])));
    on_this_machine(attack);
}

#[cfg(target_arch = "x86_64")]
fn on_this_machine(attack: &mut Attack) {
    let number = Arg::Number;
    attack.apart("iopl", || raw::call(libc::SYS_iopl, &mut [number(0)]).map(|_| 0));
    attack.apart("ioperm", || raw::call(libc::SYS_ioperm, &mut [number(0x80), number(1), number(1)]).map(|_| 0));
    attack.apart("modify_ldt", || {
        let mut table = [0_u8; 64];
        raw::call(libc::SYS_modify_ldt, &mut [number(0), Arg::Out(&mut table), number(64)]).map(|_| 0)
    });
    for (name, of) in [("ustat", libc::SYS_ustat), ("sysfs", libc::SYS_sysfs), ("uselib", libc::SYS_uselib), ("_sysctl", libc::SYS__sysctl)]
    {
        attack.apart(name, || raw::call(of, &mut [Arg::Wild, Arg::Wild, Arg::Wild]).map(|_| 0));
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn on_this_machine(_: &mut Attack) {}

pub(crate) fn foreign(attack: &mut Attack) {
    attack.apart("control", || raw::call(libc::SYS_getpid, &mut []).map(|_| 0));
    #[cfg(target_arch = "x86_64")]
    attack.apart("int 0x80", || Ok(raw::call_by_interrupt()));
    #[cfg(not(target_arch = "x86_64"))]
    attack.says("int 0x80", false, "not tried: this machine has no such instruction");
}

pub(crate) fn beyond(attack: &mut Attack) {
    attack.apart("control", || raw::call(libc::SYS_getpid, &mut []).map(|_| 0));
    // Of x32: read, getpid, ptrace, execve, process_vm_readv, and a few by their own numbers.
    for call in [0, 39, 101, 59, 310, 512, 520, 521, 539, 545, 547] {
        attack.call(format!("x32 {call}"), X32 | call, &mut [Arg::Wild, Arg::Wild, Arg::Wild]);
    }
    for call in
        [300_000, 65_536, 4096, 1024, 1000, 548, 512, 500, 470, 400, i64::from(i32::MAX), i64::from(u32::MAX), i64::from(u32::MAX) << 8]
    {
        attack.call(format!("number {call}"), call, &mut [Arg::Wild, Arg::Wild, Arg::Wild]);
    }
}

pub(crate) fn typing(attack: &mut Attack) {
    let Some((reader, writer)) = attack.note("control", io::pipe()) else { return };
    // On a pipe, so that nobody's terminal is typed into: it says `ENOTTY` where nothing looks at the request.
    let high = [0, 0xffff_ffff_0000_0000, 0x0000_0001_0000_0000];
    for (name, request) in [("TIOCSTI", 0x5412_u64), ("TIOCLINUX", 0x541c)] {
        for bits in high {
            for (whose, file) in [("reader", handle(&reader)), ("writer", handle(&writer)), ("input", 0)] {
                let what = format!("{name} with {bits:#x} on {whose}");
                attack.call(what, libc::SYS_ioctl, &mut [Arg::Number(file), Arg::Number(request | bits), Arg::In(b"\x02x")]);
            }
        }
    }
    // A request that is nobody's, to see that it is the request that counts.
    attack.call("FIONREAD", libc::SYS_ioctl, &mut [Arg::Number(handle(&reader)), Arg::Number(0x541b), Arg::Out(&mut [0; 4])]);
}

pub(crate) fn personality(attack: &mut Attack) {
    attack.call("control", libc::SYS_personality, &mut [Arg::Number(0xffff_ffff)]);
    for (what, persona) in [
        ("no random addresses", 0x0004_0000),
        ("all readable is executable", 0x0040_0000),
        ("map page zero", 0x0010_0000),
        ("another system", 1),
        ("32 bit", 8),
        ("no random addresses, high bits", 0xffff_ffff_0004_0000),
    ] {
        attack.apart(what, || raw::call(libc::SYS_personality, &mut [Arg::Number(persona)]).map(|_| 0));
    }
    attack.call("as it is", libc::SYS_personality, &mut [Arg::Number(0)]);
}

//! The system calls that no safe library offers, each as a function that cannot be misused from safe code of this crate.
//!
//! Always true: this is the only unsafe code of the product. [`fork`] and [`clone_into`] are only called by the helper, which is
//! single-threaded from its first instruction to its last, so everything may be done in the child. [`vfork_exec`] runs its child on
//! a stack of its own in the parent's memory, and the child neither allocates nor returns.
#![expect(unsafe_code, reason = "system calls")]

mod tool;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

pub(crate) use tool::{ToolPlan, fork_confined, install_filter, vfork_exec};

/// Namespaces of a session. User first: it is what permits the others.
pub(crate) const SESSION_NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;
/// Namespaces of a run, inside those of its session. Queues and shared memory are the session's, and the filter keeps tools from both.
pub(crate) const RUN_NAMESPACES: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWNS;

/// `CLONE_INTO_CGROUP` of `linux/sched.h`; the library's own constant is too narrow for it.
const INTO_CGROUP: u64 = 1 << 33;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A copy of this process. `None` in the copy.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the helper has one thread, so the copy is a whole program.
    let pid = check(unsafe { libc::fork() }.into())?;
    Ok(i32::try_from(pid).ok().filter(|pid| *pid > 0))
}

/// A copy of this process in new namespaces (`CLONE_NEW*` bits), in a control group if one is given. `None` in the copy.
pub(crate) fn clone_into(namespaces: i32, group: Option<BorrowedFd<'_>>) -> io::Result<Option<i32>> {
    // SAFETY: all fields are numbers, for which zero is valid and means "not given".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(namespaces.cast_unsigned());
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(group) = group {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().cast_unsigned());
    }
    // SAFETY: as for `fork`: no memory is shared, no stack is given, and there is one thread. The library's own record of the
    // process number in its thread block is not used by anything here.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    Ok(i32::try_from(pid).ok().filter(|pid| *pid > 0))
}

/// Leaves the namespaces of the caller for new ones.
pub(crate) fn unshare(namespaces: i32) -> io::Result<()> {
    // SAFETY: takes a number.
    check(unsafe { libc::unshare(namespaces) }.into()).map(drop)
}

/// Becomes another user and group for good, without supplementary groups.
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: no list is passed, and the rest are numbers. The raw calls change this thread, which is the only one.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
        check(libc::syscall(libc::SYS_setresgid, id, id, id))?;
        check(libc::syscall(libc::SYS_setresuid, id, id, id)).map(drop)
    }
}

/// Makes this thread touch files as another user while the guard lives. Only root can.
pub(crate) fn act_as(id: u32) -> io::Result<ActingAs> {
    let before = ActingAs { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    set_file_ids(id, id);
    // SAFETY: asks for the present value: an impossible one changes nothing.
    let now = unsafe { libc::syscall(libc::SYS_setfsuid, u32::MAX) };
    if now == libc::c_long::from(id) { Ok(before) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

fn set_file_ids(uid: u32, gid: u32) {
    // SAFETY: both take numbers, and change this thread only.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

/// Ends with the thread touching files as itself again.
#[derive(Debug)]
pub(crate) struct ActingAs {
    uid: u32,
    gid: u32,
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        set_file_ids(self.uid, self.gid);
    }
}

/// A descriptor of ours in the runtime's event loop.
pub(crate) fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is made here, and stays open until that is dropped and has left the loop.
    unsafe { AsyncFd::register(descriptor) }.map_err(|error| error.into_parts().1)
}

/// Closes every descriptor from this one on.
pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: the helper calls it before it owns any descriptor from there on.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
}

/// Attributes of a mount: set, then cleared, on it and if so told on all below it. Race-free, other than a remount.
pub(crate) fn mount_attributes(mount: BorrowedFd<'_>, path: &CStr, recursive: bool, set: u64, clear: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends with NUL, and the structure has the size that is named.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Processes of this pid namespace other than its first get a signal. Only for the first process of one.
pub(crate) fn signal_all_others(signal: i32) {
    if rustix::process::getpid().as_raw_nonzero().get() == 1 {
        // That there is nobody is what most callers want.
        // SAFETY: takes numbers. The namespace bounds whom it reaches; outside of one it is refused above.
        let _ = unsafe { libc::kill(-1, signal) };
    }
}

/// Ended children vanish by themselves from now on, or wait to be collected.
pub(crate) fn collect_children_automatically(automatic: bool) {
    let handler = if automatic { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither is a function of ours.
    unsafe { libc::signal(libc::SIGCHLD, handler) };
}

/// Processor time of all collected descendants, and the largest resident set among them in bytes.
pub(crate) fn used_by_children() -> (Duration, u64) {
    // SAFETY: numbers only, for which zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is ours and lives through the call.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return (Duration::ZERO, 0);
    }
    let time = |value: libc::timeval| {
        let micros = u64::try_from(value.tv_usec).unwrap_or(0);
        Duration::from_secs(u64::try_from(value.tv_sec).unwrap_or(0)).saturating_add(Duration::from_micros(micros))
    };
    let peak = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024);
    (time(usage.ru_utime).saturating_add(time(usage.ru_stime)), peak)
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: numbers and a union of them, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = byte.cast_signed();
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or(0);
    // SAFETY: the request is of the kind that this call takes.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

/// Version of Landlock that the kernel has; `None` without it.
pub(crate) fn landlock_version() -> Option<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION` of `linux/landlock.h`.
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag nothing is passed and nothing is made.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// This process ends without running anything more of the program.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number.
    unsafe { libc::_exit(code) }
}

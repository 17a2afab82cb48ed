//! The last steps before a tool: from a process of ours to a confined process that becomes the tool's program.
//!
//! Always true: the steps run in the order below, each failure ends the child before the program starts, and the system call
//! filter is the last step before it. The parent stands still meanwhile (as with `vfork`), which is why nothing is copied: starting
//! a tool costs the same from a small parent and from a large one.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::time::Instant;

use rlimit::Resource;
use rustix::process::Pid;

/// Room for the child's few frames. It shares everything else with its parent.
const STACK_BYTES: usize = 64 * 1024;
const STACK_UNITS: usize = STACK_BYTES / size_of::<u128>();

/// Everything a tool is started with, decided and checked.
#[derive(Debug)]
pub(crate) struct ToolPlan {
    pub(crate) program: CString,
    /// With the program's name first.
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) directory: CString,
    pub(crate) input: OwnedFd,
    pub(crate) output: OwnedFd,
    pub(crate) errors: OwnedFd,
    /// Soft and hard.
    pub(crate) limits: Vec<(Resource, u64, u64)>,
    /// The process that starts it, as it knows itself.
    pub(crate) parent: Pid,
    pub(crate) drop_capabilities: bool,
    /// Access rules, if any.
    pub(crate) landlock: Option<OwnedFd>,
    /// System call filter; empty when there is none, or when the parent has it already.
    pub(crate) filter: Vec<libc::sock_filter>,
}

/// What the child leaves for its parent to read when it fails.
struct Shared<'a> {
    plan: &'a ToolPlan,
    args: Vec<*const c_char>,
    env: Vec<*const c_char>,
    stage: Cell<Stage>,
    error: Cell<c_int>,
    /// When the program was about to replace us. The parent may not get a processor for a while after that.
    started: Cell<Instant>,
}

impl<'a> Shared<'a> {
    fn new(plan: &'a ToolPlan) -> Self {
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        let (stage, error, started) = (Cell::new(Stage::Descriptors), Cell::new(0), Cell::new(Instant::now()));
        Self { plan, args: pointers(&plan.args), env: pointers(&plan.env), stage, error, started }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Descriptors,
    Limits,
    Session,
    Directory,
    Capabilities,
    Privileges,
    Landlock,
    Filter,
    Exec,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Limits => "limits",
            Self::Session => "session",
            Self::Directory => "directory",
            Self::Capabilities => "capabilities",
            Self::Privileges => "privileges",
            Self::Landlock => "landlock",
            Self::Filter => "seccomp",
            Self::Exec => "exec",
        }
    }
}

/// Starts the tool. Answers its process number and when its program started, once that runs, or the step that failed.
pub(crate) fn vfork_exec(plan: &ToolPlan) -> Result<(i32, Instant), (&'static str, io::Error)> {
    let shared = Shared::new(plan);
    // Not filled: each page that is touched costs more than the steps that need it.
    let mut stack = Vec::<u128>::with_capacity(STACK_UNITS);
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end.cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child runs `child` on its own stack, aligned and large enough, in memory that nobody else uses meanwhile: this
    // thread is the only one and stands still until the child has become another program or has ended. All it reads and writes
    // lives in `shared` and `plan`, which outlive the call.
    let pid = unsafe { libc::clone(child, top, flags, (&raw const shared).cast_mut().cast()) };
    if pid < 0 {
        return Err(("clone", io::Error::last_os_error()));
    }
    match shared.error.get() {
        0 => Ok((pid, shared.started.get())),
        error => Err((shared.stage.get().name(), io::Error::from_raw_os_error(error))),
    }
}

/// Starts a copy of this process under the same confinement, which does `work` instead of becoming a program. Its exit code is what
/// `work` answers; it is 255 where the confinement fails, and the output says at which step.
pub(crate) fn fork_confined(plan: &ToolPlan, work: impl FnOnce() -> u8) -> Result<(i32, Instant), (&'static str, io::Error)> {
    if let Some(pid) = super::fork().map_err(|error| ("fork", error))? {
        return Ok((pid, Instant::now()));
    }
    let shared = Shared::new(plan);
    let code = match confine(&shared) {
        Ok(()) => work(),
        Err(error) => {
            // It shares no memory with whoever asks, so the step that failed is told as the work's own output would be.
            let told = format!("{}: {}", shared.stage.get().name(), io::Error::from(error));
            let _ = rustix::io::write(&plan.output, told.as_bytes());
            u8::MAX
        }
    };
    super::exit_now(code.into())
}

/// Comes back only with a failure, and then ends the child.
extern "C" fn child(shared: *mut c_void) -> c_int {
    // SAFETY: it is what `vfork_exec` passed, and its owner stands still.
    let shared = unsafe { &*shared.cast::<Shared<'_>>() };
    let failed = confine(shared).and_then(|()| {
        shared.stage.set(Stage::Exec);
        shared.started.set(Instant::now());
        // SAFETY: both lists end with null, and what they point to outlives the call.
        raw(unsafe { libc::execve(shared.plan.program.as_ptr(), shared.args.as_ptr(), shared.env.as_ptr()) }.into())
    });
    if let Err(error) = failed {
        shared.error.set(error.raw_os_error());
    }
    1
}

/// No allocation, no lock, no panic in here: only system calls, in the order that the design gives.
fn confine(shared: &Shared<'_>) -> Result<(), rustix::io::Errno> {
    let plan = shared.plan;
    let at = |stage| shared.stage.set(stage);
    at(Stage::Descriptors);
    for (from, to) in [(&plan.input, 0), (&plan.output, 1), (&plan.errors, 2)] {
        duplicate(from.as_raw_fd(), to)?;
    }
    at(Stage::Limits);
    for (resource, soft, hard) in &plan.limits {
        limit(*resource, *soft, *hard)?;
    }
    at(Stage::Session);
    rustix::process::setsid()?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // The parent may have died before the line above; then nobody would send that signal any more.
    if rustix::process::getppid() != Some(plan.parent) {
        return Err(rustix::io::Errno::SRCH);
    }
    // SAFETY: the default is no function of ours. Rust programs ignore this signal, and a tool would inherit that.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    at(Stage::Directory);
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    rustix::process::chdir(plan.directory.as_c_str())?;
    if plan.drop_capabilities {
        at(Stage::Capabilities);
        let none = rustix::thread::CapabilitySet::empty();
        rustix::thread::set_capabilities(None, rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    }
    at(Stage::Privileges);
    rustix::thread::set_no_new_privs(true)?;
    if let Some(rules) = &plan.landlock {
        at(Stage::Landlock);
        // SAFETY: takes a descriptor and a number.
        raw(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) })?;
    }
    at(Stage::Descriptors);
    // SAFETY: takes numbers. It marks descriptors of the child's own table; the parent's is another.
    raw(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    at(Stage::Filter);
    install(&plan.filter)
}

/// Puts a system call filter on the caller and all that it starts, for good. None when it is empty.
pub(crate) fn install_filter(filter: &[libc::sock_filter]) -> io::Result<()> {
    Ok(install(filter)?)
}

fn install(filter: &[libc::sock_filter]) -> Result<(), rustix::io::Errno> {
    if filter.is_empty() {
        return Ok(());
    }
    let length = u16::try_from(filter.len()).map_err(|_| rustix::io::Errno::TOOBIG)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program has the length that is named, and is only read.
    raw(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
}

fn raw(result: libc::c_long) -> Result<(), rustix::io::Errno> {
    if result >= 0 {
        return Ok(());
    }
    // SAFETY: the library's error number of this thread; the parent, whose it is too, stands still.
    Err(rustix::io::Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
}

fn duplicate(from: RawFd, to: RawFd) -> Result<(), rustix::io::Errno> {
    // SAFETY: numbers, in the child's own table. The helper keeps 0 to 2 occupied, so the plan's descriptors are all above them.
    raw(unsafe { libc::dup3(from, to, 0) }.into())
}

/// Never tries to raise a limit that the node itself is under.
fn limit(resource: Resource, soft: u64, hard: u64) -> Result<(), rustix::io::Errno> {
    let error = |error: io::Error| rustix::io::Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EINVAL));
    let (_, ceiling) = resource.get().map_err(error)?;
    resource.set(soft.min(ceiling), hard.min(ceiling)).map_err(error)
}

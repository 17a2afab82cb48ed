//! The unsafe part: system calls by number with any arguments, and processes without the standard library's care.
//!
//! Always true: the program has one thread whenever it copies itself (only the thread bomb makes more, and it copies nothing), so a
//! copy is a whole program. The kernel is only given addresses of what the call borrows; where an attack passes a wild address, it is
//! one where nothing can be mapped.
#![expect(unsafe_code, reason = "attacks are system calls that no library offers")]

use std::ffi::CStr;
use std::io;

/// In the last page of the address space, where no process has anything.
const WILD: u64 = 0xffff_ffff_ffff_f000;

/// An argument of a system call.
#[derive(Debug)]
pub(crate) enum Arg<'a> {
    Number(u64),
    Text(&'a CStr),
    In(&'a [u8]),
    Out(&'a mut [u8]),
    /// An address that the kernel cannot read: a call that gets as far as looking at it says `EFAULT` and does nothing.
    Wild,
}

pub(crate) fn call(number: libc::c_long, args: &mut [Arg<'_>]) -> io::Result<u64> {
    let mut words = [0_u64; 6];
    for (word, arg) in words.iter_mut().zip(args) {
        *word = match arg {
            Arg::Number(number) => *number,
            Arg::Text(text) => text.as_ptr() as u64,
            Arg::In(bytes) => bytes.as_ptr() as u64,
            Arg::Out(bytes) => bytes.as_mut_ptr() as u64,
            Arg::Wild => WILD,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: addresses are of what the arguments borrow, for as long as the call takes, or wild; callers give buffers of the size
    // that the call names, and no call here maps or unmaps memory.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result.cast_unsigned()) }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exit(i32),
    Signal(i32),
}

/// A copy of this process. `None` in the copy, which must end by [`end`].
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: one thread, see above.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok((pid > 0).then_some(pid)) }
}

/// Ends this process at once, with nothing run that was meant to be run at its end.
pub(crate) fn end(code: i32) -> ! {
    // SAFETY: takes a number.
    unsafe { libc::_exit(code) }
}

pub(crate) fn wait(pid: i32) -> io::Result<Ended> {
    let mut status = 0;
    // SAFETY: the status is ours and lives through the call.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(if libc::WIFSIGNALED(status) { Ended::Signal(libc::WTERMSIG(status)) } else { Ended::Exit(libc::WEXITSTATUS(status)) })
}

/// Runs in a process of its own. Its error becomes the exit code, its count comes back through memory that both share; a try that
/// is killed leaves the count it had published by [`publish`].
pub(crate) fn apart(attempt: impl FnOnce() -> io::Result<u64>) -> io::Result<(Ended, u64)> {
    let Some(pid) = fork()? else {
        let code = match attempt() {
            Ok(count) => {
                publish(count);
                0
            }
            Err(error) => error.raw_os_error().unwrap_or(255),
        };
        end(code)
    };
    let ended = wait(pid)?;
    Ok((ended, BOARD.with(|board| *board).map_or(0, |board| board.take())))
}

/// One number that copies of this process share with it.
#[derive(Clone, Copy)]
struct Board(*mut u64);

impl Board {
    fn make() -> Option<Self> {
        // SAFETY: asks for new memory.
        let page = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
        };
        (page != libc::MAP_FAILED).then_some(Self(page.cast()))
    }

    fn take(self) -> u64 {
        // SAFETY: the page is never unmapped, and whoever wrote it has ended.
        unsafe { self.0.replace(0) }
    }
}

thread_local! {
    static BOARD: Option<Board> = Board::make();
}

/// Lets the process that waits know how far this one came.
pub(crate) fn publish(count: u64) {
    if let Some(board) = BOARD.with(|board| *board) {
        // SAFETY: the page is never unmapped; its only reader waits for this process to end.
        unsafe { board.0.write_volatile(count) };
    }
}

/// To be called before the first [`apart`], so that copies share the page.
pub(crate) fn prepare() {
    BOARD.with(|_| ());
}

pub(crate) fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: no function of ours becomes a handler.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// New memory, with every page of it written to. It stays.
pub(crate) fn occupy(bytes: usize, shared: bool) -> io::Result<()> {
    let kind = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    // SAFETY: asks for new memory.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, kind | libc::MAP_ANONYMOUS, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    for page in (0..bytes).step_by(4096) {
        // SAFETY: within the memory that was just made.
        unsafe { start.cast::<u8>().add(page).write_volatile(1) };
    }
    Ok(())
}

/// Maps the beginning of a file for execution.
pub(crate) fn map_executable(file: &impl std::os::fd::AsRawFd) -> io::Result<()> {
    // SAFETY: asks for a new mapping, which nothing jumps to.
    let start =
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `getpid` by the 32-bit convention of this machine's predecessor.
#[cfg(target_arch = "x86_64")]
pub(crate) fn call_by_interrupt() -> u64 {
    let result: u64;
    // SAFETY: call 20 takes no arguments; the interrupt changes nothing but the registers named here.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_u64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_tells_how_it_ended_and_how_far_it_came() {
        prepare();
        let killed = || {
            publish(3);
            call(libc::SYS_kill, &mut [Arg::Number(std::process::id().into()), Arg::Number(9)])
        };
        assert_eq!(apart(killed).unwrap(), (Ended::Signal(9), 3));
        assert_eq!(apart(|| Ok(7)).unwrap(), (Ended::Exit(0), 7));
        let refused = || {
            publish(2);
            Err(io::Error::from_raw_os_error(28))
        };
        assert_eq!(apart(refused).unwrap(), (Ended::Exit(28), 2));
        let at_once = || Err(io::Error::from_raw_os_error(1));
        assert_eq!(apart(at_once).unwrap(), (Ended::Exit(1), 0), "what the one before came to is not this one's");
    }
}

//! The stub of one run: starts the tool, watches it, obeys the node, and reports.
//!
//! Always true: it enforces the run's limits by itself, without the node; when the control socket ends, because the node closed
//! it or died, the whole tree is killed at once. Exactly one `Ended` is sent, and only when nothing of the tree is left or the
//! rest is counted in it. The tool is never the first process of its namespace, so signals mean to it what they mean elsewhere.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitStatus};

use super::clock::Clock;
use super::holder::Session;
use super::monitor::{Failed, step};
use super::root;
use super::spare::Order;
use super::tool::{self, Standard, Started};
use super::tree::{self, Tree};
use crate::limits::RunLimits;
use crate::report::{Cause, Usage};
use crate::sys;
use crate::wire::{self, Decoder, Ending, Event, Job, Order as Command, SetupFailure};

/// The node sends the job at once; far beyond that, something is broken.
const SETUP_TIME_MAX: Duration = Duration::from_secs(10);
/// A node that does not read for this long is as good as gone.
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);
/// Samples come quickly at first, so that short runs are seen too, then at this pace.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const SAMPLE_FIRST: Duration = Duration::from_millis(5);
/// A run that is shorter is told of at its end only.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(2);
/// A tool that is found at work so often during one pause is waking itself, as a timer whose signal is `SIGCONT` does.
const WOKEN_MAX: u32 = 5;
/// What a whole tree may use of the processors during one pause: what is under way when it begins, and once more for each of a few
/// signals from elsewhere. The kernel counts it in hundredths.
const PAUSED_CPU_MAX: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 4 * 1024;
/// As deep as a start goes.
const REHEARSED_STACK_BYTES: usize = 16 * 1024;

/// A stub that only lacks its order.
pub(super) struct Ready {
    prepared: Result<Prepared, Failed>,
}

/// What is done before the order is there.
pub(super) struct Prepared {
    pub(super) tree: Tree,
    /// True when the session has one kind of run only: then what that kind sees and may call holds for this process already.
    pub(super) is_settled: bool,
}

impl Ready {
    /// In a process of its own: what can be done before anything of the run is known.
    pub(super) fn prepare(session: &Session<'_>) -> Self {
        Self { prepared: prepare(session) }
    }

    /// Runs one job from its socket to its end. A failure of the socket itself is nothing anybody could be told of.
    pub(super) fn run(self, session: &Session<'_>, order: Order) {
        let _ = self.carry_out(session, order);
    }

    fn carry_out(self, session: &Session<'_>, order: Order) -> io::Result<()> {
        let Order { profile, control, output, errors, input, .. } = order;
        let standard = Standard { input, output, errors };
        let mut control = Control::new(control)?;
        let Some(kind) = session.kinds.get(profile) else {
            let failure = SetupFailure { stage: "profile".to_owned(), message: "the session has no such kind of run".to_owned() };
            return control.send(&Event::Ended(Ending::never_began(failure)));
        };
        let Some(job) = control.first_job()? else { return Ok(()) };
        let limits = job.limits.clone();
        let started = self.prepared.and_then(|prepared| match tool::start(session, kind, *job, standard, &prepared) {
            Ok(started) => Ok((prepared.tree, started)),
            Err(failed) => {
                prepared.tree.kill();
                Err(failed)
            }
        });
        let ending = match started {
            Ok((tree, started)) => Watch::new(tree, started, limits).run(&mut control),
            Err((stage, error)) => Ending::of(Cause::SetupFailed { stage: stage.to_owned(), message: error.to_string() }),
        };
        control.send(&Event::Ended(ending))
    }
}

/// Does the work of a start once for nothing: what it touches are this process's own pages from then on, which otherwise would be copied
/// one by one while the node waits. `orien bench sandbox` shows the difference.
fn rehearse() {
    let job = Job {
        program: Some("/usr/bin/true".to_owned()),
        args: vec![String::new(); 4],
        env: vec![(String::new(), String::new()); 8],
        directory: "/workspace".to_owned(),
        limits: RunLimits::default(),
    };
    let mut decoder = Decoder::default();
    decoder.push(&wire::encode(&Command::Run(Box::new(job))).unwrap_or_default());
    let read = decoder.next::<Command>();
    std::hint::black_box(&read);
    let text = std::ffi::CString::new("x".repeat(256)).unwrap_or_default();
    std::hint::black_box(&text);
    let ending = wire::encode(&Event::Ended(Ending::of(Cause::Exited(0))));
    std::hint::black_box(&ending);
    let mut stack = [0u8; REHEARSED_STACK_BYTES];
    std::hint::black_box(&mut stack);
}

fn prepare(session: &Session<'_>) -> Result<Prepared, Failed> {
    rehearse();
    sys::collect_children_automatically(false);
    // Ends this process with the holder even where it is not the first of a namespace.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(step("parent"))?;
    let tree = Tree::new(rustix::process::getpid()).map_err(step("parent"))?;
    if !tree.is_namespace() {
        return Ok(Prepared { tree, is_settled: false });
    }
    root::mount_proc("/proc", true)?;
    let [kind] = session.kinds.as_slice() else { return Ok(Prepared { tree, is_settled: false }) };
    tool::show(session, kind)?;
    // Beside the time that it saves, this keeps the stub itself from everything that its tool may not call.
    sys::install_filter(&kind.filter).map_err(step("seccomp"))?;
    Ok(Prepared { tree, is_settled: true })
}

/// The socket to the node.
struct Control {
    socket: UnixStream,
    decoder: Decoder,
}

impl Control {
    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_write_timeout(Some(WRITE_TIME_MAX))?;
        Ok(Self { socket, decoder: Decoder::default() })
    }

    fn send(&mut self, event: &Event) -> io::Result<()> {
        self.socket.write_all(&wire::encode(event)?)
    }

    /// The first order, which has to be a job. `None` when the node has gone.
    fn first_job(&mut self) -> io::Result<Option<Box<Job>>> {
        self.socket.set_read_timeout(Some(SETUP_TIME_MAX))?;
        loop {
            if !self.fill()? {
                return Ok(None);
            }
            match self.next()? {
                Some(Command::Run(job)) => break Ok(Some(job)),
                Some(_) => break Err(io::ErrorKind::InvalidData.into()),
                None => {}
            }
        }
    }

    /// One read; false at the end of the socket.
    fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0; READ_BYTES];
        let count = self.socket.read(&mut buffer)?;
        self.decoder.push(buffer.get(..count).unwrap_or_default());
        Ok(count > 0)
    }

    fn next(&mut self) -> io::Result<Option<Command>> {
        Ok(self.decoder.next()?)
    }
}

fn node_gone() -> Cause {
    Cause::Killed { reason: "the node is gone".to_owned() }
}

/// A tool that runs.
struct Watch {
    tree: Tree,
    tool: Pid,
    /// Readable when the tool has ended.
    handle: OwnedFd,
    limits: RunLimits,
    clock: Clock,
    usage: Usage,
    pause: Pause,
    next_sample: Instant,
    sample_pause: Duration,
}

/// What was seen of the tree during one pause.
#[derive(Debug, Default)]
struct Pause {
    woken: u32,
    /// Used by the tree when it began.
    cpu: Option<Duration>,
}

impl Pause {
    /// True when the tool does not keep still. Nobody pays for what it does in a pause.
    fn is_broken(&mut self, was_at_work: bool, cpu: Duration) -> bool {
        self.woken = self.woken.saturating_add(u32::from(was_at_work));
        let used = cpu.saturating_sub(*self.cpu.get_or_insert(cpu));
        self.woken > WOKEN_MAX || used > PAUSED_CPU_MAX
    }
}

impl Watch {
    fn new(tree: Tree, started: Started, limits: RunLimits) -> Self {
        let Started { tool, handle, at } = started;
        let (clock, next_sample) = (Clock::start(at), at + SAMPLE_FIRST);
        let (usage, pause) = (Usage::default(), Pause::default());
        Self { tree, tool, handle, limits, clock, usage, pause, next_sample, sample_pause: SAMPLE_FIRST }
    }

    fn run(&mut self, control: &mut Control) -> Ending {
        let cause = match self.announce(control) {
            Ok(()) => self.watch(control),
            Err(_) => node_gone(),
        };
        // What comes after this moment is our own cleaning up, and is not the tool's time.
        let end = Instant::now();
        let survivors = self.tree.kill();
        let (cpu, peak) = sys::used_by_children();
        self.usage.cpu = self.usage.cpu.max(cpu);
        self.usage.peak_memory_bytes = self.usage.peak_memory_bytes.max(peak);
        self.usage.effective = self.clock.effective(end);
        let cause = match cause {
            Cause::Signalled(signal) if self.is_cpu_signal(signal) => Cause::CpuLimit,
            other => other,
        };
        Ending { cause, wall: self.clock.wall(end), paused: self.clock.paused(end), usage: self.usage, survivors }
    }

    /// Says that the tool has started, unless it ends so soon that its end says it: a tool's first moments are no time to wake others.
    fn announce(&self, control: &mut Control) -> io::Result<()> {
        let ready = poll([control.socket.as_fd(), self.handle.as_fd()], ANNOUNCE_AFTER)?;
        if ready[1] { Ok(()) } else { control.send(&Event::Started) }
    }

    /// Until there is a reason to end.
    fn watch(&mut self, control: &mut Control) -> Cause {
        loop {
            // Orders may have arrived together with the job.
            loop {
                match control.next() {
                    Ok(Some(order)) => {
                        if let Some(cause) = self.obey(order, control) {
                            return cause;
                        }
                    }
                    Ok(None) => break,
                    Err(_) => return node_gone(),
                }
            }
            let now = Instant::now();
            if self.clock.effective(now) >= self.limits.wall {
                return Cause::TimedOut;
            }
            if now >= self.next_sample
                && let Some(cause) = self.sample(now, control)
            {
                return cause;
            }
            let Ok(ready) = poll([control.socket.as_fd(), self.handle.as_fd()], self.patience(Instant::now())) else {
                return Cause::Lost { message: "the monitor cannot wait".to_owned() };
            };
            if let Some(cause) = self.collect(ready[1]) {
                return cause;
            }
            if ready[0] && !control.fill().unwrap_or(false) {
                return node_gone();
            }
        }
    }

    /// How long nothing has to be done.
    fn patience(&self, now: Instant) -> Duration {
        let sample = self.next_sample.saturating_duration_since(now);
        if self.clock.is_paused() { sample } else { sample.min(self.limits.wall.saturating_sub(self.clock.effective(now))) }
    }

    fn obey(&mut self, order: Command, control: &mut Control) -> Option<Cause> {
        let answer = match order {
            Command::Pause => {
                self.tree.stop();
                self.clock.pause(Instant::now());
                self.pause = Pause::default();
                Event::Paused
            }
            Command::Resume => {
                self.clock.resume(Instant::now());
                self.tree.resume();
                Event::Resumed
            }
            Command::Kill(why) => return Some(why.cause()),
            Command::Run(_) => return Some(Cause::Lost { message: "a second job on one monitor".to_owned() }),
        };
        control.send(&answer).err().map(|_| node_gone())
    }

    fn sample(&mut self, now: Instant, control: &mut Control) -> Option<Cause> {
        // Another process may have sent a continue signal, or the tool one to itself.
        let was_at_work = self.clock.is_paused() && self.tree.stop();
        let sample = self.tree.sample(self.limits.memory_bytes);
        self.usage.cpu = self.usage.cpu.max(sample.cpu);
        self.usage.peak_memory_bytes = self.usage.peak_memory_bytes.max(sample.peak_bytes);
        self.usage.effective = self.clock.effective(now);
        self.next_sample = Instant::now() + self.sample_pause;
        self.sample_pause = (self.sample_pause * 2).min(SAMPLE_EVERY);
        if sample.resident_bytes > self.limits.memory_bytes {
            return Some(Cause::MemoryLimit);
        }
        if sample.tasks > self.limits.processes.into() {
            return Some(Cause::ProcessLimit);
        }
        let is_awake = self.clock.is_paused() && self.pause.is_broken(was_at_work, sample.cpu);
        if self.usage.cpu >= self.limits.cpu || is_awake {
            return Some(Cause::CpuLimit);
        }
        control.send(&Event::Usage(self.usage)).err().map(|_| node_gone())
    }

    /// Collects ended processes, orphans too; the tool's own end is the end of the run.
    fn collect(&mut self, tool_ended: bool) -> Option<Cause> {
        let mut cause = None;
        while let Ok(Some((pid, status))) = tree::collect() {
            if pid == self.tool {
                cause = Some(cause_of(status));
            }
        }
        let vanished = || Cause::Lost { message: "the tool ended unseen".to_owned() };
        cause.or_else(|| tool_ended.then(vanished))
    }

    /// The kernel's own CPU limit counts one process and may be quicker than a sample.
    fn is_cpu_signal(&self, signal: i32) -> bool {
        let at_limit = self.usage.cpu >= self.limits.cpu;
        signal == Signal::XCPU.as_raw() || (signal == Signal::KILL.as_raw() && at_limit)
    }
}

fn cause_of(status: WaitStatus) -> Cause {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Cause::Exited(code),
        (None, Some(signal)) => Cause::Signalled(signal),
        (None, None) => Cause::Lost { message: "the tool ended in an unknown way".to_owned() },
    }
}

/// Waits until one of the two can be read or has ended, or the time is over.
fn poll(sources: [std::os::fd::BorrowedFd<'_>; 2], patience: Duration) -> io::Result<[bool; 2]> {
    let mut watched = sources.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN));
    let patience = Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
    match rustix::event::poll(&mut watched, Some(&patience)) {
        Ok(_) => Ok(watched.map(|source| !source.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok([false; 2]),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_broken_by_work_that_is_seen_again_and_again_or_that_only_its_time_shows() {
        let millis = Duration::from_millis;
        let mut woken = Pause::default();
        assert!((0..WOKEN_MAX).all(|_| !woken.is_broken(true, millis(70))));
        assert!((0..100).all(|_| !woken.is_broken(false, millis(70))), "keeping still is no fault");
        assert!(woken.is_broken(true, millis(70)));
        let mut hidden = Pause::default();
        assert!(!hidden.is_broken(false, millis(9_000)), "what was used before the pause does not count");
        assert!(!hidden.is_broken(false, millis(9_500)));
        assert!(hidden.is_broken(false, millis(9_510)));
    }
}

//! The monitor of one run: starts the tool, watches it, obeys the node, and reports.
//!
//! Always true: it enforces the run's limits by itself, without the node; when the control socket ends, because the node closed
//! it or died, the whole tree is killed at once. Exactly one `Ended` is sent, and only when nothing of the tree is left or the
//! rest is counted in it.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal, WaitStatus};

use super::clock::Clock;
use super::tree::{self, Tree};
use super::{EXEC, control_socket};
use crate::limits::RunLimits;
use crate::report::{Cause, Usage};
use crate::wire::{self, Decoder, Ending, Event, Job, Order, Preparation, SetupFailure};

/// The node sends the job at once, and the last stage needs milliseconds; far beyond both, something is broken.
const SETUP_TIME_MAX: Duration = Duration::from_secs(10);
/// A node that does not read for this long is as good as gone.
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);
/// Samples come quickly at first, so that short runs are seen too, then at this pace.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const SAMPLE_FIRST: Duration = Duration::from_millis(5);
const READ_BYTES: usize = 64 * 1024;

/// Runs one job from the control socket to its end.
pub(super) fn run() -> io::Result<()> {
    rustix::process::setsid()?;
    // Tools run as the same user for now; this keeps them from attaching to the monitor.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let own = rustix::process::getpid();
    tree::adopt_orphans(own)?;
    let mut control = Control::new(control_socket()?)?;
    let Some(job) = control.first_job()? else { return Ok(()) };
    let ending = match start(&mut control, own, job) {
        Ok(mut watch) => watch.run(&mut control),
        Err(cause) => Ending { survivors: 0, wall: Duration::ZERO, paused: Duration::ZERO, usage: Usage::default(), cause },
    };
    control.send(&Event::Ended(ending))
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
                Some(Order::Run(job)) => break Ok(Some(job)),
                Some(_) => break Err(io::ErrorKind::InvalidData.into()),
                None => {}
            }
        }
    }

    /// One read; false at the end of the socket.
    fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; READ_BYTES];
        let count = self.socket.read(&mut buffer)?;
        self.decoder.push(buffer.get(..count).unwrap_or_default());
        Ok(count > 0)
    }

    fn next(&mut self) -> io::Result<Option<Order>> {
        Ok(self.decoder.next()?)
    }
}

/// Starts the last stage and waits until it has become the tool, or has said why it could not, or the node changed its mind.
fn start(control: &mut Control, own: Pid, job: Box<Job>) -> Result<Watch, Cause> {
    let failed = |stage: &str, error: io::Error| Cause::SetupFailed { stage: stage.to_owned(), message: error.to_string() };
    let limits = job.limits.clone();
    let (mut channel, theirs) = UnixStream::pair().map_err(|error| failed("channel", error))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(EXEC).env_clear().stdin(Stdio::from(OwnedFd::from(theirs)));
    let child = command.spawn().map_err(|error| failed("spawn", error))?;
    // The command holds the other end of the channel, which must close with the last stage.
    drop(command);
    let tool = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let tool = tool.ok_or_else(|| failed("spawn", io::ErrorKind::InvalidData.into()))?;
    let tree = Tree::new(own);
    let prepared = (|| {
        channel.set_write_timeout(Some(SETUP_TIME_MAX))?;
        channel.set_read_timeout(Some(SETUP_TIME_MAX))?;
        let preparation = Preparation { monitor: own.as_raw_nonzero().get(), job };
        channel.write_all(&wire::encode(&preparation)?)?;
        // Opened while the child cannot have been collected, so the number is still its own.
        rustix::process::pidfd_open(tool, PidfdFlags::empty()).map_err(io::Error::from)
    })();
    let outcome = match prepared {
        Ok(handle) => await_exec(control, &mut channel).map(|()| handle),
        Err(error) => Err(failed("prepare", error)),
    };
    match outcome {
        Ok(handle) => Ok(Watch::new(tree, tool, handle, limits)),
        Err(cause) => {
            tree.kill();
            Err(cause)
        }
    }
}

/// The channel ends silently when the tool's program has replaced the last stage.
fn await_exec(control: &mut Control, channel: &mut UnixStream) -> Result<(), Cause> {
    let failed = |message: String| Cause::SetupFailed { stage: "prepare".to_owned(), message };
    let deadline = Instant::now() + SETUP_TIME_MAX;
    let mut decoder = Decoder::default();
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Err(failed("the program did not start in time".to_owned()));
        }
        let ready = poll([control.socket.as_fd(), channel.as_fd()], deadline - now).map_err(|e| failed(e.to_string()))?;
        if ready[0] && !control.fill().unwrap_or(false) {
            return Err(node_gone());
        }
        // Kills are not taken from the queue here: the loop after the start does it with the rest.
        if !ready[1] {
            continue;
        }
        let mut buffer = [0; 4096];
        match channel.read(&mut buffer).map_err(|error| failed(error.to_string()))? {
            0 => return Ok(()),
            count => decoder.push(buffer.get(..count).unwrap_or_default()),
        }
        if let Some(SetupFailure { stage, message }) = decoder.next().map_err(|error| failed(error.to_string()))? {
            return Err(Cause::SetupFailed { stage, message });
        }
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
    next_sample: Instant,
    sample_pause: Duration,
}

impl Watch {
    fn new(tree: Tree, tool: Pid, handle: OwnedFd, limits: RunLimits) -> Self {
        let now = Instant::now();
        let clock = Clock::start(now);
        Self { tree, tool, handle, limits, clock, usage: Usage::default(), next_sample: now, sample_pause: SAMPLE_FIRST }
    }

    fn run(&mut self, control: &mut Control) -> Ending {
        let cause = match control.send(&Event::Started) {
            Ok(()) => self.watch(control),
            Err(_) => node_gone(),
        };
        // What comes after this moment is our own cleaning up, and is not the tool's time.
        let end = Instant::now();
        let survivors = self.tree.kill();
        self.usage.cpu = self.usage.cpu.max(crate::proc::collected_cpu());
        self.usage.effective = self.clock.effective(end);
        let cause = match cause {
            Cause::Signalled(signal) if self.is_cpu_signal(signal) => Cause::CpuLimit,
            other => other,
        };
        Ending { cause, wall: self.clock.wall(end), paused: self.clock.paused(end), usage: self.usage, survivors }
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

    fn obey(&mut self, order: Order, control: &mut Control) -> Option<Cause> {
        let answer = match order {
            Order::Pause => {
                self.tree.stop();
                self.clock.pause(Instant::now());
                Event::Paused
            }
            Order::Resume => {
                self.clock.resume(Instant::now());
                self.tree.resume();
                Event::Resumed
            }
            Order::Kill(why) => return Some(why.cause()),
            Order::Run(_) => return Some(Cause::Lost { message: "a second job on one monitor".to_owned() }),
        };
        control.send(&answer).err().map(|_| node_gone())
    }

    fn sample(&mut self, now: Instant, control: &mut Control) -> Option<Cause> {
        if self.clock.is_paused() {
            // Another process may have sent a continue signal.
            self.tree.stop();
        }
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
        if self.usage.cpu >= self.limits.cpu {
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

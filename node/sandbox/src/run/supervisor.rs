//! The node's side of one stub: a task that passes orders on, keeps the state up to date, and sees to it that the run ends.
//!
//! Always true: the task ends, and with it the run, within a bounded time after its owner lets go. In namespaces a stub that dies
//! takes its tree with it; elsewhere it costs its session, because whose processes are left can no longer be known.

use std::io::{self, PipeReader};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::output::{self, Shared, Stream};
use super::{Execution, Input, StartError, State};
use crate::groups::RunGroup;
use crate::holding::Holding;
use crate::limits::OnOutputLimit;
use crate::report::{Cause, Report, Usage};
use crate::survivors;
use crate::wire::{self, Decoder, Ending, Event, Job, KillWhy, Order};

/// Orders in the queue. They are rare; the sender waits when it is full.
const ORDERS_MAX: usize = 8;
/// A stub speaks every 100 ms, and is busy for at most a few seconds when it kills a stuck tree.
const SILENCE_MAX: Duration = Duration::from_secs(15);
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 16 * 1024;

/// What a session lends to a run.
#[derive(Debug)]
pub(crate) struct Launch<P> {
    pub(crate) group: Option<RunGroup>,
    pub(crate) holding: Arc<Holding>,
    pub(crate) profile: usize,
    pub(crate) job: Job,
    /// Whether the tool has an input.
    pub(crate) input: bool,
    /// Where processes of a lost stub are to be looked for; `None` where the kernel has killed them already.
    pub(crate) survivors_in: Option<PathBuf>,
    /// Ends the session, and with it this run and all others of it.
    pub(crate) stop_session: CancellationToken,
    /// True while the workspace is above its limits.
    pub(crate) full: watch::Receiver<bool>,
    /// Held until the run has ended.
    pub(crate) permit: P,
}

/// Starts a stub with its job, and the task that looks after it.
pub(crate) async fn launch<P: Send + 'static>(launch: Launch<P>, tasks: &TaskTracker) -> Result<Execution, StartError> {
    let Launch { group, holding, profile, job, input, survivors_in, stop_session, full, permit } = launch;
    let limits = job.limits.clone();
    let frame = wire::encode(&Order::Run(Box::new(job))).map_err(|_| StartError::TooLong)?;
    let (control, theirs) = std::os::unix::net::UnixStream::pair()?;
    control.set_nonblocking(true)?;
    // There before the stub looks for it, as far as the socket takes it at once.
    let written = first_part(&control, &frame);
    let rest = frame.get(written..).unwrap_or_default().to_vec();
    let control = UnixStream::from_std(control)?;
    let (stdout, stdout_end) = output::open()?;
    let (stderr, stderr_end) = output::open()?;
    let (input_end, input) = input.then(Input::open).transpose()?.unzip();
    let mut given = vec![theirs.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
    given.extend(input_end.as_ref().map(|end| end.as_fd()));
    given.extend(group.as_ref().map(|group| group.directory.as_fd()));
    holding.run(profile, input.is_some(), &given).await?;
    // The ends that the other side has by now; their closing is how each side learns of the other's death.
    drop((theirs, stdout_end, stderr_end, input_end, holding));

    let stop = stop_session.child_token();
    let shared = Shared {
        room: Arc::new(AtomicU64::new(limits.output_bytes)),
        truncated: Arc::new(AtomicBool::new(false)),
        overflow: CancellationToken::new(),
        ended: CancellationToken::new(),
        abandoned: stop.clone(),
    };
    let (chunks, output) = mpsc::channel(output::CHUNKS_MAX);
    let pipe = |reader: PipeReader| Receiver::from_owned_fd(reader.into());
    let (stdout, stderr) = (pipe(stdout)?, pipe(stderr)?);
    let (orders_in, orders) = mpsc::channel(ORDERS_MAX);
    let (state, seen) = watch::channel(State::default());
    let kill_on_overflow = limits.on_output_limit == OnOutputLimit::Kill;
    let reasons = Reasons { orders, stop: stop.clone(), full, overflow: shared.overflow.clone(), kill_on_overflow };
    tasks.spawn(async move {
        let follow = async {
            let link = Link { control, decoder: Decoder::default(), state: &state };
            let ending = match link.follow(rest, reasons).await {
                Ok(ending) => ending,
                Err(message) => give_up(survivors_in, &stop_session, &state, &message).await,
            };
            shared.ended.cancel();
            ending
        };
        // In one task: most runs are short, and waking others costs more than it gains.
        let stdout = output::pump(stdout, Stream::Stdout, &shared, chunks.clone());
        let stderr = output::pump(stderr, Stream::Stderr, &shared, chunks);
        let (ending, stdout_bytes, stderr_bytes) = tokio::join!(follow, stdout, stderr);
        let output_truncated = shared.truncated.load(Ordering::Relaxed);
        let Ending { cause, wall, paused, usage, survivors } = counted(ending, group.as_ref());
        drop(group);
        let report = Report { cause, wall, paused, usage, stdout_bytes, stderr_bytes, output_truncated, survivors };
        tracing::debug!(cause = ?report.cause, wall = ?report.wall, "a run ended");
        // Whoever sees the report may start the next run at once.
        drop(permit);
        state.send_modify(|state| {
            state.started |= !matches!(report.cause, Cause::SetupFailed { .. });
            state.report = Some(report);
        });
    });
    Ok(Execution { input, output: Some(output), orders: orders_in, state: seen, _kill_on_drop: stop.drop_guard() })
}

/// Figures and cause as the kernel counted them for the run's group, where there is one.
fn counted(mut ending: Ending, group: Option<&RunGroup>) -> Ending {
    let Some(counted) = group.map(RunGroup::counted) else { return ending };
    // The group's time includes the stub's own, which is no more than the sampling of a tree costs.
    ending.usage.cpu = ending.usage.cpu.max(counted.cpu.unwrap_or_default());
    ending.usage.peak_memory_bytes = ending.usage.peak_memory_bytes.max(counted.peak_memory_bytes.unwrap_or(0));
    if counted.out_of_memory > 0 && matches!(ending.cause, Cause::Signalled(_) | Cause::Lost { .. }) {
        ending.cause = Cause::MemoryLimit;
    }
    ending
}

/// What can make the node speak to the stub.
struct Reasons {
    orders: mpsc::Receiver<Order>,
    stop: CancellationToken,
    full: watch::Receiver<bool>,
    overflow: CancellationToken,
    kill_on_overflow: bool,
}

impl Reasons {
    /// The next order. Once a run is to be killed, further reasons are too late.
    async fn next(&mut self, killing: bool) -> Order {
        let requested = |reason: &str| Order::Kill(KillWhy::Requested(reason.to_owned()));
        tokio::select! {
            biased;
            Some(order) = self.orders.recv() => order,
            () = self.overflow.cancelled(), if self.kill_on_overflow && !killing => Order::Kill(KillWhy::OutputLimit),
            true = outgrown(&mut self.full), if !killing => Order::Kill(KillWhy::DiskLimit),
            () = self.stop.cancelled(), if !killing => requested("the run was given up"),
            else => std::future::pending().await,
        }
    }
}

/// True when the workspace is above its limits; false when nobody measures it any more.
async fn outgrown(full: &mut watch::Receiver<bool>) -> bool {
    full.wait_for(|full| *full).await.is_ok()
}

/// The socket to the stub.
struct Link<'a> {
    control: UnixStream,
    decoder: Decoder,
    state: &'a watch::Sender<State>,
}

impl Link<'_> {
    /// Until the stub has reported, or there is nothing to expect from it any more. `job` is what is left of it to be written.
    async fn follow(mut self, job: Vec<u8>, mut reasons: Reasons) -> Result<Ending, String> {
        let (mut reader, mut writer) = self.control.split();
        if !job.is_empty() {
            write(&mut writer, &job).await;
        }
        let mut deadline = Instant::now() + SILENCE_MAX;
        let mut buffer = vec![0; READ_BYTES];
        let mut killing = false;
        loop {
            tokio::select! {
                read = reader.read(&mut buffer) => match read {
                    Ok(0) => return Err("its stub ended without a report".to_owned()),
                    Ok(count) => {
                        self.decoder.push(buffer.get(..count).unwrap_or_default());
                        deadline = Instant::now() + SILENCE_MAX;
                    }
                    Err(error) => return Err(format!("its stub cannot be read: {error}")),
                },
                order = reasons.next(killing) => {
                    killing |= matches!(order, Order::Kill(_));
                    let frame = wire::encode(&order).map_err(|error| error.to_string())?;
                    write(&mut writer, &frame).await;
                }
                () = sleep_until(deadline) => return Err("its stub fell silent".to_owned()),
            }
            while let Some(event) = self.decoder.next().map_err(|error| format!("its stub spoke nonsense: {error}"))? {
                match event {
                    Event::Ended(ending) => return Ok(ending),
                    other => self.state.send_modify(|state| apply(state, &other)),
                }
            }
        }
    }
}

/// How much of a frame the socket takes without waiting. What stands in the way will be seen when the rest is written.
fn first_part(mut socket: &std::os::unix::net::UnixStream, frame: &[u8]) -> usize {
    use std::io::Write as _;
    socket.write(frame).unwrap_or(0)
}

/// A write that fails is not reported: reading tells what has become of the stub.
async fn write(writer: &mut (impl tokio::io::AsyncWrite + Unpin), frame: &[u8]) {
    if !matches!(timeout(WRITE_TIME_MAX, writer.write_all(frame)).await, Ok(Ok(()))) {
        tracing::debug!("a stub did not take an order");
    }
}

fn apply(state: &mut State, event: &Event) {
    match event {
        Event::Started => state.started = true,
        Event::Paused => state.paused = true,
        Event::Resumed => state.paused = false,
        Event::Usage(usage) => state.usage = *usage,
        Event::Ended(_) => {}
    }
}

/// Deals with a run whose stub is lost. Where the kernel does not kill a tree with its stub, whose processes are left can no longer be
/// known, and the whole session ends.
async fn give_up(survivors_in: Option<PathBuf>, stop_session: &CancellationToken, state: &watch::Sender<State>, message: &str) -> Ending {
    tracing::warn!(message, "a run is lost");
    let mut survivors = 0;
    if let Some(directory) = survivors_in {
        stop_session.cancel();
        let swept = tokio::task::spawn_blocking(move || survivors::kill(&directory)).await;
        survivors = swept.unwrap_or_else(|error| Err(io::Error::other(error))).unwrap_or(0);
    }
    let report = lost(state.borrow().usage, message);
    Ending {
        cause: report.cause,
        wall: report.wall,
        paused: report.paused,
        usage: report.usage,
        survivors: u32::try_from(survivors).unwrap_or(u32::MAX),
    }
}

/// What can be said of a run nobody has reported on.
pub(super) fn lost(usage: Usage, message: &str) -> Report {
    Report {
        cause: Cause::lost(message),
        wall: usage.effective,
        paused: Duration::ZERO,
        usage,
        stdout_bytes: 0,
        stderr_bytes: 0,
        output_truncated: false,
        survivors: 0,
    }
}

//! One run, from its start to the report of its end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orien_bootstrap::clock;
use orien_protocol::frame::OutputStream;
use orien_protocol::hash::Hash;
use orien_protocol::id::ExecutionId;
use orien_protocol::job::Job;
use orien_protocol::receipt::{EndReason, Usage};
use orien_sandbox::{Chunk, Execution, RunSpec, SessionSandbox, StartError, Stream};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::{RunEnd, RunEvent};
use crate::input::Inputs;
use crate::output::Logs;
use crate::toolbox::{argument_bytes, end_of};

/// The sandbox samples as often.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// What the session wants of a run; the newest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) paused: bool,
    pub(super) killed: bool,
}

pub(super) struct Run {
    execution: ExecutionId,
    /// Of its arguments; what it is fed comes on top.
    argument_bytes: u64,
    logs: Arc<Logs>,
    inputs: Arc<Inputs>,
    orders: watch::Receiver<Order>,
    usage: watch::Sender<Usage>,
    to_session: mpsc::Sender<RunEvent>,
    hasher: blake3::Hasher,
    bytes_out: u64,
}

impl Run {
    pub(super) fn new(
        job: &Job,
        logs: Arc<Logs>,
        inputs: Arc<Inputs>,
        orders: watch::Receiver<Order>,
        usage: watch::Sender<Usage>,
        to_session: mpsc::Sender<RunEvent>,
    ) -> Self {
        Self {
            execution: job.execution,
            argument_bytes: argument_bytes(job),
            logs,
            inputs,
            orders,
            usage,
            to_session,
            hasher: blake3::Hasher::new(),
            bytes_out: 0,
        }
    }

    pub(super) async fn carry_out(mut self, sandbox: Arc<SessionSandbox>, spec: RunSpec) {
        let started = sandbox.start(spec).await;
        // Held no longer than needed: the workspace is removed by whoever holds it last.
        drop(sandbox);
        let end = match started {
            Ok(execution) => self.follow(execution).await,
            Err(error) => not_started(&self.logs, self.execution, &error.to_string(), matches!(error, StartError::WorkspaceFull)),
        };
        self.logs.end(self.execution);
        self.inputs.close(self.execution);
        // Nobody listens only when the whole session is being given up.
        let _ = self.to_session.send(RunEvent::Ended(end)).await;
    }

    async fn follow(&mut self, mut execution: Execution) -> RunEnd {
        let mut output = execution.output();
        let (inputs, input, id) = (Arc::clone(&self.inputs), execution.input(), self.execution);
        let mut is_fed = input.is_none();
        let mut feeding = pin!(async move {
            if let Some(input) = input {
                inputs.feed(id, input).await;
            }
        });
        if execution.started().await {
            let _ = self.to_session.send(RunEvent::Started(self.execution)).await;
        }
        let mut sample = interval(SAMPLE_EVERY);
        sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut applied = Order::default();
        let report = loop {
            tokio::select! {
                chunk = next_chunk(&mut output) => match chunk {
                    Some(chunk) => self.take(chunk),
                    None => output = None,
                },
                () = &mut feeding, if !is_fed => is_fed = true,
                report = execution.wait(), if output.is_none() => break report,
                changed = self.orders.changed() => {
                    // A session that is gone wants nothing but the end.
                    let order = if changed.is_ok() { *self.orders.borrow_and_update() } else { Order { killed: true, ..applied } };
                    apply(&execution, &mut applied, order).await;
                    if changed.is_err() {
                        break execution.wait().await;
                    }
                }
                _ = sample.tick() => {
                    let _ = self.usage.send_replace(self.measure(execution.usage()));
                }
            }
        };
        let (end, exit_code) = end_of(&report.cause);
        if report.survivors > 0 {
            tracing::error!(execution = %self.execution, survivors = report.survivors, "processes of a run could not be killed");
        }
        if end == EndReason::SetupFailed {
            return not_started(&self.logs, self.execution, &format!("{:?}", report.cause), false);
        }
        RunEnd { execution: self.execution, usage: self.measure(report.usage), end, exit_code }
    }

    fn take(&mut self, chunk: Chunk) {
        self.hasher.update(&chunk.bytes);
        self.bytes_out = self.bytes_out.saturating_add(u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX));
        let stream = match chunk.stream {
            Stream::Stdout => OutputStream::Stdout,
            Stream::Stderr => OutputStream::Stderr,
        };
        self.logs.add(self.execution, clock::wall(), stream, chunk.bytes);
    }

    fn measure(&self, used: orien_sandbox::Usage) -> Usage {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Usage {
            effective_ms: ms(used.effective),
            cpu_ms: ms(used.cpu),
            peak_memory_bytes: used.peak_memory_bytes,
            bytes_in: self.argument_bytes.saturating_add(self.inputs.passed(self.execution)),
            bytes_out: self.bytes_out,
            output_hash: Hash::from_bytes(*self.hasher.finalize().as_bytes()),
        }
    }
}

/// The next piece of output; none at its end. Waits for ever when it has ended before.
async fn next_chunk(output: &mut Option<mpsc::Receiver<Chunk>>) -> Option<Chunk> {
    match output {
        Some(output) => output.recv().await,
        None => std::future::pending().await,
    }
}

async fn apply(execution: &Execution, applied: &mut Order, order: Order) {
    if order.killed && !applied.killed {
        execution.kill("the session asked for it").await;
    } else if order.paused != applied.paused {
        let done = if order.paused { execution.pause().await } else { execution.resume().await };
        if let Err(error) = done {
            tracing::debug!(%error, "a run was not paused or resumed");
        }
    }
    *applied = order;
}

/// The end of a run that never ran. Its log says so; the cause is for the provider's eyes, unless it is the agent's to remove.
pub(super) fn not_started(logs: &Logs, execution: ExecutionId, reason: &str, is_full: bool) -> RunEnd {
    tracing::warn!(%execution, reason, "a tool could not be started");
    let told = if is_full { "the workspace is full" } else { "the provider's own log says why" };
    logs.add(execution, clock::wall(), OutputStream::Stderr, Bytes::from(format!("orien: the tool could not be started: {told}\n")));
    logs.end(execution);
    RunEnd::never_ran(execution)
}

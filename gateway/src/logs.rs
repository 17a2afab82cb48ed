//! The live logs of executions: followed from the provider, kept in memory, read by any number of callers.
//!
//! Always true: a log takes each chunk once and in order, whatever reconnections there were; when it has ended its tail is durable; logs that have ended share [`ENDED_BYTES`], the oldest
//! go first, and their readers fall back to the tail on disk.
//!
//! It does not know what a run costs or how it ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orien_bootstrap::{FrameStream, clock};
use orien_net::{Net, NetStream, StreamKind};
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{LogFrame, LogRequest, STREAM_FRAME_LIMIT};
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::peer::PeerId;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::lines::{Lines, Replay};
use crate::rows::OutputTail;
use crate::store::{Put, Store, StoreError};

/// Most bytes of logs that have ended: eight full ones.
const ENDED_BYTES: usize = 64 * 1024 * 1024;
/// Most logs that have ended; small ones cost their bookkeeping.
const ENDED_COUNT: usize = 1024;
/// First and longest wait before a log is asked for again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a provider may say that it does not know the log; it may be asked a moment before the tool starts.
const UNKNOWN_LIMIT: u32 = 5;

/// A log is asked for so long after its run began, or when the run is over: most tools that do little write nothing, and then there is nothing to ask for.
const ASK_AFTER: Duration = Duration::from_millis(10);

/// How a follower that waits hears that its run is over: whether it never wrote anything, so that there is nothing to do.
pub(crate) type Told = oneshot::Sender<bool>;

/// One execution's log.
#[derive(Debug)]
pub(crate) struct LiveLog {
    state: Mutex<State>,
    /// Counts changes, for those who wait.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    lines: Lines,
    next_sequence: u64,
    ended: bool,
}

impl LiveLog {
    fn new(lines: Lines) -> Self {
        Self { state: Mutex::new(State { lines, ..State::default() }), changed: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, how: impl FnOnce(&mut State) -> T) -> T {
        let changed = how(&mut self.state());
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        changed
    }

    /// At most `limit` lines after a number, and whether nothing more will follow them.
    pub(crate) fn after(&self, number: u64, limit: usize) -> (Replay, bool) {
        let state = self.state();
        let replay = state.lines.after(number, limit);
        let done = state.ended && replay.lines.len() < limit;
        (replay, done)
    }

    /// Some of the output did not come and will not.
    fn miss(&self) {
        self.change(|state| state.lines.miss(clock::wall()));
    }

    /// Whether nothing more will come.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// The last lines so far.
    pub(crate) fn tail(&self) -> OutputTail {
        self.state().lines.tail()
    }

    /// Tells when something changed.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until nothing more will come, but not for longer than `limit`.
    pub(crate) async fn wait_ended(&self, limit: Duration) {
        let mut changes = self.watch();
        let ended = async { while !self.has_ended() && changes.changed().await.is_ok() {} };
        // Whoever waits goes on with what there is.
        let _ = tokio::time::timeout(limit, ended).await;
    }

    /// Takes one frame; true when it was the last.
    fn take(&self, frame: LogFrame) -> bool {
        match frame {
            LogFrame::Chunk { sequence, at, stream, bytes } => self.change(|state| {
                if sequence < state.next_sequence {
                    return false;
                }
                if sequence > state.next_sequence {
                    state.lines.miss(at);
                }
                state.lines.push(at, stream, &bytes);
                state.next_sequence = sequence.saturating_add(1);
                false
            }),
            LogFrame::Gap { next } => self.change(|state| {
                if next > state.next_sequence {
                    state.lines.miss(clock::wall());
                    state.next_sequence = next;
                }
                false
            }),
            LogFrame::End | LogFrame::Refused(_) => true,
        }
    }
}

/// Every log in memory.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    logs: BTreeMap<ExecutionId, Arc<LiveLog>>,
    ended: VecDeque<(ExecutionId, usize)>,
    ended_bytes: usize,
}

impl Logs {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log of an execution that begins now.
    pub(crate) fn begin(&self, execution: ExecutionId) {
        self.book().logs.entry(execution).or_insert_with(|| Arc::new(LiveLog::new(Lines::default())));
    }

    /// The log of an execution; one that is not in memory may have been there before.
    pub(crate) fn open_again(&self, execution: ExecutionId) -> Arc<LiveLog> {
        let again = || Arc::new(LiveLog::new(Lines::again(clock::wall())));
        Arc::clone(self.book().logs.entry(execution).or_insert_with(again))
    }

    /// The log of an execution, if it is in memory.
    pub(crate) fn get(&self, execution: &ExecutionId) -> Option<Arc<LiveLog>> {
        self.book().logs.get(execution).cloned()
    }

    /// Whether the log of an execution began in this run of the gateway.
    pub(crate) fn is_new(&self, execution: &ExecutionId) -> bool {
        self.get(execution).is_some_and(|log| log.state().lines.is_new())
    }

    /// Ends a log: its tail is made durable, then its readers are told.
    pub(crate) async fn end(&self, execution: ExecutionId, store: &Store) -> Result<(), StoreError> {
        let Some(log) = self.get(&execution).filter(|log| !log.has_ended()) else { return Ok(()) };
        log.state().lines.finish();
        let tail = log.tail();
        // Nothing to keep of a run that wrote nothing, except that nothing was missed.
        store.write(vec![Put::output(&execution, &tail)?]).await?;
        let weight = log.change(|state| {
            state.ended = true;
            state.lines.weight()
        });
        self.retire(execution, weight);
        Ok(())
    }

    /// Ends a log to which nothing was ever written; that is durable.
    pub(crate) fn end_silent(&self, execution: ExecutionId) {
        if let Some(log) = self.get(&execution).filter(|log| !log.has_ended()) {
            let weight = log.change(|state| {
                state.ended = true;
                state.lines.weight()
            });
            self.retire(execution, weight);
        }
    }

    fn retire(&self, execution: ExecutionId, weight: usize) {
        let mut book = self.book();
        book.ended.push_back((execution, weight));
        book.ended_bytes = book.ended_bytes.saturating_add(weight);
        while book.ended_bytes > ENDED_BYTES || book.ended.len() > ENDED_COUNT {
            let Some((oldest, weight)) = book.ended.pop_front() else { return };
            book.ended_bytes = book.ended_bytes.saturating_sub(weight);
            book.logs.remove(&oldest);
        }
    }
}

/// Whose log is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// Who has it.
    pub(crate) provider: PeerId,
    /// The session.
    pub(crate) session: SessionId,
    /// The execution.
    pub(crate) execution: ExecutionId,
}

/// Follows a log from the provider until it ends, or until `gone`: then what has come is all there is.
pub(crate) async fn follow(
    net: Net,
    source: Source,
    logs: Arc<Logs>,
    store: Store,
    told: oneshot::Receiver<bool>,
    gone: CancellationToken,
) -> Result<(), StoreError> {
    let log = logs.open_again(source.execution);
    if log.has_ended() {
        return Ok(());
    }
    let fetched = async {
        let is_silent = matches!(tokio::time::timeout(ASK_AFTER, told).await, Ok(Ok(true)));
        if !is_silent {
            fetch(&net, source, &log).await;
        }
        is_silent
    };
    tokio::select! {
        () = gone.cancelled() => log.miss(),
        // Whoever said so has staged its end.
        is_silent = fetched => if is_silent { return Ok(()) },
    }
    logs.end(source.execution, &store).await
}

async fn fetch(net: &Net, source: Source, log: &LiveLog) {
    let (mut wait, mut unknown) = (RETRY.0, 0_u32);
    loop {
        match read(net, source, log).await {
            Read::Ended => return,
            Read::Refused(code, text) => {
                unknown = unknown.saturating_add(1);
                if code != FaultCode::NOT_FOUND || unknown >= UNKNOWN_LIMIT {
                    tracing::warn!(execution = %source.execution, code = code.name(), text, "the provider does not give a log");
                    return log.miss();
                }
            }
            Read::Some => wait = RETRY.0,
            Read::Nothing => {}
        }
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(RETRY.1);
    }
}

enum Read {
    /// To its end.
    Ended,
    /// The provider would not.
    Refused(FaultCode, String),
    /// A part; the stream was lost.
    Some,
    /// No stream, or nothing on it.
    Nothing,
}

async fn read(net: &Net, source: Source, log: &LiveLog) -> Read {
    let Ok(stream) = net.open(source.provider, StreamKind::Log).await else { return Read::Nothing };
    let mut frames: FrameStream<NetStream> = FrameStream::new(stream, STREAM_FRAME_LIMIT);
    let from = log.state().next_sequence;
    let request = LogRequest { session: source.session, execution: source.execution, from };
    if frames.send(&request).await.is_err() {
        return Read::Nothing;
    }
    let mut read = Read::Nothing;
    loop {
        match frames.recv::<LogFrame>().await {
            Ok(Some(LogFrame::Refused(fault))) => {
                let fault = fault.tamed();
                return Read::Refused(fault.code, fault.text);
            }
            Ok(Some(frame)) => {
                read = Read::Some;
                if log.take(frame) {
                    return Read::Ended;
                }
            }
            Ok(None) => return read,
            Err(error) => {
                tracing::debug!(execution = %source.execution, %error, "a log stream was lost");
                return read;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use orien_protocol::frame::OutputStream;
    use orien_protocol::time::Timestamp;

    use super::*;

    fn chunk(sequence: u64, text: &str) -> LogFrame {
        LogFrame::Chunk { sequence, at: Timestamp(1), stream: OutputStream::Stdout, bytes: text.as_bytes().to_vec() }
    }

    fn texts(log: &LiveLog) -> Vec<String> {
        log.after(0, 100).0.lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_repeated_chunk_counts_once_and_a_lost_one_is_noticed() {
        let log = LiveLog::new(Lines::default());
        for frame in [chunk(0, "a\n"), chunk(0, "a\n"), chunk(1, "b\n")] {
            assert!(!log.take(frame));
        }
        assert_eq!(texts(&log), ["a", "b"]);
        assert!(log.tail().hash.is_some());
        assert!(!log.take(LogFrame::Gap { next: 5 }));
        assert!(!log.take(chunk(4, "late\n")));
        assert!(!log.take(chunk(5, "c\n")));
        assert_eq!(texts(&log), ["a", "b", "", "c"]);
        assert!(log.tail().hash.is_none());
        assert!(log.take(LogFrame::End));
    }
}

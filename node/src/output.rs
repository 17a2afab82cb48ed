//! The output of a session's runs, kept for those who follow it or come late.
//!
//! Always true: chunks of a run are numbered from 0 in the order they were read; memory is bounded per run and per session, and what was dropped for it is told as a
//! gap. Nothing here waits: a slow reader loses old chunks and slows nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use orien_protocol::frame::OutputStream;
use orien_protocol::id::ExecutionId;
use orien_protocol::time::Timestamp;
use tokio::sync::watch;

/// Output kept of one run: a long build log.
const RUN_BYTES_MAX: usize = 8 << 20;
/// Output kept of all runs of a session.
const SESSION_BYTES_MAX: usize = 32 << 20;
/// What a chunk costs beside its bytes, so that a tool that writes byte by byte cannot cost more than it may.
const CHUNK_OVERHEAD: usize = 128;
/// Chunks given out at once; at most 1 MiB.
const BATCH_CHUNKS: usize = 16;

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogChunk {
    /// Its number within the run.
    pub(crate) sequence: u64,
    /// When it was read.
    pub(crate) at: Timestamp,
    /// Where it was written.
    pub(crate) stream: OutputStream,
    /// At most 64 KiB.
    pub(crate) bytes: Bytes,
}

/// What a follower gets next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LogBatch {
    /// The first chunk that is still kept, when those asked for are not.
    pub(crate) gap: Option<u64>,
    /// In order; may be empty.
    pub(crate) chunks: Vec<LogChunk>,
    /// Whether nothing comes after these.
    pub(crate) ended: bool,
}

#[derive(Debug)]
struct Log {
    chunks: VecDeque<LogChunk>,
    next: u64,
    bytes: usize,
    ended: bool,
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Shelf {
    logs: BTreeMap<ExecutionId, Log>,
    bytes: usize,
}

/// All logs of one session.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    shelf: Mutex<Shelf>,
}

impl Logs {
    /// Begins the log of a run.
    pub(crate) fn begin(&self, execution: ExecutionId) {
        let log = || Log { chunks: VecDeque::new(), next: 0, bytes: 0, ended: false, news: watch::Sender::new(()) };
        self.lock().logs.entry(execution).or_insert_with(log);
    }

    /// Adds a piece of output.
    pub(crate) fn add(&self, execution: ExecutionId, at: Timestamp, stream: OutputStream, bytes: Bytes) {
        let mut shelf = self.lock();
        let cost = bytes.len().saturating_add(CHUNK_OVERHEAD);
        let Some(log) = shelf.logs.get_mut(&execution) else { return };
        log.chunks.push_back(LogChunk { sequence: log.next, at, stream, bytes });
        log.next = log.next.saturating_add(1);
        log.bytes = log.bytes.saturating_add(cost);
        shelf.bytes = shelf.bytes.saturating_add(cost);
        shelf.trim(execution);
        if let Some(log) = shelf.logs.get(&execution) {
            log.news.send_replace(());
        }
    }

    /// Nothing more comes of this run.
    pub(crate) fn end(&self, execution: ExecutionId) {
        if let Some(log) = self.lock().logs.get_mut(&execution) {
            log.ended = true;
            log.news.send_replace(());
        }
    }

    /// Nothing more comes of any run.
    pub(crate) fn end_all(&self) {
        for log in self.lock().logs.values_mut() {
            log.ended = true;
            log.news.send_replace(());
        }
    }

    /// Tells when there is more than was read; none for an unknown run.
    pub(crate) fn news(&self, execution: ExecutionId) -> Option<watch::Receiver<()>> {
        self.lock().logs.get(&execution).map(|log| log.news.subscribe())
    }

    /// Chunks from a number on.
    pub(crate) fn batch(&self, execution: ExecutionId, from: u64) -> LogBatch {
        let shelf = self.lock();
        let Some(log) = shelf.logs.get(&execution) else { return LogBatch { ended: true, ..LogBatch::default() } };
        let first = log.chunks.front().map_or(log.next, |chunk| chunk.sequence);
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let chunks: Vec<LogChunk> = log.chunks.iter().skip(skip).take(BATCH_CHUNKS).cloned().collect();
        let after = chunks.last().map_or(from.max(first), |chunk| chunk.sequence.saturating_add(1));
        LogBatch { gap: (from < first).then_some(first), chunks, ended: log.ended && after >= log.next }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// Drops the oldest chunks: of this run above its own limit, of the oldest runs above the session's.
    fn trim(&mut self, execution: ExecutionId) {
        while self.logs.get(&execution).is_some_and(|log| log.bytes > RUN_BYTES_MAX) {
            self.drop_first(execution);
        }
        while self.bytes > SESSION_BYTES_MAX {
            let Some(oldest) = self.logs.iter().find(|(_, log)| !log.chunks.is_empty()).map(|(id, _)| *id) else { return };
            self.drop_first(oldest);
        }
    }

    fn drop_first(&mut self, execution: ExecutionId) {
        let Some(log) = self.logs.get_mut(&execution) else { return };
        let Some(chunk) = log.chunks.pop_front() else { return };
        let cost = chunk.bytes.len().saturating_add(CHUNK_OVERHEAD);
        log.bytes = log.bytes.saturating_sub(cost);
        self.bytes = self.bytes.saturating_sub(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: u128) -> ExecutionId {
        ExecutionId::from_parts(1, n)
    }

    fn add(logs: &Logs, execution: ExecutionId, bytes: usize) {
        logs.add(execution, Timestamp(1), OutputStream::Stdout, Bytes::from(vec![b'x'; bytes]));
    }

    #[test]
    fn chunks_are_numbered_from_zero_and_read_from_any_number() {
        let logs = Logs::default();
        logs.begin(run(1));
        (0..20).for_each(|_| add(&logs, run(1), 10));
        let batch = logs.batch(run(1), 3);
        assert_eq!((batch.gap, batch.ended, batch.chunks.len()), (None, false, BATCH_CHUNKS));
        assert_eq!(batch.chunks.first().map(|chunk| chunk.sequence), Some(3));
        logs.end(run(1));
        assert!(logs.batch(run(1), 19).ended);
        assert_eq!(logs.batch(run(1), 20), LogBatch { gap: None, chunks: Vec::new(), ended: true });
    }

    #[test]
    fn a_long_log_drops_its_oldest_chunks_and_says_so() {
        let logs = Logs::default();
        logs.begin(run(1));
        (0..200).for_each(|_| add(&logs, run(1), 64 << 10));
        let batch = logs.batch(run(1), 0);
        assert!(batch.gap.is_some_and(|first| first > 60), "{batch:?}");
        assert_eq!(batch.chunks.first().map(|chunk| Some(chunk.sequence)), Some(batch.gap));
        assert!(logs.lock().bytes <= RUN_BYTES_MAX);
    }

    #[test]
    fn a_tool_that_writes_byte_by_byte_costs_no_more_memory_than_one_that_does_not() {
        let logs = Logs::default();
        logs.begin(run(1));
        (0..100_000).for_each(|_| add(&logs, run(1), 1));
        assert!(logs.lock().logs.values().all(|log| log.chunks.len() <= RUN_BYTES_MAX / CHUNK_OVERHEAD));
    }

    #[test]
    fn many_runs_together_stay_within_the_sessions_limit_and_the_newest_is_kept() {
        let logs = Logs::default();
        for n in 0..10 {
            logs.begin(run(n));
            (0..100).for_each(|_| add(&logs, run(n), 64 << 10));
        }
        assert!(logs.lock().bytes <= SESSION_BYTES_MAX);
        assert_eq!(logs.batch(run(9), 0).gap, None);
        assert_eq!(logs.batch(run(0), 0).gap, Some(100));
    }
}

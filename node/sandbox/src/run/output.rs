//! Takes a tool's output from its pipes.
//!
//! Always true: memory is bounded by the channel; a slow reader slows the tool. What exceeds the limit is read and thrown away, so
//! a tool is never stuck on a full pipe because of it. After the tool's end a pipe that somebody still holds open is given up, also
//! when that is another run, to which the tool has given it, and which goes on writing.

use std::io::{self, PipeReader, PipeWriter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::Mode;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a pipe holds by default.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// A tool that says little costs little.
const CHUNK_BYTES_FIRST: usize = 4 * 1024;
/// Times the chunk size, 1 MiB per run waits for its reader at most.
pub(super) const CHUNKS_MAX: usize = 16;
/// How long a pipe may stay silent and open after the tool's end, all its silences together.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// What may lie in a pipe at the tool's end: the kernel lets nobody but root make one larger, unless it was told otherwise.
const LEFT_BYTES_MAX: u64 = 1 << 20;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output. Bytes, not lines, and not necessarily text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it was written.
    pub stream: Stream,
    /// At most 64 KiB.
    pub bytes: Bytes,
}

/// Makes a pipe: our end and the tool's.
pub(super) fn open() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    // A tool is another user than the one who made the pipe, so one that is told to write to `/dev/stdout` could not open it.
    rustix::fs::fchmod(&writer, Mode::WUSR | Mode::WGRP | Mode::WOTH)?;
    Ok((reader, writer))
}

/// What both pipes of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Bytes that may still be passed on.
    pub(super) room: Arc<AtomicU64>,
    pub(super) truncated: Arc<AtomicBool>,
    /// Cancelled at the first byte above the limit.
    pub(super) overflow: CancellationToken,
    /// Cancelled when the tree is gone.
    pub(super) ended: CancellationToken,
    /// Cancelled when nobody wants the output any more.
    pub(super) abandoned: CancellationToken,
}

/// What is taken of a pipe after the tool's end.
struct Rest {
    ended: Option<Instant>,
    silent: Duration,
    bytes: u64,
}

impl Rest {
    /// Notes a read that was begun then and is done now.
    fn note(&mut self, begun: Instant, now: Instant, bytes: u64) {
        let ended = *self.ended.get_or_insert(now);
        self.silent = self.silent.saturating_add(now.saturating_duration_since(begun.max(ended)));
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Reads one pipe to its end. Answers the bytes read.
pub(super) async fn pump<R: AsyncRead + Unpin>(mut pipe: R, stream: Stream, shared: &Shared, to: mpsc::Sender<Chunk>) -> u64 {
    let mut total = 0u64;
    let mut buffer = vec![0; CHUNK_BYTES_FIRST];
    let mut rest = Rest { ended: None, silent: Duration::ZERO, bytes: 0 };
    loop {
        let silence = async {
            shared.ended.cancelled().await;
            tokio::time::sleep(SILENCE_MAX.saturating_sub(rest.silent)).await;
        };
        let begun = Instant::now();
        let count = tokio::select! {
            biased;
            read = pipe.read(&mut buffer) => read.unwrap_or(0),
            () = silence => 0,
        };
        if shared.ended.is_cancelled() {
            rest.note(begun, Instant::now(), count as u64);
        }
        if count == 0 || rest.bytes > LEFT_BYTES_MAX {
            return total;
        }
        total = total.saturating_add(count as u64);
        let filled = count == buffer.len();
        let room = take(&shared.room, count as u64);
        if room < count as u64 {
            shared.truncated.store(true, Ordering::Relaxed);
            shared.overflow.cancel();
        }
        // Copied, so that a chunk of one byte does not keep a whole buffer.
        let bytes = Bytes::copy_from_slice(buffer.get(..usize::try_from(room).unwrap_or(0)).unwrap_or_default());
        if !bytes.is_empty() {
            // A reader that is gone is no reason to stop reading.
            tokio::select! {
                _ = to.send(Chunk { stream, bytes }) => {}
                () = shared.abandoned.cancelled() => {}
            }
        }
        if filled && buffer.len() < CHUNK_BYTES_MAX {
            buffer.resize(CHUNK_BYTES_MAX, 0);
        }
    }
}

/// Takes up to `wanted` from the room that is left.
fn take(room: &AtomicU64, wanted: u64) -> u64 {
    let before = room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(wanted)));
    before.unwrap_or(0).min(wanted)
}

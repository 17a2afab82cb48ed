//! Bytes both ways between a tool and the host it reached.
//!
//! Always true: a tunnel ends when both ways have ended, when either fails, when nothing has moved for the idle time, or when the session has used up its bytes. It
//! holds two buffers and nothing else, and bytes wait in them only as long as the other side does not read.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::counters::{EgressCounters, Way};

/// One read; larger gains little on a socket and costs each tunnel twice.
const BUFFER_BYTES: usize = 16 * 1024;

/// When something last moved.
struct Activity {
    begun: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { begun: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self) {
        self.last_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// Returns when nothing has moved for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let quiet = Duration::from_millis(self.elapsed_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)));
            let rest = limit.saturating_sub(quiet);
            if rest.is_zero() {
                return;
            }
            tokio::time::sleep(rest).await;
        }
    }
}

/// Copies until one of the ends named above; the error says which.
pub(super) async fn run(
    mut tool: TcpStream,
    early: BytesMut,
    mut host: TcpStream,
    counters: &EgressCounters,
    idle: Duration,
) -> io::Result<()> {
    let activity = Activity::new();
    let (tool_reads, tool_writes) = tool.split();
    let (host_reads, host_writes) = host.split();
    let up = pump((&early[..]).chain(tool_reads), host_writes, Way::Up, counters, &activity);
    let down = pump(host_reads, tool_writes, Way::Down, counters, &activity);
    tokio::select! {
        ended = async { tokio::try_join!(up, down) } => ended.map(|_| ()),
        () = activity.idle(idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    counters: &EgressCounters,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        if from.read_buf(&mut buffer).await? == 0 {
            return to.shutdown().await;
        }
        if !counters.take(way, buffer.len()) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        activity.note();
        to.write_all(&buffer).await?;
        activity.note();
    }
}

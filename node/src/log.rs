//! Sends the log of one execution: what is kept of it, then what comes, until its end.

use std::time::Duration;

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{LogFrame, LogRequest};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::line::PeerStream;
use crate::output::Logs;

/// A follower that takes nothing for so long is gone.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);

/// Follows a log on a stream, until its end or the follower's.
pub(crate) async fn follow(mut stream: PeerStream, request: LogRequest, logs: &Logs) {
    let Some(mut news) = logs.news(request.execution) else {
        let fault = Fault::new(FaultCode::NOT_FOUND, "there is no log of this execution; it has not started, or its session is gone");
        put(&mut stream, &LogFrame::Refused(fault)).await;
        return finish(stream).await;
    };
    let mut from = request.from;
    loop {
        // Marked as seen before looking, so that nothing that comes in between is missed.
        news.borrow_and_update();
        let batch = logs.batch(request.execution, from);
        if let Some(first) = batch.gap {
            from = first;
            if !put(&mut stream, &LogFrame::Gap { next: first }).await {
                return;
            }
        }
        let is_empty = batch.chunks.is_empty();
        for chunk in batch.chunks {
            from = chunk.sequence.saturating_add(1);
            let frame = LogFrame::Chunk { sequence: chunk.sequence, at: chunk.at, stream: chunk.stream, bytes: chunk.bytes.to_vec() };
            if !put(&mut stream, &frame).await {
                return;
            }
        }
        if batch.ended {
            put(&mut stream, &LogFrame::End).await;
            return finish(stream).await;
        }
        if is_empty && !wait(&mut stream, &mut news).await {
            return;
        }
    }
}

/// Waits for more; false when the follower has gone, or says something that it has no reason to say.
async fn wait(stream: &mut PeerStream, news: &mut tokio::sync::watch::Receiver<()>) -> bool {
    tokio::select! {
        changed = news.changed() => changed.is_ok(),
        _ = stream.raw().read_u8() => false,
    }
}

async fn put(stream: &mut PeerStream, frame: &LogFrame) -> bool {
    matches!(timeout(WRITE_TIME_MAX, stream.send(frame)).await, Ok(Ok(())))
}

async fn finish(mut stream: PeerStream) {
    // What was to be said is said; a follower that is gone already has not missed it.
    let _ = timeout(WRITE_TIME_MAX, stream.finish()).await;
}

//! One client's connection: HTTP/1 with a bounded head, a deadline for it, and an end the client gets to see.
//!
//! Always true: an answer sent before the whole body had arrived is still readable by the client, because the rest of
//! the body is taken in for a short while instead of being answered with a reset.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::config::DoorLimits;
use crate::stall::{PatientBody, PatientStream};

/// How long the rest of a refused body is taken in: a client on the same machine needs milliseconds to notice.
const LINGER: Duration = Duration::from_secs(2);

/// How much of a refused body is taken in.
const LINGER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The least head buffer the HTTP library takes.
const HEADER_BYTES_MIN: usize = 8192;

/// The whole answer to a connection too many.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\n\
    content-length: 154\r\n\
    cache-control: no-store\r\n\
    x-content-type-options: nosniff\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\r\n\
    {\"type\":\"urn:orien:problem:too_many_connections\",\"title\":\"Too many connections are open\",\
    \"status\":503,\"code\":\"too_many_connections\",\"retryAfterSeconds\":1}";

/// Serves one connection until the client is done, breaks a limit, or `stop` is cancelled and the request in flight,
/// if any, is answered.
pub(crate) async fn serve(stream: TcpStream, router: Router, limits: DoorLimits, stop: CancellationToken) {
    // Small answers and events are sent as they come.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let unread = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let unread = Arc::clone(&unread);
        move |request: hyper::Request<Incoming>| {
            let body = |incoming| Body::new(PatientBody::new(incoming, limits.body_stall, Arc::clone(&unread)));
            router.clone().oneshot(request.map(body)).map(|answer| answer.map_err(|never: Infallible| never)).boxed()
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes.max(HEADER_BYTES_MIN))
        .serve_connection(TokioIo::new(PatientStream::new(stream, limits.write_stall)), service);

    let mut stopping = false;
    let ended = loop {
        let ended = tokio::select! {
            ended = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(ended),
            () = stop.cancelled(), if !stopping => None,
        };
        match ended {
            Some(ended) => break ended,
            None => {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let garbage = match ended {
        Ok(()) => false,
        Err(error) => {
            tracing::debug!(%error, "a connection ended early");
            error.is_parse()
        }
    };
    let mut stream = connection.into_parts().io.into_inner();
    close(&mut stream, garbage || unread.load(Ordering::Relaxed)).await;
}

/// Tells a client that there are too many and closes.
pub(crate) async fn refuse(stream: TcpStream, limits: DoorLimits) {
    let mut stream = PatientStream::new(stream, limits.write_stall.min(LINGER));
    if stream.write_all(BUSY).await.is_ok() {
        close(&mut stream, true).await;
    }
}

/// Ends the answer; with `linger`, takes in what the client is still sending so that it can read that answer.
async fn close(stream: &mut PatientStream, linger: bool) {
    if stream.shutdown().await.is_err() || !linger {
        return;
    }
    let mut rest = stream.take(LINGER_BYTES_MAX);
    let taken = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    if taken.is_err() {
        tracing::debug!("a client kept sending after its answer");
    }
}

#[cfg(test)]
mod tests {
    use super::BUSY;

    #[test]
    fn the_busy_answer_states_its_own_length() {
        let text = String::from_utf8_lossy(BUSY);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(text.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}

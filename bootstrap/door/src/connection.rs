//! One client's connection: HTTP/1 with a bounded head, a deadline for it, and an end the client gets to see.
//!
//! Always true: an answer sent before the whole body had arrived is still readable by the client, because the rest of
//! the body is taken in for a short while instead of being answered with a reset.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use futures::FutureExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::config::DoorLimits;
use crate::places::{InFlight, Place};
use crate::request::Transport;
use crate::stall::{PatientBody, PatientStream};
use crate::tls::{self, HANDSHAKE};

/// How long the rest of a refused body is taken in: a client on the same machine needs milliseconds to notice.
const LINGER: Duration = Duration::from_secs(2);

/// How much of a refused body is taken in.
const LINGER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The least head buffer the HTTP library takes.
const HEADER_BYTES_MIN: usize = 8192;

/// Answers to those who were not let in.
const STRANGERS: [StatusCode; 3] = [StatusCode::UNAUTHORIZED, StatusCode::MISDIRECTED_REQUEST, StatusCode::TOO_MANY_REQUESTS];

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

/// The whole answer to somebody on another machine who does not speak TLS to a door that does.
const TLS_NEEDED: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: application/problem+json\r\n\
    content-length: 118\r\n\
    connection: close\r\n\r\n\
    {\"type\":\"urn:orien:problem:tls_required\",\"title\":\"This door speaks TLS: use https\",\
    \"status\":400,\"code\":\"tls_required\"}";

/// What every connection of a door works with.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) router: Router,
    pub(crate) limits: DoorLimits,
    pub(crate) tls: Option<TlsAcceptor>,
    /// Cancelled when the door is told to stop.
    pub(crate) stop: CancellationToken,
}

/// Serves one connection until the client is done, breaks a limit, has to leave its place to another, or the door stops and the request in flight, if any, is
/// answered.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, place: Place, serving: Serving) {
    // Small answers and events are sent as they come.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let place = Arc::new(place);
    tokio::select! {
        () = place.taken_away() => tracing::debug!("an idle connection left its place to another"),
        () = welcome(stream, peer, &place, serving) => {}
    }
}

/// Finds out whether the client speaks TLS, if the door does.
async fn welcome(stream: TcpStream, peer: SocketAddr, place: &Arc<Place>, serving: Serving) {
    let Some(tls) = serving.tls.clone() else { return talk(stream, place, serving, Transport { is_tls: false }).await };
    let patience = serving.limits.header_timeout;
    let mut first = [0];
    match tokio::time::timeout(patience, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first[0] == HANDSHAKE => match tokio::time::timeout(patience, tls.accept(stream)).await {
            Ok(Ok(stream)) => talk(stream, place, serving, Transport { is_tls: true }).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
        Ok(Ok(1)) if stream.local_addr().is_ok_and(|local| tls::is_from_here(peer, local)) => {
            talk(stream, place, serving, Transport { is_tls: false }).await;
        }
        Ok(Ok(1)) => {
            let mut stream = PatientStream::new(stream, LINGER);
            if stream.write_all(TLS_NEEDED).await.is_ok() {
                close(&mut stream, true).await;
            }
        }
        _ => {}
    }
}

async fn talk<S>(stream: S, place: &Arc<Place>, serving: Serving, transport: Transport)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Serving { router, limits, stop, .. } = serving;
    let unread = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let (unread, place) = (Arc::clone(&unread), Arc::clone(place));
        move |mut request: hyper::Request<Incoming>| {
            let in_flight = place.begin();
            request.extensions_mut().insert(transport);
            let body = |incoming| Body::new(PatientBody::new(incoming, limits.body_stall, Arc::clone(&unread)));
            let answering = router.clone().oneshot(request.map(body));
            async move {
                let answer = answering.await?;
                if !STRANGERS.contains(&answer.status()) {
                    in_flight.was_let_in();
                }
                Ok::<_, Infallible>(answer.map(|body| Body::new(Answering { body, _in_flight: in_flight })))
            }
            .boxed()
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

/// A body for whose length a request is in flight.
struct Answering {
    body: Body,
    _in_flight: InFlight,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Tells a client that there are too many and closes.
pub(crate) async fn refuse(stream: TcpStream, limits: DoorLimits) {
    let mut stream = PatientStream::new(stream, limits.write_stall.min(LINGER));
    if stream.write_all(BUSY).await.is_ok() {
        close(&mut stream, true).await;
    }
}

/// Ends the answer; with `linger`, takes in what the client is still sending so that it can read that answer.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut PatientStream<S>, linger: bool) {
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
    use super::{BUSY, TLS_NEEDED};

    #[test]
    fn a_fixed_answer_states_its_own_length() {
        for answer in [BUSY, TLS_NEEDED] {
            let text = String::from_utf8_lossy(answer);
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            assert!(text.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
        }
    }
}

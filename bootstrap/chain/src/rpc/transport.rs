//! JSON-RPC over HTTP with bounds: an answer longer than allowed is broken off, redirections are not followed. How long is waited is up to the caller.

use std::task::{Context, Poll};
use std::time::Duration;

use alloy_json_rpc::{RequestPacket, ResponsePacket};
use alloy_transport::{TransportError, TransportErrorKind, TransportFut};
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use tower::Service;
use url::Url;

use crate::error::ChainError;
use crate::facts::{ChainLimits, RpcUrl};

/// Longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A node over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct BoundedHttp {
    client: Client,
    url: Url,
    limit: usize,
}

impl BoundedHttp {
    /// `limit` is the longest answer that is read, in bytes.
    pub(crate) fn new(url: &RpcUrl, limits: &ChainLimits, limit: usize) -> Result<Self, ChainError> {
        // One for the whole process; whoever was first chose the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(limits.in_flight);
        if url.is_loopback() {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| ChainError::Config(format!("no client for {url}: {error}")))?;
        Ok(Self { client, url: url.url().clone(), limit })
    }

    async fn ask(self, request: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let body = serde_json::to_vec(&request).map_err(TransportError::ser_err)?;
        let sent = self.client.post(self.url).header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body).send();
        // The texts of this library may hold the whole address.
        let mut answer = sent.await.map_err(|error| TransportErrorKind::custom(error.without_url()))?;
        let status = answer.status();
        let retry_after = retry_after(&answer);
        let body = read(&mut answer, self.limit).await?;
        let packet = serde_json::from_slice::<ResponsePacket>(&body);
        if status == StatusCode::TOO_MANY_REQUESTS || retry_after.is_some() && !status.is_success() {
            return Err(TransportErrorKind::http_error_with_retry_after(status.as_u16(), String::new(), retry_after));
        }
        match packet {
            Ok(packet) if status.is_success() || packet.is_error() => Ok(packet),
            Ok(_) => Err(TransportErrorKind::http_error(status.as_u16(), String::new())),
            Err(_) if !status.is_success() => Err(TransportErrorKind::http_error(status.as_u16(), String::new())),
            Err(error) => Err(TransportError::deser_err(error, String::from_utf8_lossy(&body[..body.len().min(120)]))),
        }
    }
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The body, if it is not longer than `limit`.
async fn read(answer: &mut Response, limit: usize) -> Result<Vec<u8>, TransportError> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| TransportErrorKind::custom(error.without_url()))? {
        if body.len() + piece.len() > limit {
            return Err(TransportErrorKind::custom(Oversized { limit }));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// An answer is longer than is taken.
#[derive(Debug, thiserror::Error)]
#[error("the answer is longer than {limit} bytes")]
pub(crate) struct Oversized {
    pub(crate) limit: usize,
}

impl Service<RequestPacket> for BoundedHttp {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> Self::Future {
        Box::pin(self.clone().ask(request))
    }
}

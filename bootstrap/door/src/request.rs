//! What the door knows of one request and hands to routes and extractors: its id, and when to stop.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::HeaderName;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use tokio_util::sync::CancellationToken;

use crate::config::DoorLimits;

/// The header that carries a request id in and out.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of a request id taken from a caller: enough for a UUID or a trace id with a prefix.
const REQUEST_ID_CHARS_MAX: usize = 64;

/// The name of one request in answers and logs: the caller's own if it is sane, else one made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id's text: 1 to 64 printable ASCII characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The caller's id, if it is one and it is sane.
    fn given(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(X_REQUEST_ID)?.to_str().ok()?;
        let sane = (1..=REQUEST_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        sane.then(|| Self(text.into()))
    }

    /// The id as a header value.
    pub(crate) fn header_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let inside = parts.extensions.get::<RequestContext>().map(|context| context.id.clone());
        Ok(inside.unwrap_or_else(|| Self("req_outside_a_door".into())))
    }
}

/// How a request came in. Put into every request's extensions by the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Transport {
    /// Whether it was encrypted on its way.
    pub(crate) is_tls: bool,
}

impl<S: Sync> FromRequestParts<S> for Transport {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_default())
    }
}

/// Makes request ids that no other door and no other request of this one has.
#[derive(Debug)]
pub(crate) struct RequestIds {
    door: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// A source whose ids are told apart from other doors' by a random number.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { door: getrandom::u64()?, next: AtomicU64::new(1) })
    }

    /// The id of a request with these headers.
    pub(crate) fn of(&self, headers: &HeaderMap) -> RequestId {
        RequestId::given(headers).unwrap_or_else(|| {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            RequestId(format!("req_{:016x}{number:08x}", self.door).into())
        })
    }
}

/// Put into every request's extensions by the guard.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pub(crate) id: RequestId,
    /// Cancelled when the door is told to stop.
    pub(crate) stop: CancellationToken,
    /// See [`DoorLimits::keep_alive`].
    pub(crate) keep_alive: Duration,
}

impl RequestContext {
    /// The context of a request, or one that never stops for a route that is called without a door.
    pub(crate) fn of(parts: &Parts) -> Self {
        parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self {
            id: RequestId("req_outside_a_door".into()),
            stop: CancellationToken::new(),
            keep_alive: DoorLimits::default().keep_alive,
        })
    }
}

//! A stream of events as a response: server-sent events, or one JSON object per line for programs that ask for it.
//!
//! Always true: the response ends when the stream does or when the door is told to stop, and is never silent for longer
//! than the door's keep-alive. Nothing is buffered here: a slow reader slows the stream it reads.
//!
//! Does not know what happened before `Last-Event-ID`: replaying is the route's business.

use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;
use crate::request::RequestContext;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const NDJSON: &str = "application/x-ndjson";

/// How long a browser waits before it connects again, milliseconds. The door is on its own machine.
const RETRY_MS: u32 = 1000;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    id: Option<u64>,
    name: &'static str,
    data: Value,
}

impl Event {
    /// An event that is not counted, so that a reader who comes back is not told to resume after it.
    #[must_use]
    pub fn new(name: &'static str, data: impl Into<Value>) -> Self {
        Self { id: None, name, data: data.into() }
    }

    /// The event with this number, after which a reader may resume.
    #[must_use]
    pub fn numbered(id: u64, name: &'static str, data: impl Into<Value>) -> Self {
        Self { id: Some(id), name, data: data.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Sse,
    Ndjson,
}

impl Format {
    fn of(headers: &HeaderMap) -> Self {
        let wanted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut kinds = wanted.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
        if kinds.any(|kind| kind.trim().eq_ignore_ascii_case(NDJSON)) { Self::Ndjson } else { Self::Sse }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
            Self::Ndjson => NDJSON,
        }
    }

    fn event(self, event: Event) -> Bytes {
        let Event { id, name, data } = event;
        // JSON on one line cannot break the frame it is put into.
        match (self, id) {
            (Self::Sse, Some(id)) => format!("id: {id}\nevent: {name}\ndata: {data}\n\n").into(),
            (Self::Sse, None) => format!("event: {name}\ndata: {data}\n\n").into(),
            (Self::Ndjson, Some(id)) => format!("{}\n", json!({ "id": id, "event": name, "data": data })).into(),
            (Self::Ndjson, None) => format!("{}\n", json!({ "event": name, "data": data })).into(),
        }
    }

    fn keep_alive(self) -> Bytes {
        match self {
            Self::Sse => Bytes::from_static(b": keep-alive\n\n"),
            // An empty line would break readers that parse every line.
            Self::Ndjson => Bytes::from_static(b"{\"event\":\"keep_alive\"}\n"),
        }
    }
}

/// A caller who wants to follow events: extracted from the request, then answered with [`Follow::respond`].
#[derive(Clone, Debug)]
pub struct Follow {
    last_event_id: Option<u64>,
    format: Format,
    stop: CancellationToken,
    keep_alive: Duration,
}

impl Follow {
    /// The number of the last event the caller has, if it says so.
    #[must_use]
    pub fn last_event_id(&self) -> Option<u64> {
        self.last_event_id
    }

    /// Answers with the events of `stream` until it ends or the door stops.
    pub fn respond(self, stream: impl Stream<Item = Event> + Send + 'static) -> Response {
        let format = self.format;
        let body = Body::from_stream(stream::unfold(
            Following { follow: self, stream: stream.boxed(), begun: format == Format::Ndjson },
            Following::turn,
        ));
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static(format.content_type())),
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ];
        (headers, body).into_response()
    }

    /// Answers a caller who has everything already (204): a browser does not connect again after it.
    #[must_use]
    pub fn finished(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Follow {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let last_event_id = match parts.headers.get(LAST_EVENT_ID).map(HeaderValue::to_str) {
            None | Some(Ok("")) => None,
            Some(text) => Some(text.ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                Problem::new(StatusCode::BAD_REQUEST, "invalid_last_event_id", "The Last-Event-ID is not a number")
                    .detail("Send the id of the last event that was received, or no Last-Event-ID at all.")
            })?),
        };
        let RequestContext { stop, keep_alive, .. } = RequestContext::of(parts);
        Ok(Self { last_event_id, format: Format::of(&parts.headers), stop, keep_alive })
    }
}

/// The state of a response that is being sent.
struct Following {
    follow: Follow,
    stream: BoxStream<'static, Event>,
    begun: bool,
}

impl Following {
    /// The next piece of the response.
    async fn turn(mut self) -> Option<(Result<Bytes, std::convert::Infallible>, Self)> {
        if !self.begun {
            // Said at once, so that the caller sees the response begin before anything happens.
            self.begun = true;
            return Some((Ok(format!("retry: {RETRY_MS}\n\n").into()), self));
        }
        let piece = tokio::select! {
            biased;
            () = self.follow.stop.cancelled() => return None,
            event = self.stream.next() => self.follow.format.event(event?),
            () = tokio::time::sleep(self.follow.keep_alive) => self.follow.format.keep_alive(),
        };
        Some((Ok(piece), self))
    }
}

//! What routes take out of requests, with every rejection a problem.
//!
//! Always true: a rejection names what was wrong in the caller's terms, with line and column for JSON, and never more
//! of the program than the names of its fields.

use std::error::Error;
use std::fmt;

use axum::RequestExt;
use axum::body::HttpBody;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::scope::{Caller, OWNER};
use crate::stall::is_stall;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Characters of an idempotency key: ample for a UUID or a hash with a prefix, small enough to keep for a day.
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// A JSON body, in and out.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let announced = request.body().size_hint().lower();
        let request = request.with_limited_body();
        // One that says itself that it is too large is not waited for.
        if request.body().size_hint().upper().is_some_and(|most| most < announced) {
            return Err(too_large());
        }
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(json_problem(&rejection)),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                Problem::internal().into_response()
            }
        }
    }
}

fn json_problem(rejection: &JsonRejection) -> Problem {
    match rejection {
        JsonRejection::JsonSyntaxError(error) => {
            Problem::new(StatusCode::BAD_REQUEST, "malformed_json", "The body is not JSON").detail(cause(&error.body_text()))
        }
        JsonRejection::JsonDataError(error) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", "The body is not what this route takes")
                .detail(cause(&error.body_text()))
        }
        JsonRejection::MissingJsonContentType(_) => {
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body must be JSON")
                .detail("Send 'Content-Type: application/json'.")
        }
        JsonRejection::BytesRejection(BytesRejection::FailedToBufferBody(failed)) => unread_body(failed),
        other => unreadable(other),
    }
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large")
        .detail("This route takes a small body; files go through the upload routes.")
}

fn unread_body(failed: &FailedToBufferBody) -> Problem {
    if matches!(failed, FailedToBufferBody::LengthLimitError(_)) {
        return too_large();
    }
    if is_stall(failed) {
        return Problem::new(StatusCode::REQUEST_TIMEOUT, "body_stalled", "The body did not arrive")
            .detail("Nothing of the body came in for too long.");
    }
    unreadable(failed)
}

fn unreadable(error: &dyn Error) -> Problem {
    tracing::debug!(%error, "a body cannot be read");
    Problem::new(StatusCode::BAD_REQUEST, "unreadable_body", "The body cannot be read")
}

/// What the parser said, without the general sentence that axum puts before it.
fn cause(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, cause)| cause)
}

/// The query of the request's address.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_query", "The query is not what this route takes")
                .detail(cause(&rejection.body_text()))),
        }
    }
}

/// The variable parts of the request's path.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(failed)) if failed.status().is_client_error() => {
                Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_path", "The path is not what this route takes")
                    .detail(cause(&failed.body_text())))
            }
            Err(rejection) => {
                // The route and its extractor disagree: our mistake, not the caller's.
                tracing::error!(error = %rejection, "a route cannot read its own path");
                Err(Problem::internal())
            }
        }
    }
}

/// The caller's own name for an operation that must not happen twice. Taken as an `Option` it may be absent; one that
/// is present is checked either way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    caller: String,
    key: String,
}

impl IdempotencyKey {
    /// The key: 1 to 255 printable ASCII characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.key
    }

    /// Whose key it is: two callers may choose the same one and never see each other's answers.
    #[must_use]
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// A key that a caller has chosen in another way than by the header; none if it is not 1 to 255 printable ASCII characters.
    #[must_use]
    pub fn new(caller: &Caller, key: &str) -> Option<Self> {
        is_sane(key).then(|| Self { caller: caller.id().to_owned(), key: key.to_owned() })
    }

    fn of(parts: &Parts) -> Result<Option<Self>, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        // Without a door in front there is only the owner.
        let caller = parts.extensions.get::<Caller>().map_or_else(|| OWNER.to_owned(), |caller| caller.id().to_owned());
        match value.to_str().ok().filter(|text| is_sane(text)) {
            Some(text) if values.next().is_none() => Ok(Some(Self { caller, key: text.to_owned() })),
            _ => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", "The Idempotency-Key cannot be used")
                .detail("Send one Idempotency-Key of 1 to 255 printable ASCII characters.")),
        }
    }
}

fn is_sane(key: &str) -> bool {
    (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.key)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(parts)?.ok_or_else(|| {
            Problem::new(StatusCode::BAD_REQUEST, "idempotency_key_required", "An Idempotency-Key is required").detail(
                "This request can cost money: send an Idempotency-Key header with a name of your own for it, and the \
                 same one when you repeat it.",
            )
        })
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        Self::of(parts)
    }
}

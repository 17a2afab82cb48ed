//! An error as a caller sees it: `application/problem+json` (RFC 9457) with a stable code.
//!
//! Always true: `code` is the part a program may rely on; the request id and the path are filled in by the door on the
//! way out; no extra member can replace one of the standard ones.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::request::RequestId;

/// Before the code in `type`.
const TYPE_PREFIX: &str = "urn:orien:problem:";

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Characters of a request path echoed as `instance`; a longer one is left out.
const INSTANCE_CHARS_MAX: usize = 512;

/// An error answer. Build with [`Problem::new`], return as a response or an extractor's rejection.
#[derive(Clone, Debug)]
pub struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    code: Cow<'static, str>,
    title: Cow<'static, str>,
    detail: Option<String>,
    instance: Option<String>,
    extra: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem with a stable snake_case `code` and a `title` that is the same for every occurrence.
    #[must_use]
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, title: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            status,
            code: code.into(),
            title: title.into(),
            detail: None,
            instance: None,
            extra: Map::new(),
            headers: HeaderMap::new(),
        }))
    }

    /// The answer for a fault of ours: says nothing but where to look.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The request failed inside the program")
            .detail("The cause is in the program's log under this request id.")
    }

    /// What was wrong this time, and what to do about it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// The resource the problem is about, if not the request's path.
    #[must_use]
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.0.instance = Some(instance.into());
        self
    }

    /// An extra member, such as a missing amount. A standard member's name is not replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.extra.insert(name.into(), value.into());
        self
    }

    /// A header the answer carries.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// When trying again makes sense, as header and as member `retryAfterSeconds`.
    #[must_use]
    pub fn retry_after_seconds(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds)).with("retryAfterSeconds", seconds)
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The problem an error status without a body stands for.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let title = status.canonical_reason().unwrap_or("The request failed");
        match status {
            StatusCode::NOT_FOUND => Self::new(status, "not_found", "There is nothing here"),
            StatusCode::METHOD_NOT_ALLOWED => Self::new(status, "method_not_allowed", "This method is not allowed here")
                .detail("The Allow header names the methods that are."),
            StatusCode::INTERNAL_SERVER_ERROR => Self::internal(),
            _ => {
                let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
                let code = words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_");
                Self::new(status, code, title)
            }
        }
    }

    /// The JSON of the problem as an answer to a request.
    fn render(&self, request: Option<&RequestId>) -> String {
        let inner = &*self.0;
        let mut members = inner.extra.clone();
        let mut set = |name: &str, value: Option<Value>| match value {
            Some(value) => members.insert(name.to_owned(), value),
            None => members.remove(name),
        };
        set("type", Some(format!("{TYPE_PREFIX}{}", inner.code).into()));
        set("title", Some(inner.title.as_ref().into()));
        set("status", Some(inner.status.as_u16().into()));
        set("code", Some(inner.code.as_ref().into()));
        set("detail", inner.detail.as_deref().map(Value::from));
        set("instance", inner.instance.as_deref().map(Value::from));
        set("requestId", request.map(|id| id.as_str().into()));
        Value::Object(members).to_string()
    }

    /// Completes a response on its way out: an error without a body becomes a problem, and a problem learns which
    /// request it answers.
    pub(crate) fn complete(mut response: Response, request: &RequestId, path: &str) -> Response {
        let problem = match response.extensions_mut().remove::<Self>() {
            Some(problem) => problem,
            None if is_bare_error(&response) => Self::of_status(response.status()),
            None => return response,
        };
        let problem = match problem.0.instance {
            None if path.len() <= INSTANCE_CHARS_MAX => problem.instance(path),
            _ => problem,
        };
        // A route that answers HEAD has stated the length of the body as it was.
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
        *response.body_mut() = Body::from(problem.render(Some(request)));
        response
    }
}

/// Whether a response is an error that says nothing more.
fn is_bare_error(response: &Response) -> bool {
    let failed = response.status().is_client_error() || response.status().is_server_error();
    let empty = axum::body::HttpBody::size_hint(response.body()).exact() == Some(0);
    failed && empty && !response.headers().contains_key(CONTENT_TYPE)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.render(None)));
        *response.status_mut() = self.0.status;
        *response.headers_mut() = self.0.headers.clone();
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
        // The door takes it out again to complete it.
        response.extensions_mut().insert(self);
        response
    }
}

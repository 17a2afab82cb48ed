//! The one seam of the MCP part: sending a request to the gateway's own HTTP API on behalf of a caller.
//!
//! Always true: a tool call does nothing that is not such a request, so checks, errors, idempotency and budgets are those of the API, whether the API is in this
//! process or behind a socket.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request, Response, request};
use orien_door::Reentry;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::remote::Remote;

/// Largest JSON answer that is read: a full list of providers with all their tools.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The API as one caller finds it.
#[derive(Clone, Debug)]
pub(super) enum Api {
    /// In this process, through the door by which the caller came.
    Inside(Reentry),
    /// Behind the door of a gateway on this machine, with a token.
    Remote(Arc<Remote>),
}

impl Api {
    /// What stands before a path to make it an address that the caller could use itself.
    pub(super) fn base(&self) -> String {
        match self {
            Self::Inside(reentry) => format!("http://{}", reentry.host().unwrap_or("127.0.0.1")),
            Self::Remote(remote) => remote.base().to_owned(),
        }
    }

    /// Sends a request and answers with whatever comes, unless it is a problem.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let response = match self {
            Self::Inside(reentry) => reentry.send(request).await.map_err(|_| Failure::unreachable("the gateway is stopping"))?,
            Self::Remote(remote) => remote.send(request).await?,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), ANSWER_BYTES).await.unwrap_or_default();
        Err(Failure::of_problem(status, &body))
    }

    /// Reads JSON.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(ask(Method::GET, path), Body::empty()).await
    }

    /// Posts JSON under an idempotency key and reads JSON.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize, key: &str) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::internal(&error))?;
        let request = ask(Method::POST, path).header(CONTENT_TYPE, "application/json").header("idempotency-key", key);
        self.json(request, Body::from(body)).await
    }

    async fn json<T: DeserializeOwned>(&self, request: request::Builder, body: Body) -> Result<T, Failure> {
        let request = request.body(body).map_err(|error| Failure::internal(&error))?;
        let response = self.send(request).await?;
        let bytes = to_bytes(response.into_body(), ANSWER_BYTES).await.map_err(|_| Failure::unreachable("its answer broke off"))?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::internal(&error))
    }
}

/// A request to be completed.
pub(super) fn ask(method: Method, path: &str) -> request::Builder {
    Request::builder().method(method).uri(path)
}

/// A text as one segment of a path or one value of a query.
pub(super) fn segment(text: &str) -> String {
    encoded(text, false)
}

/// A path in a workspace as the end of a path of the API.
pub(super) fn tail(path: &str) -> String {
    encoded(path, true)
}

fn encoded(text: &str, slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (slashes && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A query out of what was given; nothing if nothing was.
pub(super) fn query(parts: &[(&str, Option<String>)]) -> String {
    let given: Vec<String> =
        parts.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", segment(value)))).collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_caller_names_leaves_its_place_in_an_address() {
        assert_eq!(segment("a/b?c#d e"), "a%2Fb%3Fc%23d%20e");
        assert_eq!(tail("a/b?c/../d\u{e4}"), "a/b%3Fc/../d%C3%A4");
        assert_eq!(query(&[("a", None), ("b", Some("x&y=z".to_owned())), ("c", Some(String::new()))]), "?b=x%26y%3Dz&c=");
        assert_eq!(query(&[("a", None)]), "");
    }
}

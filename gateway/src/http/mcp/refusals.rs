//! What the transport refuses before a message is looked at, as a problem like every other refusal of this door.
//!
//! Always true: answers that are JSON-RPC pass as they are, for clients read those; statuses that the protocol's transport gives a meaning (404 for a connection that is not there any more, 405)
//! stay as they are.

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use orien_door::Problem;

/// What is read of a refusal in plain text.
const TEXT_BYTES: usize = 4096;

/// The answer, as a problem if it is a refusal in plain text.
pub(super) async fn told(response: Response, was_json: bool) -> Response {
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !(status.is_client_error() || status.is_server_error()) || kind.contains("json") || kind.contains("event-stream") {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(Body::new(body), TEXT_BYTES).await.unwrap_or_default();
    let mut answer = problem(status, was_json, &String::from_utf8_lossy(&text)).into_response();
    if let Some(allow) = parts.headers.get(ALLOW) {
        answer.headers_mut().insert(ALLOW, allow.clone());
    }
    answer
}

/// The problem that a plain refusal is.
fn problem(status: StatusCode, was_json: bool, text: &str) -> Problem {
    let detail = text.trim();
    let detail = detail.split_once(": ").filter(|(before, _)| before.eq_ignore_ascii_case(status.canonical_reason().unwrap_or_default()));
    let detail = detail.map_or(text.trim(), |(_, after)| after).to_owned();
    let told = |status, code: &'static str, title: &'static str| Problem::new(status, code, title).detail(detail.clone());
    match status {
        // The transport says so of a body that it cannot read, whatever its type is.
        StatusCode::UNSUPPORTED_MEDIA_TYPE if was_json => {
            let detail = detail.replace("fail to deserialize request body", "The body is not one message of JSON-RPC:");
            Problem::new(StatusCode::BAD_REQUEST, "invalid_message", "The message cannot be read").detail(detail)
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => told(status, "unsupported_media_type", "The body must be JSON"),
        StatusCode::NOT_FOUND => told(status, "connection_not_found", "There is no such MCP connection; begin with initialize"),
        StatusCode::METHOD_NOT_ALLOWED => told(status, "method_not_allowed", "This is not possible here"),
        StatusCode::NOT_ACCEPTABLE => told(status, "not_acceptable", "The caller has to take JSON and event streams"),
        StatusCode::PAYLOAD_TOO_LARGE => told(status, "body_too_large", "The message is too large"),
        status if status.is_server_error() => {
            Problem::new(status, "internal", "The request failed inside the program").detail("The cause is in the program's log.")
        }
        status => told(status, "invalid_message", "The message cannot be taken"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plain_refusals_become_problems_and_the_protocols_own_answers_pass() {
        let plain = |status: u16, text: &'static str| Response::builder().status(status).body(Body::from(text)).unwrap();
        for (status, was_json, expected, code) in [
            (415, true, 400, "invalid_message"),
            (415, false, 415, "unsupported_media_type"),
            (400, true, 400, "invalid_message"),
            (404, true, 404, "connection_not_found"),
            (405, true, 405, "method_not_allowed"),
            (406, true, 406, "not_acceptable"),
            (413, true, 413, "body_too_large"),
            (500, true, 500, "internal"),
        ] {
            let answer = told(plain(status, "Bad Request: something"), was_json).await;
            assert_eq!(
                (answer.status().as_u16(), answer.headers()[CONTENT_TYPE].to_str().unwrap()),
                (expected, "application/problem+json")
            );
            let body = to_bytes(answer.into_body(), TEXT_BYTES).await.unwrap();
            assert!(String::from_utf8_lossy(&body).contains(&format!("\"{code}\"")), "{status}: {body:?}");
        }
        let own = Response::builder().status(400).header(CONTENT_TYPE, "application/json").body(Body::from("{}")).unwrap();
        assert_eq!(to_bytes(told(own, true).await.into_body(), 9).await.unwrap(), "{}");
        assert_eq!(told(plain(202, ""), true).await.status(), 202);
    }
}

//! The frame of an HTML page: the least that is valid, with a policy under which nothing foreign loads or runs.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// Marks the inline style and script elements of one page as ours: `<script nonce="..">`.
#[derive(Clone, Debug)]
pub struct Nonce(String);

impl Nonce {
    /// A nonce for one response.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn random() -> Result<Self, Problem> {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            tracing::error!(%error, "no random bytes for a nonce");
            Problem::internal()
        })?;
        Ok(Self(hex::encode(bytes)))
    }

    /// The value of the `nonce` attribute.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A page with this title (escaped here) and body (HTML as it is: escape what others wrote with [`escape`]). Without a
/// nonce it can have no inline style or script at all.
#[must_use]
pub fn page(title: &str, body_html: &str, nonce: Option<&Nonce>) -> Response {
    let inline = nonce.map_or(String::new(), |nonce| format!(" 'nonce-{}'", nonce.as_str()));
    let policy = format!(
        "default-src 'none'; script-src 'self'{inline}; style-src 'self'{inline}; img-src 'self' data:; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    let Ok(policy) = HeaderValue::try_from(policy) else {
        return Problem::internal().into_response();
    };
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n</head>\n<body>\n{body_html}\n</body>\n</html>\n",
        escape(title)
    );
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    (StatusCode::OK, [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, policy)], html).into_response()
}

/// Text as it must be written in HTML, in an element or a quoted attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

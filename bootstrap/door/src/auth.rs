//! Who may come in: the one place where a caller's right to a route is decided.
//!
//! Always true: a route is closed unless it was named open, an open route is open for reading only, and no answer
//! contains the token or depends in time on how much of it was guessed.
//!
//! Does not know where a request came from; that is decided before by [`crate::host`].

use std::collections::BTreeSet;
use std::path::PathBuf;

use axum::extract::{MatchedPath, Request};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};

use crate::problem::Problem;
use crate::token::Token;

/// The scheme of the `Authorization` header, compared without case.
const SCHEME: &[u8] = b"bearer ";

/// The token, the file a caller finds it in, and the routes that need none.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) token: Token,
    pub(crate) token_file: PathBuf,
    pub(crate) open_routes: BTreeSet<String>,
}

impl Auth {
    /// Lets the request pass, or says what it lacks.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Problem> {
        if self.is_open(request) {
            return Ok(());
        }
        let mut presented = request.headers().get_all(AUTHORIZATION).iter();
        let reason = match (presented.next(), presented.next()) {
            (None, _) => "The request has no Authorization header.",
            (Some(_), Some(_)) => "The request has more than one Authorization header.",
            (Some(value), None) => match bearer(value) {
                Some(token) if self.token.matches(token) => return Ok(()),
                Some(_) => "The token is not this door's.",
                None => "The Authorization header is not of the form 'Bearer <token>'.",
            },
        };
        Err(self.unauthorized(reason))
    }

    fn is_open(&self, request: &Request) -> bool {
        let reads = *request.method() == Method::GET || *request.method() == Method::HEAD;
        reads && request.extensions().get::<MatchedPath>().is_some_and(|path| self.open_routes.contains(path.as_str()))
    }

    fn unauthorized(&self, reason: &str) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is required")
            .detail(format!("{reason} Send 'Authorization: Bearer <token>'; the token is in the file {}.", self.token_file.display()))
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"orien\""))
    }
}

/// The token in an `Authorization` value.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

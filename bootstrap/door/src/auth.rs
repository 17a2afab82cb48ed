//! Who may come in: the one place where a caller is recognised and its right to a route is decided.
//!
//! Always true: a route is closed unless its [`Access`] opens it; no answer contains a secret or depends in time on how much of one was guessed; somebody who
//! keeps guessing is slowed down and nobody else.
//!
//! Does not know where a request came from; that is decided before by [`crate::host`].

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};

use crate::access::Access;
use crate::config::DoorLimits;
use crate::host;
use crate::login::Logins;
use crate::problem::Problem;
use crate::rate::Rate;
use crate::scope::Caller;
use crate::token::Token;
use crate::tokens::{Entry, Presented, Tokens};

/// The scheme of the `Authorization` header, compared without case.
const SCHEME: &[u8] = b"bearer ";

/// Every credential of a door, and what its routes take.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) token: Token,
    pub(crate) token_file: PathBuf,
    pub(crate) access: Access,
    pub(crate) tokens: Tokens,
    pub(crate) logins: Arc<Logins>,
    owner: Rate,
    failures: Rate,
}

/// A caller that was let in.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    pub(crate) caller: Caller,
    /// The token it holds, unless it is the owner.
    pub(crate) token: Option<Arc<Entry>>,
    is_cookie: bool,
}

impl Pass {
    fn owner(is_cookie: bool) -> Self {
        Self { caller: Caller::owner(), token: None, is_cookie }
    }

    /// Returns when the token is taken back or its time is over; for the owner, never.
    pub(crate) async fn ended(&self) {
        let Some(token) = &self.token else { return std::future::pending().await };
        match token.remaining() {
            None => token.revoked.cancelled().await,
            Some(remaining) => tokio::select! {
                () = token.revoked.cancelled() => {}
                () = tokio::time::sleep(remaining) => {}
            },
        }
    }
}

/// Why nobody was recognised.
struct Stranger {
    code: &'static str,
    reason: &'static str,
}

impl Auth {
    pub(crate) fn new(token: Token, token_file: PathBuf, tokens: Tokens, logins: Logins, limits: &DoorLimits) -> Self {
        Self {
            token,
            token_file,
            access: Access::new(),
            tokens,
            logins: Arc::new(logins),
            owner: Rate::per_second(limits.requests_per_second),
            failures: Rate::per_second(limits.failures_per_second),
        }
    }

    /// Lets the request pass, with who makes it if that is known, or says what it lacks.
    pub(crate) fn check(&self, request: &Request) -> Result<Option<Pass>, Problem> {
        let found = self.recognise(request);
        let Some(needed) = self.access.needed(request) else { return Ok(found.ok()) };
        match found {
            Ok(pass) => {
                let rate = pass.token.as_ref().map_or(&self.owner, |token| &token.rate);
                rate.take("This token is used more often than it may be.")?;
                if pass.is_cookie {
                    host::check_own_page(request)?;
                }
                pass.caller.require(needed)?;
                Ok(Some(pass))
            }
            Err(stranger) => {
                self.failures.take("Too many requests came without a good token.")?;
                Err(self.unauthorized(&stranger))
            }
        }
    }

    fn recognise(&self, request: &Request) -> Result<Pass, Stranger> {
        let unauthorized = |reason| Err(Stranger { code: "unauthorized", reason });
        let mut presented = request.headers().get_all(AUTHORIZATION).iter();
        match (presented.next(), presented.next()) {
            (None, _) if self.logins.is_logged_in(request.headers()) => Ok(Pass::owner(true)),
            (None, _) if self.logins.has_cookie(request.headers()) => unauthorized("The login of this browser has ended."),
            (None, _) => unauthorized("The request has no Authorization header."),
            (Some(_), Some(_)) => unauthorized("The request has more than one Authorization header."),
            (Some(value), None) => match bearer(value) {
                None => unauthorized("The Authorization header is not of the form 'Bearer <token>'."),
                Some(token) if self.token.matches(token) => Ok(Pass::owner(false)),
                Some(token) => match self.tokens.judge(token) {
                    Presented::Good(entry) => Ok(Pass { caller: entry.caller.clone(), token: Some(entry), is_cookie: false }),
                    Presented::Expired => Err(Stranger { code: "token_expired", reason: "The time of this token is over." }),
                    Presented::Unknown => unauthorized("The token is not one of this door's, or was taken back."),
                },
            },
        }
    }

    fn unauthorized(&self, stranger: &Stranger) -> Problem {
        let Stranger { code, reason } = *stranger;
        let title = if code == "token_expired" { "The token has expired" } else { "A token is required" };
        Problem::new(StatusCode::UNAUTHORIZED, code, title)
            // Whoever has no token may be a stranger: it is not told where on this machine anything is.
            .detail(format!(
                "{reason} Send 'Authorization: Bearer <token>'; the owner finds one in the file door.token of the role's data directory, and \
                 `orien token create` makes others."
            ))
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"orien\""))
    }

    /// The answer to a caller whose token was taken back, or ended, in the middle of a request.
    pub(crate) fn no_longer(&self) -> Problem {
        self.unauthorized(&Stranger { code: "unauthorized", reason: "The token was taken back, or its time is over." })
    }
}

/// The token in an `Authorization` value.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

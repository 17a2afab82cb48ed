//! The door's own routes, the same behind every role: tokens, and the way in for browsers.
//!
//! Always true: a secret is in one answer only, the one to whoever asked for it; reading changes nothing, but for a login link, which is there to be used up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::access::Access;
use crate::extract::{Json, Path, Query};
use crate::login::Logins;
use crate::millionths::Millionths;
use crate::page::page;
use crate::problem::Problem;
use crate::request::Transport;
use crate::scope::Scope;
use crate::tokens::{NewToken, TokenError, TokenInfo, Tokens, now};

/// Where a login link leads.
const LOGIN: &str = "/login";
const LOGOUT: &str = "/logout";
const TOKENS: &str = "/api/tokens";
const TOKEN: &str = "/api/tokens/{id}";
const LOGIN_LINKS: &str = "/api/login-links";
const FAVICON: &str = "/favicon.ico";

/// The mark in a browser's tab: without one, every page would begin with a failed request.
const ICON: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 16 16\"><rect width=\"16\" height=\"16\" rx=\"3\" fill=\"#1a1a2e\"/>\
    <circle cx=\"8\" cy=\"8\" r=\"4\" fill=\"none\" stroke=\"#f2b632\" stroke-width=\"2\"/></svg>";

/// What the routes work with.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) tokens: Tokens,
    pub(crate) logins: Arc<Logins>,
}

/// What they take.
pub(crate) fn access(access: Access) -> Access {
    access
        .open(LOGIN)
        .open(FAVICON)
        .post(LOGOUT, Scope::Read)
        .get(TOKENS, Scope::Admin)
        .post(TOKENS, Scope::Admin)
        .method(Method::DELETE, TOKEN, Scope::Admin)
        .post(LOGIN_LINKS, Scope::Admin)
}

pub(crate) fn routes(own: Own) -> Router {
    Router::new()
        .route(TOKENS, get(list).post(create))
        .route(TOKEN, delete(revoke))
        .route(LOGIN_LINKS, post(link))
        .route(LOGIN, get(log_in))
        .route(LOGOUT, post(log_out))
        .route(FAVICON, get(icon))
        .with_state(own)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenJson {
    id: String,
    name: String,
    scopes: BTreeSet<Scope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cap: Option<Millionths>,
    created_at: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
    is_expired: bool,
    /// The secret: in the answer to whoever made it, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl TokenJson {
    fn new(info: TokenInfo, token: Option<String>) -> Self {
        Self {
            id: info.id,
            name: info.name,
            scopes: info.scopes,
            cap: info.cap.map(Millionths),
            created_at: rfc3339(info.created_at),
            expires_at: info.expires_at.map(rfc3339),
            last_used_at: info.last_used_at.map(rfc3339),
            is_expired: info.expires_at.is_some_and(|at| at <= now()),
            token,
        }
    }
}

#[derive(Serialize)]
struct TokensJson {
    tokens: Vec<TokenJson>,
}

async fn list(State(own): State<Own>) -> Json<TokensJson> {
    Json(TokensJson { tokens: own.tokens.list().into_iter().map(|info| TokenJson::new(info, None)).collect() })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewTokenBody {
    name: String,
    scopes: BTreeSet<Scope>,
    cap: Option<Millionths>,
    expires_in_seconds: Option<u64>,
}

async fn create(State(own): State<Own>, Json(body): Json<NewTokenBody>) -> Result<(StatusCode, Json<TokenJson>), Problem> {
    let wanted = NewToken {
        name: body.name,
        scopes: body.scopes,
        cap: body.cap.map(|cap| cap.0),
        life: body.expires_in_seconds.map(Duration::from_secs),
    };
    let made = on_disk(move || own.tokens.create(wanted)).await?;
    let (info, secret) = made.map_err(|error| match error {
        TokenError::Invalid(fault) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", "The body is not what this route takes").detail(fault)
        }
        TokenError::Full => Problem::new(StatusCode::CONFLICT, "too_many_tokens", "There are too many tokens").detail(error.to_string()),
        TokenError::File(_) | TokenError::Random => failed(&error),
    })?;
    tracing::info!(token = info.id, name = info.name, "a token was made");
    Ok((StatusCode::CREATED, Json(TokenJson::new(info, Some(secret.expose().to_owned())))))
}

async fn revoke(State(own): State<Own>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let sought = id.clone();
    if on_disk(move || own.tokens.revoke(&sought)).await?.map_err(|error| failed(&error))? {
        tracing::info!(token = id, "a token was taken back");
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(StatusCode::NOT_FOUND, "token_not_found", "There is no such token").detail("GET /api/tokens lists those there are."))
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "a request for tokens or logins failed");
    Problem::internal()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkJson {
    url: String,
    expires_at: String,
}

async fn link(State(own): State<Own>, transport: Transport, headers: HeaderMap) -> Result<(StatusCode, Json<LinkJson>), Problem> {
    let code = own.logins.mint().map_err(|error| failed(&error))?;
    // The door has found this name to be one of its own.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).ok_or_else(Problem::internal)?;
    let scheme = if transport.is_tls { "https" } else { "http" };
    let expires_at = rfc3339(now().saturating_add(own.logins.code_time().as_secs()));
    Ok((StatusCode::CREATED, Json(LinkJson { url: format!("{scheme}://{host}{LOGIN}?code={code}"), expires_at })))
}

#[derive(Deserialize)]
struct Code {
    #[serde(default)]
    code: String,
}

async fn log_in(
    State(own): State<Own>,
    method: Method,
    transport: Transport,
    Query(Code { code }): Query<Code>,
) -> Result<Response, Problem> {
    // A look at the link (HEAD) does not use it up.
    let cookie = match method {
        Method::GET => own.logins.log_in(&code, transport.is_tls).map_err(|error| failed(&error))?,
        _ => return Ok(StatusCode::NO_CONTENT.into_response()),
    };
    let Some(cookie) = cookie else {
        let mut answer = page(
            "ORIEN: this link no longer works",
            "<h1>This link no longer works</h1>\n<p>It has been used, or its time is over. Run <code>orien open</code> for a new one.</p>",
            None,
        );
        *answer.status_mut() = StatusCode::GONE;
        return Ok(answer);
    };
    Ok(leave_for_home(&cookie))
}

async fn log_out(State(own): State<Own>, transport: Transport, headers: HeaderMap) -> Response {
    let cookie = own.logins.log_out(&headers, transport.is_tls);
    if wants_page(&headers) {
        return leave_for_home(&cookie);
    }
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response()
}

fn leave_for_home(cookie: &str) -> Response {
    (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, "/")]).into_response()
}

async fn icon() -> Response {
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("image/svg+xml")), (CACHE_CONTROL, HeaderValue::from_static("max-age=86400"))];
    (headers, ICON).into_response()
}

/// Whether it is a person who asks, by a browser.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")))
}

/// What a browser without a login is shown.
pub(crate) fn please_log_in() -> Response {
    page(
        "ORIEN: please log in",
        "<h1>Please log in</h1>\n<p>Run <code>orien open</code> on the machine that this runs on: it prints a link that lets this browser in once.</p>\n\
         <p>Programs send <code>Authorization: Bearer</code> and a token instead.</p>",
        None,
    )
}

fn rfc3339(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

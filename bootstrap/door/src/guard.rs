//! What happens around every route, in one readable order: id, host, origin, caller and scope, the route (or its panic, or the end of the caller's token),
//! then problem, headers and log line on the way out.
//!
//! Always true: whatever a route does, the caller gets a complete answer with a request id and safe headers, and the
//! log gets one line that holds neither a token nor a query.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use crate::auth::{Auth, Pass};
use crate::host::Hosts;
use crate::own;
use crate::problem::Problem;
use crate::reentry::WayIn;
use crate::request::{RequestContext, RequestId, RequestIds, X_REQUEST_ID};

/// What a response may load and who may frame it, unless its route says otherwise: nothing and nobody.
const CSP_CLOSED: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Everything the guard decides by.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) auth: Auth,
    pub(crate) hosts: Hosts,
    pub(crate) ids: RequestIds,
    pub(crate) way_in: WayIn,
    pub(crate) stop: CancellationToken,
    pub(crate) keep_alive: Duration,
}

impl Guard {
    /// The role's routes with the guard around them.
    pub(crate) fn around(self, router: Router, body_bytes: usize) -> Router {
        router.layer(DefaultBodyLimit::max(body_bytes)).layer(from_fn_with_state(Arc::new(self), pass))
    }

    fn admit(&self, request: &Request) -> Result<Option<Pass>, Problem> {
        self.hosts.check_host(request)?;
        self.hosts.check_origin(request)?;
        self.auth.check(request)
    }

    /// Goes on with a request, its answer included, for as long as the caller's token is good.
    async fn while_good<E>(&self, pass: Pass, answering: impl Future<Output = Result<Response, E>>) -> Result<Response, E> {
        let answer = tokio::select! {
            biased;
            () = pass.ended() => return Ok(self.auth.no_longer().into_response()),
            answer = answering => answer?,
        };
        let (head, body) = answer.into_parts();
        let ended = async move { pass.ended().await }.boxed();
        Ok(Response::from_parts(head, Body::new(WhileGood { body, ended })))
    }
}

/// A body that breaks off when the token it is for ends.
struct WhileGood {
    body: Body,
    ended: BoxFuture<'static, ()>,
}

impl HttpBody for WhileGood {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => self.ended.as_mut().poll(context).map(|()| Some(Err(axum::Error::new("the token has ended")))),
            ready => ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn pass(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = guard.ids.of(request.headers());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // The pattern, not what was asked for: that may hold somebody's secret.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);

    let response = match guard.admit(&request) {
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED && own::wants_page(request.headers()) => {
            let mut shown = own::please_log_in();
            *shown.status_mut() = StatusCode::UNAUTHORIZED;
            shown
        }
        Err(problem) => problem.into_response(),
        Ok(pass) => {
            let context = RequestContext { id: id.clone(), stop: guard.stop.clone(), keep_alive: guard.keep_alive };
            request.extensions_mut().insert(context);
            let reentry = guard.way_in.of(request.headers(), &id);
            request.extensions_mut().insert(reentry);
            let token = pass.filter(|pass| {
                request.extensions_mut().insert(pass.caller.clone());
                pass.token.is_some()
            });
            let answering = AssertUnwindSafe(next.run(request)).catch_unwind();
            let answer = match token {
                None => answering.await,
                Some(pass) => guard.while_good(pass, answering).await,
            };
            answer.unwrap_or_else(|_| {
                tracing::error!(route, request = %id, "a route panicked");
                Problem::internal().into_response()
            })
        }
    };

    let mut response = Problem::complete(response, &id, &path);
    set_headers(response.headers_mut(), &id);
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(%method, route, status = response.status().as_u16(), ms, request = %id, "request");
    response
}

fn set_headers(headers: &mut HeaderMap, id: &RequestId) {
    let fixed = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(CSP_CLOSED);
    if let Some(value) = id.header_value() {
        headers.insert(X_REQUEST_ID, value);
    }
}

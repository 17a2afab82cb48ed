//! Whose session it is, for callers who do not hold every right.
//!
//! | Scope | Sees | Uses (runs, files, input, cancel) | Raises, extends, ends |
//! | --- | --- | --- | --- |
//! | `read` | every session of this gateway | none | none |
//! | `run` | every session | every session | none |
//! | `spend` | every session | what it opened | what it opened |
//! | `admin` | every session | every session | every session |
//!
//! Always true: whatever changes a session passes here, whichever route it came by; what a spender can cost its owner is bounded by its cap, for it uses
//! nobody else's budget.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use orien_door::{Caller, Scope};
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;

use super::{App, Shared, no_session, runs};
use crate::rows::Refusal;
use crate::spending::{CommitError, Spender};

/// What is done to a session as a whole; everything else uses it.
const AS_A_WHOLE: [&str; 3] = ["topup", "extend", "end"];

/// In front of every route that names a session or an execution in its path.
pub(super) async fn check(State(app): Shared, request: Request, next: Next) -> Response {
    // No caller: the route is open, or no door stands in front.
    let caller = request.extensions().get::<Caller>().filter(|_| !request.method().is_safe()).cloned();
    let Some(caller) = caller else { return next.run(request).await };
    let path = request.uri().path().to_owned();
    match judge(&app, &caller, &path).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn judge(app: &Arc<App>, caller: &Caller, path: &str) -> Result<(), Refusal> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["", "api", "sessions", id, rest @ ..] => {
            let is_whole = rest.first().is_none_or(|word| AS_A_WHOLE.contains(word));
            allow(app, caller, id, is_whole).await
        }
        ["", "executions", id, ..] if !holds(caller, false) => {
            let (_, row) = runs::find(app, id).await?;
            allow_in(app, caller, row.session, false).await
        }
        _ => Ok(()),
    }
}

/// Lets a caller use a session that the body of its request names.
pub(super) async fn check_use(app: &Arc<App>, caller: &Caller, session: &str) -> Result<(), Refusal> {
    allow(app, caller, session, false).await
}

async fn allow(app: &Arc<App>, caller: &Caller, session: &str, is_whole: bool) -> Result<(), Refusal> {
    if holds(caller, is_whole) {
        return Ok(());
    }
    let session = session.parse().map_err(|_| no_session(session))?;
    allow_in(app, caller, session, is_whole).await
}

/// Whether a caller may do it to any session.
fn holds(caller: &Caller, is_whole: bool) -> bool {
    caller.holds(if is_whole { Scope::Admin } else { Scope::Run })
}

async fn allow_in(app: &Arc<App>, caller: &Caller, session: SessionId, is_whole: bool) -> Result<(), Refusal> {
    if holds(caller, is_whole) || app.sessions.context.store.opener(session).await?.as_deref() == Some(caller.id()) {
        return Ok(());
    }
    app.view(session).await?;
    let needed = if is_whole { Scope::Admin } else { Scope::Run };
    let detail =
        format!("This token may do that only in sessions that it opened itself. A token with the scope '{needed}' may do it in every one.");
    Err(Refusal::new(StatusCode::FORBIDDEN, "not_your_session", "The session was opened by somebody else", detail))
}

/// Whose cap a request counts against.
pub(super) fn spender(caller: &Caller) -> Spender {
    Spender { id: caller.id().to_owned(), cap: caller.cap().map(Usdc::from_micros) }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) => error.into(),
            CommitError::Cap { missing, .. } => {
                let title = "The token may not commit so much";
                Self { missing: Some(missing), ..Self::new(StatusCode::PAYMENT_REQUIRED, "spend_cap_reached", title, error) }
            }
        }
    }
}

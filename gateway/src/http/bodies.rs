//! What the routes that take JSON make of a body, without a gateway behind them: a door for tests that throw anything at them.
//!
//! Always true: bodies go through the very extractors and checks of the routes; nothing here decides anything of its own.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use orien_protocol::id::ExecutionId;
use orien_protocol::money::Usdc;
use orien_protocol::offer::Tool;
use orien_protocol::session::agent::RunOrder;
use orien_protocol::time::Millis;

use super::sessions::TopUpBody;
use super::wishes::OpenBody;
use super::{Keyed, no_session, runs, session_id};

/// A route that takes JSON.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// `POST /api/sessions`.
    Open,
    /// `POST /api/sessions/{id}/topup`.
    TopUp,
    /// `POST /tools/run` in a session that has these tools.
    Run(&'a [Tool]),
}

/// What a body asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A session with this budget and this time for work.
    Session {
        /// Most that it may cost.
        budget: Usdc,
        /// Time for work.
        expiry: Millis,
    },
    /// A budget raised to this.
    Budget(Usdc),
    /// A run.
    Run(Box<RunOrder>),
}

/// Why it is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// The type of the answer's body.
    pub content_type: String,
}

/// Reads a body as its route does. Providers can only be named by peer id here, for there is no catalogue.
pub fn read(route: Route<'_>, body: Vec<u8>) -> Result<Wanted, Refused> {
    match route {
        Route::Open => {
            let body: OpenBody = take(body)?;
            let request = body.request(|id| id.parse().map_err(|_| no_session(id))).map_err(refused)?;
            Ok(Wanted::Session { budget: request.budget, expiry: request.expiry })
        }
        Route::TopUp => take::<TopUpBody>(body).map(|body| Wanted::Budget(body.budget_allowance.0)),
        Route::Run(tools) => {
            let body: runs::RunBody = take(body)?;
            let session = session_id(&body.session_id).map_err(refused)?;
            let (order, _) = runs::order(tools, body, ExecutionId::from_bytes([0; 16]), session).map_err(refused)?;
            Ok(Wanted::Run(Box::new(order)))
        }
    }
}

fn take<T: serde::de::DeserializeOwned>(body: Vec<u8>) -> Result<T, Refused> {
    let request = Request::post("/").header(CONTENT_TYPE, "application/json").header("idempotency-key", "one").body(Body::from(body));
    let request = request.map_err(|_| refused(no_session("")))?;
    // The whole body is there, so nothing waits.
    match Keyed::<T>::from_request(request, &()).now_or_never() {
        Some(Ok(keyed)) => Ok(keyed.body),
        Some(Err(response)) => Err(of(&response)),
        None => Err(refused(no_session(""))),
    }
}

fn refused(refusal: impl IntoResponse) -> Refused {
    of(&refusal.into_response())
}

fn of(response: &Response) -> Refused {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    Refused { status: response.status().as_u16(), content_type }
}

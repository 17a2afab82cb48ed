//! `/executions/{id}/stdin`: bytes for the standard input of a run that asked for them; and the short text that a run may bring with it.
//!
//! Always true: a byte that was answered as received is the tool's once, whatever breaks: a caller that died goes on at the `received` that it asks for. A tool that does not read makes its
//! sender wait. The text of a run is delivered before the run is answered, and again when the same request is repeated, which changes nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use orien_door::{Json, Path, Query};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::job::Stdin;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::runs::find;
use super::{App, Shared, incoming};
use crate::body::BodyError;
use crate::desk::Desk;
use crate::input::{Failed, Inlet, InputError, Standing};
use crate::rows::{Refusal, SessionFacts};

/// Longest text that a run may bring: less than what a provider takes before the tool reads, so that nobody waits for the tool.
const TEXT_BYTES: usize = 64 * 1024;
/// How long a sender is left to hear from the provider itself that its run is over.
const OVER_GRACE: Duration = Duration::from_secs(3);

/// What a run finds on its standard input.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = RunInput)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object such as {\"text\": \"...\"} or {\"stream\": true}")]
pub(super) struct StdinBody {
    /// All of it, at most 64 KiB.
    text: Option<String>,
    /// True: it is sent by `POST /executions/{id}/stdin`.
    stream: Option<bool>,
}

impl StdinBody {
    /// What the job says.
    pub(super) fn check(&self) -> Result<Stdin, Refusal> {
        match (&self.text, self.stream.unwrap_or(false)) {
            (Some(text), false) if text.len() > TEXT_BYTES => {
                let text = format_args!(
                    "stdin.text has more than {TEXT_BYTES} bytes; say {{\"stream\": true}} and send it to /executions/{{id}}/stdin"
                );
                Err(Fault::new(FaultCode::TOO_LARGE, text).into())
            }
            (Some(_), false) | (None, true) => Ok(Stdin::Streamed),
            (None, false) if self.stream.is_some() => Ok(Stdin::Empty),
            _ => Err(Refusal::invalid("invalid_body", "stdin is either {\"text\": \"...\"} or {\"stream\": true}")),
        }
    }

    /// The text that the run brings.
    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Where {
    /// Where in the whole input the body begins. What was received before is skipped; without it the body goes on where the input stands.
    offset: Option<u64>,
    /// Whether the input ends after this body.
    #[serde(default)]
    end: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Input)]
#[serde(rename_all = "camelCase")]
pub(super) struct InputJson {
    execution_id: String,
    /// Bytes received for the tool so far; it need not have read them.
    received: u64,
    /// Whether the end was received too.
    ended: bool,
}

impl InputJson {
    fn new(execution: ExecutionId, standing: Standing) -> Self {
        Self { execution_id: execution.to_string(), received: standing.total, ended: standing.ended }
    }
}

/// Sends bytes to the standard input of a run.
///
/// The body is passed on as it comes, and waits while the tool does not read. The answer says how many bytes of the whole input are received; so do errors, where it is known.
#[utoipa::path(post, path = "/executions/{id}/stdin", operation_id = "sendInput", tag = "runs", params(Where),
    request_body(content = String, content_type = "application/octet-stream"), responses(
    (status = 200, description = "All of the body is received.", body = InputJson),
    (status = 400, description = "`unreadable_body`"),
    (status = 404, description = "`execution_not_found`"),
    (status = 409, description = "`stdin_not_wanted`, `wrong_state`, `conflict`"),
    (status = 410, description = "`stdin_closed`, `session_ended`"),
    (status = 502, description = "`provider_unreachable`"),
    (status = 503, description = "`busy`, `stopping`"),
))]
pub(super) async fn send(State(app): Shared, Path(id): Path<String>, Query(at): Query<Where>, request: Request) -> Response {
    let body = incoming::bytes(request);
    match pass_on(&app, &id, at, body).await {
        Ok(sent) => Json(sent).into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// How much of the standard input of a run is received.
#[utoipa::path(get, path = "/executions/{id}/stdin", operation_id = "getInput", tag = "runs", responses(
    (status = 200, description = "Where the input stands at the provider.", body = InputJson),
    (status = 404, description = "`execution_not_found`"),
    (status = 409, description = "`stdin_not_wanted`"),
    (status = 410, description = "`stdin_closed`, `session_ended`"),
    (status = 502, description = "`provider_unreachable`"),
))]
pub(super) async fn look(State(app): Shared, Path(id): Path<String>) -> Result<Json<InputJson>, Refused> {
    let (execution, facts, desk) = running(&app, &id).await?;
    let looked = inlet(&app, &facts, &desk, execution).look().await;
    match looked {
        Ok(standing) => Ok(Json(InputJson::new(execution, standing))),
        Err(failed) => Err(refused(&app, execution, failed).await),
    }
}

async fn pass_on(
    app: &Arc<App>,
    id: &str,
    at: Where,
    body: impl Stream<Item = Result<Bytes, BodyError>> + Unpin,
) -> Result<InputJson, Refused> {
    let (execution, facts, desk) = running(app, id).await?;
    let busy = || {
        let text = "Another request sends to this run. Give the offset that yours begins at to take its place.";
        Refusal::new(StatusCode::CONFLICT, "wrong_state", "This is not possible now", text)
    };
    let seat = app.seats.take(execution, at.offset.is_some()).await.ok_or_else(busy)?;
    let inlet = inlet(app, &facts, &desk, execution);
    let sent = tokio::select! {
        sent = inlet.send(at.offset, body, at.end) => sent,
        () = seat.lost() => {
            let text = "Another request has taken the place of this one.";
            return Err(Refusal::new(StatusCode::CONFLICT, "conflict", "This contradicts another request", text).into());
        }
        () = over(&desk, execution) => Err(Failed { error: InputError::Over, received: None }),
        () = app.stopping.cancelled() => {
            let text = "Send it again to the gateway when it is back, from the offset that it then says is received.";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The gateway is stopping", text).into());
        }
    };
    match sent {
        Ok(standing) => Ok(InputJson::new(execution, standing)),
        Err(failed) => Err(refused(app, execution, failed).await),
    }
}

/// Delivers the text that a run brought with it. A tool that ends without reading it is no failure of ours.
pub(super) async fn deliver(app: &App, session: SessionId, execution: ExecutionId, text: String) -> Result<(), Refusal> {
    let Some(desk) = app.sessions.desk(&session) else { return Ok(()) };
    let inlet = inlet(app, &desk.facts, &desk, execution);
    let body = futures::stream::iter([Ok(Bytes::from(text))]);
    let sent = tokio::select! {
        sent = inlet.send(Some(0), body, true) => sent,
        () = over(&desk, execution) => return Ok(()),
    };
    match sent {
        Ok(_) | Err(Failed { error: InputError::Over, .. }) => Ok(()),
        Err(failed) => match refused(app, execution, failed).await.refusal {
            gone if gone.status == StatusCode::GONE.as_u16() => Ok(()),
            refusal => Err(refusal),
        },
    }
}

/// A run that may take input, with its session.
async fn running(app: &App, id: &str) -> Result<(ExecutionId, SessionFacts, Arc<Desk>), Refused> {
    let (execution, row) = find(app, id).await?;
    let desk = app.sessions.desk(&row.session).filter(|_| !row.is_over()).ok_or_else(closed)?;
    Ok((execution, desk.facts.clone(), desk))
}

fn inlet<'a>(app: &'a App, facts: &'a SessionFacts, desk: &Desk, execution: ExecutionId) -> Inlet<'a> {
    let context = &app.sessions.context;
    Inlet { context, provider: facts.provider, addresses: &facts.addresses, session: desk.id, execution }
}

/// Back some time after a run is over, by when its sender should have heard so.
async fn over(desk: &Desk, execution: ExecutionId) {
    // No run lasts as long.
    let _ = desk.wait(Duration::MAX, |state| (!state.runs.contains_key(&execution)).then_some(())).await;
    tokio::time::sleep(OVER_GRACE).await;
}

/// A refusal, with what was received before.
pub(super) struct Refused {
    refusal: Refusal,
    received: Option<u64>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, received: None }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = self.refusal.problem();
        match self.received {
            Some(received) => problem.with("received", received).into_response(),
            None => problem.into_response(),
        }
    }
}

fn closed() -> Refusal {
    let text = "The run is over, or its tool has closed its input; nothing more is taken.";
    Refusal::new(StatusCode::GONE, "stdin_closed", "The input is closed", text)
}

async fn refused(app: &App, execution: ExecutionId, failed: Failed) -> Refused {
    let Failed { error, received } = failed;
    let refusal = match error {
        InputError::Over => closed(),
        // A provider forgets a run that is over some time after its session is.
        InputError::Refused(fault) if fault.code == FaultCode::NOT_FOUND => match app.sessions.execution(execution).await {
            Ok(Some(row)) if !row.is_over() => {
                Refusal::new(StatusCode::CONFLICT, "wrong_state", "This is not possible now", "The provider has not taken this run.")
            }
            Ok(_) => closed(),
            Err(error) => error.into(),
        },
        InputError::Refused(fault) => fault.into(),
        InputError::Body(error) => error.into(),
        InputError::Unreachable(_) => {
            Refusal::new(StatusCode::BAD_GATEWAY, "provider_unreachable", "The provider cannot be reached", error)
        }
    };
    Refused { refusal, received }
}

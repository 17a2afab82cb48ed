//! `/tools` and `/executions`: what can be run, running it, looking at it, stopping it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use orien_bootstrap::clock;
use orien_door::{Caller, Json, Path, Query};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::job::{ARGUMENTS_LIMIT_BYTES, Stdin};
use orien_protocol::money::Usdc;
use orien_protocol::offer::Tool;
use orien_protocol::session::agent::RunOrder;
use orien_protocol::time::Millis;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

use super::idempotency::{Done, Outcome, Ticket};
use super::lists::{Has, answer, cursor, page, page_size};
use super::models::{ExecutionJson, LISTED_ARGS_BYTES, Shown, StartedJson, ToolJson, list as named, run_status};
use super::openapi::KeyHeader;
use super::problems::SUCCESSOR;
use super::stdin::{self, StdinBody};
use super::{App, Keyed, Shared, rights, session_id, shown};
use crate::arguments::Args;
use crate::decimal::{Decimal, Time};
use crate::desk::{Command, Desk};
use crate::lines::TAIL_BYTES;
use crate::plan::Stage;
use crate::rows::{ExecutionRow, Refusal, RunStatus};
use crate::sessions::SessionView;

/// Runs in a list, unless the caller says another number, and the most it may say; and how much of the output of each.
const LIST: (usize, usize) = (200, 1000);
const OUTPUT_LISTED: usize = 1024;
/// Longest JSON of arguments: every byte of the largest ones may need an escape.
const ARGS_BYTES: usize = 4 * ARGUMENTS_LIMIT_BYTES;
/// Longest wait for the end of a run, seconds; a caller that needs more asks again.
const WAIT_SECONDS: u64 = 300;
/// How long a caller waits for the provider's first word on a run.
const HEARD_LIMIT: Duration = Duration::from_secs(5);
/// How much longer for the start, once the provider has taken it.
const STARTED_LIMIT: Duration = Duration::from_millis(50);
/// How long a caller of a finished run waits for the rest of its output.
const OUTPUT_LIMIT: Duration = Duration::from_secs(3);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OfSession {
    session_id: String,
}

/// The tools of a session.
#[utoipa::path(get, path = "/tools", operation_id = "listTools", tag = "runs", params(OfSession), responses(
    (status = 200, description = "What can be run in this session.", content_type = "application/json"),
    (status = 404, description = "`session_not_found`"),
))]
pub(super) async fn tools(State(app): Shared, Query(of): Query<OfSession>) -> Result<Json<Box<RawValue>>, Refusal> {
    let view = app.view(session_id(&of.session_id)?).await?;
    let tools: Vec<ToolJson> = view.facts.tools.iter().map(ToolJson::new).collect();
    named("tools", &tools).map(Json).map_err(|error| Refusal::internal(&error))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = RunRequest)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RunBody {
    pub(super) session_id: String,
    tool_id: String,
    #[serde(default)]
    #[schema(value_type = Object)]
    args: Args,
    max_cost: Option<Decimal>,
    timeout_seconds: Option<u64>,
    /// Seconds to wait for the end, at most 300: the answer is then the whole execution as it stands.
    wait: Option<u64>,
    /// What the tool finds on its standard input; nothing without it.
    stdin: Option<StdinBody>,
}

/// Runs a tool in a session.
#[utoipa::path(post, path = "/tools/run", operation_id = "runTool", tag = "runs", params(KeyHeader), request_body = RunBody, responses(
    (status = 201, description = "The run is taken; it may be over already. With `wait`, the whole execution.", body = StartedJson),
    (status = 402, description = "`budget_exhausted`, `debt`, `unredeemed_limit`; `missing` says how much."),
    (status = 404, description = "`session_not_found`"),
    (status = 409, description = "`in_progress`, `wrong_state`, `bad_receipt`, `conflict`"),
    (status = 410, description = "`session_ended`, `session_replaced` (`successor` is the session that goes on)"),
    (status = 413, description = "`body_too_large`, `too_large`"),
    (status = 415, description = "`unsupported_media_type`"),
    (status = 422, description = "`invalid_body`, `unknown_tool`, `bad_arguments`, `idempotency_mismatch`"),
    (status = 502, description = "`provider_unreachable`"),
    (status = 503, description = "`busy`, `stopping`, `failing_over`"),
))]
pub(super) async fn run(State(app): Shared, caller: Caller, keyed: Keyed<RunBody>) -> Response {
    let Keyed { key, text, body } = keyed;
    if let Err(refusal) = rights::check_use(&app, &caller, &body.session_id).await {
        return refusal.into_response();
    }
    let (own, wait, session) = (Arc::clone(&app), body.wait, body.session_id.parse().ok());
    let running = |ticket: Ticket| async move { start(&own, body, &ticket).await };
    let outcome = app.keys.outcome("POST /tools/run", &key, &[text.get().as_bytes()], running).await;
    match (wait, &outcome.acted) {
        (Some(seconds), Ok(done)) => {
            let acted = waited(&app, session, done, Duration::from_secs(seconds.min(WAIT_SECONDS))).await;
            Outcome { acted, ..outcome }.into_response()
        }
        _ => outcome.into_response(),
    }
}

/// The run that was started, as it stands when it is over or the wait is. Nothing hangs on the caller: the run is as it would be if nobody waited.
async fn waited(app: &App, session: Option<SessionId>, started: &Done, limit: Duration) -> Result<Done, Refusal> {
    let started: Begun = serde_json::from_str(started.body()).map_err(|error| Refusal::internal(&error))?;
    let execution = started.execution_id.parse().map_err(|_| gone(&started.execution_id))?;
    let mut ended = None;
    if let Some(desk) = session.and_then(|session| app.sessions.desk(&session)) {
        // Whoever stops the gateway does not wait for our callers.
        ended = app.stopping.run_until_cancelled(desk.wait_over(execution, limit)).await.flatten();
    }
    let row = match ended {
        Some(row) => row,
        None => find(app, &started.execution_id).await?.1,
    };
    match &row.fault {
        // It never ran, and nobody here wanted that.
        Some(fault) if row.started_at.is_none() && ![FaultCode::CANCELLED, FaultCode::SESSION_ENDED].contains(&fault.code) => {
            Err(fault.clone().into())
        }
        _ => Done::new(StatusCode::CREATED, &whole(app, execution, &row).await?),
    }
}

/// What is needed of the answer to a run that was started.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begun {
    execution_id: String,
}

async fn start(app: &App, body: RunBody, ticket: &Ticket) -> Result<Done, Refusal> {
    let execution = ExecutionId::from_bytes(ticket.seed);
    let text = body.stdin.as_ref().and_then(StdinBody::text).map(str::to_owned);
    if ticket.is_first || app.sessions.execution(execution).await?.is_none() {
        let session = session_id(&body.session_id)?;
        // Input that is still to be delivered is part of what has to be done before there is an answer.
        let is_all = body.wait.is_some() && text.is_none();
        let ended = || Refusal::from(Fault::new(FaultCode::SESSION_ENDED, "the session has ended"));
        let view = app.view(session).await?;
        check_handover(&view)?;
        let desk = app.sessions.desk(&session).ok_or_else(ended)?;
        let (order, row) = order(&view.facts.tools, body, execution, session)?;
        // Whoever waits for the end is answered with what the run is then, so what was known at its beginning is enough to find it again.
        let (along, answered_with) = match is_all {
            true => ticket.mark_answered(begun(execution, &row)?).map(|(put, done)| (put, Some(done)))?,
            false => (ticket.mark()?, None),
        };
        let (answer, answered) = oneshot::channel();
        desk.command(Command::Run { order: Box::new(order), row: Box::new(row), along: Some(along), answer })?;
        if let Err(refusal) = answered.await.map_err(|_| ended()).and_then(|taken| taken.map_err(Refusal::from)) {
            // Its provider may have been lost in this very moment.
            check_handover(&app.view(session).await?)?;
            return Err(refusal);
        }
        if let Some(done) = answered_with {
            return Ok(done);
        }
        wait_heard(&desk, execution).await;
    }
    let row = app.sessions.execution(execution).await?.ok_or_else(|| gone(&execution.to_string()))?;
    if let Some(fault) = row.fault {
        return Err(fault.into());
    }
    if let Some(text) = text {
        stdin::deliver(app, row.session, execution, text).await?;
    }
    begun(execution, &row)
}

/// The answer to a run that was started.
fn begun(execution: ExecutionId, row: &ExecutionRow) -> Result<Done, Refusal> {
    let started = StartedJson {
        execution_id: execution.to_string(),
        status: run_status(row),
        started_at: Time(row.started_at.unwrap_or(row.asked_at)),
    };
    Done::new(StatusCode::CREATED, &started)
}

/// Refuses runs in a session that goes on elsewhere, and says where.
fn check_handover(view: &SessionView) -> Result<(), Refusal> {
    let Some(handover) = &view.handover else { return Ok(()) };
    let refused = |status, code, detail: String| Err(Refusal::new(status, code, "The session goes on elsewhere", detail));
    match &handover.stage {
        Stage::Done(new) => {
            let detail = format!(
                "Its provider was lost ({}). {new} goes on for it with what is left of the budget; files are not carried over and no run is repeated.",
                handover.loss.name()
            );
            let replaced = refused(StatusCode::GONE, "session_replaced", detail);
            replaced.map_err(|refusal: Refusal| Refusal { items: vec![(SUCCESSOR.to_owned(), new.to_string())], ..refusal })
        }
        Stage::Pending => {
            let detail = "Its provider was lost, and another one is being looked for. Look at replacedBy of the session in a moment.";
            let pending = refused(StatusCode::SERVICE_UNAVAILABLE, "failing_over", detail.to_owned());
            pending.map_err(|refusal: Refusal| Refusal { retry_after: Some(1), ..refusal })
        }
        Stage::Failed { code, detail } => {
            let detail = format!("Its provider was lost ({}), and no other could go on for it: {code}: {detail}", handover.loss.name());
            Err(Refusal::from(Fault::new(FaultCode::SESSION_ENDED, detail)))
        }
    }
}

pub(super) fn order(
    tools: &[Tool],
    body: RunBody,
    execution: ExecutionId,
    session: SessionId,
) -> Result<(RunOrder, ExecutionRow), Refusal> {
    let Some(tool) = tools.iter().find(|tool| tool.id == body.tool_id) else {
        let known: Vec<&str> = tools.iter().map(|tool| tool.id.as_str()).collect();
        let text = format!("this session has no tool {}; it has {}", shown(&body.tool_id), known.join(", "));
        return Err(Fault::new(FaultCode::UNKNOWN_TOOL, text).into());
    };
    let args = args_text(&body.args)?;
    let arguments = body.args.bind(tool).map_err(Refusal::bad_arguments)?;
    let longest = tool.max_duration;
    let max_duration = match body.timeout_seconds {
        None => longest,
        Some(0) => return Err(Refusal::invalid("invalid_body", "timeoutSeconds has to be at least 1")),
        Some(seconds) => Millis::from_secs(seconds).min(longest),
    };
    if body.wait.is_some_and(|seconds| seconds > WAIT_SECONDS) {
        return Err(Refusal::invalid("invalid_body", format_args!("wait is at most {WAIT_SECONDS} seconds")));
    }
    let max_cost = body.max_cost.map(some_cost).transpose()?;
    let stdin = body.stdin.as_ref().map_or(Ok(Stdin::Empty), StdinBody::check)?;
    let row = ExecutionRow {
        session,
        tool: body.tool_id.clone(),
        args,
        asked_at: clock::wall(),
        started_at: None,
        completed_at: None,
        status: RunStatus::Pending,
        work: None,
        fault: None,
    };
    Ok((RunOrder { execution, tool: body.tool_id, arguments, max_cost, max_duration, stdin }, row))
}

/// The most that a run may cost: nothing at all would be no run.
pub(super) fn some_cost(amount: Decimal) -> Result<Usdc, Refusal> {
    Some(amount.0).filter(|cost| *cost > Usdc::ZERO).ok_or_else(|| Refusal::invalid("invalid_body", "maxCost has to be more than zero"))
}

/// Arguments as they are kept, if they are not too long.
pub(super) fn args_text(args: &Args) -> Result<String, Refusal> {
    let text = args.to_json();
    if text.len() > ARGS_BYTES {
        return Err(Fault::new(FaultCode::TOO_LARGE, format_args!("args has more than {ARGS_BYTES} bytes")).into());
    }
    Ok(text)
}

/// Waits until the provider has said something about a run; a little longer if it only said that it took it.
async fn wait_heard(desk: &Desk, execution: ExecutionId) {
    let heard = desk.wait(HEARD_LIMIT, |state| (state.heard.contains(&execution) || !state.runs.contains_key(&execution)).then_some(()));
    if heard.await.is_some() {
        let begun =
            |state: &crate::desk::State| state.runs.get(&execution).is_none_or(|row| row.status != RunStatus::Pending).then_some(());
        // One that waits for its turn is answered as pending.
        let _ = desk.wait(STARTED_LIMIT, begun).await;
    }
}

/// A run with the end of its output.
#[utoipa::path(get, path = "/executions/{id}", operation_id = "getExecution", tag = "runs", responses(
    (status = 200, description = "The run as it stands now.", body = ExecutionJson),
    (status = 404, description = "`execution_not_found`"),
))]
pub(super) async fn one(State(app): Shared, Path(id): Path<String>) -> Result<Json<ExecutionJson>, Refusal> {
    let (execution, row) = find(&app, &id).await?;
    whole(&app, execution, &row).await.map(Json)
}

/// A run with its output.
async fn whole(app: &App, execution: ExecutionId, row: &ExecutionRow) -> Result<ExecutionJson, Refusal> {
    if row.is_over()
        && !row.is_abandoned()
        && let Some(log) = app.sessions.context.logs.get(&execution)
    {
        log.wait_ended(OUTPUT_LIMIT).await;
    }
    let output = output(app, execution, row, TAIL_BYTES).await?;
    Ok(ExecutionJson::new(execution, row, output, usize::MAX))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Listing {
    session_id: String,
    #[param(minimum = 1)]
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Executions)]
#[serde(rename_all = "camelCase")]
struct ExecutionsJson {
    executions: Vec<ExecutionJson>,
    next_cursor: Option<String>,
}

/// The runs of a session, newest first.
#[utoipa::path(get, path = "/executions", operation_id = "listExecutions", tag = "runs", params(Listing), responses(
    (status = 200, description = "Runs with little of their output.", body = ExecutionsJson),
    (status = 304, description = "The caller has this list."),
    (status = 404, description = "`session_not_found`"),
))]
pub(super) async fn list(State(app): Shared, has: Has, Query(of): Query<Listing>) -> Result<Response, Refusal> {
    let (session, limit) = (session_id(&of.session_id)?, page_size(of.limit, LIST.0, LIST.1)?);
    app.view(session).await?;
    let (rows, _) = app.sessions.executions(session, cursor(of.cursor.as_deref())?, limit.saturating_add(1)).await?;
    let (rows, next_cursor) = page(rows, limit, |(id, _)| id.to_string());
    let mut executions = Vec::with_capacity(rows.len());
    for (id, row) in rows {
        executions.push(ExecutionJson::new(id, &row, output(&app, id, &row, OUTPUT_LISTED).await?, LISTED_ARGS_BYTES));
    }
    answer(&has, &ExecutionsJson { executions, next_cursor })
}

/// Stops a run. What it has used until then is charged.
#[utoipa::path(post, path = "/executions/{id}/cancel", operation_id = "cancelExecution", tag = "runs", responses(
    (status = 202, description = "It is being stopped, or was over already.", body = ExecutionJson),
    (status = 404, description = "`execution_not_found`"),
    (status = 503, description = "`busy`"),
))]
pub(super) async fn cancel(State(app): Shared, Path(id): Path<String>) -> Result<(StatusCode, Json<ExecutionJson>), Refusal> {
    let (execution, row) = find(&app, &id).await?;
    if !row.is_over()
        && let Some(desk) = app.sessions.desk(&row.session)
    {
        desk.command(Command::Cancel(execution))?;
    }
    let output = output(&app, execution, &row, OUTPUT_LISTED).await?;
    Ok((StatusCode::ACCEPTED, Json(ExecutionJson::new(execution, &row, output, LISTED_ARGS_BYTES))))
}

/// A run that has to be there.
pub(super) async fn find(app: &App, id: &str) -> Result<(ExecutionId, ExecutionRow), Refusal> {
    let execution: ExecutionId = id.parse().map_err(|_| gone(id))?;
    let row = app.sessions.execution(execution).await?.ok_or_else(|| gone(id))?;
    Ok((execution, row))
}

fn gone(id: &str) -> Refusal {
    Refusal::not_found("execution_not_found", "There is no such execution", format!("There is no execution {} at this gateway.", shown(id)))
}

/// The last `limit` bytes of a run's output: as it comes, or as it was kept.
pub(super) async fn output(app: &App, execution: ExecutionId, row: &ExecutionRow, limit: usize) -> Result<Shown, Refusal> {
    let (tail, ended) = match app.sessions.context.logs.get(&execution) {
        Some(log) => (log.tail(), log.has_ended()),
        None => (app.sessions.kept_output(execution, row).await?, true),
    };
    let text = tail.text(limit);
    let whole: usize = tail.lines.iter().map(|line| line.text.len().saturating_add(usize::from(line.ended))).sum();
    Ok(Shown { cut: tail.cut || text.len() < whole, text, hash: tail.hash.filter(|_| ended) })
}

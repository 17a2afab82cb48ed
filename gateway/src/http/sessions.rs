//! `/api/sessions`: opened or only quoted, listed, looked at, raised, extended and ended.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use orien_bootstrap::clock;
use orien_door::{Caller, Json, Path, Query};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::id::SessionId;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

use super::idempotency::Done;
use super::lists::{Has, answer, cursor, invalid, page, page_size};
use super::models::{ExecutionJson, LISTED_ARGS_BYTES, SessionJson, status};
use super::openapi::KeyHeader;
use super::quotes::DryRunJson;
use super::wishes::OpenBody;
use super::{App, Keyed, PerhapsKeyed, Shared, providers, rights, runs, session_id};
use crate::decimal::Decimal;
use crate::desk::{Command, Phase};
use crate::opening::OpenRequest;
use crate::rows::Refusal;
use crate::sessions::SessionView;
use crate::spending::Spender;

/// Sessions in a list, unless the caller says another number, and the most it may say.
const LIST: (usize, usize) = (100, 1000);
/// Runs shown with a session, and how much of the output of each.
const RUNS_SHOWN: usize = 100;
const OUTPUT_SHOWN: usize = 1024;
/// How long a caller waits for the end: the provider may take 30 s for its last receipts.
const END_LIMIT: Duration = Duration::from_secs(35);
/// The same while the provider cannot be reached: it may be away for hours.
const AWAY_LIMIT: Duration = Duration::from_secs(5);
/// How long settlement may take for a top-up.
const TOP_UP_LIMIT: Duration = Duration::from_secs(30);

/// Opens a session with a provider, within a budget.
#[utoipa::path(post, path = "/api/sessions", operation_id = "openSession", tag = "sessions", params(KeyHeader), request_body = OpenBody, responses(
    (status = 200, description = "With `dryRun`: what it would cost and with whom it would be. Needs no key.", body = DryRunJson),
    (status = 201, description = "The session is open.", body = SessionJson),
    (status = 402, description = "`insufficient_funds`, `budget_exhausted`, `debt`, `unredeemed_limit`, `daily_cap`; `missing` says how much."),
    (status = 404, description = "`no_provider`, `provider_not_found`"),
    (status = 409, description = "`in_progress`, `offer_changed`, `clocks_apart`, `times_refused`, `conflict`, `provider_ambiguous`"),
    (status = 413, description = "`body_too_large`; `too_large`: the arguments of `firstRun`."),
    (status = 415, description = "`unsupported_media_type`"),
    (status = 422, description = "`invalid_body`, `idempotency_mismatch`; `bad_arguments`: no provider that fits takes the arguments of `firstRun`."),
    (status = 502, description = "`provider_unreachable`, `settlement_unreachable`"),
    (status = 503, description = "`busy`, `stopping`"),
))]
pub(super) async fn open(State(app): Shared, caller: Caller, asked: PerhapsKeyed<OpenBody>) -> Response {
    let PerhapsKeyed { key, text, body } = asked;
    let is_dry = body.dry_run;
    // A key is asked for first: without one nothing is looked up.
    let key = match key {
        Ok(key) => Some(key),
        Err(_) if is_dry => None,
        Err(problem) => return problem.into_response(),
    };
    let request = match body.request(|id| providers::find(&app, id)) {
        Ok(request) => request,
        Err(refusal) => return refusal.into_response(),
    };
    let spender = rights::spender(&caller);
    let Some(key) = key.filter(|_| !is_dry) else { return quote(&app, &request, &spender).await.into_response() };
    let own = Arc::clone(&app);
    let opening = |ticket: super::idempotency::Ticket| async move {
        // Durable before anything is begun, so that a repetition after a crash finds it.
        own.sessions.context.store.write(vec![ticket.mark()?]).await?;
        let session = own.sessions.open(&OpenRequest { seed: ticket.seed, spender, ..request }).await?;
        Done::new(StatusCode::CREATED, &full(&own, session).await?)
    };
    app.keys.once("POST /api/sessions", &key, &[text.get().as_bytes()], opening).await
}

async fn quote(app: &App, request: &OpenRequest, spender: &Spender) -> Result<Json<DryRunJson>, Refusal> {
    let quote = app.sessions.quote(request, app.account).await?;
    let standing = app.sessions.standing(spender).await?;
    Ok(Json(DryRunJson::new(request, quote, standing)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    /// `active`, `completed`, `expired` or `failed`.
    #[param(pattern = "^(active|completed|expired|failed)$")]
    status: Option<String>,
    /// Only those with this label: `name:value`.
    #[param(pattern = "^[^:]+:.*$")]
    label: Option<String>,
    #[param(minimum = 1)]
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Sessions)]
#[serde(rename_all = "camelCase")]
struct SessionsJson {
    sessions: Vec<SessionJson>,
    next_cursor: Option<String>,
}

/// Sessions, newest first.
#[utoipa::path(get, path = "/api/sessions", operation_id = "listSessions", tag = "sessions", params(Filter), responses(
    (status = 200, description = "Sessions without their runs.", body = SessionsJson),
    (status = 304, description = "The caller has this list."),
))]
pub(super) async fn list(State(app): Shared, has: Has, Query(filter): Query<Filter>) -> Result<Response, Refusal> {
    let limit = page_size(filter.limit, LIST.0, LIST.1)?;
    let wanted = filter.status;
    if let Some(other) = wanted.as_deref().filter(|text| !["active", "completed", "expired", "failed"].contains(text)) {
        return Err(invalid(format_args!("status has to be active, completed, expired or failed, not {}", super::shown(other))));
    }
    let label = filter.label.map(|label| match label.split_once(':') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(invalid("label has to be a name and a value, as name:value")),
    });
    let label = label.transpose()?;
    let take = move |view: &SessionView| {
        let is_labelled = label.as_ref().is_none_or(|(name, value)| view.plan.labels.get(name) == Some(value));
        is_labelled && wanted.as_deref().is_none_or(|wanted| status(view) == wanted)
    };
    let views = app.sessions.list(cursor(filter.cursor.as_deref())?, limit.saturating_add(1), take).await?;
    let (views, next_cursor) = page(views, limit, |view| view.id.to_string());
    let sessions = views.iter().map(|view| SessionJson::new(view, &app.sessions.context.own)).collect();
    answer(&has, &SessionsJson { sessions, next_cursor })
}

/// A session with its newest runs.
#[utoipa::path(get, path = "/api/sessions/{id}", operation_id = "getSession", tag = "sessions", responses(
    (status = 200, description = "The session.", body = SessionJson),
    (status = 404, description = "`session_not_found`"),
))]
pub(super) async fn one(State(app): Shared, Path(id): Path<String>) -> Result<Json<SessionJson>, Refusal> {
    full(&app, session_id(&id)?).await.map(Json)
}

/// A session with its newest runs.
async fn full(app: &App, session: SessionId) -> Result<SessionJson, Refusal> {
    let view = app.view(session).await?;
    let mut json = SessionJson::new(&view, &app.sessions.context.own);
    let (rows, total) = app.sessions.executions(session, None, RUNS_SHOWN).await?;
    json.executions_total = Some(total);
    for (id, row) in rows {
        let output = runs::output(app, id, &row, OUTPUT_SHOWN).await?;
        json.executions.push(ExecutionJson::new(id, &row, output, LISTED_ARGS_BYTES));
    }
    Ok(json)
}

/// Ends a session and waits for its last receipts.
#[utoipa::path(post, path = "/api/sessions/{id}/end", operation_id = "endSession", tag = "sessions", params(KeyHeader), responses(
    (status = 200, description = "The session has ended; `settlement` says how its charge is shared.", body = SessionJson),
    (status = 404, description = "`session_not_found`"),
    (status = 409, description = "`in_progress`"),
    (status = 422, description = "`idempotency_mismatch`"),
    (status = 503, description = "`busy`, `stopping`"),
    (status = 504, description = "`still_ending`: look at the session again later."),
))]
pub(super) async fn end(State(app): Shared, Path(id): Path<String>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let key = match super::key_of(&mut parts).await {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    let session = match session_id(&id) {
        Ok(session) => session,
        Err(refusal) => return refusal.into_response(),
    };
    let own = Arc::clone(&app);
    let ending = |_| async move {
        own.view(session).await?;
        if let Some(desk) = own.sessions.desk(&session) {
            match desk.command(Command::End) {
                Err(fault) if fault.code != FaultCode::SESSION_ENDED => return Err(fault.into()),
                _ => {}
            }
            let closed = |state: &crate::desk::State| (state.phase == Phase::Closed).then_some(());
            let mut is_closed = desk.wait(AWAY_LIMIT, closed).await.is_some();
            let is_reached = desk.read(|state| state.connected);
            if !is_closed && is_reached {
                is_closed = desk.wait(END_LIMIT, closed).await.is_some();
            }
            if !is_closed {
                let detail = match is_reached {
                    true => "The session is ending; its last receipts have not come yet. Look at it again later.",
                    false => {
                        "The session ends as soon as its provider can be reached again, or when nothing of it can be redeemed any more. Look at it again later."
                    }
                };
                return Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "still_ending", "The end takes long", detail));
            }
        }
        Done::new(StatusCode::OK, &full(&own, session).await?)
    };
    app.keys.once("POST /api/sessions/{id}/end", &key, &[id.as_bytes()], ending).await
}

#[derive(Deserialize, ToSchema)]
#[schema(as = TopUpRequest)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TopUpBody {
    /// The new total.
    pub(super) budget_allowance: Decimal,
}

/// Raises the budget of a session to a new total.
#[utoipa::path(post, path = "/api/sessions/{id}/topup", operation_id = "topUpSession", tag = "sessions", params(KeyHeader), request_body = TopUpBody, responses(
    (status = 200, description = "The session with its new budget.", body = SessionJson),
    (status = 402, description = "`insufficient_funds`, `daily_cap`; `missing` says how much."),
    (status = 404, description = "`session_not_found`"),
    (status = 409, description = "`in_progress`, `wrong_state`, `conflict`"),
    (status = 410, description = "`session_ended`"),
    (status = 413, description = "`body_too_large`"),
    (status = 415, description = "`unsupported_media_type`"),
    (status = 422, description = "`invalid_body`, `idempotency_mismatch`"),
    (status = 502, description = "`settlement_unreachable`"),
    (status = 503, description = "`busy`, `stopping`"),
))]
pub(super) async fn top_up(State(app): Shared, caller: Caller, Path(id): Path<String>, keyed: Keyed<TopUpBody>) -> Response {
    let Keyed { key, text, body } = keyed;
    let session = match session_id(&id) {
        Ok(session) => session,
        Err(refusal) => return refusal.into_response(),
    };
    let (own, spender) = (Arc::clone(&app), rights::spender(&caller));
    let raising = |_| async move {
        own.view(session).await?;
        let gone = || Refusal::from(Fault::new(FaultCode::SESSION_ENDED, "the session has ended"));
        let desk = own.sessions.desk(&session).ok_or_else(gone)?;
        let _held = own.sessions.commit(&spender, vec![session], body.budget_allowance.0).await?;
        let (answer, answered) = oneshot::channel();
        desk.command(Command::TopUp { ceiling: body.budget_allowance.0, answer })?;
        match tokio::time::timeout(TOP_UP_LIMIT, answered).await {
            Ok(Ok(raised)) => raised?,
            Ok(Err(_)) => return Err(gone()),
            Err(_) => return Err(super::unreachable_settlement("no answer in time")),
        };
        Done::new(StatusCode::OK, &full(&own, session).await?)
    };
    app.keys.once("POST /api/sessions/{id}/topup", &key, &[id.as_bytes(), text.get().as_bytes()], raising).await
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ExtendRequest)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExtendBody {
    /// The session lasts at least so many seconds from now, or until `extendableUntil` if that is earlier.
    #[schema(minimum = 10, maximum = 28800)]
    expiry_seconds: u64,
}

/// Lets a session go on, at most until `extendableUntil`. It never ends earlier than it would have.
#[utoipa::path(post, path = "/api/sessions/{id}/extend", operation_id = "extendSession", tag = "sessions", params(KeyHeader), request_body = ExtendBody, responses(
    (status = 200, description = "The session with its new `expiresAt`.", body = SessionJson),
    (status = 404, description = "`session_not_found`"),
    (status = 409, description = "`in_progress`, `wrong_state`"),
    (status = 410, description = "`session_ended`"),
    (status = 413, description = "`body_too_large`"),
    (status = 415, description = "`unsupported_media_type`"),
    (status = 422, description = "`invalid_body`, `idempotency_mismatch`"),
    (status = 503, description = "`busy`, `stopping`"),
))]
pub(super) async fn extend(State(app): Shared, Path(id): Path<String>, keyed: Keyed<ExtendBody>) -> Response {
    let Keyed { key, text, body } = keyed;
    let session = match session_id(&id) {
        Ok(session) => session,
        Err(refusal) => return refusal.into_response(),
    };
    let own = Arc::clone(&app);
    let extending = |_| async move {
        let asked = clock::wall().plus(super::wishes::expiry(Some(body.expiry_seconds))?);
        let until = asked.min(own.view(session).await?.facts.work_until.timestamp());
        let gone = || Refusal::from(Fault::new(FaultCode::SESSION_ENDED, "the session has ended"));
        let desk = own.sessions.desk(&session).ok_or_else(gone)?;
        let (answer, answered) = oneshot::channel();
        desk.command(Command::Extend { until, answer })?;
        answered.await.map_err(|_| gone())??;
        Done::new(StatusCode::OK, &full(&own, session).await?)
    };
    app.keys.once("POST /api/sessions/{id}/extend", &key, &[id.as_bytes(), text.get().as_bytes()], extending).await
}

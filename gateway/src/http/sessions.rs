//! `/api/sessions`: opened, listed, looked at, raised and ended.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use orien_door::{Json, Path, Query};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::id::SessionId;
use orien_protocol::offer::Confinement;
use orien_protocol::peer::PeerId;
use orien_protocol::time::Millis;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

use super::idempotency::Done;
use super::lists::{Has, answer, cursor, invalid, page, page_size};
use super::models::{ExecutionJson, LISTED_ARGS_BYTES, SessionJson, status};
use super::openapi::KeyHeader;
use super::{App, Keyed, Shared, providers, runs, session_id};
use crate::decimal::{Decimal, Percent};
use crate::desk::{Command, Phase};
use crate::matching::{Order, Wish, confinement};
use crate::opening::{Choice, OpenRequest};
use crate::rows::Refusal;
use crate::sessions::SessionView;

/// Sessions in a list, unless the caller says another number, and the most it may say.
const LIST: (usize, usize) = (100, 1000);
/// Runs shown with a session, and how much of the output of each.
const RUNS_SHOWN: usize = 100;
const OUTPUT_SHOWN: usize = 1024;
/// Time for work, unless the caller says another: an hour; from 10 s to 8 h (with the time for redemption that fits the usual exit delay of a day).
const EXPIRY_SECONDS: (u64, u64, u64) = (10, 3600, 8 * 3600);
/// Longest mission.
const MISSION_BYTES: usize = 4096;
/// Most tools that a request may name.
const TOOLS_NAMED: usize = 64;
/// How long a caller waits for the end: the provider may take 30 s for its last receipts.
const END_LIMIT: Duration = Duration::from_secs(35);
/// How long settlement may take for a top-up.
const TOP_UP_LIMIT: Duration = Duration::from_secs(30);

#[derive(Deserialize, ToSchema)]
#[schema(as = SessionRequest)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OpenBody {
    provider_id: String,
    budget_allowance: Decimal,
    mission: Option<String>,
    capability: Option<String>,
    #[serde(default)]
    tools: Vec<String>,
    max_price_per_minute: Option<Decimal>,
    min_uptime: Option<Percent>,
    region: Option<String>,
    confinement: Option<String>,
    expiry_seconds: Option<u64>,
}

impl OpenBody {
    /// What is asked for; `find` knows the provider that a name means.
    pub(super) fn request(self, find: impl FnOnce(&str) -> Result<PeerId, Refusal>) -> Result<OpenRequest, Refusal> {
        let (shortest, usual, longest) = EXPIRY_SECONDS;
        let expiry = self.expiry_seconds.unwrap_or(usual);
        if !(shortest..=longest).contains(&expiry) {
            return Err(Refusal::invalid("invalid_body", format_args!("expirySeconds has to be from {shortest} to {longest}")));
        }
        if self.mission.as_ref().is_some_and(|mission| mission.len() > MISSION_BYTES) || self.tools.len() > TOOLS_NAMED {
            return Err(Refusal::invalid(
                "invalid_body",
                format_args!("mission has at most {MISSION_BYTES} bytes, tools at most {TOOLS_NAMED}"),
            ));
        }
        let choice = match self.provider_id.as_str() {
            "auto" => Choice::Auto,
            id => Choice::Named(find(id)?),
        };
        let wish = Wish {
            capability: self.capability,
            tools: self.tools,
            max_price_per_minute: self.max_price_per_minute.map(|amount| amount.0),
            min_uptime_permyriad: self.min_uptime.map(|Percent(share)| share),
            region: self.region,
            min_confinement: self.confinement.as_deref().map(level).transpose()?,
            order: Order::default(),
        };
        Ok(OpenRequest {
            choice,
            budget: self.budget_allowance.0,
            mission: self.mission,
            wish,
            expiry: Millis::from_secs(expiry),
            seed: [0; 16],
        })
    }
}

fn level(name: &str) -> Result<Confinement, Refusal> {
    let detail = || format!("confinement has to be S0, S1, S2 or S3, not {}", super::shown(name));
    confinement(name).ok_or_else(|| Refusal::invalid("invalid_body", detail()))
}

/// Opens a session with a provider, within a budget.
#[utoipa::path(post, path = "/api/sessions", operation_id = "openSession", tag = "sessions", params(KeyHeader), request_body = OpenBody, responses(
    (status = 201, description = "The session is open.", body = SessionJson),
    (status = 402, description = "`insufficient_funds`, `budget_exhausted`, `debt`, `unredeemed_limit`, `daily_cap`; `missing` says how much."),
    (status = 404, description = "`no_provider`, `provider_not_found`"),
    (status = 409, description = "`in_progress`, `offer_changed`, `clocks_apart`, `times`, `conflict`, `provider_ambiguous`"),
    (status = 413, description = "`body_too_large`"),
    (status = 415, description = "`unsupported_media_type`"),
    (status = 422, description = "`invalid_body`, `idempotency_mismatch`"),
    (status = 502, description = "`provider_unreachable`, `settlement_unreachable`"),
    (status = 503, description = "`busy`, `stopping`"),
))]
pub(super) async fn open(State(app): Shared, keyed: Keyed<OpenBody>) -> Response {
    let Keyed { key, text, body } = keyed;
    let request = match body.request(|id| providers::find(&app, id)) {
        Ok(request) => request,
        Err(refusal) => return refusal.into_response(),
    };
    let own = Arc::clone(&app);
    let opening = |ticket: super::idempotency::Ticket| async move {
        // Durable before anything is begun, so that a repetition after a crash finds it.
        own.sessions.context.store.write(vec![ticket.mark()?]).await?;
        let session = own.sessions.open(&OpenRequest { seed: ticket.seed, ..request }).await?;
        let view = own.view(session).await?;
        Done::new(StatusCode::CREATED, &SessionJson::new(&view, &own.sessions.context.own))
    };
    app.keys.once("POST /api/sessions", &key, &[text.get().as_bytes()], opening).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    status: Option<String>,
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
    let take = move |view: &SessionView| wanted.as_deref().is_none_or(|wanted| status(view) == wanted);
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
    json.executions_total = total;
    for (id, row) in rows {
        let output = runs::output(app, id, OUTPUT_SHOWN).await?;
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
            let closed = desk.wait(END_LIMIT, |state| (state.phase == Phase::Closed).then_some(())).await;
            if closed.is_none() {
                let detail = "The session is ending; its last receipts have not come yet. Look at it again later.";
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
pub(super) async fn top_up(State(app): Shared, Path(id): Path<String>, keyed: Keyed<TopUpBody>) -> Response {
    let Keyed { key, text, body } = keyed;
    let session = match session_id(&id) {
        Ok(session) => session,
        Err(refusal) => return refusal.into_response(),
    };
    let own = Arc::clone(&app);
    let raising = |_| async move {
        own.view(session).await?;
        let gone = || Refusal::from(Fault::new(FaultCode::SESSION_ENDED, "the session has ended"));
        let desk = own.sessions.desk(&session).ok_or_else(gone)?;
        let (answer, answered) = oneshot::channel();
        desk.command(Command::TopUp { ceiling: body.budget_allowance.0, answer })?;
        match tokio::time::timeout(TOP_UP_LIMIT, answered).await {
            Ok(Ok(raised)) => raised?,
            Ok(Err(_)) => return Err(gone()),
            Err(_) => return Err(super::unreachable_settlement("no answer in time")),
        };
        let view = own.view(session).await?;
        Done::new(StatusCode::OK, &SessionJson::new(&view, &own.sessions.context.own))
    };
    app.keys.once("POST /api/sessions/{id}/topup", &key, &[id.as_bytes(), text.get().as_bytes()], raising).await
}

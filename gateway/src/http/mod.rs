//! The gateway's HTTP API: what agents and people on this machine talk to, behind the door.
//!
//! Always true: whatever can cost money takes an `Idempotency-Key`; every error is problem+json with a stable code (the table is in [`problems`]); names and shapes of the owner's
//! endpoints are kept.
//!
//! It decides nothing about money and does not know how peers are reached.

mod access;
mod archive;
pub mod bodies;
mod docs;
mod events;
mod evidence;
mod files;
mod following;
mod idempotency;
mod incoming;
mod lists;
pub(crate) mod mcp;
mod measured;
mod models;
mod openapi;
mod problems;
mod providers;
mod quotes;
mod receipts;
mod rights;
mod runs;
mod sessions;
mod stdin;
mod wallet;
mod wishes;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::response::IntoResponse;
use orien_bootstrap::clock;
use orien_door::{Door, Health, IdempotencyKey, Json, Problem, Uptime};
use orien_protocol::frame::{Answer, Funds, Question};
use orien_protocol::id::SessionId;
use orien_protocol::signing::Address;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::decimal::Decimal;
use crate::input::Seats;
use crate::rows::Refusal;
use crate::sessions::{SessionView, Sessions};
use idempotency::Keys;

/// The route that needs no token.
const HEALTH: &str = "/health";
/// How often keys whose time is over are forgotten.
const CLEAN_UP: Duration = Duration::from_secs(3600);

/// What the routes work with.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) sessions: Arc<Sessions>,
    keys: Keys,
    account: Address,
    uptime: Uptime,
    /// Cancelled when nobody shall wait for anything any more.
    stopping: CancellationToken,
    /// Who sends the input of a run.
    seats: Seats,
}

/// As routes hold it.
type Shared = State<Arc<App>>;

impl App {
    /// Everything behind the door.
    pub(crate) fn new(sessions: Arc<Sessions>, account: Address) -> Self {
        let keys = Keys::new(sessions.context.store.clone());
        Self { sessions, keys, account, uptime: Uptime::start(), stopping: CancellationToken::new(), seats: Seats::default() }
    }

    /// Forgets old keys now and every hour, until `stop`.
    pub(crate) async fn clean_up(&self, stop: CancellationToken) {
        let mut every = tokio::time::interval(CLEAN_UP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = every.tick() => if let Err(error) = self.keys.clean_up(clock::wall().seconds()).await {
                    return tracing::error!(%error, "old keys cannot be forgotten");
                },
            }
        }
    }

    /// Waits for requests that act, for as long as `limit`; the others are left as they stand.
    pub(crate) async fn stop(&self, limit: Duration) {
        self.stopping.cancel();
        self.keys.stop(limit).await;
    }

    /// A session that has to be there.
    async fn view(&self, session: SessionId) -> Result<SessionView, Refusal> {
        self.sessions.view(session).await?.ok_or_else(|| no_session(&session.to_string()))
    }
}

/// What is open to callers without the token: the page that says what this is, its health, and how to use it.
const OPEN: &[&str] = &["/", HEALTH, openapi::DOCUMENT, docs::OPEN[0], docs::OPEN[1]];

/// Tells the door what each route takes.
pub(crate) fn guarded(door: Door) -> Door {
    door.access(access::table())
}

/// All routes that are described, each with its description.
fn router() -> OpenApiRouter<Arc<App>> {
    let input = routes!(stdin::look, stdin::send).layer(DefaultBodyLimit::disable());
    let files = routes!(files::download, files::head, files::upload, files::remove).layer(DefaultBodyLimit::disable());
    let archive = routes!(archive::pack, archive::unpack).layer(DefaultBodyLimit::disable());
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(page))
        .routes(routes!(health))
        .routes(routes!(openapi::document))
        .routes(routes!(docs::page))
        .routes(routes!(docs::file))
        .routes(routes!(balance))
        .routes(routes!(wallet::show))
        .routes(routes!(providers::list))
        .routes(routes!(providers::one))
        .routes(routes!(sessions::list, sessions::open))
        .routes(routes!(sessions::one))
        .routes(routes!(sessions::end))
        .routes(routes!(sessions::top_up))
        .routes(routes!(sessions::extend))
        .routes(routes!(receipts::list))
        .routes(routes!(evidence::bundle))
        .routes(routes!(following::session))
        .routes(routes!(files::list))
        .routes(files)
        .routes(archive)
        .routes(routes!(runs::tools))
        .routes(routes!(runs::run))
        .routes(routes!(runs::list))
        .routes(routes!(runs::one))
        .routes(routes!(runs::cancel))
        .routes(input)
        .routes(routes!(events::log))
}

/// All routes. The document of them is made once.
pub(crate) fn routes(app: Arc<App>) -> Router {
    let (router, api) = router().split_for_parts();
    let checked = router.layer(axum::middleware::from_fn_with_state(Arc::clone(&app), rights::check));
    checked.layer(axum::Extension(openapi::Document::new(api))).with_state(app)
}

#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
#[serde(rename_all = "camelCase")]
struct GatewayHealth {
    #[serde(flatten)]
    #[schema(value_type = openapi::HealthJson)]
    health: Health,
    active_session: Option<String>,
    peers: usize,
    providers: usize,
}

/// Whether the gateway is well.
#[utoipa::path(get, path = "/health", operation_id = "getHealth", tag = "gateway", responses(
    (status = 200, description = "It answers.", body = GatewayHealth),
))]
async fn health(State(app): Shared) -> Json<GatewayHealth> {
    let context = &app.sessions.context;
    Json(GatewayHealth {
        health: app.uptime.health(),
        active_session: app.sessions.newest_active().map(|id| id.to_string()),
        peers: context.net.peers().await.map_or(0, |peers| peers.len()),
        providers: context.catalogue.len(),
    })
}

#[derive(Serialize, ToSchema)]
#[schema(as = Balance)]
#[serde(rename_all = "camelCase")]
struct BalanceJson {
    account: String,
    funded: Decimal,
    reserved: Decimal,
    redeemed: Decimal,
    available: Decimal,
}

impl BalanceJson {
    fn new(account: Address, funds: &Funds) -> Self {
        Self {
            account: account.to_string(),
            funded: Decimal(funds.funded),
            reserved: Decimal(funds.reserved),
            redeemed: Decimal(funds.redeemed),
            available: Decimal(funds.available),
        }
    }
}

/// What settlement holds for the account that pays.
#[utoipa::path(get, path = "/api/balance", operation_id = "getBalance", tag = "gateway", responses(
    (status = 200, description = "Amounts of USDC.", body = BalanceJson),
    (status = 502, description = "`settlement_unreachable`"),
    (status = 503, description = "`busy`"),
))]
async fn balance(State(app): Shared) -> Result<Json<BalanceJson>, Refusal> {
    let answer = app.sessions.context.ask_settlement(&Question::Balance(app.account)).await;
    match answer {
        Ok(Answer::Balance(funds)) => Ok(Json(BalanceJson::new(app.account, &funds))),
        Ok(_) => Err(unreachable_settlement("it answered something else than was asked")),
        Err(error) => Err(error.fault().cloned().map_or_else(|| unreachable_settlement(&error), Refusal::from)),
    }
}

fn unreachable_settlement(detail: impl std::fmt::Display) -> Refusal {
    Refusal::new(axum::http::StatusCode::BAD_GATEWAY, "settlement_unreachable", "Settlement cannot be reached", detail)
}

/// What this is, for people.
#[utoipa::path(get, path = "/", operation_id = "getPage", tag = "gateway", responses(
    (status = 200, description = "A page.", body = String, content_type = "text/html"),
))]
async fn page(State(app): Shared) -> axum::response::Response {
    let context = &app.sessions.context;
    let body = format!(
        "<h1>ORIEN gateway</h1>\n<p>Rent named tools on machines you do not own. Network <code>{}</code>, peer <code>{}</code>.</p>\n\
         <p>The API is on this address: <code>GET /api/providers</code>, <code>POST /api/sessions</code>, <code>POST /tools/run</code>, \
         <code>GET /logs/{{executionId}}</code>. Every other request but <code>GET /health</code> needs the header \
         <code>Authorization: Bearer</code> with the token in the gateway's token file; requests that can cost money also need an \
         <code>Idempotency-Key</code>.</p>",
        orien_door::escape(context.network.id().as_str()),
        orien_door::escape(&context.own.to_string()),
    );
    orien_door::page("ORIEN gateway", &body, None)
}

/// A session that is not known here.
fn no_session(id: &str) -> Refusal {
    let detail = format!("There is no session {} at this gateway.", shown(id));
    Refusal::not_found("session_not_found", "There is no such session", detail)
}

/// A piece of a request, short and plain enough to be repeated in an answer.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// A session's id out of a path or body.
fn session_id(text: &str) -> Result<SessionId, Refusal> {
    text.parse().map_err(|_| no_session(text))
}

/// A JSON body together with its exact text and the request's key.
struct Keyed<T> {
    key: IdempotencyKey,
    text: Box<RawValue>,
    body: T,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Keyed<T> {
    type Rejection = axum::response::Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let key = key_of(&mut parts).await.map_err(IntoResponse::into_response)?;
        let (text, body) = json_of(Request::from_parts(parts, body), state).await?;
        Ok(Self { key, text, body })
    }
}

/// The same of a request that may do without a key, depending on its body.
struct PerhapsKeyed<T> {
    key: Result<IdempotencyKey, Problem>,
    text: Box<RawValue>,
    body: T,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for PerhapsKeyed<T> {
    type Rejection = axum::response::Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let key = key_of(&mut parts).await;
        let (text, body) = json_of(Request::from_parts(parts, body), state).await?;
        Ok(Self { key, text, body })
    }
}

/// A JSON body and its exact text.
async fn json_of<T: DeserializeOwned, S: Send + Sync>(request: Request, state: &S) -> Result<(Box<RawValue>, T), axum::response::Response> {
    let Json(text) = Json::<Box<RawValue>>::from_request(request, state).await.map_err(IntoResponse::into_response)?;
    // A list of the values in the order of the fields would be read too, and would mean something else when a field is added.
    if !text.get().starts_with('{') {
        return Err(Refusal::invalid("invalid_body", "the body has to be a JSON object").into_response());
    }
    match serde_json::from_str(text.get()) {
        Ok(body) => Ok((text, body)),
        Err(error) => Err(Refusal::invalid("invalid_body", error).into_response()),
    }
}

/// The request's key; without one, how to send it.
async fn key_of(parts: &mut axum::http::request::Parts) -> Result<IdempotencyKey, Problem> {
    use axum::extract::FromRequestParts;
    <IdempotencyKey as FromRequestParts<()>>::from_request_parts(parts, &()).await.map_err(|problem| match problem.code() {
        "idempotency_key_required" => problem.detail(
            "This request can cost money. Send an Idempotency-Key header with a name of your own for it, for example \
             'Idempotency-Key: build-42', and the same one when you repeat it.",
        ),
        _ => problem,
    })
}

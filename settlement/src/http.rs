//! Settlement's local door: what an operator looks at and does.
//!
//! Routes translate between JSON and the desk and decide nothing. Amounts are exact decimal texts of USDC. Whatever changes something takes an `Idempotency-Key`.

mod chain;
mod lines;
mod problems;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use orien_bootstrap::clock;
use orien_door::{Health, IdempotencyKey, Json, Path, Problem, Query, Uptime};
use orien_protocol::hash::Hash;
use orien_protocol::id::{BatchId, PayoutId};
use orien_protocol::signing::Address;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::batch::{Payout, Settlement};
use crate::books::Grant;
use crate::clerk::Clerk;
use crate::file::{BatchFile, SummaryLine};
use crate::onchain::CompareNow;
pub(crate) use chain::ChainLine;
use lines::{AccountLine, Amount, LedgerLine, PayoutRow, SettlementLine, csv};
use problems::{not_found, refused, unreadable};

/// Rows in one answer unless fewer are asked for, and most that may be asked for.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// What the routes know of a chain.
#[derive(Clone, Debug)]
pub(crate) struct ChainDoor {
    /// What is fixed about it.
    pub(crate) line: ChainLine,
    /// Where comparisons are asked for.
    pub(crate) compare: mpsc::Sender<CompareNow>,
}

/// What the routes work with.
#[derive(Clone, Debug)]
struct Shared {
    clerk: Clerk,
    chain: Option<ChainDoor>,
    uptime: Uptime,
}

/// All routes; `/health` may be read without a token.
pub(crate) fn router(clerk: Clerk, chain: Option<ChainDoor>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/api/ledger", get(ledger))
        .route("/api/accounts/{address}", get(account))
        .route("/api/grants", post(grant))
        .route("/api/batches", get(batches).post(make_batch))
        .route("/api/batches/{id}", get(batch))
        .route("/api/payouts", get(payouts))
        .route("/api/payouts/export", post(export))
        .route("/api/settlements", get(settlements))
        .route("/api/chain", get(chain::status))
        .route("/api/transactions", get(chain::flights))
        .route("/api/reconcile", post(chain::reconcile))
        .with_state(Arc::new(Shared { clerk, chain, uptime: Uptime::start() }))
}

type Here = State<Arc<Shared>>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthLine {
    #[serde(flatten)]
    health: Health,
    role: &'static str,
    network: String,
    peer_id: String,
    rail: &'static str,
    live_channels: usize,
    /// On a rail with a chain: `ok`, `starting`, `unread` or `halted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<&'static str>,
}

async fn health(State(shared): Here) -> Result<Json<HealthLine>, Problem> {
    let (_, live_channels, _) = shared.clerk.call(|desk, _| desk.sums()).await.map_err(refused)?;
    let chain = match &shared.chain {
        Some(_) => Some(chain::state_of(&shared.clerk.call(|desk, _| desk.chain_status()).await.map_err(refused)?)),
        None => None,
    };
    let (desk, facts) = (shared.clerk.desk(), shared.clerk.desk().house().facts());
    Ok(Json(HealthLine {
        health: shared.uptime.health(),
        role: "settlement",
        network: facts.network.to_string(),
        peer_id: facts.peer.to_string(),
        rail: desk.rail().name(),
        live_channels,
        chain,
    }))
}

async fn ledger(State(shared): Here) -> Result<Json<LedgerLine>, Problem> {
    let (sums, live, payable) = shared.clerk.call(|desk, _| desk.sums()).await.map_err(refused)?;
    Ok(Json(LedgerLine::of(&sums, shared.clerk.desk().rail().name(), live, payable)))
}

async fn account(State(shared): Here, Path(address): Path<String>) -> Result<Json<AccountLine>, Problem> {
    let address: Address = address.parse().map_err(|error| unreadable("the address", error))?;
    Ok(Json(account_line(&shared, address).await?))
}

async fn account_line(shared: &Shared, address: Address) -> Result<AccountLine, Problem> {
    let call = move |desk: &crate::desk::Desk, _| Ok((desk.funds(&address)?, desk.account(&address)?, desk.earnings(&address)?));
    let (funds, account, earnings) = shared.clerk.call(call).await.map_err(refused)?;
    Ok(AccountLine::of(address, &funds, account, &earnings, shared.clerk.desk().rail().name()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GrantBody {
    account: String,
    #[serde(default)]
    spending_key: Option<String>,
    amount: Amount,
    #[serde(default)]
    daily_cap: Option<Amount>,
}

async fn grant(State(shared): Here, key: IdempotencyKey, Json(body): Json<GrantBody>) -> Result<Json<AccountLine>, Problem> {
    let grant = Grant {
        account: body.account.parse().map_err(|error| unreadable("account", error))?,
        amount: body.amount.parse().map_err(|error| unreadable("amount", error))?,
        spending_key: body.spending_key.map(|key| key.parse()).transpose().map_err(|error| unreadable("spendingKey", error))?,
        daily_cap: body.daily_cap.map(|cap| cap.parse()).transpose().map_err(|error| unreadable("dailyCap", error))?,
    };
    shared.clerk.call(move |desk, now| desk.grant(key.as_str(), &grant, now)).await.map_err(refused)?;
    Ok(Json(account_line(&shared, grant.account).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

impl Page {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }
}

#[derive(Serialize)]
struct Batches {
    batches: Vec<SummaryLine>,
}

async fn batches(State(shared): Here, Query(page): Query<Page>) -> Result<Json<Batches>, Problem> {
    let limit = page.limit();
    let after: Option<BatchId> = page.after.map(|id| id.parse()).transpose().map_err(|error| unreadable("after", error))?;
    let rows = shared.clerk.call(move |desk, _| desk.batches(after.as_ref(), limit)).await.map_err(refused)?;
    Ok(Json(Batches { batches: rows.iter().map(SummaryLine::of).collect() }))
}

async fn batch(State(shared): Here, Path(id): Path<String>) -> Result<Json<BatchFile>, Problem> {
    let id: BatchId = id.parse().map_err(|error| unreadable("the batch id", error))?;
    let file = move |desk: &crate::desk::Desk, _| Ok(desk.batch_evidence(&id)?.map(|batch| BatchFile::of(&batch, desk.house().facts())));
    match shared.clerk.call(file).await.map_err(refused)? {
        None => Err(not_found(format!("there is no batch {id}"))),
        Some(Ok(file)) => Ok(Json(file)),
        Some(Err(error)) => {
            tracing::error!(%error, %id, "the evidence of a batch cannot be written down");
            Err(Problem::internal())
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    /// Null when there was nothing to settle.
    batch_id: Option<String>,
}

async fn make_batch(State(shared): Here, key: IdempotencyKey) -> Result<Json<Made>, Problem> {
    let Ok(id) = clock::random_id(BatchId::from_parts) else { return Err(Problem::internal()) };
    let made = shared.clerk.call(move |desk, now| desk.batch(id, Some(key.as_str()), now)).await.map_err(refused)?;
    Ok(Json(Made { batch_id: made.map(|id| id.to_string()) }))
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Csv,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PayoutsPage {
    #[serde(default)]
    format: Format,
    after: Option<String>,
    limit: Option<usize>,
}

async fn payouts(State(shared): Here, Query(page): Query<PayoutsPage>) -> Result<Response, Problem> {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let after: Option<PayoutId> = page.after.map(|id| id.parse()).transpose().map_err(|error| unreadable("after", error))?;
    let rows = shared.clerk.call(move |desk, _| desk.payouts(after.as_ref(), limit)).await.map_err(refused)?;
    written(&shared, &rows, page.format)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportQuery {
    #[serde(default)]
    format: Format,
}

async fn export(State(shared): Here, key: IdempotencyKey, Query(query): Query<ExportQuery>) -> Result<Response, Problem> {
    let rows = shared.clerk.call(move |desk, now| desk.export(key.as_str(), now)).await.map_err(refused)?;
    written(&shared, &rows, query.format)
}

#[derive(Serialize)]
struct Payouts {
    payouts: Vec<PayoutRow>,
}

fn written(shared: &Shared, payouts: &[Payout], format: Format) -> Result<Response, Problem> {
    let rail = shared.clerk.desk().rail();
    let payouts: Vec<PayoutRow> = payouts.iter().map(|payout| PayoutRow::of(payout, rail.name())).collect();
    match format {
        Format::Json => Ok(Json(Payouts { payouts }).into_response()),
        Format::Csv => {
            let text = csv(&payouts).map_err(|error| {
                tracing::error!(%error, "payouts cannot be written as CSV");
                Problem::internal()
            })?;
            let kind = HeaderValue::from_static("text/csv; charset=utf-8");
            let file = HeaderValue::from_static("attachment; filename=\"payouts.csv\"");
            Ok(([(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, file)], text).into_response())
        }
    }
}

#[derive(Serialize)]
struct Settlements {
    settlements: Vec<SettlementLine>,
    /// Pass as `after` for the next page; null at the end.
    next: Option<String>,
}

async fn settlements(State(shared): Here, Query(page): Query<Page>) -> Result<Json<Settlements>, Problem> {
    let limit = page.limit();
    let after = page.after.as_deref().map(lines::read_cursor).transpose().map_err(|error| unreadable("after", error))?;
    let rows: Vec<(Settlement, Option<Hash>)> = shared
        .clerk
        .call(move |desk, _| {
            let rows = desk.settlements(after.as_ref(), limit)?;
            rows.into_iter().map(|row| Ok((row, desk.batch_transaction(&row.batch)?))).collect()
        })
        .await
        .map_err(refused)?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(row, _)| lines::cursor(row));
    let rail = shared.clerk.desk().rail().name();
    Ok(Json(Settlements { settlements: rows.iter().map(|(row, hash)| SettlementLine::of(row, rail, *hash)).collect(), next }))
}

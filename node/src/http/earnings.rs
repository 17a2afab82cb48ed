//! What was earned, and collecting it without settlement.
//!
//! Always true: amounts are decimal USDC in text, exact; the chain's own coin is too.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use orien_bootstrap::clock;
use orien_door::{Json, Problem};
use orien_protocol::money::{Split, Usdc};
use orien_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Shown;
use crate::chain::{ChainView, Collected};
use crate::earnings::SessionEarnings;
use crate::store::StoreError;

/// Sessions that are listed when nobody says how many.
const LIMIT: usize = 50;
/// Most sessions in one answer: some hundred kilobytes.
const LIMIT_MAX: usize = 1000;
/// When gas is asked for again that was too dear: a base fee falls by an eighth with each empty block, so a minute is a third of it on the slowest chain.
const GAS_PATIENCE_SECONDS: u64 = 60;

/// The routes; `/earnings` is the older name of the same.
pub(super) fn routes() -> Router<Shown> {
    Router::new().route("/earnings", get(earnings)).route("/api/earnings", get(earnings)).route("/api/earnings/collect", post(collect))
}

#[derive(Deserialize)]
struct Page {
    limit: Option<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EarningsJson {
    sessions: u64,
    charged: String,
    promised: String,
    /// Charged, and waits for the agent's voucher.
    pending: String,
    /// Promised and not redeemed yet.
    redeemable: String,
    redeemed: String,
    /// The same as `redeemable`, under its older name.
    waiting: String,
    payout_address: String,
    /// `ledger` or `evm`.
    rail: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<ChainJson>,
    /// The newest first.
    by_session: Vec<SessionJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChainJson {
    /// The final block that amounts are of; none before the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_time: Option<u64>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    looked_at: Option<u64>,
    /// Why the chain could not be read since.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Paid, and kept by the escrow because the token did not deliver it.
    undelivered: String,
    /// Who pays for gas when this node collects by itself.
    gas_payer: String,
    /// How much of the chain's coin it is short of, when it last tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_gas: Option<String>,
    /// A transaction of ours on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_sessions: Option<usize>,
}

impl ChainJson {
    fn new(view: &ChainView, payer: &str) -> Self {
        Self {
            block: view.at.map(|(block, _)| block.number),
            block_time: view.at.map(|(block, _)| block.time.0),
            looked_at: view.at.map(|(_, at)| at.0),
            problem: view.problem.clone(),
            undelivered: view.undelivered.to_string(),
            gas_payer: payer.to_owned(),
            missing_gas: view.missing_gas.map(|wei| wei.to_string()),
            transaction: view.sending.map(|(hash, _)| hash.to_string()),
            transaction_sessions: view.sending.map(|(_, sessions)| sessions),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionJson {
    session_id: String,
    account: String,
    /// `open`, `redeemable`, `redeemed` or `lost`.
    status: &'static str,
    /// Milliseconds since 1970.
    started_at: u64,
    charged: String,
    promised: String,
    redeemed: String,
    redeemable: String,
    ceiling: String,
    locked: String,
    /// Seconds since 1970.
    redeem_until: u64,
    /// How what is redeemed is shared.
    provider_payout: String,
    platform_fee: String,
    reserve: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<&'static str>,
}

impl SessionJson {
    fn new(session: &SessionEarnings, now: Timestamp) -> Self {
        let (balance, split) = (&session.balance, Split::of(session.balance.redeemed));
        let status = match session.closed {
            None => "open",
            Some(_) if session.lost(now) > Usdc::ZERO => "lost",
            Some(_) if session.redeemable(now) > Usdc::ZERO => "redeemable",
            Some(_) => "redeemed",
        };
        Self {
            session_id: session.session.to_string(),
            account: session.account.to_string(),
            status,
            started_at: session.started_at.0,
            charged: balance.charged.to_string(),
            promised: balance.promised.to_string(),
            redeemed: balance.redeemed.to_string(),
            redeemable: session.redeemable(now).to_string(),
            ceiling: session.ceiling.to_string(),
            locked: session.locked.to_string(),
            redeem_until: session.redeem_until.0,
            provider_payout: split.provider.to_string(),
            platform_fee: split.platform.to_string(),
            reserve: split.reserve.to_string(),
            end_reason: session.closed.map(|reason| reason.name()),
        }
    }
}

fn unreadable(error: &StoreError) -> Problem {
    tracing::error!(%error, "the earnings cannot be read");
    Problem::internal()
}

async fn earnings(State(shown): State<Shown>, Query(page): Query<Page>) -> Result<Json<EarningsJson>, Problem> {
    let limit = page.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    let earnings = shown.shop.earnings(limit).await.map_err(|error| unreadable(&error))?;
    let (takings, now) = (earnings.takings, clock::wall());
    let chain = shown.shop.chain();
    Ok(Json(EarningsJson {
        sessions: takings.sessions,
        charged: takings.balance.charged.to_string(),
        promised: takings.balance.promised.to_string(),
        pending: takings.balance.charged.excess_over(takings.balance.promised).to_string(),
        redeemable: takings.waiting.to_string(),
        redeemed: takings.balance.redeemed.to_string(),
        waiting: takings.waiting.to_string(),
        payout_address: shown.shop.payout().to_string(),
        rail: if chain.is_some() { "evm" } else { "ledger" },
        chain: chain.map(|(view, payer)| ChainJson::new(&view, &payer.to_string())),
        by_session: earnings.newest.iter().map(|session| SessionJson::new(session, now)).collect(),
    }))
}

/// What became of the wish to collect.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CollectJson {
    /// `sent`, `under_way` or `nothing`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<String>,
    sessions: usize,
    /// What it is expected to bring, all shares together.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<String>,
}

async fn collect(State(shown): State<Shown>) -> Result<Json<CollectJson>, Problem> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Problem::new(StatusCode::BAD_GATEWAY, "chain_unreadable", "The chain cannot be read").detail(error.to_string())
    };
    match shown.shop.collect().await.map_err(|error| unreadable(&error))? {
        None => Err(Problem::new(StatusCode::CONFLICT, "wrong_state", "There is no chain here")
            .detail("This network is on the ledger rail: its operator pays out what settlement redeemed.")),
        Some(Collected::Nothing) => Ok(Json(CollectJson { status: "nothing", transaction: None, sessions: 0, total: None })),
        Some(Collected::UnderWay { transaction, sessions }) => {
            Ok(Json(CollectJson { status: "under_way", transaction: Some(transaction.to_string()), sessions, total: None }))
        }
        Some(Collected::Sent { transaction, sessions, total }) => {
            Ok(Json(CollectJson { status: "sent", transaction: Some(transaction.to_string()), sessions, total: Some(total.to_string()) }))
        }
        Some(Collected::NeedsGas { payer, has, needs }) => {
            let missing = orien_chain::Wei(needs.0.saturating_sub(has.0));
            Err(Problem::new(StatusCode::PAYMENT_REQUIRED, "gas_missing", "There is not enough gas to collect")
                .detail(format!("{payer} has {has} of the chain's coin and needs {needs}; send at least {missing} there and try again."))
                .with("missing", missing.to_string())
                .with("payer", payer.to_string()))
        }
        Some(Collected::GasTooDear { base_fee, cap }) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "gas_too_dear", "Gas costs more than this node offers")
                .detail(format!("The next block asks {} wei per gas, and this node offers {} at most.", base_fee.0, cap.0))
                .retry_after_seconds(GAS_PATIENCE_SECONDS))
        }
    }
}

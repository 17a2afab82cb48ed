//! The chain's part of settlement's door: how far it is read, what waits, what is on its way, and the comparison of books and chain.

use axum::extract::State;
use orien_door::{IdempotencyKey, Json, Problem, Query};
use orien_protocol::channel::ChannelId;
use orien_protocol::money::Usdc;
use orien_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::lines::{decimal, moment};
use super::problems::{not_found, refused};
use super::{Here, PAGE, PAGE_MAX};
use crate::books::{Cursor, Parked};
use crate::desk::ChainStatus;
use crate::onchain::{CompareNow, Reconciliation, STANDSTILL};
use crate::paying::Flight;

/// What is fixed about the chain, for those who look.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChainLine {
    /// Chain id.
    pub(crate) chain_id: u64,
    /// The escrow contract.
    pub(crate) escrow: String,
    /// The token.
    pub(crate) token: String,
    /// Who sends transactions and pays for their gas.
    pub(crate) sender: String,
    /// Most that one transaction pays to one payee; null for no cap.
    pub(crate) payout_cap: Option<String>,
    /// Most that the transactions of a day redeem; null for no cap.
    pub(crate) day_cap: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusLine {
    rail: &'static str,
    state: &'static str,
    #[serde(flatten)]
    chain: ChainLine,
    /// The newest final block that is in the books; null before the first.
    folded: Option<BlockLine>,
    /// How old it is, in seconds: by the chain's newest block, or by the clock of this machine if that says more.
    behind_seconds: Option<u64>,
    seen_at: Option<String>,
    halts: Vec<SaidLine>,
    notices: Vec<SaidLine>,
    next_nonce: Option<u64>,
    transaction: Option<FlightLine>,
    waiting_claims: usize,
    waiting_amount: String,
    parked: Vec<ParkedLine>,
    sent_today: String,
    accounts: usize,
}

#[derive(Serialize)]
struct BlockLine {
    number: u64,
    hash: String,
    time: String,
}

#[derive(Serialize)]
struct SaidLine {
    code: String,
    text: String,
    at: String,
}

#[derive(Serialize)]
struct ParkedLine {
    channel: String,
    reason: &'static str,
    amount: String,
    /// The cap that it is above, if that is the reason.
    cap: Option<String>,
}

impl ParkedLine {
    fn of((channel, why, amount): &(ChannelId, Parked, Usdc), chain: &ChainLine) -> Self {
        let cap = match why {
            Parked::OverCap => chain.payout_cap.clone(),
            Parked::OverDayCap => chain.day_cap.clone(),
            _ => None,
        };
        Self { channel: channel.to_string(), reason: why.name(), amount: amount.to_string(), cap }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FlightLine {
    nonce: u64,
    state: &'static str,
    tx_hash: Option<String>,
    claims: usize,
    amount: String,
    gas_limit: u64,
    planned_at: String,
    attempts: Vec<AttemptLine>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptLine {
    tx_hash: String,
    max_fee_wei: String,
    tip_wei: String,
    carries_nothing: bool,
    sends: u32,
}

impl BlockLine {
    fn of(cursor: &Cursor) -> Self {
        Self { number: cursor.number, hash: format!("0x{}", cursor.hash), time: moment(cursor.time.timestamp()) }
    }
}

impl FlightLine {
    fn of(flight: &Flight) -> Self {
        let attempt = |attempt: &crate::paying::Attempt| AttemptLine {
            tx_hash: format!("0x{}", attempt.hash),
            max_fee_wei: attempt.fees.max_fee.0.to_string(),
            tip_wei: attempt.fees.tip.0.to_string(),
            carries_nothing: attempt.is_no_op,
            sends: attempt.sends,
        };
        Self {
            nonce: flight.nonce,
            state: flight.stage.name(),
            tx_hash: flight.transaction().map(|hash| format!("0x{hash}")),
            claims: flight.claims.len(),
            amount: flight.amount.to_string(),
            gas_limit: flight.gas_limit,
            planned_at: moment(flight.planned_at),
            attempts: flight.attempts.iter().map(attempt).collect(),
        }
    }
}

/// One word for how it is.
pub(super) fn state_of(status: &ChainStatus) -> &'static str {
    match (status.halts.is_empty(), status.sight) {
        (false, _) => "halted",
        (true, None) => "starting",
        (true, Some(_)) if status.notices.iter().any(|(code, _)| *code == "chain_unread") => "unread",
        (true, Some(_)) if !status.compared => "starting",
        (true, Some(_)) if status.notices.iter().any(|(code, _)| *code == STANDSTILL) => "standstill",
        (true, Some(_)) => "ok",
    }
}

fn said(code: &str, text: &str, at: Timestamp) -> SaidLine {
    SaidLine { code: code.to_owned(), text: text.to_owned(), at: moment(at) }
}

fn no_chain() -> Problem {
    not_found("this network has no chain: it is on the ledger rail".to_owned())
}

pub(super) async fn status(State(shared): Here) -> Result<Json<StatusLine>, Problem> {
    let Some(chain) = shared.chain.as_ref() else { return Err(no_chain()) };
    let status = shared.clerk.call(|desk, _| desk.chain_status()).await.map_err(refused)?;
    Ok(Json(StatusLine {
        rail: shared.clerk.desk().rail().name(),
        state: state_of(&status),
        chain: chain.line.clone(),
        folded: status.cursor.as_ref().map(BlockLine::of),
        behind_seconds: status.sight.map(|sight| sight.behind.0 / 1000),
        seen_at: status.sight.map(|sight| moment(sight.at)),
        halts: status.halts.iter().map(|halt| said(&halt.code, &halt.text, halt.at)).collect(),
        notices: status.notices.iter().map(|(code, notice)| said(code, &notice.text, notice.at)).collect(),
        next_nonce: status.sender.next_nonce,
        transaction: status.flight.as_ref().map(FlightLine::of),
        waiting_claims: status.waiting,
        waiting_amount: status.waiting_amount.to_string(),
        parked: status.parked.iter().map(|parked| ParkedLine::of(parked, &chain.line)).collect(),
        sent_today: status.totals.day_sent.to_string(),
        accounts: status.accounts,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Newest {
    before: Option<u64>,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Flights {
    transactions: Vec<FlightLine>,
    /// Pass as `before` for the next page; null at the end.
    next: Option<u64>,
}

pub(super) async fn flights(State(shared): Here, Query(page): Query<Newest>) -> Result<Json<Flights>, Problem> {
    if shared.chain.is_none() {
        return Err(no_chain());
    }
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let rows = shared.clerk.call(move |desk, _| desk.flights(page.before, limit)).await.map_err(refused)?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|flight| flight.nonce);
    Ok(Json(Flights { transactions: rows.iter().map(FlightLine::of).collect(), next }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReconcileBody {
    #[serde(default)]
    clear_halts: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReconcileLine {
    same: bool,
    block: BlockLine,
    accounts: usize,
    channels: usize,
    differences: Vec<DifferenceLine>,
}

#[derive(Serialize)]
struct DifferenceLine {
    what: String,
    books: String,
    chain: String,
}

impl ReconcileLine {
    fn of(found: &Reconciliation) -> Self {
        let line = |difference: &crate::onchain::Difference| DifferenceLine {
            what: difference.what.clone(),
            books: decimal(difference.books),
            chain: decimal(difference.chain),
        };
        Self {
            same: found.differences.is_empty(),
            block: BlockLine::of(&found.at),
            accounts: found.accounts,
            channels: found.channels,
            differences: found.differences.iter().map(line).collect(),
        }
    }
}

/// Repeated under the same key it compares again: that changes nothing but what it finds.
pub(super) async fn reconcile(
    State(shared): Here,
    _: IdempotencyKey,
    Json(body): Json<ReconcileBody>,
) -> Result<Json<ReconcileLine>, Problem> {
    let Some(chain) = shared.chain.as_ref() else { return Err(no_chain()) };
    let (reply, answer) = oneshot::channel();
    let request = CompareNow { clear: body.clear_halts, reply };
    if chain.compare.try_send(request).is_err() {
        return Err(
            Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "busy", "Too much at once").detail("Other comparisons are waiting.")
        );
    }
    match answer.await {
        Ok(Ok(found)) => Ok(Json(ReconcileLine::of(&found))),
        Ok(Err(text)) => {
            Err(Problem::new(axum::http::StatusCode::BAD_GATEWAY, "chain_unreadable", "The chain cannot be read").detail(text))
        }
        Err(_) => Err(Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "stopping", "Settlement is stopping")),
    }
}

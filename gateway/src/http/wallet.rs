//! The account that pays: what its escrow holds, what settlement says beside it, and what is promised and redeemed in each channel.

use axum::extract::State;
use orien_bootstrap::escrow::EscrowReading;
use orien_chain::FOREVER;
use orien_door::Json;
use orien_protocol::frame::{Answer, Question};
use orien_protocol::id::SessionId;
use orien_protocol::time::UnixSeconds;
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, BalanceJson, Shared};
use crate::decimal::{Decimal, Time};
use crate::rows::Refusal;
use crate::wallet::{ChannelRow, Wallet, WalletView};

/// Channels in one answer; an account has hardly more that can still be redeemed from.
const CHANNELS_LIMIT: usize = 1000;

#[derive(Serialize, ToSchema)]
#[schema(as = Wallet)]
#[serde(rename_all = "camelCase")]
pub(super) struct WalletJson {
    /// The account that pays.
    account: String,
    /// The key of this gateway, which promises the account's money.
    spending_key: String,
    /// `ledger` or `evm`.
    rail: &'static str,
    /// What settlement says; null if it does not answer.
    settlement: Option<BalanceJson>,
    /// Where the money is; null on the ledger rail.
    chain: Option<ChainJson>,
    /// What the escrow holds for the account, at that block; null before it was read, and on the ledger rail.
    escrow: Option<EscrowJson>,
    /// Whether the account lets the key promise: `authorized`, `revoked`, `unknown`; null where it was not read.
    spending_key_status: Option<&'static str>,
    /// Until when what a revoked key promised counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    spending_key_until: Option<Time>,
    /// The channels that can still be redeemed from.
    channels: Vec<ChannelJson>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = WalletChain)]
#[serde(rename_all = "camelCase")]
struct ChainJson {
    chain_id: u64,
    escrow: String,
    token: String,
    /// Which block counts as one that stays: `finalized`, `safe` or `latest`.
    finality: &'static str,
    /// The block that was last read.
    block: Option<u64>,
    block_time: Option<Time>,
    read_at: Option<Time>,
    /// Why it could not be read since.
    problem: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = WalletEscrow)]
#[serde(rename_all = "camelCase")]
struct EscrowJson {
    /// All of it.
    balance: Decimal,
    /// Of it, locked for single channels.
    locked: Decimal,
    /// Of it, asked back.
    exiting: Decimal,
    /// From when what was asked back can be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_at: Option<Time>,
    /// Neither locked nor on its way out.
    free: Decimal,
    /// The most that may be reserved in a day; null for no cap.
    daily_cap: Option<Decimal>,
}

impl EscrowJson {
    fn new(reading: &EscrowReading) -> Self {
        let account = &reading.account;
        let cap = account.daily_cap;
        Self {
            balance: Decimal(account.balance),
            locked: Decimal(account.locked),
            exiting: Decimal(account.exiting),
            exit_at: (account.exit_at != UnixSeconds(0)).then(|| Time(account.exit_at.timestamp())),
            free: Decimal(reading.free()),
            daily_cap: (cap.micros() > 0).then_some(Decimal(cap)),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Channel)]
#[serde(rename_all = "camelCase")]
struct ChannelJson {
    session_id: String,
    channel_id: String,
    provider_id: String,
    payout_address: String,
    /// What was redeemed of it, all shares together, in final blocks.
    redeemed: Decimal,
    /// Locked in the escrow for it alone.
    locked: Decimal,
    closed: bool,
    redeem_until: Time,
    /// When it was last redeemed from, and by which transaction.
    settled_at: Option<Time>,
    tx_hash: Option<String>,
}

impl ChannelJson {
    fn new(session: &SessionId, row: &ChannelRow) -> Self {
        Self {
            session_id: session.to_string(),
            channel_id: row.channel.id().to_string(),
            provider_id: row.channel.provider.to_string(),
            payout_address: row.channel.payout.to_string(),
            redeemed: Decimal(row.redeemed),
            locked: Decimal(row.locked),
            closed: row.closed,
            redeem_until: Time(row.redeem_until.timestamp()),
            settled_at: row.last.map(|last| Time(last.at.timestamp())),
            tx_hash: row.last.map(|last| last.transaction.to_string()),
        }
    }
}

/// The account that pays, as the chain says and as settlement does.
#[utoipa::path(get, path = "/api/wallet", operation_id = "getWallet", tag = "gateway", responses(
    (status = 200, description = "On the ledger rail there is only what settlement says.", body = WalletJson),
))]
pub(super) async fn show(State(app): Shared) -> Result<Json<WalletJson>, Refusal> {
    let settlement = match app.sessions.context.ask_settlement(&Question::Balance(app.account)).await {
        Ok(Answer::Balance(funds)) => Some(BalanceJson::new(app.account, &funds)),
        _ => None,
    };
    match &app.sessions.context.wallet {
        None => Ok(Json(of_ledger(&app, settlement))),
        Some(wallet) => Ok(Json(of_chain(&app, wallet, settlement).await?)),
    }
}

fn of_ledger(app: &App, settlement: Option<BalanceJson>) -> WalletJson {
    WalletJson {
        account: app.account.to_string(),
        spending_key: app.sessions.context.keys.spending.address().to_string(),
        rail: "ledger",
        settlement,
        chain: None,
        escrow: None,
        spending_key_status: None,
        spending_key_until: None,
        channels: Vec::new(),
    }
}

async fn of_chain(app: &App, wallet: &Wallet, settlement: Option<BalanceJson>) -> Result<WalletJson, Refusal> {
    let (WalletView { reading, problem }, facts) = (wallet.view(), wallet.facts());
    let chain = ChainJson {
        chain_id: facts.chain_id,
        escrow: facts.escrow.to_string(),
        token: facts.token.to_string(),
        finality: facts.finality.tag(),
        block: reading.map(|(reading, _)| reading.at.number),
        block_time: reading.map(|(reading, _)| Time(reading.at.time.timestamp())),
        read_at: reading.map(|(_, at)| Time(at)),
        problem,
    };
    let (status, until) = match reading.map(|(reading, _)| reading.key_until) {
        None => (None, None),
        Some(FOREVER) => (Some("authorized"), None),
        Some(UnixSeconds(0)) => (Some("unknown"), None),
        Some(until) => (Some("revoked"), Some(Time(until.timestamp()))),
    };
    let channels = wallet.live().await?;
    Ok(WalletJson {
        rail: "evm",
        chain: Some(chain),
        escrow: reading.map(|(reading, _)| EscrowJson::new(&reading)),
        spending_key_status: status,
        spending_key_until: until,
        channels: channels.iter().rev().take(CHANNELS_LIMIT).map(|(session, row)| ChannelJson::new(session, row)).collect(),
        ..of_ledger(app, settlement)
    })
}

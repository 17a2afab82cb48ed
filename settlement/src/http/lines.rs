//! The JSON and CSV of settlement's door. Amounts are exact decimal texts; times are RFC 3339 in UTC.

use orien_protocol::channel::ChannelId;
use orien_protocol::frame::{Earnings, Funds};
use orien_protocol::hash::Hash;
use orien_protocol::id::BatchId;
use orien_protocol::money::{ParseUsdcError, Split, Usdc};
use orien_protocol::signing::Address;
use orien_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::batch::{Payout, PayoutState, Settlement};
use crate::books::AccountRecord;
use crate::ledger::Sums;
use crate::rail::{LedgerRail, Rail};

/// An amount as a caller writes it: a decimal text, or a whole number of USDC. Not a fraction as a JSON number, which programs round.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected an amount of USDC as a text such as \"0.25\", or a whole number")]
pub(super) enum Amount {
    Text(String),
    Whole(u64),
}

impl Amount {
    pub(super) fn parse(&self) -> Result<Usdc, ParseUsdcError> {
        match self {
            Self::Text(text) => text.parse(),
            Self::Whole(number) => number.to_string().parse(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LedgerLine {
    rail: &'static str,
    granted: String,
    available: String,
    reserved: String,
    earned: String,
    platform: String,
    reserve: String,
    settled: String,
    /// Taken out of the escrow again; only on a rail with a chain, as what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn: Option<String>,
    /// Redeemed on chain through channels that are not in these books.
    #[serde(skip_serializing_if = "Option::is_none")]
    elsewhere: Option<String>,
    balanced: bool,
    live_channels: usize,
    payable_payouts: usize,
}

impl LedgerLine {
    pub(super) fn of(sums: &Sums, rail: &'static str, live_channels: usize, payable_payouts: usize) -> Self {
        Self {
            rail,
            granted: decimal(sums.granted),
            available: decimal(sums.available),
            reserved: decimal(sums.reserved),
            earned: decimal(sums.earned),
            platform: decimal(sums.platform),
            reserve: decimal(sums.reserve),
            settled: decimal(sums.settled),
            withdrawn: (rail != LedgerRail.name()).then(|| decimal(sums.withdrawn)),
            elsewhere: (rail != LedgerRail.name()).then(|| decimal(sums.elsewhere)),
            balanced: sums.balanced(),
            live_channels,
            payable_payouts,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountLine {
    account: String,
    rail: &'static str,
    funded: String,
    reserved: String,
    redeemed: String,
    available: String,
    spending_keys: Vec<String>,
    daily_cap: Option<String>,
    earnings: EarningsLine,
}

#[derive(Serialize)]
struct EarningsLine {
    earned: String,
    settled: String,
    pending: String,
}

impl AccountLine {
    pub(super) fn of(address: Address, funds: &Funds, account: Option<AccountRecord>, earnings: &Earnings, rail: &'static str) -> Self {
        let account = account.unwrap_or_default();
        Self {
            account: address.to_string(),
            rail,
            funded: funds.funded.to_string(),
            reserved: funds.reserved.to_string(),
            redeemed: funds.redeemed.to_string(),
            available: funds.available.to_string(),
            spending_keys: account.spending_keys.iter().map(ToString::to_string).collect(),
            daily_cap: account.daily_cap.map(|cap| cap.to_string()),
            earnings: EarningsLine {
                earned: earnings.earned.to_string(),
                settled: earnings.settled.to_string(),
                pending: earnings.pending.to_string(),
            },
        }
    }
}

/// One payout, in JSON and as a row of CSV.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PayoutRow {
    id: String,
    batch_id: String,
    payee: String,
    amount: String,
    currency: &'static str,
    rail: &'static str,
    state: &'static str,
    exported_at: Option<String>,
    tx_hash: Option<String>,
}

impl PayoutRow {
    pub(super) fn of(payout: &Payout, rail: &'static str) -> Self {
        let exported_at = match payout.state {
            PayoutState::Payable | PayoutState::Final { .. } | PayoutState::Credited { .. } => None,
            PayoutState::Exported(at) => Some(moment(at)),
        };
        Self {
            id: payout.id.to_string(),
            batch_id: payout.batch.to_string(),
            payee: payout.payee.to_string(),
            amount: payout.amount.to_string(),
            currency: "USDC",
            rail,
            state: payout.state.name(),
            exported_at,
            tx_hash: payout.state.transaction().map(|hash| format!("0x{hash}")),
        }
    }
}

/// Rows with a heading; the heading alone when there are none.
pub(super) fn csv(rows: &[PayoutRow]) -> Result<String, csv::Error> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(["id", "batchId", "payee", "amount", "currency", "rail", "state", "exportedAt", "txHash"])?;
    for row in rows {
        writer.serialize(row)?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One settled session, with the owner's field names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SettlementLine {
    id: String,
    session_id: String,
    batch_id: String,
    total_cost: String,
    provider_payout: String,
    platform_fee: String,
    reserve: String,
    settled_at: String,
    rail: &'static str,
    tx_hash: Option<String>,
}

impl SettlementLine {
    pub(super) fn of(row: &Settlement, rail: &'static str, transaction: Option<Hash>) -> Self {
        let split = Split::of(row.total);
        Self {
            id: row.channel.to_string(),
            session_id: row.session.to_string(),
            batch_id: row.batch.to_string(),
            total_cost: row.total.to_string(),
            provider_payout: split.provider.to_string(),
            platform_fee: split.platform.to_string(),
            reserve: split.reserve.to_string(),
            settled_at: moment(row.settled_at),
            rail,
            tx_hash: transaction.map(|hash| format!("0x{hash}")),
        }
    }
}

/// Where a page of settlements ended.
pub(super) fn cursor(row: &Settlement) -> String {
    format!("{}.{}", row.session, row.channel.hash())
}

/// Reads a [`cursor`]. Only session and channel of the answer mean anything.
pub(super) fn read_cursor(text: &str) -> Result<Settlement, &'static str> {
    const EXPECTED: &str = "expected the `next` of an earlier answer";
    let (session, channel) = text.split_once('.').ok_or(EXPECTED)?;
    let channel: Hash = channel.parse().map_err(|_| EXPECTED)?;
    Ok(Settlement {
        session: session.parse().map_err(|_| EXPECTED)?,
        channel: ChannelId::from_hash(channel),
        batch: BatchId::from_parts(0, 0),
        total: Usdc::ZERO,
        settled_at: Timestamp(0),
    })
}

pub(super) fn moment(at: Timestamp) -> String {
    let nanos = i128::from(at.0).saturating_mul(1_000_000);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| at.0.to_string())
}

/// An exact sum of micro-USDC, which may be more than one amount can hold.
pub(super) fn decimal(micros: u128) -> String {
    let (whole, fraction) = (micros / 1_000_000, micros % 1_000_000);
    match fraction {
        0 => whole.to_string(),
        _ => format!("{whole}.{fraction:06}").trim_end_matches('0').to_owned(),
    }
}

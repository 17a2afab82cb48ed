//! A batch as a file that anybody can check: JSON with amounts as exact decimal texts, and each entry's documents as hexadecimal bytes.
//!
//! The readable fields of an entry repeat what its documents prove, so a reader sees what was settled and the audit compares both. Writing is here, judging is in
//! the audit.

use orien_protocol::codec::{self, CodecError};
use orien_protocol::signing::Signed;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, BatchEntry, BatchSummary};
use crate::house::NetworkFacts;

/// What a batch file calls itself.
pub const FORMAT: &str = "orien-batch/1";

/// A whole batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchFile {
    /// [`FORMAT`].
    pub format: String,
    /// Whose batch it is.
    pub network: NetworkLine,
    /// What it comes to.
    pub summary: SummaryLine,
    /// One per channel.
    pub entries: Vec<EntryLine>,
    /// One per payee.
    pub payouts: Vec<PayoutLine>,
}

/// The facts of the network, as in `network.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkLine {
    /// Network id.
    pub id: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Escrow contract.
    pub escrow: String,
    /// Signs allowances.
    pub settlement_signer: String,
    /// Signs batches.
    pub settlement_peer: String,
}

/// The signed summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SummaryLine {
    /// Batch id.
    pub id: String,
    /// Unix milliseconds.
    pub made_at: u64,
    /// Content id of the batch before, hexadecimal.
    pub previous: String,
    /// How many entries.
    pub entries: u32,
    /// USDC.
    pub total_cost: String,
    /// USDC.
    pub provider_payout: String,
    /// USDC.
    pub platform_fee: String,
    /// USDC.
    pub reserve: String,
    /// Hexadecimal.
    pub merkle_root: String,
    /// Settlement's ed25519 signature, hexadecimal.
    pub signature: String,
}

/// One channel's step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntryLine {
    /// Channel id.
    pub channel: String,
    /// Session id.
    pub session_id: String,
    /// Who funds it.
    pub account: String,
    /// Who worked, as peer id.
    pub provider: String,
    /// Who earns.
    pub payee: String,
    /// Number of the newest receipt.
    pub receipt_number: u64,
    /// Its content id, hexadecimal; the leaf of the Merkle tree.
    pub receipt_hash: String,
    /// USDC, cumulative, of the channel's last batch.
    pub from_total: String,
    /// USDC, cumulative, now.
    pub to_total: String,
    /// USDC, of the step.
    pub provider_payout: String,
    /// USDC, of the step.
    pub platform_fee: String,
    /// USDC, of the step.
    pub reserve: String,
    /// The agent's voucher for `fromTotal`, encoded, hexadecimal; null when that is zero.
    pub from_voucher: Option<String>,
    /// Terms, allowance, voucher, receipt and close, encoded, hexadecimal.
    pub evidence: String,
}

/// What one payee is owed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PayoutLine {
    /// Payout id.
    pub id: String,
    /// Payout address.
    pub payee: String,
    /// USDC.
    pub amount: String,
}

impl BatchFile {
    /// Writes a batch down.
    pub fn of(batch: &Batch, facts: &NetworkFacts) -> Result<Self, CodecError> {
        Ok(Self {
            format: FORMAT.to_owned(),
            network: NetworkLine::of(facts),
            summary: SummaryLine::of(&batch.summary),
            entries: batch.entries.iter().map(EntryLine::of).collect::<Result<_, _>>()?,
            payouts: batch
                .payouts
                .iter()
                .map(|payout| PayoutLine { id: payout.id.to_string(), payee: payout.payee.to_string(), amount: payout.amount.to_string() })
                .collect(),
        })
    }
}

impl NetworkLine {
    fn of(facts: &NetworkFacts) -> Self {
        Self {
            id: facts.network.to_string(),
            chain_id: facts.domain.chain_id,
            escrow: facts.domain.escrow.to_string(),
            settlement_signer: facts.signer.to_string(),
            settlement_peer: facts.peer.to_string(),
        }
    }
}

impl SummaryLine {
    /// Writes a summary down.
    pub fn of(signed: &Signed<BatchSummary>) -> Self {
        let summary = signed.unverified();
        let shares = summary.shares;
        Self {
            id: summary.id.to_string(),
            made_at: summary.made_at.0,
            previous: summary.previous.to_string(),
            entries: summary.entries,
            total_cost: shares.total().unwrap_or_default().to_string(),
            provider_payout: shares.provider.to_string(),
            platform_fee: shares.platform.to_string(),
            reserve: shares.reserve.to_string(),
            merkle_root: summary.root.to_string(),
            signature: hex::encode(signed.signature().to_bytes()),
        }
    }
}

impl EntryLine {
    fn of(entry: &BatchEntry) -> Result<Self, CodecError> {
        let provider = entry.evidence.terms.by_agent.unverified().provider.unverified();
        Ok(Self {
            channel: entry.channel.to_string(),
            session_id: entry.session.to_string(),
            account: entry.evidence.terms.by_agent.unverified().agent.unverified().principal.to_string(),
            provider: provider.peer.to_string(),
            payee: provider.principal.to_string(),
            receipt_number: entry.evidence.voucher.unverified().receipt_number,
            receipt_hash: entry.receipt.to_string(),
            from_total: entry.from_total.to_string(),
            to_total: entry.to_total.to_string(),
            provider_payout: entry.shares.provider.to_string(),
            platform_fee: entry.shares.platform.to_string(),
            reserve: entry.shares.reserve.to_string(),
            from_voucher: entry.from.map(|voucher| codec::encode(&voucher)).transpose()?.map(hex::encode),
            evidence: hex::encode(codec::encode(&entry.evidence)?),
        })
    }
}

//! The parts of a bundle, and how each is written: readable fields first, the document that proves them last.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::job::Job;
use crate::network::NetworkId;
use crate::receipt::{Receipt, Work};
use crate::signing::{Signed, Statement};
use crate::terms::{ToolPrice, VerifiedTerms};
use crate::voucher::{SignedAllowance, SignedClose, SignedVoucher};

/// The network's facts, as in `network.toml`.
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
}

/// The terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionLine {
    /// Session id.
    pub id: String,
    /// Channel id.
    pub channel_id: String,
    /// Content id of the terms.
    pub terms_hash: String,
    /// The agent, as peer id.
    pub agent_id: String,
    /// Who funds the session.
    pub account: String,
    /// Signs vouchers.
    pub spending_key: String,
    /// The provider, as peer id.
    pub provider_id: String,
    /// Signs closes.
    pub claim_key: String,
    /// Who earns.
    pub payout_address: String,
    /// Content id of the offer that the prices are from.
    pub offer_hash: String,
    /// The price of each tool.
    pub prices: Vec<PriceLine>,
    /// USDC, charged by receipt 1 and credited against use.
    pub minimum_charge: String,
    /// Effective time between two interim receipts of a run, milliseconds.
    pub metering_interval_ms: u64,
    /// How much longer than the agent's stopwatch a run may be reported, milliseconds.
    pub time_tolerance_ms: u64,
    /// Runs at once.
    pub runs_at_once: u16,
    /// `S0` to `S3`.
    pub confinement: String,
    /// Unix milliseconds.
    pub issued_at_ms: u64,
    /// Unix seconds.
    pub work_until: u64,
    /// Unix seconds.
    pub redeem_until: u64,
    /// The terms with every signature, encoded, hexadecimal.
    pub evidence: String,
}

/// What one tool costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriceLine {
    /// The tool.
    pub tool_id: String,
    /// USDC.
    pub price_per_minute: String,
    /// USDC.
    pub call_fee: String,
}

/// What settlement reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowanceLine {
    /// USDC; the session's budget.
    pub ceiling: String,
    /// Unix seconds.
    pub work_until: u64,
    /// Unix seconds.
    pub redeem_until: u64,
    /// Encoded, hexadecimal.
    pub evidence: String,
}

/// What the agent asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobLine {
    /// The execution.
    pub execution_id: String,
    /// The tool.
    pub tool_id: String,
    /// Content id, which receipts name.
    pub hash: String,
    /// USDC.
    pub max_cost: String,
    /// Milliseconds.
    pub max_duration_ms: u64,
    /// Unix milliseconds.
    pub issued_at_ms: u64,
    /// With its arguments, encoded, hexadecimal.
    pub evidence: String,
}

/// The payee's close.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloseLine {
    /// USDC.
    pub total: String,
    /// Encoded, hexadecimal.
    pub evidence: String,
}

/// One receipt, and its voucher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiptLine {
    /// From 1, without gaps.
    pub number: u64,
    /// Content id.
    pub hash: String,
    /// Content id of the one before.
    pub previous: String,
    /// The provider's clock, Unix milliseconds.
    pub at_ms: u64,
    /// `S0` to `S3`.
    pub confinement: String,
    /// USDC, of the session so far.
    pub charged: String,
    /// What was done; null for the opening receipt.
    pub work: Option<WorkLine>,
    /// Encoded, hexadecimal.
    pub evidence: String,
    /// The agent's answer; null for a disputed receipt.
    pub voucher: Option<VoucherLine>,
}

/// What a receipt says of one execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkLine {
    /// The execution.
    pub execution_id: String,
    /// Content id of its job.
    pub job: String,
    /// The tool.
    pub tool_id: String,
    /// So far, without pauses; what is charged.
    pub effective_ms: u64,
    /// So far.
    pub cpu_ms: u64,
    /// So far.
    pub peak_memory_bytes: u64,
    /// Of arguments.
    pub bytes_in: u64,
    /// Of output.
    pub bytes_out: u64,
    /// BLAKE3 of the output.
    pub output_hash: String,
    /// USDC, of this execution on its own.
    pub charge: String,
    /// Null while it runs.
    pub end_reason: Option<String>,
    /// Whose fault the end is; null while it runs.
    pub end_party: Option<String>,
    /// Null while it runs, and when it never ran.
    pub exit_code: Option<i32>,
}

/// The agent's promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VoucherLine {
    /// USDC, cumulative.
    pub total: String,
    /// The receipt it answers.
    pub receipt_number: u64,
    /// That receipt's content id.
    pub receipt_hash: String,
    /// Encoded, hexadecimal.
    pub evidence: String,
}

/// What the session comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TotalsLine {
    /// How many receipts.
    pub receipts: usize,
    /// How many executions they are about.
    pub executions: usize,
    /// USDC, by the newest receipt.
    pub charged: String,
    /// USDC, promised by the newest voucher.
    pub total_cost: String,
    /// USDC, of `totalCost`.
    pub provider_payout: String,
    /// USDC, of `totalCost`.
    pub platform_fee: String,
    /// USDC, of `totalCost`.
    pub reserve: String,
}

fn encoded(document: &impl Serialize) -> Result<String, CodecError> {
    codec::encode(document).map(hex::encode)
}

impl NetworkLine {
    pub(super) fn of(terms: &VerifiedTerms) -> Self {
        Self {
            id: terms.network().to_string(),
            chain_id: terms.domain.chain_id,
            escrow: terms.domain.escrow.to_string(),
            settlement_signer: terms.settlement_signer.to_string(),
        }
    }
}

impl SessionLine {
    pub(super) fn of(terms: &VerifiedTerms) -> Result<Self, CodecError> {
        Ok(Self {
            id: terms.session.to_string(),
            channel_id: terms.channel().to_string(),
            terms_hash: terms.hash().to_string(),
            agent_id: terms.agent().to_string(),
            account: terms.account().to_string(),
            spending_key: terms.spending_key().to_string(),
            provider_id: terms.provider().to_string(),
            claim_key: terms.claim_key().to_string(),
            payout_address: terms.payout().to_string(),
            offer_hash: terms.offer.to_string(),
            prices: terms.prices.iter().map(PriceLine::of).collect(),
            minimum_charge: terms.minimum_charge.to_string(),
            metering_interval_ms: terms.metering_interval.0,
            time_tolerance_ms: terms.time_tolerance.0,
            runs_at_once: terms.runs_at_once,
            confinement: format!("S{}", terms.confinement.level()),
            issued_at_ms: terms.issued_at.0,
            work_until: terms.work_until.0,
            redeem_until: terms.redeem_until.0,
            evidence: encoded(&terms.to_signed())?,
        })
    }
}

impl PriceLine {
    pub(super) fn of(price: &ToolPrice) -> Self {
        Self {
            tool_id: price.tool.clone(),
            price_per_minute: price.price.per_minute.to_string(),
            call_fee: price.price.call_fee.to_string(),
        }
    }
}

impl AllowanceLine {
    pub(super) fn of(signed: &SignedAllowance) -> Result<Self, CodecError> {
        let allowance = signed.unverified();
        Ok(Self {
            ceiling: allowance.ceiling.to_string(),
            work_until: allowance.work_until.0,
            redeem_until: allowance.redeem_until.0,
            evidence: encoded(signed)?,
        })
    }
}

impl JobLine {
    pub(super) fn of(signed: &Signed<Job>, network: &NetworkId) -> Result<Self, CodecError> {
        let job = signed.unverified();
        Ok(Self {
            execution_id: job.execution.to_string(),
            tool_id: job.tool.clone(),
            hash: job.hash(network).to_string(),
            max_cost: job.max_cost.to_string(),
            max_duration_ms: job.max_duration.0,
            issued_at_ms: job.issued_at.0,
            evidence: encoded(signed)?,
        })
    }
}

impl CloseLine {
    pub(super) fn of(signed: &SignedClose) -> Result<Self, CodecError> {
        Ok(Self { total: signed.unverified().total.to_string(), evidence: encoded(signed)? })
    }
}

impl VoucherLine {
    pub(super) fn of(signed: &SignedVoucher) -> Result<Self, CodecError> {
        let voucher = signed.unverified();
        Ok(Self {
            total: voucher.total.to_string(),
            receipt_number: voucher.receipt_number,
            receipt_hash: voucher.receipt_hash.to_string(),
            evidence: encoded(signed)?,
        })
    }
}

impl ReceiptLine {
    pub(super) fn of(signed: &Signed<Receipt>, voucher: Option<&SignedVoucher>, network: &NetworkId) -> Result<Self, CodecError> {
        let receipt = signed.unverified();
        Ok(Self {
            number: receipt.number,
            hash: receipt.hash(network).to_string(),
            previous: receipt.previous.to_string(),
            at_ms: receipt.at.0,
            confinement: format!("S{}", receipt.confinement.level()),
            charged: receipt.charged.to_string(),
            work: receipt.work.as_ref().map(WorkLine::of),
            evidence: encoded(signed)?,
            voucher: voucher.map(VoucherLine::of).transpose()?,
        })
    }
}

impl WorkLine {
    fn of(work: &Work) -> Self {
        Self {
            execution_id: work.execution.to_string(),
            job: work.job.to_string(),
            tool_id: work.tool.clone(),
            effective_ms: work.usage.effective_ms,
            cpu_ms: work.usage.cpu_ms,
            peak_memory_bytes: work.usage.peak_memory_bytes,
            bytes_in: work.usage.bytes_in,
            bytes_out: work.usage.bytes_out,
            output_hash: work.usage.output_hash.to_string(),
            charge: work.charge.to_string(),
            end_reason: work.outcome.map(|outcome| outcome.end.name().to_owned()),
            end_party: work.outcome.map(|outcome| outcome.party.name().to_owned()),
            exit_code: work.outcome.and_then(|outcome| outcome.exit_code),
        }
    }
}

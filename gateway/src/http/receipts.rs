//! `GET /api/sessions/{id}/receipts`: the evidence, with every signature checked again now.

use axum::extract::State;
use orien_door::{Json, Path, Query};
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::network::NetworkId;
use orien_protocol::receipt::Receipt;
use orien_protocol::session::agent::AgentRecord;
use orien_protocol::signing::{Signed, Statement};
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::Millis;
use orien_protocol::voucher::SignedVoucher;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::lists::{cursor, page, page_size};
use super::{Shared, session_id};
use crate::decimal::{Decimal, Seconds, Time};
use crate::rows::Refusal;

/// Receipts in one answer, unless the caller says another number, and the most it may say. Each costs two signature checks.
const PAGE: (usize, usize) = (500, 1000);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Receipts in one answer; 500 unless said, and at most 1000.
    #[param(minimum = 1)]
    limit: Option<usize>,
    /// The `nextCursor` of an earlier answer.
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Receipts)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReceiptsJson {
    session_id: String,
    channel_id: Option<String>,
    terms_hash: Option<String>,
    receipts: Vec<ReceiptJson>,
    /// Receipts that did not follow and were never answered; evidence against the provider.
    disputed: Vec<ReceiptJson>,
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Receipt)]
#[serde(rename_all = "camelCase")]
struct ReceiptJson {
    number: u64,
    hash: String,
    previous: String,
    at: Time,
    confinement: String,
    charged: Decimal,
    work: Option<WorkJson>,
    provider_signature: String,
    provider_signature_valid: bool,
    voucher: Option<VoucherJson>,
    voucher_signature_valid: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Work)]
#[serde(rename_all = "camelCase")]
struct WorkJson {
    execution_id: String,
    job: String,
    tool_id: String,
    effective_duration_seconds: Seconds,
    cpu_seconds: Seconds,
    peak_memory_bytes: u64,
    bytes_in: u64,
    bytes_out: u64,
    output_hash: String,
    charge: Decimal,
    end_reason: Option<&'static str>,
    end_party: Option<&'static str>,
    exit_code: Option<i32>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Voucher)]
#[serde(rename_all = "camelCase")]
struct VoucherJson {
    total: Decimal,
    receipt_number: u64,
    receipt_hash: String,
    signature: String,
}

/// The receipts of a session, each with its voucher and with its signatures checked again now.
#[utoipa::path(get, path = "/api/sessions/{id}/receipts", operation_id = "listReceipts", tag = "evidence", params(Page), responses(
    (status = 200, description = "Receipts in the order of their numbers; those that were disputed stand on every page.", body = ReceiptsJson),
    (status = 404, description = "`session_not_found`"),
))]
pub(super) async fn list(State(app): Shared, Path(id): Path<String>, Query(asked): Query<Page>) -> Result<Json<ReceiptsJson>, Refusal> {
    let (session, limit) = (session_id(&id)?, page_size(asked.limit, PAGE.0, PAGE.1)?);
    let after = cursor::<u64>(asked.cursor.as_deref())?.unwrap_or(0);
    app.view(session).await?;
    let records = app.sessions.context.store.records(session).await?;
    let network = app.sessions.context.network.id().clone();
    // A thousand checks take a while: off the workers that serve everybody else.
    let checked = tokio::task::spawn_blocking(move || collect(session, records, &network, after, limit)).await;
    Ok(Json(checked.map_err(|error| Refusal::internal(&error))?))
}

fn collect(session: SessionId, records: Vec<AgentRecord>, network: &NetworkId, after: u64, limit: usize) -> ReceiptsJson {
    let mut terms: Option<VerifiedTerms> = None;
    let (mut answered, mut disputed) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            AgentRecord::Agreed(signed) => terms = signed.verify(network).ok(),
            // One more than fits shows that there is another page.
            AgentRecord::Answered { receipt, voucher } if receipt.unverified().number > after && answered.len() <= limit => {
                answered.push((receipt, voucher));
            }
            AgentRecord::Disputed(receipt) => disputed.push(shown(receipt, None, terms.as_ref(), network)),
            _ => {}
        }
    }
    let (answered, next_cursor) = page(answered, limit, |(receipt, _)| receipt.unverified().number.to_string());
    let receipts = answered.into_iter().map(|(receipt, voucher)| shown(receipt, Some(voucher), terms.as_ref(), network)).collect();
    ReceiptsJson {
        session_id: session.to_string(),
        channel_id: terms.as_ref().map(|terms| terms.channel().to_string()),
        terms_hash: terms.as_ref().map(|terms| terms.hash().to_string()),
        receipts,
        disputed,
        next_cursor,
    }
}

fn shown(signed: Signed<Receipt>, voucher: Option<SignedVoucher>, terms: Option<&VerifiedTerms>, network: &NetworkId) -> ReceiptJson {
    let receipt = signed.unverified().clone();
    let hash: Hash = receipt.hash(network);
    let provider_signature = hex::encode(signed.signature().to_bytes());
    let provider_signature_valid = terms.is_some_and(|terms| signed.verify(network, &terms.provider()).is_ok());
    let voucher_signature_valid = voucher.map(|voucher| {
        let names_it = voucher.unverified().receipt_hash == hash && voucher.unverified().total == receipt.charged;
        names_it && terms.is_some_and(|terms| voucher.verify(&terms.domain, &terms.spending_key()).is_ok())
    });
    ReceiptJson {
        number: receipt.number,
        hash: hash.to_string(),
        previous: receipt.previous.to_string(),
        at: Time(receipt.at),
        confinement: format!("S{}", receipt.confinement.level()),
        charged: Decimal(receipt.charged),
        work: receipt.work.map(|work| WorkJson {
            execution_id: work.execution.to_string(),
            job: work.job.to_string(),
            tool_id: work.tool,
            effective_duration_seconds: Seconds(Millis(work.usage.effective_ms)),
            cpu_seconds: Seconds(Millis(work.usage.cpu_ms)),
            peak_memory_bytes: work.usage.peak_memory_bytes,
            bytes_in: work.usage.bytes_in,
            bytes_out: work.usage.bytes_out,
            output_hash: work.usage.output_hash.to_string(),
            charge: Decimal(work.charge),
            end_reason: work.outcome.map(|outcome| outcome.end.name()),
            end_party: work.outcome.map(|outcome| outcome.party.name()),
            exit_code: work.outcome.and_then(|outcome| outcome.exit_code),
        }),
        provider_signature,
        provider_signature_valid,
        voucher: voucher.map(|voucher| VoucherJson {
            total: Decimal(voucher.unverified().total),
            receipt_number: voucher.unverified().receipt_number,
            receipt_hash: voucher.unverified().receipt_hash.to_string(),
            signature: hex::encode(voucher.signature().to_bytes()),
        }),
        voucher_signature_valid,
    }
}

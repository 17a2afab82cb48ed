//! Runs, as callers see them.

use orien_protocol::hash::Hash;
use orien_protocol::id::ExecutionId;
use orien_protocol::money::Usdc;
use orien_protocol::time::Millis;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::session::FaultJson;
use crate::decimal::{Decimal, Seconds, Time};
use crate::rows::ExecutionRow;

/// A run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Execution)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecutionJson {
    id: String,
    /// The same as `id`; both names were promised.
    execution_id: String,
    session_id: String,
    tool_id: String,
    #[schema(value_type = Option<Object>)]
    args: Box<RawValue>,
    status: &'static str,
    started_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Time>,
    effective_duration_seconds: Seconds,
    output: String,
    /// Whether `output` is not all of it: only its end, or what is left of it around a gap.
    output_truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    cost: Decimal,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_party: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<FaultJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageJson>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
#[serde(rename_all = "camelCase")]
struct UsageJson {
    cpu_seconds: Seconds,
    peak_memory_bytes: u64,
    bytes_in: u64,
    bytes_out: u64,
    output_hash: String,
    /// Whether the output that arrived here is what the receipt says; null while that is not known.
    output_verified: Option<bool>,
}

/// The output of a run, as far as it is shown with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) text: String,
    pub(crate) cut: bool,
    /// Of all output that arrived, if none was missed and it has ended.
    pub(crate) hash: Option<Hash>,
}

/// The owner's word for where a run stands.
pub(crate) const fn run_status(row: &ExecutionRow) -> &'static str {
    row.status.name()
}

/// Arguments longer than this are left out of lists.
pub(crate) const LISTED_ARGS_BYTES: usize = 4096;

impl ExecutionJson {
    /// A run and what it wrote. Arguments longer than `args_bytes` are shown as an empty object.
    pub(crate) fn new(id: ExecutionId, row: &ExecutionRow, output: Shown, args_bytes: usize) -> Self {
        let args = Some(row.args.clone()).filter(|args| args.len() <= args_bytes).and_then(|args| RawValue::from_string(args).ok());
        let outcome = row.work.as_ref().and_then(|work| work.outcome);
        Self {
            id: id.to_string(),
            execution_id: id.to_string(),
            session_id: row.session.to_string(),
            tool_id: row.tool.clone(),
            args: args.unwrap_or_else(|| RawValue::NULL.to_owned()),
            status: run_status(row),
            started_at: Time(row.started_at.unwrap_or(row.asked_at)),
            completed_at: row.completed_at.map(Time),
            effective_duration_seconds: Seconds(Millis(row.work.as_ref().map_or(0, |work| work.usage.effective_ms))),
            output_truncated: output.cut,
            output: output.text,
            exit_code: outcome.and_then(|outcome| outcome.exit_code),
            cost: Decimal(row.work.as_ref().map_or(Usdc::ZERO, |work| work.charge)),
            end_reason: outcome.map(|outcome| outcome.end.name()),
            end_party: outcome.map(|outcome| outcome.party.name()),
            fault: row.fault.as_ref().map(FaultJson::from),
            usage: row.work.as_ref().map(|work| UsageJson {
                cpu_seconds: Seconds(Millis(work.usage.cpu_ms)),
                peak_memory_bytes: work.usage.peak_memory_bytes,
                bytes_in: work.usage.bytes_in,
                bytes_out: work.usage.bytes_out,
                output_hash: work.usage.output_hash.to_string(),
                output_verified: output.hash.filter(|_| outcome.is_some()).map(|hash| hash == work.usage.output_hash),
            }),
        }
    }
}

/// What `POST /tools/run` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StartedExecution)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StartedJson {
    pub(crate) execution_id: String,
    pub(crate) status: &'static str,
    pub(crate) started_at: Time,
}

//! The JSON that callers see. The owner's field names and meaning come first in each; what follows them is ours.
//!
//! Always true: money is a JSON number with exact decimals, time is RFC 3339, a length of time is seconds.

use std::collections::BTreeMap;

use orien_bootstrap::Listed;
use orien_protocol::fault::Fault;
use orien_protocol::hash::Hash;
use orien_protocol::id::ExecutionId;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::offer::{Offer, Parameter, ParameterKind, Tool};
use orien_protocol::peer::PeerId;
use orien_protocol::time::Millis;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::measured::{AttestationJson, MeasuredJson, OwnJson};
use crate::decimal::{Decimal, Percent, Seconds, Time, scaled};
use crate::desk::Phase;
use crate::experience::Experience;
use crate::plan::{self, Handover, Stage};
use crate::rows::ExecutionRow;
use crate::sessions::SessionView;

/// A provider, as its newest offer says, and as we saw it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Provider)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProviderJson {
    id: String,
    name: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ens_name: Option<String>,
    price_per_minute: Decimal,
    tools: Vec<ToolJson>,
    uptime: Percent,
    total_sessions: u64,
    reputation: ReputationJson,
    payout_address: String,
    label: String,
    region: Option<String>,
    confinement: String,
    minimum_charge: Decimal,
    metering_interval_seconds: Seconds,
    capacity: CapacityJson,
    capabilities: Vec<String>,
    offer_version: u64,
    expires_at: Time,
    equivocated: bool,
    /// Its place among those that can be had now; null for one that cannot, or where nothing is compared.
    rank: Option<usize>,
    /// Why it stands there, or why it cannot be had.
    why: Option<String>,
    measured: MeasuredJson,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reputation)]
#[serde(rename_all = "camelCase")]
struct ReputationJson {
    completed_sessions: u64,
    /// Those that we had with it since this gateway's store was made.
    disputes: u64,
    /// Milliseconds; null until it was asked something.
    avg_response_time: Option<u64>,
    /// This gateway's own receipted sessions with it.
    own: OwnJson,
    /// What others attest.
    attestations: Vec<AttestationJson>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Capacity)]
#[serde(rename_all = "camelCase")]
struct CapacityJson {
    sessions: u16,
    free: u16,
    runs_per_session: u16,
}

impl ProviderJson {
    /// A listed offer, its place if it has one, and why.
    pub(crate) fn new(listed: &Listed, seen: &Experience, rank: Option<usize>, why: Option<String>) -> Self {
        let offer: &Offer = &listed.offer;
        Self {
            id: offer.provider.to_string(),
            name: if offer.name.is_empty() { offer.label.clone() } else { offer.name.clone() },
            description: offer.description.clone(),
            ens_name: offer.ens_name.clone(),
            price_per_minute: Decimal(offer.price.per_minute),
            tools: offer.tools.iter().map(ToolJson::new).collect(),
            uptime: Percent(offer.record.uptime_permyriad),
            total_sessions: offer.record.sessions_total,
            reputation: ReputationJson {
                completed_sessions: offer.record.sessions_completed,
                disputes: seen.disputed,
                avg_response_time: seen.response_ms,
                own: seen.into(),
                attestations: Vec::new(),
            },
            payout_address: offer.payout().to_string(),
            label: offer.label.clone(),
            region: offer.region.clone(),
            confinement: format!("S{}", offer.confinement.level()),
            minimum_charge: Decimal(offer.minimum_charge),
            metering_interval_seconds: Seconds(offer.metering_interval),
            capacity: CapacityJson {
                sessions: offer.capacity.sessions,
                free: offer.capacity.free,
                runs_per_session: offer.capacity.runs_per_session,
            },
            capabilities: offer.capabilities().into_iter().map(str::to_owned).collect(),
            offer_version: offer.version,
            expires_at: Time(listed.expires_at),
            equivocated: listed.equivocated,
            rank,
            why,
            measured: seen.into(),
        }
    }
}

/// A tool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tool)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolJson {
    id: String,
    name: String,
    description: String,
    command: String,
    args: Vec<ArgumentJson>,
    max_duration_seconds: Seconds,
    resource_limits: LimitsJson,
    price_per_minute: Decimal,
    call_fee: Decimal,
    workspace_required: bool,
    capabilities: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResourceLimits)]
struct LimitsJson {
    cpu: String,
    memory: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolArgument)]
#[serde(rename_all = "camelCase")]
struct ArgumentJson {
    name: String,
    description: String,
    required: bool,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    choices: Option<Vec<String>>,
}

impl ArgumentJson {
    fn new(parameter: &Parameter) -> Self {
        let plain = |r#type| Self {
            name: parameter.name.clone(),
            description: parameter.description.clone(),
            required: parameter.required,
            r#type,
            minimum: None,
            maximum: None,
            max_bytes: None,
            choices: None,
        };
        match &parameter.kind {
            ParameterKind::Text { max_bytes } => Self { max_bytes: Some(*max_bytes), ..plain("text") },
            ParameterKind::Integer { min, max } => Self { minimum: Some(*min), maximum: Some(*max), ..plain("integer") },
            ParameterKind::Number { min, max } => Self { minimum: Some(*min), maximum: Some(*max), ..plain("number") },
            ParameterKind::Boolean => plain("boolean"),
            ParameterKind::Choice(choices) => Self { choices: Some(choices.clone()), ..plain("choice") },
            ParameterKind::File => plain("file"),
        }
    }
}

impl ToolJson {
    /// A tool of an offer.
    pub(crate) fn new(tool: &Tool) -> Self {
        Self {
            id: tool.id.clone(),
            name: if tool.name.is_empty() { tool.id.clone() } else { tool.name.clone() },
            description: tool.description.clone(),
            command: tool.command.clone(),
            args: tool.parameters.iter().map(ArgumentJson::new).collect(),
            max_duration_seconds: Seconds(tool.max_duration),
            resource_limits: LimitsJson { cpu: scaled(u64::from(tool.cpu_millis), 3), memory: size(tool.memory_bytes) },
            price_per_minute: Decimal(tool.price.per_minute),
            call_fee: Decimal(tool.price.call_fee),
            workspace_required: tool.workspace_required,
            capabilities: tool.capabilities.clone(),
        }
    }
}

/// Bytes in the largest unit that is exact, such as `4GB` (1024 of each in the next, as providers write them).
fn size(bytes: u64) -> String {
    let units = [(40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")];
    let exact = units.into_iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    exact.map_or_else(|| format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionJson {
    id: String,
    agent_id: String,
    provider_id: String,
    budget_allowance: Decimal,
    budget_consumed: Decimal,
    status: &'static str,
    started_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Time>,
    effective_execution_seconds: Seconds,
    /// The newest; `executionsTotal` says how many there are.
    pub(crate) executions: Vec<ExecutionJson>,
    pub(crate) executions_total: usize,
    mission: Option<String>,
    provider_label: String,
    why_provider: String,
    phase: &'static str,
    connected: bool,
    /// When the gateway ends it, unless it is extended.
    expires_at: Time,
    /// The latest time to which it can be extended.
    extendable_until: Time,
    idle_timeout_seconds: Option<Seconds>,
    labels: BTreeMap<String, String>,
    /// Whether it goes on elsewhere when its provider is lost.
    failover: bool,
    /// The session that it goes on for.
    replaces: Option<String>,
    /// The session that goes on for it.
    replaced_by: Option<String>,
    /// How it goes on elsewhere, once its provider was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    handover: Option<HandoverJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<FaultJson>,
    /// How the charge is shared, once nothing can change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    settlement: Option<SettlementJson>,
}

/// How a session goes on elsewhere.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Handover)]
#[serde(rename_all = "camelCase")]
struct HandoverJson {
    /// `provider_vanished`, `provider_stopped`, `dispute` or `unredeemed`.
    reason: &'static str,
    /// `pending`, `done` or `failed`.
    status: &'static str,
    /// What the session that goes on may cost: what this one can no longer use.
    budget_allowance: Decimal,
    /// When it was decided.
    at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<HandoverFaultJson>,
}

/// Why there is no session that goes on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HandoverFault)]
struct HandoverFaultJson {
    code: String,
    detail: String,
}

impl From<&Handover> for HandoverJson {
    fn from(handover: &Handover) -> Self {
        let (status, fault) = match &handover.stage {
            Stage::Pending => ("pending", None),
            Stage::Done(_) => ("done", None),
            Stage::Failed { code, detail } => ("failed", Some(HandoverFaultJson { code: code.clone(), detail: detail.clone() })),
        };
        Self { reason: handover.loss.name(), status, budget_allowance: Decimal(handover.budget), at: Time(handover.at), fault }
    }
}

/// Why something failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fault)]
pub(crate) struct FaultJson {
    code: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Decimal>,
}

impl From<&Fault> for FaultJson {
    fn from(fault: &Fault) -> Self {
        Self { code: fault.code.name(), detail: fault.text.clone(), missing: fault.missing.map(Decimal) }
    }
}

/// How a session's charge is shared.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Settlement)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SettlementJson {
    session_id: String,
    total_cost: Decimal,
    provider_payout: Decimal,
    platform_fee: Decimal,
    reserve: Decimal,
    /// Null until settlement has paid out.
    settled_at: Option<Time>,
    /// Null on the ledger rail.
    tx_hash: Option<String>,
}

impl SettlementJson {
    fn new(session: String, total: Usdc) -> Self {
        let split = Split::of(total);
        Self {
            session_id: session,
            total_cost: Decimal(total),
            provider_payout: Decimal(split.provider),
            platform_fee: Decimal(split.platform),
            reserve: Decimal(split.reserve),
            settled_at: None,
            tx_hash: None,
        }
    }
}

/// The owner's word for where a session stands.
pub(crate) fn status(view: &SessionView) -> &'static str {
    plan::status(view.closing.as_ref(), &view.plan, view.handover.as_ref())
}

/// Why a session ended: how its provider was lost, or what the gateway ended it for, or what both sides say.
pub(crate) fn end_reason(view: &SessionView) -> Option<&'static str> {
    plan::end_reason(view.closing.as_ref(), &view.plan, view.handover.as_ref())
}

impl SessionJson {
    /// A session without its executions.
    pub(crate) fn new(view: &SessionView, agent: &PeerId) -> Self {
        let closing = view.closing.as_ref();
        let fault = view.dispute.as_ref().or_else(|| closing.and_then(|closing| closing.fault.as_ref()));
        Self {
            id: view.id.to_string(),
            agent_id: agent.to_string(),
            provider_id: view.facts.provider.to_string(),
            budget_allowance: Decimal(view.budget),
            budget_consumed: Decimal(view.charged),
            status: status(view),
            started_at: Time(view.facts.created_at),
            ended_at: closing.map(|closing| Time(closing.at)),
            effective_execution_seconds: Seconds(Millis(view.effective_ms)),
            executions: Vec::new(),
            executions_total: 0,
            mission: view.facts.mission.clone(),
            provider_label: view.facts.label.clone(),
            why_provider: view.facts.why.clone(),
            phase: view.phase.name(),
            connected: view.connected,
            expires_at: Time(view.plan.expires_at(view.facts.work_until)),
            extendable_until: Time(view.facts.work_until.timestamp()),
            idle_timeout_seconds: view.plan.idle_timeout.map(Seconds),
            labels: view.plan.labels.clone(),
            failover: view.plan.failover,
            replaces: view.plan.replaces.map(|session| session.to_string()),
            replaced_by: view.handover.as_ref().and_then(Handover::successor).map(|session| session.to_string()),
            handover: view.handover.as_ref().map(HandoverJson::from),
            end_reason: end_reason(view),
            fault: fault.map(FaultJson::from),
            settlement: (view.phase == Phase::Closed)
                .then(|| SettlementJson::new(view.id.to_string(), closing.map_or(view.charged, |c| c.promised))),
        }
    }
}

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
    /// Whether `output` is only the end of it.
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

/// A list under a name, as callers expect one.
pub(crate) fn list(name: &str, items: &impl Serialize) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(format!("{{{}:{}}}", Value::from(name), serde_json::to_string(items)?))
}

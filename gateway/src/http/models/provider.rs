//! Providers and what they offer, as callers see them.

use orien_bootstrap::Listed;
use orien_protocol::offer::{Offer, Parameter, ParameterKind, Tool};
use serde::Serialize;
use utoipa::ToSchema;

use crate::decimal::{Decimal, Percent, Seconds, Time, scaled};
use crate::experience::Experience;
use crate::http::measured::{AttestationJson, MeasuredJson, OwnJson};
use crate::names::Named;

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
    /// Whether the name was found to lead to `payoutAddress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ens_verified: Option<bool>,
    /// Why it is not verified: it leads elsewhere, or cannot be looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    ens_detail: Option<String>,
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
    pub(crate) fn new(listed: &Listed, seen: &Experience, named: Option<&Named>, rank: Option<usize>, why: Option<String>) -> Self {
        let offer: &Offer = &listed.offer;
        Self {
            id: offer.provider.to_string(),
            name: if offer.name.is_empty() { offer.label.clone() } else { offer.name.clone() },
            description: offer.description.clone(),
            ens_name: offer.ens_name.clone(),
            ens_verified: named.map(Named::is_verified),
            ens_detail: named.and_then(Named::detail).map(str::to_owned),
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

//! Sessions, as callers see them: where they stand, how they were handed over, how their charge is shared.

use std::collections::BTreeMap;

use orien_protocol::fault::Fault;
use orien_protocol::id::SessionId;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::peer::PeerId;
use orien_protocol::time::Millis;
use serde::Serialize;
use utoipa::ToSchema;

use super::run::ExecutionJson;
use crate::decimal::{Decimal, Seconds, Time};
use crate::desk::Phase;
use crate::plan::{self, Handover, Stage};
use crate::sessions::SessionView;
use crate::wallet::ChannelRow;

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
    /// What of `budgetConsumed` is the provider's minimum charge and was not used by runs yet: so much can be used beside what is left of the budget. Zero once the session is over.
    minimum_unused: Decimal,
    status: &'static str,
    started_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Time>,
    effective_execution_seconds: Seconds,
    /// The newest; `executionsTotal` says how many there are. In a list of sessions there are none, and they are not counted.
    pub(crate) executions: Vec<ExecutionJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) executions_total: Option<usize>,
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
    id: String,
    session_id: String,
    total_cost: Decimal,
    provider_payout: Decimal,
    platform_fee: Decimal,
    reserve: Decimal,
    /// When all of it was redeemed, in a final block; null until then, and on the ledger rail.
    settled_at: Option<Time>,
    /// The transaction that redeemed the last of it; null until then, and on the ledger rail.
    tx_hash: Option<String>,
}

impl SettlementJson {
    fn new(session: &SessionId, total: Usdc, channel: Option<&ChannelRow>) -> Self {
        let split = Split::of(total);
        let session = session.to_string();
        let last = channel.filter(|row| row.redeemed >= total).and_then(|row| row.last);
        Self {
            // Each session is settled once, whatever it takes.
            id: session.replacen("session", "settlement", 1),
            session_id: session,
            total_cost: Decimal(total),
            provider_payout: Decimal(split.provider),
            platform_fee: Decimal(split.platform),
            reserve: Decimal(split.reserve),
            settled_at: last.map(|last| Time(last.at.timestamp())),
            tx_hash: last.map(|last| last.transaction.to_string()),
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
            minimum_unused: Decimal(view.minimum_unused),
            status: status(view),
            started_at: Time(view.facts.created_at),
            ended_at: closing.map(|closing| Time(closing.at)),
            effective_execution_seconds: Seconds(Millis(view.effective_ms)),
            executions: Vec::new(),
            executions_total: None,
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
                .then(|| SettlementJson::new(&view.id, closing.map_or(view.charged, |c| c.promised), view.channel.as_ref())),
        }
    }
}

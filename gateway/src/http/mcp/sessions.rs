//! `open_session`, `session_status`, `top_up_session`, `extend_session`, `end_session` and `list_tools_in_session`.

use std::collections::BTreeMap;

use orien_protocol::money::Usdc;
use serde::Serialize;
use serde_json::json;

use super::api::{query, segment};
use super::approval::{self, Decision};
use super::call::{Call, fresh_key, key};
use super::failure::Failure;
use super::inputs::{Extend, OfSession, OpenSession, TopUp};
use super::providers::tool_line;
use super::reply::Reply;
use super::shapes::{Exact, RunLine, Session, SessionIn, Settlement, ToolIn, Tools, ToolsIn};

/// Runs shown with a session.
const RUNS_SHOWN: usize = 10;

/// What the API is asked to open, or to quote.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Order<'a> {
    pub(super) provider_id: &'a str,
    pub(super) budget_allowance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mission: Option<&'a str>,
    pub(super) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) capability: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tools: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_price_per_minute: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_uptime: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) region: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confinement: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expiry_seconds: Option<u64>,
    pub(super) dry_run: bool,
}

pub(super) async fn open(call: &Call, input: OpenSession) -> Result<Reply, Failure> {
    let budget = input.budget_usdc.0;
    let fresh = key("open_session", "", input.request_id.as_deref())?;
    let key = match approval::decide(call, budget, &format!("Spend up to {budget} USDC in a new ORIEN session?"), fresh).await? {
        Decision::Go(key) => key,
        Decision::Ask(question) => return Ok(Reply::Ask(question)),
    };
    let order = Order {
        provider_id: input.provider_id.as_deref().unwrap_or("auto"),
        budget_allowance: budget.to_string(),
        mission: input.mission.as_deref(),
        labels: input.labels,
        capability: input.capability.as_deref(),
        tools: input.tools.as_deref(),
        max_price_per_minute: input.max_price_per_minute_usdc.map(|amount| amount.0.to_string()),
        min_uptime: input.min_uptime_percent,
        region: input.region.as_deref(),
        confinement: input.confinement.as_deref(),
        expiry_seconds: input.expiry_seconds,
        dry_run: false,
    };
    let session: SessionIn = call.api.post("/api/sessions", &order, &key).await?;
    let next = "Next: put_file for what the tools read, list_tools_in_session, run_tool; end_session when done";
    shown(&session, &format!("Session {} is open with {}", session.id, session.provider_label), next)
}

pub(super) async fn status(call: &Call, input: OfSession) -> Result<Reply, Failure> {
    let session = fetch(call, &input.session_id).await?;
    let phase = session.phase.as_deref().filter(|phase| *phase != "open").map(|phase| format!(" ({phase})")).unwrap_or_default();
    shown(&session, &format!("Session {} is {}{phase}", session.id, session.status), "")
}

pub(super) async fn top_up(call: &Call, input: TopUp) -> Result<Reply, Failure> {
    let (budget, id) = (input.budget_usdc.0, &input.session_id);
    let fresh = key("top_up_session", id, input.request_id.as_deref())?;
    let key = match approval::decide(call, budget, &format!("Raise the budget of ORIEN session {id} to {budget} USDC?"), fresh).await? {
        Decision::Go(key) => key,
        Decision::Ask(question) => return Ok(Reply::Ask(question)),
    };
    let body = json!({ "budgetAllowance": budget.to_string() });
    let raised: Result<SessionIn, Failure> = call.api.post(&format!("/api/sessions/{}/topup", segment(id)), &body, &key).await;
    let session = raised.map_err(|failure| failure.with("session_id", id.as_str()))?;
    shown(&session, &format!("Session {} now has a budget of {} USDC", session.id, session.budget_allowance.0), "")
}

pub(super) async fn extend(call: &Call, input: Extend) -> Result<Reply, Failure> {
    let id = &input.session_id;
    let key = key("extend_session", id, input.request_id.as_deref())?;
    let body = json!({ "expirySeconds": input.expiry_seconds });
    let extended: Result<SessionIn, Failure> = call.api.post(&format!("/api/sessions/{}/extend", segment(id)), &body, &key).await;
    let session = extended.map_err(|failure| failure.with("session_id", id.as_str()))?;
    let until = session.expires_at.as_deref().unwrap_or("its end");
    shown(&session, &format!("Session {} goes on until {until}", session.id), "")
}

pub(super) async fn end(call: &Call, input: OfSession) -> Result<Reply, Failure> {
    let key = fresh_key()?;
    let session: SessionIn = call.api.post(&format!("/api/sessions/{}/end", segment(&input.session_id)), &json!({}), &key).await?;
    shown(&session, &format!("Session {} has ended; its workspace is gone", session.id), "")
}

pub(super) async fn tools(call: &Call, input: OfSession) -> Result<Reply, Failure> {
    let tools = tools_of(call, &input.session_id).await?;
    let mut text = format!("{} tools; run one with run_tool", tools.len());
    for tool in &tools {
        let args: Vec<String> = tool.args.iter().map(|arg| format!("{}{}", arg.name, if arg.required { "" } else { "?" })).collect();
        text.push_str(&format!("\n- {}({}): {}", tool.id, args.join(", "), tool.description));
    }
    Reply::new(text, &Tools { tools: tools.iter().map(tool_line).collect() })
}

/// The tools that a session rents.
pub(super) async fn tools_of(call: &Call, session: &str) -> Result<Vec<ToolIn>, Failure> {
    let listed: ToolsIn = call.api.get(&format!("/tools{}", query(&[("sessionId", Some(session.to_owned()))]))).await?;
    Ok(listed.tools)
}

/// A session as it stands.
pub(super) async fn fetch(call: &Call, session: &str) -> Result<SessionIn, Failure> {
    call.api.get(&format!("/api/sessions/{}", segment(session))).await
}

/// What a session may still cost.
pub(super) async fn remaining(call: &Call, session: &str) -> Result<Usdc, Failure> {
    Ok(left(&fetch(call, session).await?))
}

fn left(session: &SessionIn) -> Usdc {
    session.budget_allowance.usdc().minus(session.budget_consumed.usdc()).unwrap_or(Usdc::ZERO)
}

fn shown(session: &SessionIn, what: &str, next: &str) -> Result<Reply, Failure> {
    let left = left(session);
    let unused = session.minimum_unused.as_ref().map(Exact::usdc).filter(|unused| *unused > Usdc::ZERO);
    let mut text = format!("{what}: {} of {} USDC charged", session.budget_consumed.0, session.budget_allowance.0);
    if session.phase.as_deref() != Some("closed") {
        text.push_str(&format!(", {left} left"));
    }
    if let Some(unused) = unused {
        text.push_str(&format!(" beside {unused} of the minimum charge that runs have not used yet"));
    }
    if let Some(other) = &session.replaced_by {
        text.push_str(&format!("\nSession {other} goes on in its place"));
    }
    for part in [session.fault.as_ref().map(|fault| format!("{}: {}", fault.code, fault.detail)), Some(next.to_owned())] {
        if let Some(part) = part.filter(|part| !part.is_empty()) {
            text.push_str(&format!("\n{part}"));
        }
    }
    let line = |run: &super::shapes::RunIn| RunLine {
        run_id: run.execution_id.clone(),
        tool_id: run.tool_id.clone(),
        status: run.status.clone(),
        cost_usdc: run.cost.0.clone(),
        exit_code: run.exit_code,
    };
    let structured = Session {
        session_id: session.id.clone(),
        status: session.status.clone(),
        provider_id: session.provider_id.clone(),
        provider: session.provider_label.clone(),
        why_provider: session.why_provider.clone(),
        budget_usdc: session.budget_allowance.0.clone(),
        spent_usdc: session.budget_consumed.0.clone(),
        remaining_usdc: left.to_string(),
        minimum_unused_usdc: unused.map(|unused| unused.to_string()),
        expires_at: session.expires_at.clone(),
        mission: session.mission.clone(),
        labels: session.labels.clone(),
        runs: session.executions.iter().take(RUNS_SHOWN).map(line).collect(),
        runs_total: session.executions_total,
        end_reason: session.end_reason.clone(),
        fault: session.fault.as_ref().map(|fault| format!("{}: {}", fault.code, fault.detail)),
        replaced_by: session.replaced_by.clone(),
        settlement: session.settlement.as_ref().map(|settlement| Settlement {
            total_usdc: settlement.total_cost.0.clone(),
            provider_usdc: settlement.provider_payout.0.clone(),
            platform_usdc: settlement.platform_fee.0.clone(),
            reserve_usdc: settlement.reserve.0.clone(),
        }),
    };
    Reply::new(text, &structured)
}

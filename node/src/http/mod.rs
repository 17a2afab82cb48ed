//! The routes of a node's local door: health, tools, earnings.

mod earnings;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use orien_bootstrap::Peer;
use orien_door::{Health, Json, Uptime};
use serde::Serialize;

use crate::config::{ArgumentReport, ConfigReport, LimitsReport, ProviderConfig, ToolReport};
use crate::shop::{Shop, is_active};

/// The route that needs no token.
pub(crate) const HEALTH: &str = "/health";

/// What the routes look at.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) peer: Arc<Peer>,
    pub(crate) shop: Arc<Shop>,
    pub(crate) config: Arc<ProviderConfig>,
    pub(crate) uptime: Uptime,
}

/// The routes of the node role.
pub(crate) fn routes(shown: Shown) -> Router {
    Router::new().route(HEALTH, get(health)).route("/tools", get(tools)).merge(earnings::routes()).with_state(shown)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeHealth {
    #[serde(flatten)]
    health: Health,
    /// The oldest session that is at work.
    active_session: Option<String>,
    active_sessions: Vec<String>,
    running: usize,
    free_sessions: u16,
    provider_id: String,
    peer_id: String,
    network: String,
    addresses: Vec<String>,
    offer_version: Option<u64>,
}

async fn health(State(shown): State<Shown>) -> Json<NodeHealth> {
    let sessions = shown.shop.sessions();
    let active: Vec<String> = sessions.iter().filter(|(_, view)| is_active(view)).map(|(id, _)| id.to_string()).collect();
    let free_sessions = *shown.shop.free().borrow();
    Json(NodeHealth {
        health: shown.uptime.health(),
        active_session: active.first().cloned(),
        active_sessions: active,
        running: sessions.iter().map(|(_, view)| view.running).sum(),
        free_sessions,
        provider_id: shown.config.label.clone(),
        peer_id: shown.peer.id().to_string(),
        network: shown.peer.network().id().to_string(),
        addresses: shown.peer.net().listen_addresses().await.unwrap_or_default(),
        offer_version: shown.peer.own_offer().map(|offer| offer.version),
    })
}

#[derive(Serialize)]
struct Tools {
    tools: Vec<ToolShown>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolShown {
    id: String,
    name: String,
    command: String,
    max_duration_seconds: u64,
    description: String,
    /// Names alone, as in the configuration.
    args: Vec<String>,
    parameters: Vec<ArgumentReport>,
    available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    limits: LimitsReport,
    workspace_required: bool,
    price_per_minute: String,
    call_fee: String,
}

impl From<ToolReport> for ToolShown {
    fn from(tool: ToolReport) -> Self {
        Self {
            id: tool.id,
            name: tool.name,
            command: tool.command,
            max_duration_seconds: tool.limits.max_duration_seconds,
            description: tool.description,
            args: tool.args.iter().map(|argument| argument.name.clone()).collect(),
            parameters: tool.args,
            available: tool.available,
            reason: tool.unavailable_because,
            limits: tool.limits,
            workspace_required: tool.workspace_required,
            price_per_minute: tool.price_per_minute,
            call_fee: tool.call_fee,
        }
    }
}

async fn tools(State(shown): State<Shown>) -> Json<Tools> {
    let report = ConfigReport::of(&Ok((*shown.config).clone()));
    Json(Tools { tools: report.tools.into_iter().map(ToolShown::from).collect() })
}

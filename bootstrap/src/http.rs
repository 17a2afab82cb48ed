//! What the bootstrap role shows on its local door: its health, and the catalogue in brief.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use orien_door::{Health, Json, Uptime};
use orien_protocol::time::Timestamp;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::catalogue::Listed;
use crate::peer::Peer;

/// The route that needs no token.
pub(crate) const HEALTH: &str = "/health";

/// What the routes look at.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) peer: Arc<Peer>,
    pub(crate) uptime: Uptime,
}

/// The routes of the bootstrap role.
pub(crate) fn routes(shown: Shown) -> Router {
    Router::new().route(HEALTH, get(health)).route("/catalogue", get(catalogue)).with_state(shown)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BootstrapHealth {
    #[serde(flatten)]
    health: Health,
    network: String,
    peer_id: String,
    addresses: Vec<String>,
    peers: usize,
    offers: usize,
}

async fn health(State(Shown { peer, uptime }): State<Shown>) -> Json<BootstrapHealth> {
    Json(BootstrapHealth {
        health: uptime.health(),
        network: peer.network().id().to_string(),
        peer_id: peer.id().to_string(),
        addresses: peer.net().listen_addresses().await.unwrap_or_default(),
        peers: peer.net().peers().await.map_or(0, |peers| peers.len()),
        offers: peer.catalogue().len(),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CatalogueAnswer {
    offers: Vec<OfferBrief>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfferBrief {
    peer_id: String,
    provider_id: String,
    name: String,
    version: u64,
    expires_at: Option<String>,
    price_per_minute: String,
    tools: Vec<String>,
    region: Option<String>,
    equivocated: bool,
}

impl From<&Listed> for OfferBrief {
    fn from(listed: &Listed) -> Self {
        let offer = &listed.offer;
        Self {
            peer_id: offer.provider.to_string(),
            provider_id: offer.label.clone(),
            name: offer.name.clone(),
            version: offer.version,
            expires_at: rfc3339(listed.expires_at),
            price_per_minute: offer.price.per_minute.to_string(),
            tools: offer.tools.iter().map(|tool| tool.id.clone()).collect(),
            region: offer.region.clone(),
            equivocated: listed.equivocated,
        }
    }
}

async fn catalogue(State(Shown { peer, .. }): State<Shown>) -> Json<CatalogueAnswer> {
    Json(CatalogueAnswer { offers: peer.catalogue().all().iter().map(OfferBrief::from).collect() })
}

fn rfc3339(at: Timestamp) -> Option<String> {
    let nanoseconds = i128::from(at.0).checked_mul(1_000_000)?;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?.format(&Rfc3339).ok()
}

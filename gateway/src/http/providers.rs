//! `GET /api/providers`: who offers what.

use axum::extract::State;
use orien_bootstrap::Listed;
use orien_door::{Json, Path, Query};
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::models::{ProviderJson, list as named};
use super::{App, Shared, shown};
use crate::rows::Refusal;

/// Most providers in one answer.
const LIST_LIMIT: usize = 500;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    capability: Option<String>,
    tool: Option<String>,
    max_price_per_minute: Option<String>,
}

/// Who offers what.
#[utoipa::path(get, path = "/api/providers", operation_id = "listProviders", tag = "providers", params(Filter), responses(
    (status = 200, description = "Providers whose newest offers fit.", content_type = "application/json"),
))]
pub(super) async fn list(State(app): Shared, Query(filter): Query<Filter>) -> Result<Json<Box<RawValue>>, Refusal> {
    let max = filter.max_price_per_minute.as_deref().map(amount).transpose()?;
    let fits = |listed: &&Listed| {
        let tools = || listed.offer.tools.iter().filter(|t| filter.tool.as_ref().is_none_or(|id| t.id == *id));
        let able = |t: &&orien_protocol::offer::Tool| filter.capability.as_ref().is_none_or(|c| t.id == *c || t.capabilities.contains(c));
        let wanted = filter.capability.is_some() || filter.tool.is_some() || max.is_some();
        !wanted || tools().filter(able).any(|t| max.is_none_or(|max| t.price.per_minute <= max))
    };
    let listed = app.sessions.context.catalogue.all();
    let providers: Vec<ProviderJson> = listed.iter().filter(fits).take(LIST_LIMIT).map(|listed| shown_as(&app, listed)).collect();
    named("providers", &providers).map(Json).map_err(|error| Refusal::internal(&error))
}

/// One provider, by its peer id or by a label that only it has.
#[utoipa::path(get, path = "/api/providers/{id}", operation_id = "getProvider", tag = "providers", responses(
    (status = 200, description = "Its newest offer, and how it was seen from here.", body = ProviderJson),
    (status = 404, description = "`provider_not_found`"),
    (status = 409, description = "`provider_ambiguous`: several have this label."),
))]
pub(super) async fn one(State(app): Shared, Path(id): Path<String>) -> Result<Json<ProviderJson>, Refusal> {
    let provider = find(&app, &id)?;
    match app.sessions.context.catalogue.provider(&provider) {
        Some(listed) => Ok(Json(shown_as(&app, &listed))),
        None => Err(unknown(&id)),
    }
}

fn shown_as(app: &App, listed: &Listed) -> ProviderJson {
    ProviderJson::new(listed, app.sessions.directory.seen(&listed.offer.provider))
}

/// The provider that a caller means: by its peer id, or by a label that only one has.
pub(super) fn find(app: &App, text: &str) -> Result<PeerId, Refusal> {
    if let Ok(peer) = text.parse() {
        return Ok(peer);
    }
    let listed = app.sessions.context.catalogue.all();
    let mut named = listed.iter().filter(|listed| listed.offer.label == text);
    match (named.next(), named.next()) {
        (Some(listed), None) => Ok(listed.offer.provider),
        (Some(_), Some(_)) => {
            let detail = format!("More than one provider calls itself {}; use the peer id.", shown(text));
            Err(Refusal::new(axum::http::StatusCode::CONFLICT, "provider_ambiguous", "Several providers have this label", detail))
        }
        (None, _) => Err(unknown(text)),
    }
}

fn unknown(text: &str) -> Refusal {
    Refusal::not_found("provider_not_found", "There is no such provider", format!("No current offer is from {}.", shown(text)))
}

fn amount(text: &str) -> Result<Usdc, Refusal> {
    text.parse().map_err(|error| {
        let detail = format!("maxPricePerMinute: {error}");
        Refusal::new(axum::http::StatusCode::BAD_REQUEST, "invalid_query", "The query is not what this route takes", detail)
    })
}

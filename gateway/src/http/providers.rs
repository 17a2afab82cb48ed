//! `GET /api/providers`: who offers what, ranked with reasons.
//!
//! Always true: the first of the list is the one that `auto` tries first for the same wishes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use axum::extract::State;
use axum::response::Response;
use orien_bootstrap::{Listed, clock};
use orien_door::{Json, Path, Query};
use orien_protocol::money::Usdc;
use orien_protocol::offer::Confinement;
use orien_protocol::peer::PeerId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::lists::{Has, answer, cursor, invalid, page, page_size};
use super::models::ProviderJson;
use super::{App, Shared, shown};
use crate::decimal::Percent;
use crate::matching::{Candidate, Order, Rejected, Wish, confinement, rank};
use crate::rows::Refusal;

/// Providers in a list, unless the caller says another number, and the most it may say.
const LIST: (usize, usize) = (100, 500);
/// Most offers that did not fit in one answer.
const REJECTED_LIMIT: usize = 500;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    capability: Option<String>,
    tool: Option<String>,
    max_price_per_minute: Option<String>,
    min_uptime: Option<String>,
    region: Option<String>,
    confinement: Option<String>,
    sort: Option<String>,
    #[serde(default)]
    rejected: bool,
    #[param(minimum = 1)]
    limit: Option<usize>,
    cursor: Option<String>,
}

impl Filter {
    fn wish(&self) -> Result<Wish, Refusal> {
        let order = self.sort.as_deref().map_or(Ok(Order::default()), |name| {
            let found = Order::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, order)| order);
            found.ok_or_else(|| invalid(format_args!("sort has to be price, start, uptime or reputation, not {}", shown(name))))
        })?;
        Ok(Wish {
            capability: self.capability.clone(),
            tools: self.tool.iter().cloned().collect(),
            max_price_per_minute: self.max_price_per_minute.as_deref().map(amount).transpose()?,
            min_uptime_permyriad: self.min_uptime.as_deref().map(share).transpose()?,
            region: self.region.clone(),
            min_confinement: self.confinement.as_deref().map(level).transpose()?,
            order,
        })
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Providers)]
#[serde(rename_all = "camelCase")]
struct ProvidersJson {
    providers: Vec<ProviderJson>,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<Vec<RejectedJson>>,
}

/// A provider that does not fit, and what it lacks.
#[derive(Serialize, ToSchema)]
#[schema(as = RejectedProvider)]
struct RejectedJson {
    id: String,
    label: String,
    why: String,
}

/// One entry of the list before it is cut into pages.
struct Place {
    provider: PeerId,
    rank: Option<usize>,
    why: String,
}

/// Who offers what, the best first, and why.
#[utoipa::path(get, path = "/api/providers", operation_id = "listProviders", tag = "providers", params(Filter), responses(
    (status = 200, description = "Providers whose newest offers fit; those that cannot be had now come last.", body = ProvidersJson),
    (status = 304, description = "The caller has this list."),
))]
pub(super) async fn list(State(app): Shared, has: Has, Query(filter): Query<Filter>) -> Result<Response, Refusal> {
    let (wish, limit) = (filter.wish()?, page_size(filter.limit, LIST.0, LIST.1)?);
    let after: Option<Cursor> = cursor(filter.cursor.as_deref())?;
    let (listed, experience, now) = (app.sessions.context.catalogue.all(), app.sessions.experience(), clock::wall());
    let candidates = listed.iter().map(|listed| Candidate {
        offer: &listed.offer,
        equivocated: listed.equivocated,
        known: experience(&listed.offer.provider).known(now),
    });
    let ranking = rank(&wish, candidates, now);
    let ranked = ranking.ranked.into_iter().zip(1..).map(|(ranked, rank)| (ranked.offer, Some(rank), ranked.why));
    let (absent, unfit): (Vec<_>, Vec<_>) = ranking.rejected.into_iter().partition(|rejected| rejected.fits);
    let absent = absent.into_iter().map(|rejected| (rejected.offer, None, rejected.why));
    let places: Vec<Place> = ranked.chain(absent).map(|(offer, rank, why)| Place { provider: offer.provider, rank, why }).collect();
    let from = after.map_or(0, |after| after.next(&places));
    let shown: Vec<(usize, Place)> = places.into_iter().enumerate().skip(from).take(limit.saturating_add(1)).collect();
    let (shown, next_cursor) = page(shown, limit, |(index, place)| Cursor { index: *index, provider: place.provider }.to_string());
    let by_id: BTreeMap<PeerId, &Listed> = listed.iter().map(|listed| (listed.offer.provider, listed)).collect();
    let json = |(_, place): (usize, Place)| {
        let listed = by_id.get(&place.provider)?;
        let named = app.sessions.context.names.of(&listed.offer);
        Some(ProviderJson::new(listed, &experience(&place.provider), named.as_ref(), place.rank, Some(place.why)))
    };
    let rejected = filter.rejected.then(|| {
        let lacks = |rejected: Rejected<'_>| RejectedJson {
            id: rejected.offer.provider.to_string(),
            label: rejected.offer.label.clone(),
            why: rejected.why,
        };
        unfit.into_iter().take(REJECTED_LIMIT).map(lacks).collect()
    });
    answer(&has, &ProvidersJson { providers: shown.into_iter().filter_map(json).collect(), next_cursor, rejected })
}

/// Where a page ended: behind this provider, or behind this place if it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    index: usize,
    provider: PeerId,
}

impl Cursor {
    fn next(&self, places: &[Place]) -> usize {
        let found = places.iter().position(|place| place.provider == self.provider);
        found.map_or(self.index, |index| index.saturating_add(1))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.provider)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (index, provider) = text.split_once('-').ok_or(())?;
        Ok(Self { index: index.parse().map_err(|_| ())?, provider: provider.parse().map_err(|_| ())? })
    }
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
        Some(listed) => {
            let named = app.sessions.context.names.of(&listed.offer);
            Ok(Json(ProviderJson::new(&listed, &app.sessions.experience()(&provider), named.as_ref(), None, None)))
        }
        None => Err(unknown(&id)),
    }
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
    text.parse().map_err(|error| invalid(format_args!("maxPricePerMinute: {error}")))
}

fn share(text: &str) -> Result<u16, Refusal> {
    text.parse().map(|Percent(share)| share).map_err(|error| invalid(format_args!("minUptime: {error}")))
}

fn level(name: &str) -> Result<Confinement, Refusal> {
    confinement(name).ok_or_else(|| invalid(format_args!("confinement has to be S0, S1, S2 or S3, not {}", shown(name))))
}

//! The description of the HTTP API, made out of the code: what is annotated at each handler, and what is the same for all of them.
//!
//! Always true: a route is in the document exactly if it is mounted through [`router`](super::router); every error answer is described as problem+json; what the
//! door may answer to any request is described at every route.
//!
//! To describe a new route: `#[utoipa::path(..)]` above its handler with path, operation id, tag and the answers of its own (an error needs its status and its codes in
//! backticks only), `ToSchema` on bodies, `IntoParams` on queries, and one `.routes(routes!(..))` line in [`router`](super::router).

mod door;
mod params;
mod problem;
mod scalars;

use axum::Extension;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, RefOr};
use utoipa::openapi::{OpenApiBuilder, PathItem, SecurityRequirement, Server};

pub(in crate::http) use params::{EventJson, EventLineJson, FollowHeader, HealthJson, KeyHeader};

/// What is passed on as it is.
const BINARY: [&str; 2] = ["application/octet-stream", "application/x-tar"];

/// Where the document is.
pub(in crate::http) const DOCUMENT: &str = "/openapi.json";

const ABOUT: &str = "Rent named tools on machines you do not own, by the second, within a hard USDC budget. Two calls to a first result: \
    `POST /api/sessions`, then `POST /tools/run` with `wait`.\n\nMoney is a JSON number with exact decimals (a string is taken too); times are RFC 3339; a length of time \
    is seconds. Every error is `application/problem+json` with a stable `code`. A request that can cost money takes an `Idempotency-Key`.";

/// The document as it is served.
#[derive(Clone, Debug)]
pub(in crate::http) struct Document(Bytes);

impl Document {
    /// The document of these routes.
    pub(in crate::http) fn new(api: OpenApi) -> Self {
        // Keys of a map in memory are texts: this cannot fail, and an empty document would show at once.
        Self(serde_json::to_vec(&complete(api, super::OPEN)).unwrap_or_default().into())
    }
}

/// This description, for programs.
#[utoipa::path(get, path = "/openapi.json", operation_id = "getOpenApi", tag = "gateway", responses(
    (status = 200, description = "OpenAPI 3.1.", body = serde_json::Value, content_type = "application/json"),
))]
pub(in crate::http) async fn document(Extension(Document(text)): Extension<Document>) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], text).into_response()
}

/// What the routes' own annotations are put into.
pub(in crate::http) fn frame() -> OpenApi {
    let info = InfoBuilder::new().title("ORIEN gateway").version(env!("CARGO_PKG_VERSION")).description(Some(ABOUT)).build();
    let mut components = Components::new();
    components.add_security_scheme("token", SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()));
    let cookie =
        ApiKeyValue::with_description("orien-8402", "What a browser gets for a one-time login link; the number is the door's port.");
    components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    problem::add_schemas(&mut components);
    OpenApiBuilder::new().info(info).servers(Some([Server::new("/")])).components(Some(components)).build()
}

/// The document, from what the routes say of themselves. `open` are the paths that need no token.
pub(in crate::http) fn complete(mut api: OpenApi, open: &[&str]) -> OpenApi {
    api.merge(door::api());
    let paths = std::mem::take(&mut api.paths.paths);
    for (path, mut item) in paths {
        let is_open = open.contains(&path.as_str()) || door::OPEN.contains(&path.as_str());
        operations(&mut item).for_each(|operation| finish(operation, is_open));
        // What the router calls the rest of a path is a name like any other here.
        api.paths.paths.insert(path.replace("{*", "{"), item);
    }
    api
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.head].into_iter().filter_map(Option::as_mut)
}

/// Adds what is the same for every route.
fn finish(operation: &mut Operation, is_open: bool) {
    problem::add_common(operation, is_open);
    let asked = operation.request_body.iter_mut().filter_map(|body| match body {
        RefOr::T(body) => Some(&mut body.content),
        RefOr::Ref(_) => None,
    });
    let answered = operation.responses.responses.values_mut().filter_map(|response| match response {
        RefOr::T(response) => Some(&mut response.content),
        RefOr::Ref(_) => None,
    });
    for (kind, content) in asked.flatten().chain(answered.flatten()) {
        // Bytes, not a list of numbers.
        if let (RefOr::T(content), true) = (content, BINARY.contains(&kind.as_str())) {
            content.schema = Some(scalars::bytes());
        }
    }
    for (status, response) in &mut operation.responses.responses {
        if let (RefOr::T(response), true) = (response, status.starts_with(['4', '5'])) {
            problem::describe(response);
        }
    }
    operation.security = Some(if is_open {
        vec![SecurityRequirement::default()]
    } else {
        ["token", "cookie"].map(|scheme| SecurityRequirement::new(scheme, [] as [&str; 0])).to_vec()
    });
}

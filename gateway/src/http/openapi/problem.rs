//! How errors are described: one schema for all, and the answers that any route may give because of the door in front of it.

use utoipa::openapi::path::Operation;
use utoipa::openapi::{Components, ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

/// The media type of every error.
const PROBLEM_JSON: &str = "application/problem+json";

/// What the door may answer to any request before a route sees it, or instead of a route that failed.
const DOOR: &[(&str, &str)] = &[
    ("400", "`invalid_path`, `invalid_query`"),
    ("403", "`cross_origin`: a page of another site sent it."),
    ("408", "`body_stalled`: the body did not arrive."),
    ("421", "`host_not_allowed`: this is not the host it is meant for."),
    ("429", "`rate_limited`: `Retry-After` says when to come back."),
    ("500", "`internal`: the cause is in the program's log under the request id."),
];

/// What it may answer where a token is needed; the first of one status counts.
const TOKEN: &[(&str, &str)] = &[
    ("401", "`unauthorized`: there is no token, or not this door's; `token_expired`."),
    ("403", "`insufficient_scope`: the token does not reach so far; `cross_origin`, `cross_site`: a page of another site sent it."),
];

/// An error, RFC 9457.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "only its shape is used; what is answered is the door's Problem")]
struct ProblemJson {
    /// `urn:orien:problem:` and the code.
    #[schema(example = "urn:orien:problem:budget_exhausted")]
    r#type: String,
    /// The same for every occurrence of the code.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What a program may rely on; they are all in docs/PROBLEMS.md.
    #[schema(example = "budget_exhausted", pattern = "^[a-z0-9_]+$")]
    code: String,
    /// What was wrong this time, and what to do about it.
    detail: Option<String>,
    /// The path that was asked for.
    instance: Option<String>,
    /// The name of the request in the log.
    request_id: Option<String>,
    /// When trying again makes sense; the same as the header `Retry-After`.
    retry_after_seconds: Option<u64>,
    /// How much is missing, USDC as a decimal string.
    #[schema(example = "0.25")]
    missing: Option<String>,
    /// The session that goes on for the one that was asked for.
    successor: Option<String>,
    /// What is wrong with each part of the request.
    problems: Option<Vec<PartJson>>,
}

/// What is wrong with one part of a request.
#[derive(ToSchema)]
#[schema(as = ProblemPart)]
#[expect(dead_code, reason = "only its shape is used")]
struct PartJson {
    /// The argument, field or provider.
    name: String,
    /// What is wrong with it.
    problem: String,
}

/// Puts the schemas of problems among the components.
pub(super) fn add_schemas(components: &mut Components) {
    components.schemas.insert(ProblemJson::name().into_owned(), ProblemJson::schema());
    components.schemas.insert(PartJson::name().into_owned(), PartJson::schema());
}

/// Adds the answers that any route may give. One that a route describes itself stays as it is.
pub(super) fn add_common(operation: &mut Operation, is_open: bool) {
    let token = TOKEN.iter().filter(|_| !is_open);
    for (status, description) in token.chain(DOOR) {
        let response = || ResponseBuilder::new().description(*description).build().into();
        operation.responses.responses.entry((*status).to_owned()).or_insert_with(response);
    }
}

/// Says that an error is problem+json.
pub(super) fn describe(response: &mut Response) {
    if response.content.is_empty() {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemJson::name())));
        response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(content.build()));
    }
}

//! The routes that the door has of its own, described here because the door knows no OpenAPI.
//!
//! Always true: nothing here is called; a test asks every route that is described whether it is there and answers as described.

use utoipa::{IntoParams, OpenApi, ToSchema};

use crate::decimal::{Decimal, Time};

/// Those of them that need no token.
pub(super) const OPEN: [&str; 2] = ["/login", "/favicon.ico"];

#[derive(OpenApi)]
#[openapi(paths(list_tokens, create_token, revoke_token, create_login_link, log_in, log_out, icon))]
struct Routes;

/// What the door's own routes say of themselves.
pub(super) fn api() -> utoipa::openapi::OpenApi {
    Routes::openapi()
}

/// A token, without its secret.
#[derive(ToSchema)]
#[schema(as = Token, rename_all = "camelCase")]
#[expect(dead_code, reason = "only its shape is used; it is the door's TokenJson")]
struct TokenJson {
    #[schema(example = "token_4f2a")]
    id: String,
    name: String,
    /// Of `read`, `run`, `spend`, `admin`.
    scopes: Vec<String>,
    /// Most that may be committed with it in all.
    #[schema(nullable = false)]
    cap: Option<Decimal>,
    created_at: Time,
    expires_at: Option<Time>,
    last_used_at: Option<Time>,
    is_expired: bool,
    /// The secret: in the answer to whoever made it, and never again.
    #[schema(nullable = false)]
    token: Option<String>,
}

/// All tokens but the owner's.
#[derive(ToSchema)]
#[schema(as = Tokens)]
#[expect(dead_code, reason = "only its shape is used")]
struct TokensJson {
    tokens: Vec<TokenJson>,
}

/// A token that is wanted.
#[derive(ToSchema)]
#[schema(as = TokenRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "only its shape is used")]
struct NewTokenBody {
    #[schema(example = "ci")]
    name: String,
    /// Of `read`, `run`, `spend`, `admin`.
    #[schema(example = json!(["run"]))]
    scopes: Vec<String>,
    /// Most that may be committed with it in all; needs `spend`.
    cap: Option<Decimal>,
    expires_in_seconds: Option<u64>,
}

/// A link that lets one browser in, once.
#[derive(ToSchema)]
#[schema(as = LoginLink, rename_all = "camelCase")]
#[expect(dead_code, reason = "only its shape is used")]
struct LinkJson {
    url: String,
    expires_at: Time,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its shape is used")]
struct Code {
    /// Out of a login link.
    code: Option<String>,
}

/// The tokens that were made, without their secrets.
#[utoipa::path(get, path = "/api/tokens", operation_id = "listTokens", tag = "tokens", responses(
    (status = 200, description = "All but the owner's.", body = TokensJson),
))]
#[expect(dead_code, reason = "the door answers")]
fn list_tokens() {}

/// Makes a token. Its secret is in this answer only.
#[utoipa::path(post, path = "/api/tokens", operation_id = "createToken", tag = "tokens", request_body = NewTokenBody, responses(
    (status = 201, description = "The token, with its secret.", body = TokenJson),
    (status = 409, description = "`too_many_tokens`"),
    (status = 413, description = "`body_too_large`"),
    (status = 415, description = "`unsupported_media_type`"),
    (status = 422, description = "`invalid_body`"),
))]
#[expect(dead_code, reason = "the door answers")]
fn create_token() {}

/// Takes a token back.
#[utoipa::path(delete, path = "/api/tokens/{id}", operation_id = "revokeToken", tag = "tokens", params(
    ("id" = String, Path, description = "The token's id.", example = "token_4f2a"),
), responses(
    (status = 204, description = "It is good for nothing any more."),
    (status = 404, description = "`token_not_found`"),
))]
#[expect(dead_code, reason = "the door answers")]
fn revoke_token() {}

/// Makes a link that lets one browser in, once.
#[utoipa::path(post, path = "/api/login-links", operation_id = "createLoginLink", tag = "tokens", responses(
    (status = 201, description = "The link.", body = LinkJson),
))]
#[expect(dead_code, reason = "the door answers")]
fn create_login_link() {}

/// Lets a browser in, by the code of a login link.
#[utoipa::path(get, path = "/login", operation_id = "logIn", tag = "tokens", params(Code), responses(
    (status = 303, description = "It is in, and has a cookie."),
    (status = 410, description = "The link has been used or its time is over.", body = String, content_type = "text/html"),
))]
#[expect(dead_code, reason = "the door answers")]
fn log_in() {}

/// Ends a browser's login.
#[utoipa::path(post, path = "/logout", operation_id = "logOut", tag = "tokens", responses(
    (status = 204, description = "It is out."),
    (status = 303, description = "It is out, and shown where to go."),
))]
#[expect(dead_code, reason = "the door answers")]
fn log_out() {}

/// The sign of this program.
#[utoipa::path(get, path = "/favicon.ico", operation_id = "getIcon", tag = "gateway", responses(
    (status = 200, description = "A picture.", body = String, content_type = "image/svg+xml"),
))]
#[expect(dead_code, reason = "the door answers")]
fn icon() {}

//! Which scope each route takes: the one place to look, and to add a line to when a route is added.
//!
//! Always true: what is not named here is closed: reading it takes `read`, anything else `admin`. Each scope opens the routes of the weaker ones.
//!
//! A route opened to `run` is open to `spend` too; whether a spender may use a session that it has not opened is asked in
//! [`super::rights`].

use axum::http::Method;
use orien_door::{Access, Scope};

/// The table.
pub(super) fn table() -> Access {
    super::OPEN
        .iter()
        .fold(Access::new(), |access, path| access.open(*path))
        // What commits money.
        .post("/api/sessions", Scope::Spend)
        .post("/api/sessions/{id}/topup", Scope::Spend)
        .post("/api/sessions/{id}/extend", Scope::Spend)
        .post("/api/sessions/{id}/end", Scope::Spend)
        // What uses what was committed.
        .post("/tools/run", Scope::Run)
        .post("/executions/{id}/cancel", Scope::Run)
        .post("/executions/{id}/stdin", Scope::Run)
        .unsafe_methods("/api/sessions/{id}/files/{*path}", Scope::Run)
        .method(Method::PUT, "/api/sessions/{id}/archive", Scope::Run)
        // Everything is POST there; each tool comes in again through this same door, with the caller's own rights.
        .unsafe_methods("/mcp", Scope::Read)
        .unsafe_methods("/mcp/s/{sessionId}", Scope::Read)
}

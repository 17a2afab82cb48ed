//! Which right each route takes: the table that a role hands to its door.
//!
//! Always true: a route that is not in the table is closed: reading it takes `read`, anything else `admin`. An open route is open for reading only.
//!
//! A role writes its table once, beside its routes, with the paths as they were given to the router:
//!
//! ```
//! use orien_door::{Access, Scope};
//! let access = Access::new()
//!     .open("/health")
//!     .post("/api/sessions", Scope::Spend)
//!     .unsafe_methods("/api/sessions/{id}/files/{*path}", Scope::Run);
//! ```

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{MatchedPath, Request};
use axum::http::Method;

use crate::scope::Scope;

/// The rights that routes take.
#[derive(Clone, Debug, Default)]
pub struct Access {
    open: BTreeSet<String>,
    /// By method (or none for all that change something) and path.
    needs: BTreeMap<(Option<Name>, String), Scope>,
}

/// A method's name, for it has no order of its own.
type Name = String;

impl Access {
    /// Everything closed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets anyone on an allowed host read (GET and HEAD) this path.
    #[must_use]
    pub fn open(mut self, path: impl Into<String>) -> Self {
        self.open.insert(path.into());
        self
    }

    /// POST on this path takes `scope`.
    #[must_use]
    pub fn post(self, path: impl Into<String>, scope: Scope) -> Self {
        self.method(Method::POST, path, scope)
    }

    /// GET and HEAD on this path take `scope` instead of `read`.
    #[must_use]
    pub fn get(self, path: impl Into<String>, scope: Scope) -> Self {
        let path = path.into();
        self.method(Method::GET, path.clone(), scope).method(Method::HEAD, path, scope)
    }

    /// This method on this path takes `scope`.
    #[must_use]
    pub fn method(mut self, method: Method, path: impl Into<String>, scope: Scope) -> Self {
        self.needs.insert((Some(method.as_str().to_owned()), path.into()), scope);
        self
    }

    /// Every method that changes something takes `scope` on this path, unless one is named for itself.
    #[must_use]
    pub fn unsafe_methods(mut self, path: impl Into<String>, scope: Scope) -> Self {
        self.needs.insert((None, path.into()), scope);
        self
    }

    /// What this request takes; none if nothing.
    pub(crate) fn needed(&self, request: &Request) -> Option<Scope> {
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let method = request.method();
        if (*method == Method::GET || *method == Method::HEAD) && self.open.contains(path) {
            return None;
        }
        let named = self.needs.get(&(Some(method.as_str().to_owned()), path.to_owned()));
        if method.is_safe() {
            return Some(named.copied().unwrap_or(Scope::Read));
        }
        Some(named.or_else(|| self.needs.get(&(None, path.to_owned()))).copied().unwrap_or(Scope::Admin))
    }
}

//! What a caller may do, and how a route says what it takes.
//!
//! Always true: a right is only ever given by a credential that the door has checked; a caller that holds `admin` may do everything, and nobody else may do
//! what was not named for it.
//!
//! Knows no money: the cap of a spender is a number of millionths that a role compares with its own sums.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// The id of whoever holds the token file of the door: the operator, on the command line or in a browser.
pub const OWNER: &str = "owner";

/// One kind of right. Each opens the routes of those before it too; what that means for things of others is for the role to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at everything.
    Read,
    /// Use what is there.
    Run,
    /// Commit money, up to a cap.
    Spend,
    /// Everything, tokens included.
    Admin,
}

impl Scope {
    /// Every scope, the weakest first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Run, Self::Spend, Self::Admin];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Run => "run",
            Self::Spend => "spend",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A word that is no scope.
#[derive(Debug, thiserror::Error)]
#[error("a scope is read, run, spend or admin")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or(UnknownScope)
    }
}

/// Who makes a request, as the door has found out. Every route that needs a scope finds one in its request; take it as `caller: Caller`, or as
/// `Option<Caller>` on an open route.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: String,
    scopes: BTreeSet<Scope>,
    cap: Option<u64>,
}

impl Caller {
    /// A caller with these rights.
    pub(crate) fn new(id: String, scopes: BTreeSet<Scope>, cap: Option<u64>) -> Self {
        Self(Arc::new(Inner { id, scopes, cap }))
    }

    /// Whoever holds the door's own token file.
    #[must_use]
    pub fn owner() -> Self {
        Self::new(OWNER.to_owned(), BTreeSet::from([Scope::Admin]), None)
    }

    /// Who it is: the id of a token, or [`OWNER`]. What a caller made and names is kept apart by this.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Whether it was given just this right, or all of them. A spender who was not also given `run` may run only in what it has itself opened.
    #[must_use]
    pub fn holds(&self, scope: Scope) -> bool {
        self.0.scopes.contains(&scope) || self.0.scopes.contains(&Scope::Admin)
    }

    /// Whether routes that need `scope` are open to it: it holds this one or a stronger one.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.0.scopes.last().is_some_and(|strongest| *strongest >= scope)
    }

    /// Refuses (403, `insufficient_scope`) unless [`Caller::may`].
    ///
    /// # Errors
    /// The caller holds neither this scope nor a stronger one.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.may(scope) { Ok(()) } else { Err(self.lacks(scope)) }
    }

    /// The answer to a caller that would need `scope`.
    #[must_use]
    pub fn lacks(&self, scope: Scope) -> Problem {
        let held: Vec<&str> = self.0.scopes.iter().map(|scope| scope.name()).collect();
        Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", "The token does not reach so far")
            .detail(format!(
                "This needs a token with the scope '{scope}'; the one sent has {}. `orien token create --scope {scope}` makes one.",
                if held.is_empty() { "none".to_owned() } else { held.join(", ") }
            ))
            .with("neededScope", scope.name())
    }

    /// How much it may commit in all, in millionths of the currency; none if nobody limits it.
    #[must_use]
    pub fn cap(&self) -> Option<u64> {
        self.0.cap
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // A route without a door in front of it knows nobody.
        let nobody = || Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is required");
        parts.extensions.get::<Self>().cloned().ok_or_else(nobody)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(scopes: &[Scope]) -> Caller {
        Caller::new("t".to_owned(), scopes.iter().copied().collect(), None)
    }

    #[test]
    fn a_stronger_scope_opens_the_routes_of_a_weaker_one_and_holds_only_itself() {
        let spender = with(&[Scope::Spend]);
        assert!(spender.may(Scope::Read) && spender.may(Scope::Run) && spender.may(Scope::Spend) && !spender.may(Scope::Admin));
        assert!(!spender.holds(Scope::Run) && !spender.holds(Scope::Read) && spender.holds(Scope::Spend));
        assert!(Scope::ALL.iter().all(|scope| Caller::owner().holds(*scope) && Caller::owner().may(*scope)));
        assert!(Scope::ALL.iter().all(|scope| !with(&[]).may(*scope)));
    }
}

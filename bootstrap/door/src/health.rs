//! The part of `GET /health` that is the same for every role.

use std::time::Instant;

use serde::Serialize;

/// What a role's health says first; a role adds its own with `#[serde(flatten)]`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Health {
    /// "ok" for as long as the role can answer.
    pub status: &'static str,
    /// Seconds since the role was started.
    pub uptime: u64,
}

/// When a role was started.
#[derive(Clone, Copy, Debug)]
pub struct Uptime(Instant);

impl Uptime {
    /// Starts counting.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The health of a role that is well.
    #[must_use]
    pub fn health(&self) -> Health {
        Health { status: "ok", uptime: self.0.elapsed().as_secs() }
    }
}

//! One tool call: who makes it, what it may use, and how it tells of progress.
//!
//! Always true: progress rises strictly and is told at most twice a second, and only if the caller asked for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::RequestContext;
use serde_json::Value;
use tokio::time::Instant;

use super::api::Api;
use super::failure::Failure;
use super::handler::Shared;

/// Shortest time between two words on progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Longest silence: hosts give up on calls that say nothing, most after a minute.
const PROGRESS_LATEST: Duration = Duration::from_secs(5);
/// Longest line that is told as progress.
const PROGRESS_CHARS: usize = 200;

/// A tool call.
pub(super) struct Call {
    pub(super) api: Api,
    pub(super) shared: Arc<Shared>,
    pub(super) context: RequestContext<RoleServer>,
    /// The arguments as text.
    pub(super) arguments: String,
    /// What the user answered to questions of an earlier attempt, and what we gave along with them.
    pub(super) answers: Option<BTreeMap<String, Value>>,
    pub(super) state: Option<String>,
}

impl Call {
    /// Tells of progress, if the caller wants to know.
    pub(super) fn progress(&self) -> Progress {
        let now = Instant::now();
        Progress { token: self.context.meta.get_progress_token(), begun: now, told: None, last: 0.0, line: None }
    }
}

/// The name under which the API carries out a request that acts: the same for the same tool, session and `request_id`, a new one without a `request_id`.
pub(super) fn key(tool: &str, session: &str, request_id: Option<&str>) -> Result<String, Failure> {
    match request_id {
        Some(id) => Ok(format!("mcp-{}", blake3::hash(format!("{tool}\0{session}\0{id}").as_bytes()).to_hex())),
        None => fresh_key(),
    }
}

/// A new idempotency key.
pub(super) fn fresh_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Failure::new("internal", "the system gave no random bytes"))?;
    Ok(format!("mcp-{}", hex::encode(bytes)))
}

/// What a caller has been told of a run.
pub(super) struct Progress {
    token: Option<ProgressToken>,
    begun: Instant,
    told: Option<Instant>,
    last: f64,
    line: Option<String>,
}

impl Progress {
    /// Takes a new line of output.
    pub(super) fn line(&mut self, text: &str) {
        if self.token.is_some() {
            self.line = Some(text.chars().filter(|c| !c.is_control()).take(PROGRESS_CHARS).collect());
        }
    }

    /// When it is time to tell; far off if nobody asked.
    pub(super) fn due(&self) -> Instant {
        if self.token.is_none() {
            return self.begun + Duration::from_secs(24 * 3600);
        }
        let wait = if self.line.is_some() { PROGRESS_EVERY } else { PROGRESS_LATEST };
        self.told.map_or(if self.line.is_some() { self.begun } else { self.begun + wait }, |told| told + wait)
    }

    /// Tells the caller: the last line, or how long it has been.
    pub(super) async fn tell(&mut self, call: &Call) {
        let Some(token) = self.token.clone() else { return };
        let seconds = self.begun.elapsed().as_secs_f64();
        let value = if seconds > self.last { seconds } else { self.last + 0.001 };
        let message = self.line.take().unwrap_or_else(|| format!("running for {seconds:.0} s"));
        (self.last, self.told) = (value, Some(Instant::now()));
        let told = call.context.peer.notify_progress(ProgressNotificationParam::new(token, value).with_message(message)).await;
        if let Err(error) = told {
            tracing::debug!(%error, "a caller could not be told of progress");
        }
    }
}

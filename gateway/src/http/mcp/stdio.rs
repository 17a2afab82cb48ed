//! MCP over standard input and output, for hosts that start their servers themselves.
//!
//! Always true: nothing but messages of the protocol is written to standard output; when the host closes its end, runs that it waited for are stopped before this
//! returns.

use std::sync::Arc;
use std::time::Duration;

use orien_protocol::money::Usdc;
use rmcp::ServiceExt;
use rmcp::transport::io::stdio_pipes;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{Api, segment};
use super::approval::Approval;
use super::failure::Failure;
use super::handler::{Handler, Shared, View};
use super::remote::{BadGateway, Remote};
use super::watch::CANCEL_LIMIT;

/// How long calls under way may take to stop what they have begun.
const STOP_LIMIT: Duration = Duration::from_secs(CANCEL_LIMIT.as_secs() + 1);

/// Which gateway, and for whom.
#[derive(Clone)]
pub struct McpSettings {
    /// Its address, such as `http://127.0.0.1:8402`.
    pub gateway: String,
    /// The token that opens its door.
    pub token: String,
    /// Show the tools of this session instead of the gateway's.
    pub session: Option<String>,
    /// Ask a person before more than this is committed.
    pub approve_above: Option<Usdc>,
}

impl std::fmt::Debug for McpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("McpSettings").field("gateway", &self.gateway).field("session", &self.session).finish_non_exhaustive()
    }
}

/// Why there is no server.
#[derive(Debug, Error)]
pub enum McpStdioError {
    /// The gateway cannot be spoken to.
    #[error(transparent)]
    Gateway(#[from] BadGateway),
    /// There is no such session at the gateway.
    #[error("the gateway has no session {0}; `orien session ls` shows those it has")]
    Session(String),
    /// The host did not begin as the protocol says.
    #[error("the host did not speak MCP: {0}")]
    Host(String),
}

/// Serves the host at the other end of standard input and output, until it closes its end or `stop`.
pub async fn serve_stdio(settings: McpSettings, stop: CancellationToken) -> Result<(), McpStdioError> {
    let remote = Api::Remote(Arc::new(Remote::new(&settings.gateway, &settings.token)?));
    if let Some(session) = &settings.session {
        let found: Result<serde::de::IgnoredAny, Failure> = remote.get(&format!("/api/sessions/{}", segment(session))).await;
        // A gateway that does not answer yet is no reason not to start.
        if found.is_err_and(|failure| failure.code() == "session_not_found") {
            return Err(McpStdioError::Session(session.chars().take(80).flat_map(char::escape_debug).collect()));
        }
    }
    let view = settings.session.map_or(View::Whole, View::Session);
    let shared = Arc::new(Shared {
        remote: Some(remote),
        approval: Approval::new(settings.approve_above),
        calls: TaskTracker::new(),
        // A host that goes has no further use for what it waited for, so its runs are stopped, however it goes.
        stop: CancellationToken::new(),
    });
    let handler = Handler { shared: Arc::clone(&shared), view };
    let running = match handler.serve_with_ct(stdio_pipes(), stop).await {
        Ok(running) => running,
        Err(rmcp::service::ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(McpStdioError::Host(error.to_string())),
    };
    if let Err(error) = running.waiting().await {
        tracing::warn!(%error, "the connection to the host ended with a panic");
    }
    shared.calls.close();
    if tokio::time::timeout(STOP_LIMIT, shared.calls.wait()).await.is_err() {
        tracing::warn!(left = shared.calls.len(), "some calls did not finish in time");
    }
    Ok(())
}

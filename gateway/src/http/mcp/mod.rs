//! MCP: the gateway's HTTP API as tools for models, over HTTP at `/mcp` and over standard input and output.
//!
//! Always true: it is a translation and nothing else. Every tool call becomes requests of the API, made under the name of the caller and through the same door, so
//! rights, caps, idempotency, budgets and error codes are the API's. It keeps no state of its own about sessions or runs.
//!
//! Both eras of the protocol are served: that of 2025-11-25 and before with its handshake, and that of 2026-07-28 where every request stands alone.

mod api;
mod approval;
mod call;
mod catalogue;
mod failure;
mod files;
mod flat;
mod handler;
mod inputs;
mod log;
mod prompts;
mod providers;
mod quotes;
mod refusals;
mod remote;
mod reply;
mod resources;
mod runs;
mod schema;
mod sessions;
mod shapes;
mod stdio;
mod tools;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use orien_door::Problem;
use orien_protocol::money::Usdc;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use remote::BadGateway;
pub use stdio::{McpSettings, McpStdioError, serve_stdio};

use approval::Approval;
use handler::{Handler, SESSION_PATH, Shared, View};

/// Where the gateway's tools are.
pub(super) const PATH: &str = "/mcp";
/// Where a session's tools are.
pub(super) const OF_SESSION: &str = "/mcp/s/{sessionId}";
/// Largest message: a file of a megabyte as base64, and what is around it.
const MESSAGE_BYTES: usize = 2 * 1024 * 1024;
/// Hosts of the older era connected at once to one endpoint; each holds a task until it has been idle for five minutes.
const CONNECTED_LIMIT: usize = 256;
/// How long calls under way may take to stop what they have begun.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// The MCP endpoints of a gateway.
#[derive(Debug)]
pub(crate) struct Mcp {
    shared: Arc<Shared>,
}

/// One endpoint.
#[derive(Clone)]
struct Endpoint {
    service: StreamableHttpService<Handler, LocalSessionManager>,
    connected: Arc<LocalSessionManager>,
}

impl Mcp {
    /// Asks a person before more than `approve_above` is committed.
    pub(crate) fn new(approve_above: Option<Usdc>, stop: CancellationToken) -> Self {
        let shared = Shared { remote: None, approval: Approval::new(approve_above), calls: TaskTracker::new(), stop };
        Self { shared: Arc::new(shared) }
    }

    /// The routes, to stand beside those of the API behind the same door.
    pub(crate) fn routes(&self) -> Router {
        debug_assert!(OF_SESSION.starts_with(SESSION_PATH), "the handler reads the session out of the path");
        Router::new()
            .route(PATH, any(serve).with_state(self.endpoint(View::Whole)))
            .route(OF_SESSION, any(serve).with_state(self.endpoint(View::OfPath)))
    }

    fn endpoint(&self, view: View) -> Endpoint {
        let handler = Handler { shared: Arc::clone(&self.shared), view };
        let config = StreamableHttpServerConfig::default()
            // The door has looked at Host and Origin already, and knows the names that the operator has added.
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_max_request_body_bytes(MESSAGE_BYTES)
            .with_cancellation_token(self.shared.stop.child_token());
        let connected = Arc::new(LocalSessionManager::default());
        let service = StreamableHttpService::new(move || Ok(handler.clone()), Arc::clone(&connected), config);
        Endpoint { service, connected }
    }

    /// Waits for calls under way to stop what they have begun.
    pub(crate) async fn stop(&self) {
        self.shared.calls.close();
        if tokio::time::timeout(STOP_LIMIT, self.shared.calls.wait()).await.is_err() {
            tracing::warn!(
                left = self.shared.calls.len(),
                "some MCP calls did not finish in time; their runs go on and are found by their ids"
            );
        }
    }
}

async fn serve(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let begins = *request.method() == Method::POST && !request.headers().contains_key("mcp-session-id");
    if begins && endpoint.connected.sessions.read().await.len() >= CONNECTED_LIMIT {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many MCP hosts are connected")
            .detail("Hosts that say nothing for five minutes are let go.")
            .retry_after_seconds(60)
            .into_response();
    }
    let was_json = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| kind.contains("json"));
    refusals::told(endpoint.service.handle(request).await.map(Body::new), was_json).await
}

//! The agent's side: finds providers, opens sessions, pays, and serves an HTTP API to the agent on this machine.
//!
//! Always true: every decision about money is the protocol's state machine's, whose effects are carried out in order and never before they are durable; what callers see is durable; a
//! session that is not closed is picked up again after a restart. When [`run`] returns, everything it started has stopped.
//!
//! It does not know how tools run, nor how money is paid out.

mod arguments;
mod artifacts;
mod body;
mod context;
mod courier;
mod decimal;
mod desk;
mod directory;
mod errand;
mod experience;
mod files;
mod first_run;
mod handover;
mod http;
mod input;
mod lines;
mod link;
mod logs;
mod matching;
mod meter;
mod names;
mod news;
mod opening;
mod plan;
mod quoting;
mod rows;
mod run;
mod sessions;
mod spending;
mod store;
mod wallet;

pub use http::bodies;
pub use http::mcp::{BadGateway, McpSettings, McpStdioError, serve_stdio};
pub use run::{Config, GATEWAY_DOOR_PORT, RunGatewayError, run, run_over};
pub use sessions::RestoreSessionsError;
pub use store::StoreError;

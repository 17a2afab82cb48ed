//! A safe local HTTP door: what every role puts between its own routes and whoever can reach the machine.
//!
//! Always true of a request that reaches a role's route: its `Host` is one of ours (no DNS rebinding), it was not
//! sent by another site's page, its caller is known and holds the scope that the route takes (see [`Access`] and [`Caller`]) unless the route is open, its body
//! is bounded, and whatever the route answers leaves with a request id, safe headers and, if it is an error, problem+json.
//!
//! Knows no network, no role and no money: a role brings a router and the door stands in front of it.

mod access;
mod auth;
mod config;
mod connection;
mod door;
mod extract;
mod guard;
mod health;
mod host;
mod login;
mod millionths;
mod own;
mod page;
mod places;
mod problem;
mod rate;
mod reentry;
mod request;
mod scope;
pub mod sse;
mod stall;
mod tls;
mod token;
mod tokens;

pub use access::Access;
pub use config::{DoorConfig, DoorLimits};
pub use door::{Door, OpenDoorError, ServeError};
pub use extract::{IdempotencyKey, Json, Path, Query};
pub use health::{Health, Uptime};
pub use millionths::{Millionths, NoAmount};
pub use page::{Nonce, escape, page};
pub use problem::Problem;
pub use reentry::{DoorClosed, Reentry};
pub use request::RequestId;
pub use scope::{Caller, OWNER, Scope, UnknownScope};
pub use stall::is_stall;
pub use tls::{TlsError, TlsFiles};
pub use token::{Token, TokenFileError};
pub use tokens::{NewToken, Secret, TOKENS_MAX, TokenError, TokenInfo, Tokens, TokensFileError};

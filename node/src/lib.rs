//! The provider's daemon: it offers tools, runs them for those who rent them, meters, signs receipts, and earns.
//!
//! Always true: every decision about money is the protocol's; this crate carries it out, in its order, after what it rests on is on disk. [`run`] returns when everything
//! it started has stopped.
//!
//! It does not know gateways or how money is paid out. [`shop`] is the whole provider without its network; [`config`] is what an operator writes.

pub mod admission;
pub mod arguments;
pub mod chain;
mod clerk;
pub mod collector;
pub mod command;
pub mod config;
mod daemon;
mod desk;
pub mod earnings;
mod executor;
mod files;
mod house;
mod http;
mod input;
mod line;
pub mod listing;
mod log;
mod output;
mod places;
pub mod shop;
pub mod store;
mod toolbox;

pub use daemon::{Config, NODE_DOOR_PORT, Ready, RunNodeError, run};

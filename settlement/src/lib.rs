//! The settlement of a network: it reserves budgets, checks receipts and vouchers, and settles 90/7/3, by a ledger of its own or in an escrow contract.
//!
//! `ledger`, `books`, `paying`, `evidence` and `audit` are pure; `desk` joins books and store; `onchain` joins a chain and the desk; `clerk`, `answering`, `rounds` and `http` carry questions to it. It holds nobody's keys
//! but its own, and whatever it settles can be recomputed by anybody from the evidence it publishes.

#![deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod answering;
pub mod audit;
pub mod batch;
pub mod books;
mod clerk;
pub mod desk;
pub mod evidence;
pub mod file;
pub mod house;
mod http;
pub mod ledger;
pub mod offline;
pub mod onchain;
pub mod paying;
pub mod rail;
mod role;
mod rounds;
mod store;

pub use role::{ChainConfig, Config, DEFAULT_BATCH_INTERVAL, RunError, SETTLEMENT_DOOR_PORT, run};

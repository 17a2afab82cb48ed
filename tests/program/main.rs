//! Whole-program facts: real processes of `orien`, real sockets, real tools.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is the test failing")]

mod bad_input;
mod cast;
mod cli;
mod clients;
mod comeback;
mod crashes;
mod discovery;
mod door;
mod examples;
mod failover;
mod host;
mod input;
mod kit;
mod lost;
mod main_job;
mod mcp;
mod money;
mod onchain;
mod openapi;
mod openings;
mod passwords;
mod readme;
mod storm;
mod wallet;

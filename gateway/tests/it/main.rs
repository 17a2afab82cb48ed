//! The gateway against real peers: a scripted provider on the protocol's own machine and a scripted settlement, over loopback, seen through HTTP.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is the test failing")]

mod client;
mod doors;
mod events;
mod failing;
mod failover;
mod files;
mod first_run;
mod input;
mod job;
mod lifetime;
mod lists;
mod logs;
mod mcp;
mod money;
mod openapi;
mod preconditions;
mod restart;
mod shop;
mod spending;
mod trees;
mod wallet;
mod world;

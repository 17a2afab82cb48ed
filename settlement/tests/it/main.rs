//! Settlement from outside: real keys, real documents, real stores.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is the test failing")]

mod auditing;
mod batching;
mod claiming;
mod crashes;
mod door;
mod kit;
mod live;
mod onchain;
mod properties;
mod releasing;
mod reserving;
mod restarting;
mod worlds;

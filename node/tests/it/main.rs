//! Facts about a provider: a real shop with real tools, and a real agent's machine at the other end of every stream.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is the test failing")]

mod admission;
mod agent;
mod chain;
mod crashes;
mod credit;
mod desk;
mod dissent;
mod failing;
mod files;
mod hostile;
mod input;
mod kit;
mod letting_go;
mod network;
mod opening;
mod outbid;
mod restart;
mod sessions;
mod store;

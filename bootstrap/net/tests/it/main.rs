//! Real peers on loopback, over TCP and QUIC.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap, expect or panic is the test failing")]

mod calls;
mod cast;
mod finding;
mod gossip;
mod hostile;
mod lifecycle;
mod streams;

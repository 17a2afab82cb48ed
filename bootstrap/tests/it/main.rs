//! Whole peers of this crate on a real network, on loopback.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is the test failing")]

mod discovery;
mod hostile;
mod lifecycle;
mod role;
mod support;

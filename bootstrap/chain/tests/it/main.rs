//! The chain against a real one: anvil with Circle's own USDC and the escrow, and proxies before it that fail and lie.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is the test failing")]

mod agreement;
mod claims;
mod crowd;
mod deposits;
mod ending;
mod faults;
mod kit;
mod logs;
mod names;
mod preflight;
mod reading;
mod sending;

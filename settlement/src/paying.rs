//! Getting claims into the chain, each once: one transaction at a time, from the choice of its claims to a final block.
//!
//! `policy` says when it is worth a transaction and for which claims; `machine` takes one from there, and `flight` is what is stored of it. All of it is pure: the driver in
//! `following` reads the chain, stores what it is told to store, and sends what was stored before.
//!
//! Always true: a nonce belongs to one flight; its bytes are on disk before a node sees them; every transaction that was ever signed for a nonce stays watched until that
//! nonce is used in a final block. What was paid is decided by final logs alone, never by what a node says of a transaction.

mod flight;
mod machine;
mod policy;

pub use flight::{Attempt, CALLDATA, Flight, FlightClaim, STRANGERS_NONCE, Sender, Stage};
pub use machine::{Effect, Inclusion, Input, Look, Machine, Rules, Told};
pub use policy::{Choice, Policy, choose};

//! A chain in memory that misbehaves by a seed: blocks that are taken back, transactions that are dropped, stalls, answers that are lost, receipts of blocks that never come.
//!
//! The escrow on it does with claims what the contract does, so that what the books say can be compared with it.

mod dice;
mod escrow;
mod port;
mod world;

pub(crate) use dice::Dice;
pub(crate) use port::SimPort;
pub(crate) use world::{Faults, World};

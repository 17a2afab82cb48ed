//! Worlds from seeds: every rule about money holds in each of them, whoever crashes and whoever cheats.
//!
//! `ORIEN_SEEDS=100000` runs more of them, `ORIEN_SEED=n` runs one and tells its story. How to write a scenario is in the README beside this file.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic is the test failing, and a long run says how far it is"
)]

mod regressions;
mod scenarios;
mod seeds;

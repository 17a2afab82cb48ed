//! A seeded simulator: one seed drives a world of agents, providers and a settlement in virtual time, and an auditor watches it.
//!
//! The machines are the ones that the drivers run; nothing of them is re-implemented. Messages are late, lost, repeated and overtaken, clocks are off and stepped, and any process dies between
//! any two effects and comes back from exactly what it had committed. In one world of three somebody cheats. What happens depends on nothing but the scenario. How to
//! write one is in `protocol/tests/sim/README.md`.
//!
//! It does not know how settlement works: a world is given a [`house::House`].

mod agents;
mod audit;
mod clock;
mod hostile;
pub mod house;
mod providers;
mod random;
mod run;
mod scenario;
mod seats;
mod settling;
mod story;
mod tools;
mod wire;
mod world;

pub use audit::Losses;
pub use clock::{BEGINNING, SKEW_MAX_MS};
pub use random::Random;
pub use run::{Stage, run};
pub use scenario::{Adversary, Scenario, Weather};

/// How often a provider looks at its running tools.
pub const TICK_MS: u64 = 250;
/// How long after the end of work a channel can be redeemed, in seconds.
const REDEMPTION_S: u64 = 260;

/// How much happened in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Sessions that were proposed.
    pub sessions: u64,
    /// Tools that were to start.
    pub runs: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Streams that were cut.
    pub cuts: u64,
    /// Claims that were taken.
    pub claims: u64,
    /// Payments that were made.
    pub payments: u64,
}

/// What became of a world.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Broken rules; none if all is well.
    pub breaches: Vec<String>,
    /// What happened, line by line with the time in seconds, if it was asked for.
    pub trace: Vec<String>,
    /// How much happened.
    pub counts: Counts,
    /// The worst that happened to honest parties.
    pub losses: Losses,
}

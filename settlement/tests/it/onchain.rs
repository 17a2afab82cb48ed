//! Settlement on a chain: the machine of its transactions, its books by final logs, and the whole driver on a chain that misbehaves.

mod books;
mod caps;
mod crowd;
mod decode;
mod machine;
mod paying;
mod policy;
mod reconciling;
mod scene;
mod seeds;
mod sim;
mod site;
mod standstill;
mod storm;
mod traps;

/// Seconds between asking for an exit and taking it, in every test here.
pub(crate) const EXIT_DELAY: u64 = 86_400;

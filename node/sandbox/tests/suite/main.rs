//! The attack suite: each row carries out one attack on the sandbox from inside of it, for real, and asserts what must come of it.
//!
//! Always true: a row is judged by what was tried, every try of it, and by what is there afterwards: nothing of the session is left, the
//! node serves the next run, the host's files are as they were, and no descriptor was lost. The suite holds for root and for an ordinary
//! user; [`ordinary`] sees to the second where it is started by the first. [`layers`] shows that the rows notice a layer that is missing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is the test failing")]
#![expect(clippy::print_stdout, reason = "figures and what was left out, for whoever reads the run")]

mod layers;
mod ordinary;
mod rows;
mod verdict;
mod world;

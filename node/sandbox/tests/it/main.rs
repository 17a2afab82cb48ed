//! The sandbox with real processes and a real file system. Nothing here needs root, and nothing is skipped for root.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is the test failing")]
#![expect(clippy::print_stderr, reason = "what was left out, for whoever reads the run")]

mod control;
mod files;
mod input;
mod leftovers;
mod levels;
mod limits;
mod ordinary;
mod run;
mod support;
mod transfers;

//! A chain on this machine, for tests of every crate and for trying ORIEN out: anvil with a token, the escrow and money for everybody.
//!
//! Always true: nothing here is worth anything; a chain ends with the value that started it. It does not know what it is used for.

mod crowd;
mod local;
mod process;
mod proxy;
mod rewrite;
mod testing;
mod token;

pub use local::{LocalChain, LocalSettings};
pub use process::{Anvil, AnvilSettings, find, local_key};
pub use proxy::{Fault, FaultyRpc};
pub use testing::chain_for_test;
pub use token::LocalToken;

use std::path::PathBuf;

use thiserror::Error;

use crate::error::ChainError;

/// Why there is no local chain, or it does not do what it should.
#[derive(Debug, Error)]
pub enum AnvilError {
    /// It is not installed.
    #[error(
        "anvil is not installed: it was looked for in ORIEN_ANVIL, on the PATH and in {}; install it with `npm install -g @foundry-rs/anvil`, \
         or from https://getfoundry.sh",
        cache.display()
    )]
    Absent {
        /// The last place.
        cache: PathBuf,
    },
    /// It did not start.
    #[error("{} did not start: {reason}", program.display())]
    NotStarted {
        /// What was run.
        program: PathBuf,
        /// What happened.
        reason: String,
    },
    /// It does not answer, or answers something else than anvil would.
    #[error("the local chain: {0}")]
    Chain(#[from] ChainError),
    /// A transaction was not carried out.
    #[error("the local chain did not carry out {what}: {reason}")]
    Failed {
        /// What was attempted.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The files of the real USDC are there and are not what was expected.
    #[error("{} is not the artifact of USDC that was expected: {reason}", path.display())]
    Artifact {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The proxy could not be started.
    #[error("no proxy before the local chain: {0}")]
    Proxy(#[from] std::io::Error),
}

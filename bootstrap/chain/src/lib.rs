//! The only way to a chain: reads, finalized logs, calldata and raw sends.
//!
//! Always true: what decides about money is read at a named block and told alike by as many nodes as must agree; no answer is never a no; every request is
//! bounded in time, size and number. Amounts, addresses and hashes are the protocol's own; no type of the libraries below is seen outside.
//!
//! It decides nothing and keeps nothing. It does not know sessions, ledgers or payouts.

mod abi;
#[cfg(feature = "anvil")]
pub mod anvil;
pub mod call;
mod chain;
mod claim;
mod code;
pub mod deposit;
pub mod ens;
mod error;
mod facts;
pub mod fees;
pub mod gas;
pub mod keystore;
mod logs;
mod preflight;
mod preset;
mod reads;
mod receipts;
mod refusal;
mod rpc;
mod sending;
mod transaction;
mod types;

pub use chain::Chain;
pub use claim::{OnChainClaim, OtherChannel};
pub use error::{ChainError, Mismatch};
pub use facts::{ChainFacts, ChainLimits, Finality, RpcUrl};
pub use fees::Fees;
pub use logs::{EscrowEvent, EscrowLog, Refusal};
pub use preflight::{Expected, Preflight};
pub use preset::{PRESETS, Preset};
pub use transaction::{RawTransaction, Transaction};
pub use types::{At, Block, EscrowAccount, EscrowChannel, EscrowFees, FOREVER, FeeQuote, Receipt, Revert, Sent, TxHash, Wei};

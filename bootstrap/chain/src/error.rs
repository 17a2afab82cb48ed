//! What can go wrong with a chain, sorted by what the caller can do about it.
//!
//! No answer is never a no: [`ChainError::Unanswered`] says only that nothing is known. Texts name the host of a node and never its whole address, in which
//! there may be a key.

use orien_protocol::signing::Address;
use thiserror::Error;

use crate::types::Block;

/// Why something is not known, or not true, about a chain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// A configuration that cannot work.
    #[error("{0}")]
    Config(String),
    /// A node gave no answer that counts: it could not be reached, took too long, or broke off. What was asked may have been done.
    #[error("{rpc} did not answer {method}: {reason}")]
    Unanswered {
        /// Which node.
        rpc: String,
        /// What was asked.
        method: &'static str,
        /// What happened.
        reason: String,
    },
    /// A node's answer is longer than is read; less has to be asked for at once.
    #[error("{rpc} did not answer {method}: the answer is longer than {limit} bytes")]
    AnswerTooLong {
        /// Which node.
        rpc: String,
        /// What was asked.
        method: &'static str,
        /// The most that is read.
        limit: usize,
    },
    /// A node wants fewer questions, and still did after waiting.
    #[error("{rpc} asks for fewer requests ({method}); use another node, or one with a higher limit")]
    RateLimited {
        /// Which node.
        rpc: String,
        /// What was asked.
        method: &'static str,
    },
    /// A node answered with an error.
    #[error("{rpc} refused {method}: {message} (code {code})")]
    Refused {
        /// Which node.
        rpc: String,
        /// What was asked.
        method: &'static str,
        /// The JSON-RPC error code.
        code: i64,
        /// What it said, cut short.
        message: String,
        /// The data of a call that reverted.
        data: Option<Vec<u8>>,
    },
    /// A node answered something that cannot be.
    #[error("{rpc} answered {method} with something that cannot be: {reason}")]
    Malformed {
        /// Which node.
        rpc: String,
        /// What was asked.
        method: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A node does not have the block that was asked about: it is behind, or threw its state away, or the block is no longer part of the chain.
    #[error("{rpc} does not know the state at block {block}: it lags behind or keeps no history")]
    NoState {
        /// Which node.
        rpc: String,
        /// Which block.
        block: u64,
    },
    /// Fewer nodes answered than must agree.
    #[error("only {got} of the {needed} nodes that must agree answered {what}; first failure: {first}")]
    TooFewAnswers {
        /// What was asked.
        what: &'static str,
        /// How many must agree.
        needed: usize,
        /// How many answered.
        got: usize,
        /// Why the first of the others did not.
        first: Box<ChainError>,
    },
    /// Nodes say different things about what cannot be two things.
    #[error("{one} and {other} disagree about {what}: {one_says} and {other_says}; find out which of them to trust before going on")]
    Disagree {
        /// What was asked.
        what: &'static str,
        /// One node.
        one: String,
        /// What it says, cut short.
        one_says: String,
        /// Another node.
        other: String,
        /// What that says, cut short.
        other_says: String,
    },
    /// A block that was final is another one now. Nothing that was decided on it can be relied on.
    #[error("block {number} was final as {known} and is {found} now: the chain was reorganised below its final block, or a node lies")]
    Reorganised {
        /// Which block.
        number: u64,
        /// Its hash then.
        known: String,
        /// Its hash now.
        found: String,
    },
    /// The chain is not what the network file says. Nothing was changed.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// An answer is more than is taken at once; ask for less.
    #[error("{what} has more than {limit} entries; ask for fewer blocks")]
    TooMany {
        /// What was asked.
        what: &'static str,
        /// The most that is taken.
        limit: usize,
    },
    /// One block holds more than is taken of one, and a block is not read in parts.
    #[error("block {block} has at least {found} {what}, and at most {limit} are taken of one block; what comes after it cannot be read")]
    BlockTooLarge {
        /// Which block.
        block: u64,
        /// Of what it has too much.
        what: &'static str,
        /// How many were counted.
        found: usize,
        /// The most that are taken.
        limit: usize,
    },
    /// The program was built with a damaged contract file.
    #[error("the escrow contract inside this program is damaged; build it again")]
    Artifact,
}

impl ChainError {
    /// Whether asking again later may help.
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unanswered { .. }
                | Self::AnswerTooLong { .. }
                | Self::RateLimited { .. }
                | Self::NoState { .. }
                | Self::TooFewAnswers { .. }
        )
    }

    /// A stable name for APIs and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "chain_config",
            Self::Unanswered { .. } => "chain_unanswered",
            Self::AnswerTooLong { .. } => "chain_answer_too_long",
            Self::RateLimited { .. } => "chain_rate_limited",
            Self::Refused { .. } => "chain_refused",
            Self::Malformed { .. } => "chain_malformed",
            Self::NoState { .. } => "chain_no_state",
            Self::TooFewAnswers { .. } => "chain_too_few_answers",
            Self::Disagree { .. } => "chain_disagree",
            Self::Reorganised { .. } => "chain_reorganised",
            Self::Mismatch(_) => "chain_mismatch",
            Self::TooMany { .. } => "chain_too_many",
            Self::BlockTooLarge { .. } => "chain_block_too_large",
            Self::Artifact => "chain_artifact",
        }
    }

    pub(crate) fn reorganised(known: &Block, found: &Block) -> Self {
        Self::Reorganised { number: known.number, known: format!("0x{}", known.hash), found: format!("0x{}", found.hash) }
    }
}

/// How the chain differs from what the network file says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// Another chain.
    #[error("the node is on chain {found}, and the network is on chain {expected}; check the RPC address")]
    ChainId {
        /// By the network file.
        expected: u64,
        /// By the node.
        found: u64,
    },
    /// Nothing is there.
    #[error("there is no contract at {address} ({what}); check chain.{what} of the network file, and that the node is on the right chain")]
    NoCode {
        /// Which field of the network file.
        what: &'static str,
        /// The address.
        address: Address,
    },
    /// The token refuses it: no payment could ever be made.
    #[error("the token's issuer has {address} ({what}) on its blocklist: nothing can be paid in or out")]
    Blocklisted {
        /// Which field of the network file.
        what: &'static str,
        /// The address.
        address: Address,
    },
    /// Something else is there.
    #[error("the contract at {address} is not this version of the ORIEN escrow; check chain.escrow of the network file")]
    OtherCode {
        /// The address.
        address: Address,
    },
    /// A value of a contract is not what it should be.
    #[error("{what} is {found}, expected {expected}")]
    Value {
        /// Which value.
        what: &'static str,
        /// By the network file or by this program.
        expected: String,
        /// By the chain.
        found: String,
    },
}

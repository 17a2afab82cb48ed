//! What is stored of a transaction that pays: its nonce, its claims, every attempt to have it included, and how far it is.

use orien_chain::Fees;
use orien_protocol::channel::ChannelId;
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Number under which a flight's calldata is stored beside the bytes of its attempts.
pub const CALLDATA: u32 = u32::MAX;

/// The halt for transactions of somebody else with our key.
pub const STRANGERS_NONCE: &str = "strangers_nonce";

/// What the sender itself has to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sender {
    /// The nonce of the next flight; none before the first look at the chain.
    pub next_nonce: Option<u64>,
}

/// One claim of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlightClaim {
    /// The channel.
    pub channel: ChannelId,
    /// Who is paid.
    pub payee: Address,
    /// The channel's total after it.
    pub total: Usdc,
    /// Whether the payee's close goes with it.
    pub closes: bool,
}

/// One signed transaction for the flight's nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its hash.
    pub hash: Hash,
    /// What it offers.
    pub fees: Fees,
    /// Whether it carries nothing and only uses the nonce up.
    pub is_no_op: bool,
    /// Signed when.
    pub signed_at: Timestamp,
    /// Handed to nodes last.
    pub sent_at: Option<Timestamp>,
    /// How often it was handed to nodes.
    pub sends: u32,
}

/// How far a flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Nonce and claims are chosen.
    Planned,
    /// Bytes are stored that no node has seen for sure.
    Signed,
    /// A node may have it.
    Submitted,
    /// It is in a block that is not final.
    Included {
        /// Which attempt.
        hash: Hash,
        /// The block's height.
        block: u64,
        /// The block's hash.
        block_hash: Hash,
    },
    /// It is in a final block; over.
    Final {
        /// Which attempt.
        hash: Hash,
        /// The block's height.
        block: u64,
        /// Whether it was carried out.
        success: bool,
    },
    /// A transaction that carries nothing used the nonce up; over.
    Replaced {
        /// Which attempt.
        hash: Hash,
        /// The block's height.
        block: u64,
    },
    /// A transaction that is not of this flight used the nonce up; over, with an alarm.
    Lost,
}

impl Stage {
    /// Stable name for people and APIs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Signed => "signed",
            Self::Submitted => "submitted",
            Self::Included { .. } => "included",
            Self::Final { success: true, .. } => "final",
            Self::Final { success: false, .. } => "reverted",
            Self::Replaced { .. } => "replaced",
            Self::Lost => "lost",
        }
    }
}

/// One nonce of ours and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    /// The nonce.
    pub nonce: u64,
    /// Planned when.
    pub planned_at: Timestamp,
    /// Its claims, those of one payee beside each other.
    pub claims: Vec<FlightClaim>,
    /// What it should redeem.
    pub amount: Usdc,
    /// Gas that it may use.
    pub gas_limit: u64,
    /// Signed so far, oldest first.
    pub attempts: Vec<Attempt>,
    /// How far it is.
    pub stage: Stage,
}

impl Flight {
    /// Whether its nonce is used in a final block.
    pub const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Final { .. } | Stage::Replaced { .. } | Stage::Lost)
    }

    /// The attempt with this hash.
    pub fn attempt(&self, hash: &Hash) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.hash == *hash)
    }

    /// The transaction that stands for it: the one in a block, else the newest.
    pub fn transaction(&self) -> Option<Hash> {
        match self.stage {
            Stage::Included { hash, .. } | Stage::Final { hash, .. } | Stage::Replaced { hash, .. } => Some(hash),
            _ => self.attempts.last().map(|attempt| attempt.hash),
        }
    }
}

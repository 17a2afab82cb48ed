//! What a chain speaks of, in the protocol's own types: blocks, transactions, sums of gas, accounts and channels of the escrow.

use std::fmt;
use std::str::FromStr;

use orien_protocol::hash::{Hash, ParseHashError};
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::logs::EscrowLog;

/// An amount of the chain's own coin in its smallest unit, or a price of gas in it. On Arc this is USDC with 18 decimals, and still never added to [`Usdc`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Wei(pub u128);

impl Wei {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many thousand millions of the smallest unit, as prices of gas are told.
    pub const fn from_gwei(gwei: u64) -> Self {
        Self((gwei as u128).saturating_mul(1_000_000_000))
    }

    /// This many times as much, or the largest amount.
    pub const fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count as u128))
    }
}

impl fmt::Display for Wei {
    /// Exact, in whole coins: `0.000000000000000001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coin = 10_u128.pow(18);
        let (whole, fraction) = (self.0 / coin, self.0 % coin);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:018}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Debug for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wei", self.0)
    }
}

/// The hash of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TxHash(Hash);

impl TxHash {
    /// Takes the hash.
    pub const fn from_hash(hash: Hash) -> Self {
        Self(hash)
    }

    /// The hash.
    pub const fn hash(&self) -> &Hash {
        &self.0
    }
}

impl fmt::Display for TxHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", self.0)
    }
}

impl fmt::Debug for TxHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TxHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("0x").unwrap_or(text).parse().map(Self)
    }
}

/// One block: where something was read, or happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Its height.
    pub number: u64,
    /// Its hash; a block of the same height with another hash is another block.
    pub hash: Hash,
    /// Its time, which is the contracts' clock.
    pub time: UnixSeconds,
}

/// What the escrow holds of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EscrowAccount {
    /// All of it.
    pub balance: Usdc,
    /// Of it, set aside for channels.
    pub locked: Usdc,
    /// Asked back.
    pub exiting: Usdc,
    /// From when what was asked back can be taken; zero without a request.
    pub exit_at: UnixSeconds,
    /// The most that may be reserved in a day; zero for no cap.
    pub daily_cap: Usdc,
}

/// What the escrow knows of a channel; all zero for one that it never saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EscrowChannel {
    /// Paid out so far, all shares together.
    pub redeemed: Usdc,
    /// The highest ceiling that was proven there.
    pub ceiling: Usdc,
    /// Until when that ceiling counts.
    pub redeem_until: UnixSeconds,
    /// Set aside for this channel alone.
    pub locked: Usdc,
    /// Whether the payee said that nothing more follows.
    pub closed: bool,
}

/// Fees that the escrow holds for their recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EscrowFees {
    /// Seven tenths of the fees.
    pub platform: Usdc,
    /// Three tenths of the fees.
    pub reserve: Usdc,
}

/// For ever: how long a key or signer counts that nobody ended.
pub const FOREVER: UnixSeconds = UnixSeconds(u64::MAX);

/// At which state of the chain a nonce is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The newest block that nodes know.
    Latest,
    /// The newest final block.
    Final,
}

/// What gas costs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeQuote {
    /// What the next block asks of everybody, per gas.
    pub base_fee: Wei,
    /// What others gave on top lately, per gas.
    pub tip: Wei,
}

/// What became of a transaction that was handed to nodes. Whatever it says, only final logs say what happened to money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A node took it.
    Accepted,
    /// A node has it already: in its pool, or in a block.
    AlreadyKnown,
    /// The sender's nonce is used: by this transaction or by another. Look for both.
    NonceTooLow,
    /// Another transaction with this nonce waits, and this one does not pay enough more to take its place.
    ReplacementUnderpriced,
    /// It pays less than a node takes.
    FeeTooLow,
    /// The sender cannot pay for its gas.
    InsufficientFunds,
    /// A node refuses it for another reason, cut short.
    Rejected(String),
}

/// A transaction that is in a block, as one node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The height of the block.
    pub block: u64,
    /// The hash of the block.
    pub block_hash: Hash,
    /// Whether it was carried out; one that reverted costs gas and changes nothing.
    pub success: bool,
    /// Gas that it used.
    pub gas_used: u64,
    /// What each gas cost.
    pub effective_gas_price: Wei,
    /// The contract that it made, if any.
    pub contract: Option<Address>,
    /// What the escrow logged in it.
    pub logs: Vec<EscrowLog>,
}

/// Why a contract refuses a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revert {
    /// What it is called: an error of the escrow such as `NotEnoughFree(1, 2)`, a reason in words, or `unknown`.
    pub name: String,
    /// The bytes as they came.
    pub data: Vec<u8>,
}

impl fmt::Display for Revert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coins_are_shown_exactly() {
        assert_eq!(Wei(1).to_string(), "0.000000000000000001");
        assert_eq!(Wei(2_500_000_000_000_000_000).to_string(), "2.5");
        assert_eq!(Wei(3).times(1_000_000_000_000_000_000).to_string(), "3");
    }

    #[test]
    fn a_transaction_hash_comes_back_from_its_text() {
        let hash = TxHash::from_hash(Hash::from_bytes([7; 32]));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("0x12".parse::<TxHash>().is_err());
    }
}

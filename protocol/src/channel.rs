//! The channel that money moves through: who pays whom, where, and who vouches for the reservation.
//!
//! The id is the Keccak hash of everything that decides where money goes, laid out as Solidity's `abi.encode` does, so that a contract recomputes it and nobody
//! can point a voucher at another payee, contract, chain or network.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::id::SessionId;
use crate::peer::PeerId;
use crate::signing::{Address, MoneyDomain, keccak};

/// Identity of a channel; equal to `keccak256(abi.encode(chainId, escrow, account, spendingKey, payoutAddress, providerPeer, settlementSigner, lane))`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChannelId(Hash);

/// What a channel id is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Chain and escrow.
    pub domain: MoneyDomain,
    /// Whose money it is.
    pub account: Address,
    /// Who may promise it.
    pub spending_key: Address,
    /// Who receives the provider's share.
    pub payout: Address,
    /// Who does the work.
    pub provider: PeerId,
    /// Who vouches for the reservation.
    pub settlement_signer: Address,
    /// Keeps the sessions of one pair apart.
    pub lane: SessionId,
}

impl Channel {
    /// Computes the id.
    pub fn id(&self) -> ChannelId {
        let mut bytes = [0_u8; 8 * 32];
        bytes[24..32].copy_from_slice(&self.domain.chain_id.to_be_bytes());
        for (word, address) in
            [(1, &self.domain.escrow), (2, &self.account), (3, &self.spending_key), (4, &self.payout), (6, &self.settlement_signer)]
        {
            bytes[word * 32 + 12..(word + 1) * 32].copy_from_slice(address.as_bytes());
        }
        bytes[5 * 32..6 * 32].copy_from_slice(self.provider.as_bytes());
        bytes[7 * 32..7 * 32 + 16].copy_from_slice(self.lane.as_bytes());
        ChannelId(keccak(&bytes))
    }
}

impl ChannelId {
    /// The 32 bytes.
    pub const fn hash(&self) -> &Hash {
        &self.0
    }

    /// Takes an id computed elsewhere.
    pub const fn from_hash(hash: Hash) -> Self {
        Self(hash)
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", self.0)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

//! What is settled together: a batch, its entries with their evidence, and the payouts that follow from it.
//!
//! Always true: an entry is one channel's step from the total of its last batch to a higher one; each redemption is in exactly one batch; the summary names the
//! summary before it and is signed by settlement, so that batches form one chain.

use orien_protocol::channel::ChannelId;
use orien_protocol::frame::Claim;
use orien_protocol::hash::Hash;
use orien_protocol::id::{BatchId, PayoutId, SessionId};
use orien_protocol::money::{Split, Usdc};
use orien_protocol::signing::{Address, Layout, Signed, Statement};
use orien_protocol::time::{Timestamp, UnixSeconds};
use orien_protocol::voucher::SignedVoucher;
use serde::{Deserialize, Serialize};

/// Most channels in one batch; the others wait for the next. Keeps a batch's evidence a file that is read at once.
pub const BATCH_ENTRIES_MAX: usize = 500;
/// Most encoded bytes of evidence in one batch, unless its first entry alone is larger.
pub const BATCH_EVIDENCE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most payouts in one export: what an operator can look through, and an answer that is kept whole.
pub const EXPORT_PAYOUTS_MAX: usize = 10_000;

/// What a batch comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSummary {
    /// Its name.
    pub id: BatchId,
    /// Made when, on settlement's clock.
    pub made_at: Timestamp,
    /// Content id of the summary before; zero for the first.
    pub previous: Hash,
    /// How many entries.
    pub entries: u32,
    /// The sum of all entries.
    pub shares: Split,
    /// Merkle root over the entries' receipts, in their order.
    pub root: Hash,
}

impl Statement for BatchSummary {
    const DOMAIN: &'static str = "orien/batch/v1";

    fn write(&self, out: &mut Layout) {
        out.fixed(self.id.as_bytes());
        out.u64(self.made_at.0);
        out.fixed(self.previous.as_bytes());
        out.u32(self.entries);
        out.u64(self.shares.provider.micros());
        out.u64(self.shares.platform.micros());
        out.u64(self.shares.reserve.micros());
        out.fixed(self.root.as_bytes());
    }
}

/// One channel's step in a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchEntry {
    /// The channel.
    pub channel: ChannelId,
    /// Its session.
    pub session: SessionId,
    /// Total of the channel's last batch.
    pub from_total: Usdc,
    /// Total now.
    pub to_total: Usdc,
    /// What the step adds to each share.
    pub shares: Split,
    /// Content id of the receipt that the newest voucher answers.
    pub receipt: Hash,
    /// The voucher of `from_total`; none when that is zero.
    pub from: Option<SignedVoucher>,
    /// Everything needed to check `to_total`.
    pub evidence: Claim,
}

/// A batch with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Signed by settlement.
    pub summary: Signed<BatchSummary>,
    /// In the order of their channels.
    pub entries: Vec<BatchEntry>,
    /// One per payee who earned in it, in the order of payees.
    pub payouts: Vec<Payout>,
}

/// How far a payout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayoutState {
    /// Owed and not handed out.
    Payable,
    /// Handed to the operator to carry out; on the ledger rail the last state.
    Exported(Timestamp),
    /// The chain paid it, in this transaction, and the block is final.
    Final {
        /// The transaction.
        transaction: Hash,
        /// The block's time.
        at: UnixSeconds,
    },
    /// The token refused the payee, and the escrow keeps it as the payee's credit; the block is final.
    Credited {
        /// The transaction.
        transaction: Hash,
        /// The block's time.
        at: UnixSeconds,
    },
}

impl PayoutState {
    /// Stable name for people and APIs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Payable => "payable",
            Self::Exported(_) => "exported",
            Self::Final { .. } => "final",
            Self::Credited { .. } => "credited",
        }
    }

    /// The chain transaction that moved it, if one did.
    pub const fn transaction(&self) -> Option<Hash> {
        match self {
            Self::Payable | Self::Exported(_) => None,
            Self::Final { transaction, .. } | Self::Credited { transaction, .. } => Some(*transaction),
        }
    }
}

/// What one payee is owed out of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payout {
    /// Its name: follows from batch and payee, see [`payout_id`].
    pub id: PayoutId,
    /// The batch.
    pub batch: BatchId,
    /// The payout address.
    pub payee: Address,
    /// How much; never zero.
    pub amount: Usdc,
    /// How far it is.
    pub state: PayoutState,
}

/// One session as far as it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The session.
    pub session: SessionId,
    /// Its channel.
    pub channel: ChannelId,
    /// The newest batch it is in.
    pub batch: BatchId,
    /// All of it that is in batches.
    pub total: Usdc,
    /// When the newest batch was made.
    pub settled_at: Timestamp,
}

/// The one payout of a payee in a batch: the same whoever computes it.
pub fn payout_id(batch: &BatchId, made_at: Timestamp, payee: &Address) -> PayoutId {
    let mut bytes = b"orien/payout/v1\0".to_vec();
    bytes.extend_from_slice(batch.as_bytes());
    bytes.extend_from_slice(payee.as_bytes());
    let hash = Hash::of(&bytes);
    let mut random = [0; 16];
    random.copy_from_slice(&hash.as_bytes()[..16]);
    PayoutId::from_parts(made_at.0, u128::from_be_bytes(random))
}

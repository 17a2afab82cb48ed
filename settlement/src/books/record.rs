//! What is stored of accounts, channels and requests, and the change that an operation makes to all of it.

use orien_protocol::channel::ChannelId;
use orien_protocol::frame::{ChannelState, Claim};
use orien_protocol::hash::Hash;
use orien_protocol::id::{BatchId, PayoutId, RequestId, SessionId};
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::Address;
use orien_protocol::time::{Timestamp, UnixSeconds};
use orien_protocol::voucher::{SignedAllowance, SignedClose, SignedVoucher};
use serde::{Deserialize, Serialize};

use super::onchain::ChainChange;
use crate::batch::{Batch, Payout, Settlement};
use crate::ledger::Transfer;

/// An account's credit, keys and limits.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccountRecord {
    /// All that was ever granted.
    pub granted: Usdc,
    /// Who may promise its money.
    pub spending_keys: Vec<Address>,
    /// Most by which a day may raise what is reserved and redeemed together; none for no limit.
    pub daily_cap: Option<Usdc>,
    /// The day (since 1970, UTC) that `day_reserved` is about.
    pub day: u64,
    /// By how much that day raised it so far.
    pub day_reserved: Usdc,
}

/// Whether a channel still holds money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelStatus {
    /// It does.
    Live,
    /// Its payee closed it.
    Closed,
    /// Its time was over.
    Expired,
}

/// One reserved channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRecord {
    /// Names the channel and holds its ceiling and times.
    pub allowance: SignedAllowance,
    /// The session.
    pub session: SessionId,
    /// Content id of its terms.
    pub terms: Hash,
    /// Who funds it.
    pub account: Address,
    /// Who signs its vouchers.
    pub spending_key: Address,
    /// Who earns.
    pub payout: Address,
    /// Who works.
    pub provider: PeerId,
    /// Most that may be redeemed.
    pub ceiling: Usdc,
    /// Redeemed so far.
    pub redeemed: Usdc,
    /// The newest voucher redeemed.
    pub voucher: Option<SignedVoucher>,
    /// Of `redeemed`, what is in batches.
    pub batched: Usdc,
    /// The voucher of the newest batch.
    pub batched_voucher: Option<SignedVoucher>,
    /// No redemption after this.
    pub redeem_until: UnixSeconds,
    /// Requests that were answered for this channel.
    pub requests: u32,
    /// Whether it holds money.
    pub status: ChannelStatus,
    /// The payee's close, if that ended it; kept also for a channel that was closed before it was reserved, and on a rail with a chain until that has it.
    pub close: Option<SignedClose>,
}

impl ChannelRecord {
    /// The channel.
    pub const fn id(&self) -> ChannelId {
        self.allowance.unverified().channel
    }

    /// Whether it can still be redeemed, its time aside.
    pub fn live(&self) -> bool {
        self.status == ChannelStatus::Live
    }

    /// What it holds, in micro-USDC.
    pub fn held(&self) -> u128 {
        if self.live() { u128::from(self.ceiling.excess_over(self.redeemed).micros()) } else { 0 }
    }

    /// Rank of the newest voucher redeemed; lowest before the first.
    pub fn rank(&self) -> (u64, u64) {
        self.voucher.map_or((0, 0), |voucher| voucher.unverified().rank())
    }

    /// What others are told.
    pub fn state(&self) -> ChannelState {
        ChannelState { ceiling: self.ceiling, redeemed: self.redeemed, closed: !self.live() }
    }
}

/// What somebody asked for: the asker's own name for it, within the asker and the kind of operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RequestKey {
    /// An agent's reservation.
    Reserve(PeerId, RequestId),
    /// The operator's grant.
    Grant(String),
    /// The operator's batch.
    Batch(String),
    /// The operator's export.
    Export(String),
}

/// What was answered first, and is answered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirstAnswer {
    /// To a reservation.
    Allowance(SignedAllowance),
    /// To a grant.
    Granted,
    /// To a batch; none when there was nothing to settle.
    Batch(Option<BatchId>),
    /// To an export.
    Exported(Vec<PayoutId>),
}

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Hash of what was asked.
    pub body: Hash,
    /// What was answered.
    pub answer: FirstAnswer,
    /// When it may be forgotten; the operator's requests never are.
    pub keep_until: Option<Timestamp>,
}

/// All that one operation changes; stored as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Change {
    /// In the order of their numbers.
    pub transfers: Vec<Transfer>,
    /// Replaced records.
    pub accounts: Vec<(Address, AccountRecord)>,
    /// Replaced records.
    pub channels: Vec<ChannelRecord>,
    /// The newest claim of a channel.
    pub claims: Vec<(ChannelId, Claim)>,
    /// New requests.
    pub requests: Vec<(RequestKey, RequestRecord)>,
    /// Requests whose time is over.
    pub forgotten: Vec<RequestKey>,
    /// A new batch; its payouts are in `payouts`.
    pub batch: Option<Batch>,
    /// New or replaced.
    pub payouts: Vec<Payout>,
    /// New or replaced.
    pub settlements: Vec<Settlement>,
    /// What changes on a rail with a chain.
    pub chain: ChainChange,
}

impl Change {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

//! What a session's records add up to, without checking them again: they are our own.

use std::collections::BTreeMap;

use orien_protocol::frame::{Claim, CloseReason};
use orien_protocol::money::Usdc;
use orien_protocol::receipt::Receipt;
use orien_protocol::session::provider::ProviderRecord;
use orien_protocol::signing::{Address, Signed};
use orien_protocol::terms::SignedTerms;
use orien_protocol::time::UnixSeconds;
use orien_protocol::voucher::{SignedAllowance, SignedClose, SignedVoucher};

/// Sums of one session and the documents that redeem it.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Signed by both.
    pub terms: SignedTerms,
    /// The newest.
    pub allowance: SignedAllowance,
    /// The newest.
    pub voucher: Option<SignedVoucher>,
    /// What receipts charge.
    pub charged: Usdc,
    /// Why the session closed, if it did.
    pub closed: Option<CloseReason>,
    /// The payee's close, once nothing was owed any more.
    pub close: Option<SignedClose>,
    /// The receipt that the newest voucher names.
    vouched: Option<Signed<Receipt>>,
    unanswered: BTreeMap<u64, Signed<Receipt>>,
}

/// Whether a session that closed for this reason closed without a fault of the provider.
pub(super) const fn is_without_fault(reason: CloseReason) -> bool {
    !matches!(reason, CloseReason::ProviderStopped | CloseReason::Dispute)
}

impl Summary {
    /// Adds records up; none when the first is not the opening one.
    pub fn fold(records: &mut dyn Iterator<Item = ProviderRecord>) -> Option<Self> {
        let Some(ProviderRecord::Opened { terms, allowance }) = records.next() else { return None };
        let mut summary = Self {
            terms,
            allowance,
            voucher: None,
            charged: Usdc::ZERO,
            closed: None,
            close: None,
            vouched: None,
            unanswered: BTreeMap::new(),
        };
        records.for_each(|record| summary.add(record));
        Some(summary)
    }

    fn add(&mut self, record: ProviderRecord) {
        match record {
            ProviderRecord::ToppedUp(allowance) => self.allowance = allowance,
            ProviderRecord::Receipt(receipt) => {
                self.charged = self.charged.max(receipt.unverified().charged);
                self.unanswered.insert(receipt.unverified().number, receipt);
            }
            ProviderRecord::Voucher(voucher) => {
                let number = voucher.unverified().receipt_number;
                self.vouched = self.unanswered.remove(&number).or(self.vouched.take());
                self.unanswered = self.unanswered.split_off(&number);
                self.voucher = Some(voucher);
            }
            ProviderRecord::Closed { reason, close } => (self.closed, self.close) = (Some(reason), close),
            ProviderRecord::Opened { .. }
            | ProviderRecord::Job(_)
            | ProviderRecord::JobDropped(_)
            | ProviderRecord::Draining(_)
            | ProviderRecord::GivenUp { .. } => {}
        }
    }

    /// Whose money it is.
    pub const fn account(&self) -> Address {
        self.terms.by_agent.unverified().agent.unverified().principal
    }

    /// Until when vouchers are redeemable.
    pub const fn redeem_until(&self) -> UnixSeconds {
        self.terms.by_agent.unverified().redeem_until
    }

    /// Whether its first voucher came.
    pub const fn has_opened(&self) -> bool {
        self.voucher.is_some()
    }

    /// What the newest voucher promises.
    pub fn promised(&self) -> Usdc {
        self.voucher.map_or(Usdc::ZERO, |voucher| voucher.unverified().total)
    }

    /// Whether nothing can come any more: closed, and nothing is owed.
    pub const fn is_over(&self) -> bool {
        self.close.is_some()
    }

    /// Everything settlement needs to redeem what was promised; none before the first voucher.
    pub fn claim(&self) -> Option<Claim> {
        Some(Claim {
            terms: self.terms.clone(),
            allowance: self.allowance,
            voucher: self.voucher?,
            receipt: self.vouched.clone()?,
            close: self.close,
        })
    }
}

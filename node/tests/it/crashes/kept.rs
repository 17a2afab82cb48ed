//! What a provider's store must hold, kept apart from it, with sums of its own.

use std::collections::BTreeMap;

use orien_node::store::{Handed, Store};
use orien_protocol::frame::CloseReason;
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::receipt::{EndReason, Receipt};
use orien_protocol::session::provider::ProviderRecord;
use orien_protocol::signing::{Address, Signed};
use orien_protocol::time::Timestamp;

use crate::kit::{Kit, MINIMUM, PER_MS};

/// Fee of a call of the tool `call`.
const CALL_FEE: u128 = 500_000;

/// Everything in a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kept {
    records: BTreeMap<SessionId, Vec<ProviderRecord>>,
    handed: BTreeMap<SessionId, Handed>,
    history: BTreeMap<Address, u128>,
    /// Sessions that opened, those that completed, first start, milliseconds that it ran.
    past: [u64; 4],
}

impl Kept {
    /// Reads a store, each thing by the call that the provider uses.
    pub(super) async fn read(store: &Store) -> Self {
        let mut kept = Self::default();
        for session in store.sessions().await.unwrap() {
            kept.records.insert(session, store.read(session, |records| records.collect()).await.unwrap());
            let handed = store.handed(session).await.unwrap();
            if handed != Handed::default() {
                kept.handed.insert(session, handed);
            }
        }
        kept.history = store.history().await.unwrap().into_iter().map(|(account, sum)| (account, u128::from(sum.micros()))).collect();
        let past = store.past().await.unwrap();
        kept.past = [past.sessions_total, past.sessions_completed, past.first_start.0, past.ran_ms];
        kept
    }

    pub(super) fn records(&self, session: SessionId) -> Option<&[ProviderRecord]> {
        self.records.get(&session).map(Vec::as_slice)
    }

    /// After an append.
    pub(super) fn with(&self, session: SessionId, records: &[ProviderRecord]) -> Self {
        let mut after = self.clone();
        let held = after.records.entry(session).or_default();
        for record in records {
            let vouchers = held.iter().filter(|record| matches!(record, ProviderRecord::Voucher(_))).count();
            let was_closed = held.iter().any(|record| matches!(record, ProviderRecord::Closed { .. }));
            match record {
                ProviderRecord::Voucher(_) if vouchers == 0 => after.past[0] += 1,
                ProviderRecord::Closed { reason, .. } if vouchers > 0 && !was_closed => {
                    let by_us = matches!(reason, CloseReason::ProviderStopped | CloseReason::Dispute);
                    after.past[1] += u64::from(!by_us);
                }
                _ => {}
            }
            held.push(record.clone());
        }
        after
    }

    pub(super) fn handed(&self, session: SessionId, handed: Handed) -> Self {
        let mut after = self.clone();
        after.handed.insert(session, handed);
        after
    }

    pub(super) fn forgotten(&self, session: SessionId, account: Address) -> Self {
        let mut after = self.clone();
        after.records.remove(&session);
        let redeemed = after.handed.remove(&session).map_or(0, |handed| u128::from(handed.state.redeemed.micros()));
        if redeemed > 0 {
            *after.history.entry(account).or_default() += redeemed;
        }
        after
    }

    pub(super) fn ran(&self, at: Timestamp, ms: u64) -> Self {
        let mut after = self.clone();
        after.past[2] = if after.past[2] == 0 { at.0 } else { after.past[2] };
        after.past[3] += ms;
        after
    }
}

fn receipts(records: &[ProviderRecord]) -> impl Iterator<Item = &Signed<Receipt>> {
    records.iter().filter_map(|record| if let ProviderRecord::Receipt(receipt) = record { Some(receipt) } else { None })
}

/// Checks a session's records by themselves, and that they hold every receipt that was sent.
pub(super) fn check(records: &[ProviderRecord], sent: &[Signed<Receipt>], kit: &Kit, what: &str) {
    let (mut previous, mut charged) = (Hash::ZERO, Vec::new());
    let mut times: BTreeMap<_, Option<u128>> = BTreeMap::new();
    for (number, receipt) in (1_u64..).zip(receipts(records)) {
        let receipt = receipt.clone().verify(&kit.network, &kit.provider.peer.id()).unwrap();
        assert_eq!((receipt.number, receipt.previous), (number, previous), "{what}: a gap");
        previous = receipt.hash();
        if let Some(work) = &receipt.work {
            let never_ran = work.outcome.is_some_and(|outcome| outcome.end == EndReason::SetupFailed);
            times.insert(work.execution, (!never_ran).then(|| u128::from(work.usage.effective_ms)));
        }
        let cost: u128 = times.values().flatten().map(|ms| CALL_FEE + ms * u128::from(PER_MS)).sum();
        assert_eq!(u128::from(receipt.charged.micros()), cost.max(u128::from(MINIMUM)), "{what}: receipt {number}");
        charged.push(receipt.charged);
    }
    assert!(charged.is_sorted(), "{what}: a receipt takes something back");
    for record in records {
        if let ProviderRecord::Voucher(voucher) = record {
            let voucher = voucher.unverified();
            let named = usize::try_from(voucher.receipt_number).unwrap() - 1;
            assert_eq!(charged.get(named), Some(&voucher.total), "{what}: a promise that no receipt names");
        }
    }
    let held: Vec<&Signed<Receipt>> = receipts(records).collect();
    assert!(sent.iter().all(|receipt| held.contains(&receipt)), "{what}: a receipt that was sent is lost");
}

/// Checks that the store's own views of a session say what its records say.
pub(super) async fn agrees(store: &Store, session: SessionId, records: &[ProviderRecord], what: &str) {
    let summary = store.summary(session).await.unwrap().unwrap();
    let last = receipts(records).last().map_or(0, |receipt| receipt.unverified().charged.micros());
    let promised = records.iter().rev().find_map(|record| if let ProviderRecord::Voucher(voucher) = record { Some(voucher) } else { None });
    let promised_total = promised.map_or(0, |voucher| voucher.unverified().total.micros());
    assert_eq!((summary.charged.micros(), summary.promised().micros()), (last, promised_total), "{what}");
    assert_eq!(summary.claim().map(|claim| claim.voucher), promised.copied(), "{what}");
    let claim = summary.claim();
    assert!(claim.is_none_or(|claim| claim.receipt.unverified().number == claim.voucher.unverified().receipt_number), "{what}");
    let page = store.receipts_after(session, 0, 0).await.unwrap();
    assert!(page.receipts.iter().eq(receipts(records)) && page.next.is_none(), "{what}");
}

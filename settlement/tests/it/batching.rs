//! What a batch collects, what it owes, and what an export takes out.

use orien_protocol::codec;
use orien_protocol::hash::Hash;
use orien_protocol::id::{BatchId, ExecutionId};
use orien_protocol::merkle;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::receipt::{Usage, Work};
use orien_protocol::signing::Verified;
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::Millis;
use orien_protocol::voucher::{MoneyVerified, SignedAllowance, Voucher};
use orien_settlement::batch::{BATCH_EVIDENCE_BYTES_MAX, Batch, PayoutState};
use orien_settlement::desk::{Desk, DeskError};
use orien_settlement::evidence::CheckedClaim;

use crate::kit::{Kit, Party, REDEEM, START, after, apply, batch_id, request, usdc};

pub(crate) struct Setting {
    pub(crate) kit: Kit,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) desk: Desk,
    pub(crate) agent: Party,
    pub(crate) providers: [Party; 2],
    pub(crate) sessions: Vec<(VerifiedTerms, SignedAllowance, usize)>,
}

impl Setting {
    /// One agent with four sessions, two with each of two providers, 5 USDC reserved for each.
    pub(crate) fn new() -> Self {
        let (kit, agent, providers) = (Kit::new(), Party::new(1), [Party::new(2), Party::new(3)]);
        let folder = tempfile::tempdir().unwrap();
        let desk = kit.desk(&folder);
        desk.grant("g", &agent.grant(usdc("100")), START).unwrap();
        let mut sessions = Vec::new();
        for n in 0..4_u8 {
            let which = usize::from(n % 2);
            let terms = kit.terms(&agent, &providers[which], u128::from(n));
            let allowance = desk.reserve(agent.peer.id(), request(u128::from(n)), terms.to_signed(), usdc("5"), START).unwrap();
            sessions.push((terms, allowance, which));
        }
        Self { kit, folder, desk, agent, providers, sessions }
    }

    pub(crate) fn claim(&self, session: usize, number: u64, total: &str) {
        let (terms, allowance, which) = &self.sessions[session];
        let claim = self.kit.claim(terms, *allowance, (&self.agent, &self.providers[*which]), number, usdc(total));
        assert_eq!(self.desk.claim(claim, START).unwrap().redeemed, usdc(total));
    }

    pub(crate) fn close(&self, session: usize, number: u64, total: &str) {
        let (terms, allowance, which) = &self.sessions[session];
        let claim = self.kit.claim(terms, *allowance, (&self.agent, &self.providers[*which]), number, usdc(total));
        assert!(self.desk.claim(self.kit.closed(claim, &self.providers[*which], usdc(total)), START).unwrap().closed);
    }

    pub(crate) fn batch(&self, n: u128) -> Option<Batch> {
        let made = self.desk.batch(batch_id(n), None, after(Millis(n as u64))).unwrap()?;
        Some(self.desk.batch_evidence(&made).unwrap().unwrap())
    }
}

#[test]
fn a_batch_holds_each_redeemed_channel_once_and_its_payouts_are_the_providers_shares() {
    let it = Setting::new();
    it.claim(0, 1, "0.123457");
    it.claim(0, 2, "1.000001");
    it.claim(1, 1, "2.5");
    it.claim(2, 1, "0.000009");
    let batch = it.batch(1).unwrap();
    assert_eq!(batch.entries.len(), 3);
    let owed = |which: usize| batch.payouts.iter().find(|payout| payout.payee == it.providers[which].principal).unwrap().amount;
    let share = |total: &str| Split::of(usdc(total)).provider;
    assert_eq!(owed(0), share("1.000001").plus(share("0.000009")).unwrap());
    assert_eq!(owed(1), share("2.5"));
    let summary = batch.summary.unverified();
    assert_eq!(summary.shares.total().unwrap(), usdc("3.50001"));
    let leaves: Vec<_> = batch.entries.iter().map(|entry| entry.receipt).collect();
    assert_eq!(summary.root, merkle::root(&leaves));
    assert!(batch.summary.clone().verify(&it.kit.network, &it.kit.house.facts().peer).is_ok());
}

#[test]
fn a_batch_holds_as_much_evidence_as_is_read_at_once_and_the_rest_waits_for_the_next() {
    let it = Setting::new();
    let (channels, mut size) = (35, 0);
    for n in 10..10 + channels {
        let terms = it.kit.terms(&it.agent, &it.providers[0], n);
        let allowance = it.desk.reserve(it.agent.peer.id(), request(n), terms.to_signed(), usdc("1"), START).unwrap();
        let mut claim = it.kit.claim(&terms, allowance, (&it.agent, &it.providers[0]), 1, usdc("1"));
        let mut receipt = claim.receipt.unverified().clone();
        let (execution, job, tool) = (ExecutionId::from_parts(0, n), Hash::ZERO, "x".repeat(250 * 1024));
        receipt.work = Some(Work { execution, job, tool, usage: Usage::default(), charge: Usdc::ZERO, outcome: None });
        let receipt = Verified::sign(receipt, &it.kit.network, &it.providers[0].peer);
        let voucher = Voucher { receipt_hash: receipt.hash(), ..*claim.voucher.unverified() };
        claim.voucher = *MoneyVerified::sign(voucher, &it.kit.domain, &it.agent.money).signed();
        claim.receipt = receipt.into_signed();
        size = codec::encode(&claim).unwrap().len();
        it.desk.claim(claim, START).unwrap();
    }
    let fits = BATCH_EVIDENCE_BYTES_MAX / size;
    assert_eq!(fits, 32);
    assert_eq!([1, 2].map(|n| it.batch(n).unwrap().entries.len()), [32, 3]);
    assert!(it.batch(3).is_none());
}

#[test]
fn each_redemption_is_in_exactly_one_batch_and_batches_form_a_chain() {
    let it = Setting::new();
    assert!(it.batch(1).is_none());
    it.claim(0, 1, "1");
    let first = it.batch(2).unwrap();
    assert!(it.batch(3).is_none());
    it.claim(0, 2, "3");
    it.close(0, 2, "3");
    let second = it.batch(4).unwrap();
    assert!(it.batch(5).is_none());
    assert_eq!((first.entries[0].from_total, first.entries[0].to_total), (Usdc::ZERO, usdc("1")));
    assert_eq!((second.entries[0].from_total, second.entries[0].to_total), (usdc("1"), usdc("3")));
    assert_eq!(second.entries[0].from, Some(first.entries[0].evidence.voucher));
    let network = &it.kit.network;
    assert_eq!(first.summary.unverified().previous, Hash::ZERO);
    assert_ne!(second.summary.unverified().previous, Hash::ZERO);
    assert_eq!(second.summary.unverified().previous, first.summary.unverified().content_id(network));
    let settled = it.desk.settlements(None, 10).unwrap();
    assert_eq!((settled.len(), settled[0].total, settled[0].batch), (1, usdc("3"), batch_id(4)));
}

#[test]
fn a_named_batch_is_made_once() {
    let it = Setting::new();
    it.claim(0, 1, "1");
    let make = |n: u128| it.desk.batch(batch_id(n), Some("monday"), START).unwrap();
    assert_eq!(make(1), Some(batch_id(1)));
    it.claim(1, 1, "1");
    assert_eq!(make(2), Some(batch_id(1)));
    assert_eq!(it.desk.batches(None, 10).unwrap().len(), 1);
    assert_eq!(it.desk.batch_evidence(&BatchId::from_parts(0, 0)).unwrap(), None);
}

#[test]
fn an_export_takes_each_payout_once_and_repeated_it_names_the_same() {
    let it = Setting::new();
    it.claim(0, 1, "1");
    it.batch(1).unwrap();
    let earnings = it.desk.earnings(&it.providers[0].principal).unwrap();
    assert_eq!((earnings.earned, earnings.pending, earnings.settled), (usdc("0.9"), usdc("0.9"), Usdc::ZERO));
    assert_eq!(PayoutState::Payable.name(), "payable");
    let first = it.desk.export("may", START).unwrap();
    assert_eq!((first.len(), first[0].amount, first[0].state), (1, usdc("0.9"), PayoutState::Exported(START)));
    assert_eq!(first[0].state.name(), "exported");
    it.claim(0, 2, "2");
    it.batch(2).unwrap();
    assert_eq!(it.desk.export("may", after(Millis(9))).unwrap(), first);
    let earnings = it.desk.earnings(&it.providers[0].principal).unwrap();
    assert_eq!((earnings.earned, earnings.pending, earnings.settled), (usdc("1.8"), usdc("0.9"), usdc("0.9")));
    let second = it.desk.export("june", START).unwrap();
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].id, first[0].id);
    assert!(it.desk.export("july", START).unwrap().is_empty());
    assert!(it.desk.sums().unwrap().0.balanced());
}

#[test]
fn a_redemption_that_raises_no_share_of_the_provider_owes_no_payout() {
    let it = Setting::new();
    it.claim(0, 1, "0.000009");
    assert_eq!(it.batch(1).unwrap().payouts[0].amount, usdc("0.000009"));
    // The tenth micro-USDC is the fee's: 10 - 10 / 10 is 9 as well.
    it.claim(0, 2, "0.00001");
    let second = it.batch(2).unwrap();
    assert_eq!((second.entries.len(), second.payouts.len()), (1, 0));
    assert_eq!((second.entries[0].shares.provider, second.summary.unverified().shares.total().unwrap()), (Usdc::ZERO, usdc("0.000001")));
    assert_eq!(it.desk.export("may", START).unwrap().len(), 1);
    assert!(it.desk.export("june", START).unwrap().is_empty());
}

#[test]
fn a_batch_takes_only_the_newest_claim_of_a_channel_and_takes_it_once() {
    let (kit, agent, provider) = (Kit::new(), Party::new(1), Party::new(2));
    let mut books = kit.books();
    let change = books.grant("g", &agent.grant(usdc("10")), START).unwrap();
    apply(&mut books, &change);
    let terms = kit.terms(&agent, &provider, 1);
    let (change, allowance) = books.reserve(agent.peer.id(), request(1), &terms, usdc("5"), START).unwrap();
    apply(&mut books, &change);
    let claims = [(1, "1"), (2, "2")].map(|(number, total)| kit.claim(&terms, allowance, (&agent, &provider), number, usdc(total)));
    for claim in &claims {
        let (change, state) = books.claim(&CheckedClaim::check(claim.clone(), kit.house.facts()).unwrap(), START).unwrap();
        apply(&mut books, &change);
        assert_eq!((state.redeemed, books.channel_state(&terms.channel())), (claim.voucher.unverified().total, state));
    }
    let [old, newest] = claims;
    assert!(books.batch(batch_id(1), None, vec![old], START).is_err());
    assert!(books.batch(batch_id(1), None, vec![newest.clone(), newest.clone()], START).is_err());
    assert_eq!(books.payable(), 0);
    let (change, _) = books.batch(batch_id(1), None, vec![newest.clone()], START).unwrap();
    apply(&mut books, &change);
    assert_eq!(books.payable(), 1);
    assert!(books.batch(batch_id(2), None, vec![newest], START).is_err());
    // Wholly in batches, but live: it stays. Closed, it goes.
    let channel = terms.channel();
    assert!(!books.set_aside(&channel) && books.holds(&channel));
    let change = books.sweep(after(REDEEM).plus(Millis::from_secs(1))).unwrap();
    apply(&mut books, &change);
    assert!(books.set_aside(&channel) && !books.holds(&channel));
    assert!(!books.set_aside(&channel));
}

#[test]
fn a_refusal_leaves_the_desk_well() {
    let it = Setting::new();
    let (terms, allowance, _) = &it.sessions[0];
    let claim = it.kit.claim(terms, *allowance, (&it.agent, &it.agent), 1, usdc("1"));
    assert!(matches!(it.desk.claim(claim, START), Err(DeskError::Refused(_))));
    it.claim(0, 1, "1");
}

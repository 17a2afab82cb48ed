//! The books on a chain, by hand: what each final log does, what is promised after it, and what refuses.

mod closing;

use std::collections::BTreeSet;
use std::sync::Arc;

use orien_chain::{EscrowEvent, EscrowLog, Refusal, TxHash};
use orien_protocol::channel::ChannelId;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::{Millis, Timestamp, UnixSeconds};
use orien_protocol::voucher::SignedAllowance;
use orien_settlement::books::{Books, ChainChange, Change, Cursor, FinalLog, Parked, Sight};
use orien_settlement::evidence::{CheckedClaim, CheckedRelease};
use orien_settlement::paying::Sender;
use orien_settlement::rail::EvmRail;

use crate::kit::{Kit, Party, REDEEM, START, address, after, apply, request, usdc};

/// Books on a chain whose blocks the test writes.
pub(crate) struct OnChain {
    pub(crate) kit: Kit,
    pub(crate) books: Books,
    agent: Party,
    provider: Party,
    block: u64,
    requests: u128,
}

fn hash(n: u64) -> Hash {
    Hash::of(&n.to_be_bytes())
}

const PLATFORM_AND_RESERVE: (u8, u8) = (70, 30);

impl OnChain {
    pub(crate) fn new() -> Self {
        let kit = Kit::new();
        let books = Books::new(Arc::clone(&kit.house), Arc::new(EvmRail));
        let mut here = Self { kit, books, agent: Party::new(1), provider: Party::new(2), block: 0, requests: 0 };
        here.block(&[], START);
        here.see(START);
        here
    }

    fn see(&mut self, at: Timestamp) {
        self.books.see(Sight { at, behind: Millis(0) });
        self.books.compared();
    }

    fn account(&self) -> Address {
        self.agent.principal
    }

    /// A final block with these events, all of one transaction that is ours.
    fn try_block(&mut self, events: &[EscrowEvent], time: Timestamp, ours: bool) -> Result<(), Fault> {
        self.block += 1;
        let transaction = TxHash::from_hash(hash(1000 + self.block));
        let log = |(index, event): (u64, &EscrowEvent)| FinalLog {
            log: EscrowLog { block: self.block, block_hash: hash(self.block), transaction, index, event: *event },
            time: time.seconds(),
        };
        let logs: Vec<FinalLog> = (0_u64..).zip(events).map(log).collect();
        let ours = if ours { BTreeSet::from([*transaction.hash()]) } else { BTreeSet::new() };
        let upto = Cursor { number: self.block, hash: hash(self.block), time: time.seconds() };
        let change = self.books.follow(&logs, upto, &ours, time)?;
        apply(&mut self.books, &change);
        Ok(())
    }

    fn block(&mut self, events: &[EscrowEvent], time: Timestamp) {
        self.try_block(events, time, true).unwrap();
    }

    fn deposit(&mut self, amount: &str) {
        let (account, key) = (self.account(), self.agent.money.address());
        let events =
            [EscrowEvent::KeyAuthorized { account, key }, EscrowEvent::Deposited { account, spending_key: key, amount: usdc(amount) }];
        self.block(&events, START);
    }

    fn terms(&self, session: u128) -> VerifiedTerms {
        self.kit.terms(&self.agent, &self.provider, session)
    }

    fn reserve(&mut self, terms: &VerifiedTerms, ceiling: &str, now: Timestamp) -> Result<SignedAllowance, Fault> {
        self.requests += 1;
        let (change, allowance) = self.books.reserve(self.agent.peer.id(), request(self.requests), terms, usdc(ceiling), now)?;
        apply(&mut self.books, &change);
        Ok(allowance)
    }

    fn claim(&mut self, terms: &VerifiedTerms, allowance: SignedAllowance, number: u64, total: &str, close: bool) {
        let mut claim = self.kit.claim(terms, allowance, (&self.agent, &self.provider), number, usdc(total));
        if close {
            claim = self.kit.closed(claim, &self.provider, usdc(total));
        }
        let claim = CheckedClaim::check(claim, self.kit.house.facts()).unwrap();
        let (change, _) = self.books.claim(&claim, START).unwrap();
        apply(&mut self.books, &change);
    }

    fn redeemed(&self, channel: ChannelId, paid: &str, redeemed: &str, closed: bool) -> EscrowEvent {
        let (account, payout) = (self.account(), self.provider.principal);
        EscrowEvent::Redeemed { channel, account, payout, paid: usdc(paid), redeemed: usdc(redeemed), closed }
    }

    fn available(&self) -> Usdc {
        self.books.funds(&self.account()).available
    }
}

#[test]
fn a_deposit_counts_when_it_is_final_and_the_keys_it_names_may_promise_it() {
    let mut here = OnChain::new();
    let terms = here.terms(1);
    let refused = here.reserve(&terms, "1", START).unwrap_err();
    assert_eq!(refused.code, FaultCode::INSUFFICIENT_FUNDS);
    here.deposit("5");
    assert_eq!(here.available(), usdc("5"));
    here.reserve(&terms, "1", START).unwrap();
    assert_eq!(here.available(), usdc("4"));
    assert_eq!(here.books.escrow_balance(&here.account()), 5_000_000, "a reservation is not a payment");
}

#[test]
fn a_claim_waits_and_only_a_final_redemption_redeems() {
    let mut here = OnChain::new();
    here.deposit("5");
    let terms = here.terms(1);
    let allowance = here.reserve(&terms, "1", START).unwrap();
    here.claim(&terms, allowance, 1, "0.6", false);
    assert_eq!(here.books.channel_state(&terms.channel()).redeemed, Usdc::ZERO);
    let waiting = here.books.candidates();
    assert_eq!((waiting.len(), waiting[0].amount), (1, usdc("0.6")));
    here.block(&[here.redeemed(terms.channel(), "0.6", "0.6", false)], START);
    assert_eq!(here.books.channel_state(&terms.channel()).redeemed, usdc("0.6"));
    assert!(here.books.candidates().is_empty());
    assert_eq!(here.available(), usdc("4"), "the rest stays promised");
    assert_eq!(here.books.escrow_balance(&here.account()), 4_400_000);
}

#[test]
fn whoever_sends_the_claims_redeems_them_and_a_part_leaves_the_rest_waiting() {
    let mut here = OnChain::new();
    here.deposit("5");
    let terms = here.terms(1);
    let allowance = here.reserve(&terms, "1", START).unwrap();
    here.claim(&terms, allowance, 1, "0.6", false);
    let event = here.redeemed(terms.channel(), "0.25", "0.25", false);
    here.try_block(&[event], START, false).unwrap();
    assert_eq!(here.books.candidates()[0].amount, usdc("0.35"));
}

#[test]
fn a_reservation_ends_by_a_final_close_or_a_final_time_and_by_nothing_else() {
    let mut here = OnChain::new();
    here.deposit("5");
    let (first, second) = (here.terms(1), here.terms(2));
    let allowance = here.reserve(&first, "1", START).unwrap();
    here.reserve(&second, "2", START).unwrap();
    // The payee's word for an unused channel does not free it here.
    let close = here.kit.close_of(&second, &here.provider, Usdc::ZERO);
    let release = CheckedRelease::check(second.to_signed(), close, here.kit.house.facts()).unwrap();
    let refused = here.books.release(here.agent.peer.id(), &release, START).unwrap_err();
    assert_eq!(refused.code, FaultCode::WRONG_STATE);
    assert_eq!(here.available(), usdc("2"));
    // A close that is claimed waits for the chain like its total.
    here.claim(&first, allowance, 1, "0.5", true);
    assert_eq!(here.available(), usdc("2"));
    here.block(&[here.redeemed(first.channel(), "0.5", "0.5", true)], START);
    assert_eq!(here.available(), usdc("2.5"));
    // The wall clock ends nothing.
    let late = after(Millis(REDEEM.0 * 2));
    let change = here.books.sweep(late).unwrap();
    assert!(change.channels.is_empty());
    here.block(&[], late);
    let change = here.books.sweep(late).unwrap();
    apply(&mut here.books, &change);
    assert_eq!(here.available(), usdc("4.5"));
}

#[test]
fn what_is_asked_back_is_not_promised_any_more_and_what_was_taken_is_gone() {
    let mut here = OnChain::new();
    here.deposit("5");
    let (account, terms) = (here.account(), here.terms(1));
    here.reserve(&terms, "1", START).unwrap();
    let due = UnixSeconds(START.seconds().0 + 86_400);
    here.block(&[EscrowEvent::ExitRequested { account, amount: usdc("100"), due }], START);
    assert_eq!(here.available(), Usdc::ZERO);
    let refused = here.reserve(&here.terms(2), "0.1", START).unwrap_err();
    assert_eq!((refused.code, refused.missing), (FaultCode::INSUFFICIENT_FUNDS, Some(usdc("0.1"))));
    here.block(&[EscrowEvent::ExitCancelled { account }], START);
    assert_eq!(here.available(), usdc("4"));
    here.block(&[EscrowEvent::ExitRequested { account, amount: usdc("3"), due }], START);
    assert_eq!(here.available(), usdc("1"));
    // Taken after the channel's time, in the same stretch of blocks: the channel ended before.
    let late = after(Millis::from_secs(90_000));
    here.block(&[EscrowEvent::Withdrawn { account, amount: usdc("4.5") }], late);
    assert_eq!((here.available(), here.books.escrow_balance(&account)), (usdc("0.5"), 500_000));
    assert!(here.books.halts().is_empty());
}

#[test]
fn a_revoked_key_and_a_daily_cap_count_from_their_block_on() {
    let mut here = OnChain::new();
    here.deposit("5");
    let (account, key) = (here.account(), here.agent.money.address());
    here.block(&[EscrowEvent::DailyCapSet { account, cap: usdc("0.5") }], START);
    let terms = here.terms(1);
    assert_eq!(here.reserve(&terms, "1", START).unwrap_err().code, FaultCode::DAILY_CAP);
    here.block(&[EscrowEvent::DailyCapSet { account, cap: Usdc::ZERO }], START);
    here.reserve(&terms, "1", START).unwrap();
    here.block(&[EscrowEvent::KeyRevoked { account, key, until: UnixSeconds(u64::MAX) }], START);
    assert_eq!(here.reserve(&terms, "2", START).unwrap_err().code, FaultCode::NOT_YOURS);
}

#[test]
fn a_lock_is_its_channels_own_until_it_is_undone_on_chain() {
    let mut here = OnChain::new();
    here.deposit("5");
    let (account, terms) = (here.account(), here.terms(1));
    here.reserve(&terms, "2", START).unwrap();
    let channel = terms.channel();
    here.block(&[EscrowEvent::Locked { channel, account, amount: usdc("2"), until: terms.redeem_until }], START);
    assert_eq!(here.available(), usdc("3"), "the reservation covers it");
    let late = after(Millis(REDEEM.0 * 2));
    here.block(&[], late);
    let change = here.books.sweep(late).unwrap();
    apply(&mut here.books, &change);
    here.books.set_aside(&channel);
    assert_eq!(here.available(), usdc("3"), "its time is over, and nobody else can have it yet");
    here.block(&[EscrowEvent::Unlocked { channel, account, amount: usdc("2") }], late);
    assert_eq!(here.available(), usdc("5"));
    // One for a channel that was never reserved here binds the account too.
    let strange = ChannelId::from_hash(hash(77));
    here.block(&[EscrowEvent::Locked { channel: strange, account, amount: usdc("1"), until: UnixSeconds(0) }], late);
    assert_eq!(here.available(), usdc("4"));
}

#[test]
fn a_redemption_of_a_channel_that_was_never_reserved_halts_and_keeps_the_sums() {
    let mut here = OnChain::new();
    here.deposit("5");
    let terms = here.terms(1);
    here.reserve(&terms, "4.5", START).unwrap();
    let strange = ChannelId::from_hash(hash(77));
    here.block(&[here.redeemed(strange, "2", "2", false)], START);
    let codes: Vec<&str> = here.books.halts().iter().map(|halt| halt.code.as_str()).collect();
    assert_eq!(codes, ["uncovered", "unknown_channel"]);
    assert_eq!((here.books.escrow_balance(&here.account()), here.available()), (3_000_000, Usdc::ZERO));
    let refused = here.reserve(&here.terms(2), "0.1", START).unwrap_err();
    assert_eq!(refused.code, FaultCode::BUSY);
    assert!(refused.text.contains("halted"), "{}", refused.text);
    let cleared = here.books.cleared();
    apply(&mut here.books, &cleared);
    assert_eq!(here.reserve(&here.terms(2), "0.1", START).unwrap_err().code, FaultCode::INSUFFICIENT_FUNDS);
}

#[test]
fn a_log_that_cannot_follow_is_refused_with_its_whole_stretch() {
    let mut here = OnChain::new();
    here.deposit("5");
    let terms = here.terms(1);
    here.reserve(&terms, "1", START).unwrap();
    let before = (here.books.cursor(), here.available());
    let events =
        [EscrowEvent::DailyCapSet { account: here.account(), cap: usdc("1") }, here.redeemed(terms.channel(), "0.1", "0.5", false)];
    let refused = here.try_block(&events, START, true).unwrap_err();
    assert!(refused.text.contains("contradicts"), "{}", refused.text);
    assert_eq!((here.books.cursor(), here.available()), before);
}

#[test]
fn a_refusal_parks_a_claim_only_out_of_a_transaction_of_ours() {
    let mut here = OnChain::new();
    here.deposit("5");
    let terms = here.terms(1);
    let channel = terms.channel();
    let allowance = here.reserve(&terms, "1", START).unwrap();
    here.claim(&terms, allowance, 1, "0.5", false);
    let refused = [EscrowEvent::ClaimRefused { channel, reason: Refusal::BadVoucher }];
    here.try_block(&refused, START, false).unwrap();
    assert_eq!(here.books.candidates().len(), 1, "anybody can have a claim refused that names this channel");
    here.try_block(&refused, START, true).unwrap();
    assert_eq!(here.books.parked(), [(channel, Parked::Refused(Refusal::BadVoucher))]);
    assert!(here.books.candidates().is_empty());
    here.claim(&terms, allowance, 2, "0.6", false);
    assert_eq!(here.books.candidates().len(), 1, "a newer claim is tried");
}

#[test]
fn fees_and_undelivered_payments_are_followed_to_the_micro_usdc() {
    let mut here = OnChain::new();
    here.deposit("5");
    let terms = here.terms(1);
    here.reserve(&terms, "1", START).unwrap();
    let payee = here.provider.principal;
    let (platform, reserve) = PLATFORM_AND_RESERVE;
    let redeemed = here.redeemed(terms.channel(), "0.999999", "0.999999", false);
    here.block(&[redeemed, EscrowEvent::Credited { payee, amount: usdc("0.9") }], START);
    assert_eq!(here.books.chain_totals().fees, 99_999);
    assert_eq!(here.books.credits().get(&payee), Some(&900_000));
    here.block(&[EscrowEvent::FeesCollected { recipient: address(platform), amount: usdc("0.069999") }], START);
    assert_eq!(here.books.chain_totals().fees, 30_000);
    here.block(&[EscrowEvent::CreditPaid { payee, amount: usdc("0.9") }], START);
    assert!(here.books.credits().is_empty());
    let old = address(reserve);
    let moved = EscrowEvent::Credited { payee: old, amount: usdc("0.03") };
    here.block(&[moved, EscrowEvent::RecipientsChanged { platform: address(platform), reserve: old }], START);
    assert_eq!((here.books.chain_totals().fees, here.books.credits().get(&old)), (0, Some(&30_000)));
}

#[test]
fn a_replaced_signer_halts_and_what_others_signed_before_it_came_does_not() {
    let mut here = OnChain::new();
    here.deposit("5");
    let (own, other) = (here.kit.house.facts().signer, address(99));
    here.block(&[EscrowEvent::SignerChanged { from: other, to: own, old_until: UnixSeconds(START.seconds().0 + 100) }], START);
    let strange = here.redeemed(ChannelId::from_hash(hash(77)), "1", "1", false);
    here.block(&[strange], START);
    assert!(here.books.halts().is_empty(), "an allowance of the signer before us");
    here.block(&[EscrowEvent::SignerChanged { from: own, to: other, old_until: UnixSeconds(0) }], START);
    assert_eq!(here.books.halts()[0].code, "signer_replaced");
}

#[test]
fn nothing_is_promised_while_the_chain_is_out_of_sight() {
    let kit = Kit::new();
    let mut here = OnChain { books: Books::new(Arc::clone(&kit.house), Arc::new(EvmRail)), kit, ..OnChain::new() };
    here.block = 0;
    here.block(&[], START);
    here.deposit("5");
    let terms = here.terms(1);
    assert_eq!(here.reserve(&terms, "1", START).unwrap_err().code, FaultCode::BUSY, "never looked");
    here.books.see(Sight { at: START, behind: Millis(0) });
    let refused = here.reserve(&terms, "1", START).unwrap_err();
    assert!(refused.code == FaultCode::BUSY && refused.text.contains("compared"), "seen, and not compared: {}", refused.text);
    here.books.compared();
    here.reserve(&terms, "1", START).unwrap();
    here.books.see(Sight { at: START, behind: Millis::from_secs(1_801) });
    assert_eq!(here.reserve(&terms, "2", START).unwrap_err().code, FaultCode::BUSY, "final blocks are too far behind");
    here.see(START);
    let refused = here.reserve(&terms, "2", after(Millis::from_secs(1_801))).unwrap_err();
    assert_eq!(refused.code, FaultCode::BUSY, "looked too long ago");
}

#[test]
fn clearing_halts_forgets_the_next_nonce_only_where_somebody_else_used_the_key() {
    let mut here = OnChain::new();
    let sender = Sender { next_nonce: Some(5) };
    let change = Change { chain: ChainChange { sender: Some(sender), ..ChainChange::default() }, ..Change::default() };
    apply(&mut here.books, &change);
    for (code, left) in [("difference", sender), ("strangers_nonce", Sender::default())] {
        let halts = here.books.halted(code, "why".to_owned(), START);
        let change = Change { chain: ChainChange { halts, ..ChainChange::default() }, ..Change::default() };
        apply(&mut here.books, &change);
        let cleared = here.books.cleared();
        apply(&mut here.books, &cleared);
        assert_eq!((here.books.halts().len(), here.books.sender()), (0, left), "{code}");
    }
}

#[test]
fn neither_grants_nor_exports_exist_where_a_chain_pays() {
    let here = OnChain::new();
    let grant = here.agent.grant(usdc("1"));
    assert_eq!(here.books.grant("once", &grant, START).unwrap_err().code, FaultCode::WRONG_STATE);
    assert_eq!(here.books.export("once", START).unwrap_err().code, FaultCode::WRONG_STATE);
}

//! What a claim redeems, what it leaves alone, and what it refuses.

use orien_protocol::channel::ChannelId;
use orien_protocol::codec;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{ChannelState, Claim, QUESTION_LIMIT};
use orien_protocol::hash::Hash;
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::money::{Split, Usdc};
use orien_protocol::receipt::{Receipt, Usage, Work};
use orien_protocol::signing::{Address, Verified};
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::{Allowance, MoneyVerified, SignedAllowance, Voucher};
use orien_settlement::books::Books;
use orien_settlement::evidence::CheckedClaim;

use crate::kit::{Kit, Party, START, apply, request, usdc};

struct Setting {
    kit: Kit,
    books: Books,
    agent: Party,
    provider: Party,
    terms: VerifiedTerms,
    allowance: SignedAllowance,
}

impl Setting {
    /// A channel with a ceiling of 4 out of a credit of 10.
    fn new() -> Self {
        let (kit, agent, provider) = (Kit::new(), Party::new(1), Party::new(2));
        let mut books = kit.books();
        let change = books.grant("g", &agent.grant(usdc("10")), START).unwrap();
        apply(&mut books, &change);
        let terms = kit.terms(&agent, &provider, 1);
        let (change, allowance) = books.reserve(agent.peer.id(), request(1), &terms, usdc("4"), START).unwrap();
        apply(&mut books, &change);
        Self { kit, books, agent, provider, terms, allowance }
    }

    fn document(&self, number: u64, total: &str) -> Claim {
        self.kit.claim(&self.terms, self.allowance, (&self.agent, &self.provider), number, usdc(total))
    }

    fn closing(&self, number: u64, total: &str, close: &str) -> Claim {
        self.kit.closed(self.document(number, total), &self.provider, usdc(close))
    }

    fn claim_at(&mut self, claim: Claim, now: Timestamp) -> Result<ChannelState, Fault> {
        let checked = CheckedClaim::check(claim, self.kit.house.facts())?;
        let (change, state) = self.books.claim(&checked, now)?;
        apply(&mut self.books, &change);
        Ok(state)
    }

    fn claim(&mut self, claim: Claim) -> Result<ChannelState, Fault> {
        self.claim_at(claim, START)
    }

    fn refused(&mut self, claim: Claim) -> FaultCode {
        let before = self.books.sums();
        let code = self.claim(claim).unwrap_err().code;
        assert_eq!(self.books.sums(), before);
        code
    }
}

#[test]
fn a_claim_moves_the_step_of_the_split_and_totals_are_cumulative() {
    let mut it = Setting::new();
    for (number, total) in [(1, "0.05"), (2, "0.333333"), (9, "3.999999")] {
        let state = it.claim(it.document(number, total)).unwrap();
        assert_eq!((state.redeemed, state.ceiling, state.closed), (usdc(total), usdc("4"), false));
        let (split, sums) = (Split::of(usdc(total)), it.books.sums());
        assert_eq!(it.books.earnings(&it.provider.principal).pending, split.provider);
        assert_eq!((sums.platform, sums.reserve), (u128::from(split.platform.micros()), u128::from(split.reserve.micros())));
    }
}

#[test]
fn replays_and_claims_out_of_order_change_nothing() {
    let mut it = Setting::new();
    let (old, new) = (it.document(1, "1"), it.document(2, "2"));
    it.claim(new.clone()).unwrap();
    let before = it.books.sums();
    for claim in [new, old.clone(), old] {
        let checked = CheckedClaim::check(claim, it.kit.house.facts()).unwrap();
        let (change, state) = it.books.claim(&checked, START).unwrap();
        assert!(change.is_empty());
        assert_eq!(state.redeemed, usdc("2"));
    }
    assert_eq!(it.books.sums(), before);
}

#[test]
fn a_close_gives_the_rest_back_and_ends_the_channel() {
    let mut it = Setting::new();
    it.claim(it.document(3, "2")).unwrap();
    let state = it.claim(it.closing(3, "2", "2")).unwrap();
    assert!(state.closed);
    let funds = it.books.funds(&it.agent.principal);
    assert_eq!((funds.available, funds.reserved, funds.redeemed), (usdc("8"), Usdc::ZERO, usdc("2")));
    assert!(it.claim(it.closing(3, "2", "2")).unwrap().closed);
    assert!(it.claim(it.document(1, "1")).unwrap().closed);
    let higher = it.document(4, "3");
    assert_eq!(it.refused(higher), FaultCode::SESSION_ENDED);
    let terms = it.terms.clone();
    let again = it.books.reserve(it.agent.peer.id(), request(2), &terms, usdc("5"), START);
    assert_eq!(again.unwrap_err().code, FaultCode::SESSION_ENDED);
}

#[test]
fn a_close_with_an_older_voucher_counts_if_it_names_what_was_redeemed() {
    let mut it = Setting::new();
    it.claim(it.document(3, "2")).unwrap();
    assert!(it.claim(it.closing(1, "0.05", "2")).unwrap().closed);
}

#[test]
fn a_close_that_was_overtaken_is_ignored_and_one_above_every_voucher_is_refused() {
    let mut it = Setting::new();
    it.claim(it.document(3, "2")).unwrap();
    assert!(!it.claim(it.closing(1, "1", "1")).unwrap().closed);
    let beyond = it.closing(4, "3", "3.5");
    assert_eq!(it.refused(beyond), FaultCode::BAD_VOUCHER);
    let below = it.closing(4, "3", "2");
    assert_eq!(it.refused(below), FaultCode::MALFORMED);
}

#[test]
fn nothing_is_redeemed_after_its_time_and_the_sweep_gives_the_rest_back() {
    let mut it = Setting::new();
    let end = it.terms.redeem_until.timestamp();
    it.claim_at(it.document(1, "1"), end).unwrap();
    assert!(it.books.sweep(end).unwrap().is_empty());
    let over = end.plus(Millis(1_000));
    assert_eq!(it.claim_at(it.document(2, "2"), over).unwrap_err().code, FaultCode::TIMES);
    let change = it.books.sweep(over).unwrap();
    apply(&mut it.books, &change);
    assert!(it.books.sweep(over).unwrap().is_empty());
    assert_eq!(it.books.funds(&it.agent.principal).available, usdc("9"));
    assert_eq!(it.claim_at(it.document(2, "2"), over).unwrap_err().code, FaultCode::SESSION_ENDED);
    assert_eq!(it.claim_at(it.document(1, "1"), over).unwrap().redeemed, usdc("1"));
}

#[test]
fn requests_are_forgotten_a_day_after_the_channel() {
    let it = Setting::new();
    let end = it.terms.redeem_until.timestamp().plus(Millis::from_secs(24 * 3600));
    assert!(it.books.sweep(end).unwrap().forgotten.is_empty());
    assert_eq!(it.books.sweep(end.plus(Millis(1))).unwrap().forgotten.len(), 1);
}

#[test]
fn a_voucher_above_the_allowance_is_refused_and_names_what_is_missing() {
    let mut it = Setting::new();
    let fault = it.claim(it.document(1, "4.5")).unwrap_err();
    assert_eq!((fault.code, fault.missing), (FaultCode::BAD_ALLOWANCE, Some(usdc("0.5"))));
}

#[test]
fn forged_and_foreign_documents_are_each_refused_with_their_own_fault() {
    let mut it = Setting::new();
    let good = it.document(2, "1");
    let other_terms = it.kit.terms(&it.agent, &it.provider, 77);
    let other = it.kit.claim(&other_terms, it.allowance, (&it.agent, &it.provider), 2, usdc("1"));
    let stranger = Party::new(9);

    // Another channel's allowance, and one that settlement never signed.
    assert_eq!(it.refused(other.clone()), FaultCode::BAD_ALLOWANCE);
    let raised = Allowance { ceiling: usdc("9"), ..*it.allowance.unverified() };
    let by_stranger = *MoneyVerified::sign(raised, &it.kit.domain, &stranger.money).signed();
    assert_eq!(it.refused(Claim { allowance: by_stranger, ..good.clone() }), FaultCode::BAD_SIGNATURE);

    // Vouchers: of another key, of another channel, for another receipt, for another total.
    let sign = |body: Voucher, party: &Party| *MoneyVerified::sign(body, &it.kit.domain, &party.money).signed();
    let body = *good.voucher.unverified();
    let cases = [
        (sign(body, &stranger), FaultCode::BAD_SIGNATURE),
        (other.voucher, FaultCode::BAD_VOUCHER),
        (sign(Voucher { receipt_number: 3, ..body }, &it.agent), FaultCode::BAD_VOUCHER),
        (sign(Voucher { receipt_hash: it.terms.hash(), ..body }, &it.agent), FaultCode::BAD_VOUCHER),
        (sign(Voucher { total: usdc("1.5"), ..body }, &it.agent), FaultCode::BAD_VOUCHER),
    ];
    for (voucher, code) in cases {
        assert_eq!(it.refused(Claim { voucher, ..good.clone() }), code);
    }

    // Receipts: of another session, of another signer.
    assert_eq!(it.refused(Claim { receipt: other.receipt.clone(), ..good.clone() }), FaultCode::BAD_RECEIPT);
    let receipt = Verified::sign(good.receipt.unverified().clone(), &it.kit.network, &stranger.peer).into_signed();
    assert_eq!(it.refused(Claim { receipt, ..good.clone() }), FaultCode::BAD_SIGNATURE);

    // A close that the payee did not sign, and one for another channel.
    let close = it.kit.closed(good.clone(), &stranger, usdc("1"));
    assert_eq!(it.refused(close), FaultCode::BAD_SIGNATURE);
    let elsewhere = it.kit.closed(other, &it.provider, usdc("1")).close;
    assert_eq!(it.refused(Claim { close: elsewhere, ..good.clone() }), FaultCode::MALFORMED);

    // Another network altogether.
    let foreign = Kit::named("other-net", 200);
    let terms = foreign.terms(&it.agent, &it.provider, 1);
    let claim = foreign.claim(&terms, it.allowance, (&it.agent, &it.provider), 2, usdc("1"));
    assert_eq!(it.refused(claim), FaultCode::WRONG_NETWORK);

    assert_eq!(it.claim(good).unwrap().redeemed, usdc("1"));
}

#[test]
fn an_allowance_that_differs_from_the_terms_in_one_word_alone_is_refused() {
    let mut it = Setting::new();
    let changes: [fn(&mut Allowance); 5] = [
        |allowance| allowance.channel = ChannelId::from_hash(Hash::ZERO),
        |allowance| allowance.terms = Hash::ZERO,
        |allowance| allowance.claim_key = Address::default(),
        |allowance| allowance.work_until.0 += 1,
        |allowance| allowance.redeem_until.0 += 1,
    ];
    for change in changes {
        let mut allowance = *it.allowance.unverified();
        change(&mut allowance);
        let allowance = *MoneyVerified::sign(allowance, &it.kit.domain, it.kit.house.signer()).signed();
        assert_eq!(it.refused(Claim { allowance, ..it.document(1, "1") }), FaultCode::BAD_ALLOWANCE);
    }
}

#[test]
fn a_receipt_of_another_session_of_other_terms_or_without_a_number_proves_nothing() {
    let mut it = Setting::new();
    let changes: [fn(&mut Receipt); 3] =
        [|receipt| receipt.session = SessionId::from_parts(1, 1), |receipt| receipt.terms = Hash::ZERO, |receipt| receipt.number = 0];
    for change in changes {
        let good = it.document(1, "1");
        let mut receipt = good.receipt.unverified().clone();
        change(&mut receipt);
        let receipt = Verified::sign(receipt, &it.kit.network, &it.provider.peer);
        let voucher = Voucher { receipt_number: receipt.number, receipt_hash: receipt.hash(), ..*good.voucher.unverified() };
        let voucher = *MoneyVerified::sign(voucher, &it.kit.domain, &it.agent.money).signed();
        assert_eq!(it.refused(Claim { voucher, receipt: receipt.into_signed(), ..good }), FaultCode::BAD_RECEIPT);
    }
}

#[test]
fn a_genuine_allowance_that_the_books_do_not_know_is_refused() {
    let mut it = Setting::new();
    let empty = it.kit.books();
    let checked = CheckedClaim::check(it.document(1, "1"), it.kit.house.facts()).unwrap();
    assert_eq!(empty.claim(&checked, START).unwrap_err().code, FaultCode::NOT_FOUND);
    let raised = Allowance { ceiling: usdc("9"), ..*it.allowance.unverified() };
    let raised = *MoneyVerified::sign(raised, &it.kit.domain, it.kit.house.signer()).signed();
    let newer = Claim { allowance: raised, ..it.document(1, "5") };
    assert_eq!(it.refused(newer), FaultCode::HISTORY_LOST);
}

#[test]
fn a_claim_as_large_as_a_question_is_checked_and_a_larger_one_is_refused_before_anything_is_checked() {
    let mut it = Setting::new();
    let good = it.document(1, "1");
    let of = |letters: usize| {
        let mut receipt = good.receipt.unverified().clone();
        receipt.work = Some(Work {
            execution: ExecutionId::from_parts(0, 0),
            job: it.terms.hash(),
            tool: "x".repeat(letters),
            usage: Usage::default(),
            charge: Usdc::ZERO,
            outcome: None,
        });
        let receipt = Verified::sign(receipt, &it.kit.network, &it.provider.peer);
        let voucher = Voucher { receipt_hash: receipt.hash(), ..*good.voucher.unverified() };
        let voucher = *MoneyVerified::sign(voucher, &it.kit.domain, &it.agent.money).signed();
        Claim { voucher, receipt: receipt.into_signed(), ..good.clone() }
    };
    let size = |claim: &Claim| codec::encode(claim).unwrap().len();
    let letters = 200 * 1024 + QUESTION_LIMIT - size(&of(200 * 1024));
    let (most, more) = (of(letters), of(letters + 1));
    assert_eq!(size(&most), QUESTION_LIMIT);
    assert_eq!(it.refused(more), FaultCode::TOO_LARGE);
    assert_eq!(it.claim(most).unwrap().redeemed, usdc("1"));
}

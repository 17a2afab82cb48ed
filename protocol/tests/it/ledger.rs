//! What follows from a session's receipts, and what does not: every rule of the account at the last value that it takes and the first that it refuses.
//!
//! Under the terms of the kit a millisecond of `work` is one micro-USDC and `call` has a fee of 500 on top, so every sum here is written out by hand.

use orien_protocol::hash::Hash;
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::ledger::{Account, LedgerError};
use orien_protocol::money::{Meter, Price, Usdc};
use orien_protocol::receipt::{EndReason, Outcome, Receipt, Usage, Work};
use orien_protocol::signing::{PeerKey, Verified};
use orien_protocol::terms::{ProposedTerms, VerifiedTerms};

use crate::kit::{Kit, PER_MINUTE, START, usdc};

const WORK: Price = Price { per_minute: Usdc::from_micros(PER_MINUTE), call_fee: Usdc::ZERO };
const CALL: Price = Price { per_minute: Usdc::from_micros(PER_MINUTE), call_fee: Usdc::from_micros(500) };

/// An account and the documents that it takes.
struct Book {
    kit: Kit,
    terms: VerifiedTerms,
    account: Account,
}

fn exec(n: u128) -> ExecutionId {
    ExecutionId::from_parts(START.0, n)
}

/// What a receipt says of execution `n` at `ms`; `own` is its own charge.
fn work(n: u128, tool: &str, ms: u64, own: u64, end: Option<EndReason>) -> Work {
    Work {
        execution: exec(n),
        job: Hash::of(b"job"),
        tool: tool.to_owned(),
        usage: Usage { effective_ms: ms, ..Usage::default() },
        charge: usdc(own),
        outcome: end.map(|end| Outcome::of(end, None)),
    }
}

impl Book {
    /// Nothing yet.
    fn empty() -> Self {
        let kit = Kit::new();
        let proposed = ProposedTerms::make(kit.terms(), &kit.network, &kit.agent.peer).unwrap();
        let terms = proposed.countersign(&kit.network, &kit.provider.peer).unwrap();
        Self { kit, terms, account: Account::default() }
    }

    /// After receipt 1, which charges the minimum of 5000.
    fn opened() -> Self {
        let mut book = Self::empty();
        book.take(None, 5_000).unwrap();
        book
    }

    fn next(&self, work: Option<Work>, charged: u64) -> Receipt {
        let (number, previous) = self.account.head();
        Receipt {
            session: self.terms.session,
            terms: self.terms.hash(),
            number: number + 1,
            previous,
            at: START,
            confinement: self.terms.confinement,
            work,
            charged: usdc(charged),
        }
    }

    fn apply(&mut self, receipt: Receipt) -> Result<(), LedgerError> {
        let receipt = Verified::sign(receipt, &self.kit.network, &self.kit.provider.peer);
        let before = self.account.clone();
        let result = self.account.apply(&self.terms, &receipt);
        match &result {
            Ok(()) => {
                assert_eq!(self.account.head(), (receipt.number, receipt.hash()));
                assert_eq!(self.account.charged(), receipt.charged);
            }
            Err(_) => assert_eq!(self.account, before, "a refused receipt changes nothing"),
        }
        result
    }

    fn take(&mut self, work: Option<Work>, charged: u64) -> Result<(), LedgerError> {
        self.apply(self.next(work, charged))
    }
}

#[test]
fn a_receipt_that_is_foreign_in_one_way_alone_is_refused() {
    let mut book = Book::empty();
    let good = book.next(None, 5_000);
    let session = SessionId::from_parts(START.0, 78);
    assert_eq!(book.apply(Receipt { session, ..good.clone() }), Err(LedgerError::Foreign));
    assert_eq!(book.apply(Receipt { terms: Hash::of(b"other"), ..good.clone() }), Err(LedgerError::Foreign));
    let stranger = Verified::sign(good.clone(), &book.kit.network, &PeerKey::from_seed(&[66; 32]));
    assert_eq!(book.account.apply(&book.terms, &stranger), Err(LedgerError::Foreign));
    assert_eq!(book.account, Account::default());
    assert_eq!(book.apply(good), Ok(()));
}

#[test]
fn only_the_next_number_with_the_right_predecessor_follows() {
    let mut book = Book::empty();
    let first = book.next(None, 5_000);
    for number in [0, 2] {
        assert_eq!(book.apply(Receipt { number, ..first.clone() }), Err(LedgerError::Gap { expected: 1, found: number }));
    }
    assert_eq!(book.apply(Receipt { previous: Hash::of(b"x"), ..first.clone() }), Err(LedgerError::Fork(1)));
    assert_eq!(book.apply(first.clone()), Ok(()));
    assert_eq!(book.apply(first), Err(LedgerError::Gap { expected: 2, found: 1 }));
    let second = book.next(Some(work(1, "work", 10, 10, None)), 5_000);
    assert_eq!(book.apply(Receipt { previous: Hash::ZERO, ..second.clone() }), Err(LedgerError::Fork(2)));
    assert_eq!(book.apply(second), Ok(()));
}

#[test]
fn a_charge_that_is_off_by_one_either_way_is_refused() {
    let wrong = |expected, found| Err(LedgerError::Charge { expected: usdc(expected), found: usdc(found) });
    let mut book = Book::empty();
    for found in [4_999, 5_001, 0] {
        assert_eq!(book.take(None, found), wrong(5_000, found));
    }
    book.take(None, 5_000).unwrap();
    // The session's charge: 6000 ms of `call` and its fee.
    for found in [6_499, 6_501] {
        assert_eq!(book.take(Some(work(1, "call", 6_000, 6_500, None)), found), wrong(6_500, found));
    }
    // The charge of the execution alone.
    for found in [6_499, 6_501] {
        assert_eq!(book.take(Some(work(1, "call", 6_000, found, None)), 6_500), wrong(6_500, found));
    }
    assert_eq!(book.take(Some(work(1, "call", 6_000, 6_500, None)), 6_500), Ok(()));
    assert_eq!(book.take(Some(work(2, "nap", 1, 1, None)), 6_501), Err(LedgerError::UnknownTool));
}

#[test]
fn the_time_of_an_execution_grows_until_it_ends_and_a_final_receipt_may_repeat_the_last() {
    let mut book = Book::opened();
    assert_eq!(book.take(Some(work(1, "work", 0, 0, None)), 5_000), Err(LedgerError::NothingNew(exec(1))));
    book.take(Some(work(1, "work", 7_000, 7_000, None)), 7_000).unwrap();
    assert_eq!(book.take(Some(work(1, "work", 7_000, 7_000, None)), 7_000), Err(LedgerError::NothingNew(exec(1))));
    for end in [None, Some(EndReason::Exited)] {
        assert_eq!(book.take(Some(work(1, "work", 6_999, 6_999, end)), 6_999), Err(LedgerError::Backwards(exec(1))));
    }
    assert_eq!(book.account.receipted_ms(&exec(1)), 7_000);
    assert_eq!(book.take(Some(work(1, "work", 7_000, 7_000, Some(EndReason::Exited))), 7_000), Ok(()));
    assert_eq!((book.account.receipted_ms(&exec(1)), book.account.has_live(&exec(1))), (0, false));
    // What ended stays in the sum.
    assert_eq!(book.take(Some(work(2, "work", 1, 1, None)), 7_001), Ok(()));
}

#[test]
fn an_execution_that_never_ran_costs_nothing_and_can_neither_have_run_nor_used_time() {
    let failed = |ms, own| Some(work(1, "call", ms, own, Some(EndReason::SetupFailed)));
    let mut book = Book::opened();
    book.take(Some(work(2, "work", 9_000, 9_000, None)), 9_000).unwrap();
    assert_eq!(book.take(failed(1, 0), 9_000), Err(LedgerError::Backwards(exec(1))));
    assert!(matches!(book.take(failed(0, 500), 9_000), Err(LedgerError::Charge { .. })));
    assert!(matches!(book.take(failed(0, 0), 9_500), Err(LedgerError::Charge { .. })));
    assert_eq!(book.take(failed(0, 0), 9_000), Ok(()));
    // Once it has a receipt that it runs, it did not fail to start.
    book.take(Some(work(1, "call", 10, 510, None)), 9_510).unwrap();
    for ms in [0, 10] {
        assert_eq!(book.take(failed(ms, 0), 9_000), Err(LedgerError::Backwards(exec(1))));
    }
}

#[test]
fn the_account_names_every_execution_that_has_not_ended() {
    let mut book = Book::opened();
    assert_eq!(book.account.unfinished().count(), 0);
    for n in 1..=3 {
        book.take(Some(work(n, "work", 100, 100, None)), 5_000).unwrap();
    }
    book.take(Some(work(2, "work", 100, 100, Some(EndReason::Cancelled))), 5_000).unwrap();
    assert_eq!(book.account.unfinished().collect::<Vec<_>>(), [exec(1), exec(3)]);
    assert_eq!([1, 2, 3].map(|n| book.account.has_live(&exec(n))), [true, false, true]);
}

#[test]
fn a_meter_can_be_asked_with_other_times_and_without_an_execution() {
    let mut book = Book::opened();
    book.take(Some(work(1, "work", 20_000, 20_000, Some(EndReason::Exited))), 20_000).unwrap();
    book.take(Some(work(2, "call", 1_000, 1_500, None)), 21_500).unwrap();
    book.take(Some(work(3, "work", 300, 300, None)), 21_800).unwrap();
    let charge = |meter: Meter| book.terms.charge(&meter).unwrap();
    assert_eq!(charge(book.account.meter_with([]).unwrap()), usdc(21_800));
    // 20000 that ended, 4000 instead of 1000 with the fee of 500, 300 as receipted, 70 of one that has no receipt yet.
    let meter = book.account.meter_with([(exec(2), CALL, 4_000), (exec(4), WORK, 70)]).unwrap();
    assert_eq!(charge(meter), usdc(24_870));
    assert_eq!(charge(book.account.meter_without(&exec(2)).unwrap()), usdc(20_300));
    assert_eq!(charge(book.account.meter_without(&exec(9)).unwrap()), usdc(21_800));
    let at = |end| book.account.charge_at(&book.terms, &exec(2), CALL, 2_000, end).unwrap();
    assert_eq!((at(None), at(Some(EndReason::Exited)), at(Some(EndReason::SetupFailed))), (usdc(22_800), usdc(22_800), usdc(20_300)));
}

#[test]
fn an_interval_falls_short_by_exactly_what_the_ceiling_lacks() {
    let book = Book::opened();
    // One interval of 5000 ms of `call` is 5500; with 1000 used before it is 6500.
    let mut meter = Meter::default();
    meter.add(WORK, 1_000).unwrap();
    let shortfall = |ceiling| Account::shortfall(&book.terms, meter, CALL, usdc(ceiling)).unwrap();
    assert_eq!([6_501, 6_500, 6_499, 0].map(shortfall), [None, None, Some(usdc(1)), Some(usdc(6_500))]);
}

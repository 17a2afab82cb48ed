//! A close gets to the chain whenever it comes: without it what is left of a reservation is the agent's again only when its time is over.

use orien_settlement::paying::{Flight, FlightClaim, Stage};

use super::*;

impl OnChain {
    /// A transaction for what waits, as it is stored.
    fn flight(&self) -> Flight {
        let waiting = self.books.candidates();
        let claim = |claim: &orien_settlement::books::Candidate| FlightClaim {
            channel: claim.channel,
            payee: claim.payee,
            total: claim.total,
            closes: claim.closes,
        };
        let claims: Vec<FlightClaim> = waiting.iter().map(claim).collect();
        Flight { nonce: 0, planned_at: START, claims, amount: usdc("1"), gas_limit: 1, attempts: Vec::new(), stage: Stage::Submitted }
    }

    fn conclude(&mut self, mut flight: Flight, success: bool) {
        flight.stage = Stage::Final { hash: hash(1000 + self.block), block: self.block, success };
        let change = self.books.conclude(&flight);
        apply(&mut self.books, &change);
    }

    fn closing(&self) -> Vec<(Usdc, bool)> {
        self.books.candidates().iter().map(|claim| (claim.amount, claim.closes)).collect()
    }
}

#[test]
fn a_close_that_comes_while_its_total_is_on_its_way_goes_with_the_next_transaction() {
    let mut here = OnChain::new();
    here.deposit("5");
    let terms = here.terms(1);
    let allowance = here.reserve(&terms, "1", START).unwrap();
    here.claim(&terms, allowance, 1, "0.5", false);
    let flight = here.flight();
    here.claim(&terms, allowance, 1, "0.5", true);
    here.block(&[here.redeemed(terms.channel(), "0.5", "0.5", false)], START);
    here.conclude(flight, true);
    assert_eq!(here.closing(), [(Usdc::ZERO, true)], "nothing is left to pay, and the close is");
    let flight = here.flight();
    here.block(&[here.redeemed(terms.channel(), "0", "0.5", true)], START);
    here.conclude(flight, true);
    assert_eq!(here.closing(), []);
    assert_eq!(here.available(), usdc("4.5"));
}

#[test]
fn a_close_that_an_escrow_was_too_short_for_goes_again_with_the_rest() {
    let mut here = OnChain::new();
    here.deposit("5");
    let terms = here.terms(1);
    let allowance = here.reserve(&terms, "1", START).unwrap();
    here.claim(&terms, allowance, 1, "0.5", true);
    let flight = here.flight();
    here.block(&[here.redeemed(terms.channel(), "0.2", "0.2", false)], START);
    here.conclude(flight, true);
    assert_eq!(here.books.parked(), [(terms.channel(), Parked::ShortEscrow)]);
    here.deposit("1");
    assert_eq!(here.closing(), [(usdc("0.3"), true)]);
}

#[test]
fn what_would_be_reverted_is_tried_again_once_the_operator_has_looked() {
    let mut here = OnChain::new();
    here.deposit("5");
    let terms = here.terms(1);
    let allowance = here.reserve(&terms, "1", START).unwrap();
    here.claim(&terms, allowance, 1, "0.5", false);
    for _ in 0..3 {
        let change = here.books.would_revert(&here.books.candidates());
        apply(&mut here.books, &change);
    }
    assert_eq!(here.books.parked(), [(terms.channel(), Parked::Reverts)]);
    let change = here.books.cleared();
    apply(&mut here.books, &change);
    assert_eq!(here.closing(), [(usdc("0.5"), false)]);
}

//! What a reservation holds, and what it refuses.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::money::Usdc;
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::SignedAllowance;
use orien_settlement::books::{Books, Grant};
use orien_settlement::evidence::check_terms;

use crate::kit::{Kit, Party, START, WORK, address, after, apply, micros, request, usdc};

struct Setting {
    kit: Kit,
    books: Books,
    agent: Party,
    provider: Party,
}

impl Setting {
    fn new(credit: &str) -> Self {
        let (kit, agent, provider) = (Kit::new(), Party::new(1), Party::new(2));
        let mut books = kit.books();
        let change = books.grant("first", &agent.grant(usdc(credit)), START).unwrap();
        apply(&mut books, &change);
        Self { kit, books, agent, provider }
    }

    fn terms(&self, session: u128) -> VerifiedTerms {
        self.kit.terms(&self.agent, &self.provider, session)
    }

    fn reserve(&mut self, n: u128, terms: &VerifiedTerms, ceiling: &str, now: Timestamp) -> Result<SignedAllowance, Fault> {
        let (change, allowance) = self.books.reserve(self.agent.peer.id(), request(n), terms, usdc(ceiling), now)?;
        apply(&mut self.books, &change);
        Ok(allowance)
    }

    fn available(&self) -> Usdc {
        self.books.funds(&self.agent.principal).available
    }
}

fn code<T>(result: Result<T, Fault>) -> FaultCode {
    result.err().unwrap().code
}

#[test]
fn a_reservation_is_held_and_its_allowance_names_the_terms_and_the_claim_key() {
    let mut it = Setting::new("5");
    let terms = it.terms(1);
    let allowance = it.reserve(1, &terms, "2", START).unwrap();
    let body = *allowance.verify(&it.kit.domain, &it.kit.house.facts().signer).unwrap();
    assert_eq!(
        (body.channel, body.ceiling, body.terms, body.claim_key),
        (terms.channel(), usdc("2"), terms.hash(), it.provider.money.address())
    );
    assert_eq!((body.work_until, body.redeem_until), (terms.work_until, terms.redeem_until));
    let funds = it.books.funds(&it.agent.principal);
    assert_eq!((funds.funded, funds.reserved, funds.available), (usdc("5"), usdc("2"), usdc("3")));
}

#[test]
fn asking_twice_reserves_once_and_the_same_name_for_something_else_is_a_conflict() {
    let mut it = Setting::new("5");
    let terms = it.terms(1);
    let first = it.reserve(1, &terms, "2", START).unwrap();
    // Long after the clocks of a new reservation would have to agree.
    let again = it.reserve(1, &terms, "2", after(Millis::from_secs(7_000))).unwrap();
    assert_eq!(first, again);
    assert_eq!(it.available(), usdc("3"));
    assert_eq!(code(it.reserve(1, &terms, "3", START)), FaultCode::CONFLICT);
    let other = it.terms(2);
    assert_eq!(code(it.reserve(1, &other, "2", START)), FaultCode::CONFLICT);
    assert_eq!(it.available(), usdc("3"));
}

#[test]
fn a_higher_ceiling_replaces_the_old_one_and_a_lower_one_is_refused() {
    let mut it = Setting::new("5");
    let terms = it.terms(1);
    it.reserve(1, &terms, "2", START).unwrap();
    it.reserve(2, &terms, "4.5", after(Millis::from_secs(600))).unwrap();
    assert_eq!(it.available(), usdc("0.5"));
    assert_eq!(code(it.reserve(3, &terms, "4", START)), FaultCode::WRONG_STATE);
    assert_eq!(code(it.reserve(4, &terms, "5", after(WORK))), FaultCode::SESSION_ENDED);
    assert_eq!(it.available(), usdc("0.5"));
}

#[test]
fn more_than_the_credit_is_refused_with_the_missing_amount_over_all_channels() {
    let mut it = Setting::new("5");
    let (one, two) = (it.terms(1), it.terms(2));
    it.reserve(1, &one, "3", START).unwrap();
    let fault = it.reserve(2, &two, "2.75", START).unwrap_err();
    assert_eq!((fault.code, fault.missing), (FaultCode::INSUFFICIENT_FUNDS, Some(usdc("0.75"))));
    let fault = it.reserve(3, &one, "5.000001", START).unwrap_err();
    assert_eq!((fault.code, fault.missing), (FaultCode::INSUFFICIENT_FUNDS, Some(micros(1))));
    it.reserve(4, &two, "2", START).unwrap();
    assert_eq!(it.available(), Usdc::ZERO);
}

#[test]
fn an_account_without_credit_and_a_key_that_is_not_registered_are_told_so() {
    let mut it = Setting::new("5");
    let stranger = Party::new(9);
    let terms = it.kit.terms(&stranger, &it.provider, 1);
    let fault = it.books.reserve(stranger.peer.id(), request(1), &terms, usdc("1"), START).unwrap_err();
    assert_eq!((fault.code, fault.missing), (FaultCode::INSUFFICIENT_FUNDS, Some(usdc("1"))));
    let thief = Party { principal: it.agent.principal, ..Party::new(9) };
    let terms = it.kit.terms(&thief, &it.provider, 1);
    assert_eq!(code(it.books.reserve(thief.peer.id(), request(1), &terms, usdc("1"), START)), FaultCode::NOT_YOURS);
    let change = it.books.grant("key", &thief.grant(Usdc::ZERO), START).unwrap();
    apply(&mut it.books, &change);
    assert!(it.books.reserve(thief.peer.id(), request(1), &terms, usdc("1"), START).is_ok());
}

#[test]
fn an_account_is_its_own_spending_key_unless_another_is_named() {
    let (kit, provider) = (Kit::new(), Party::new(2));
    let own = Party::new(1);
    let own = Party { principal: own.money.address(), ..own };
    let mut books = kit.books();
    let change = books.grant("g", &Grant::of(own.principal, usdc("1")), START).unwrap();
    apply(&mut books, &change);
    let terms = kit.terms(&own, &provider, 1);
    assert!(books.reserve(own.peer.id(), request(1), &terms, usdc("1"), START).is_ok());
}

#[test]
fn only_the_agent_of_the_terms_may_reserve() {
    let it = Setting::new("5");
    let terms = it.terms(1);
    assert_eq!(code(it.books.reserve(it.provider.peer.id(), request(1), &terms, usdc("1"), START)), FaultCode::NOT_YOURS);
    assert_eq!(code(it.books.reserve(it.agent.peer.id(), request(1), &terms, Usdc::ZERO, START)), FaultCode::MALFORMED);
}

#[test]
fn terms_of_another_network_signer_or_chain_are_refused() {
    let it = Setting::new("5");
    let foreign = Kit::named("other-net", 200);
    let facts = it.kit.house.facts();
    let terms = foreign.terms(&it.agent, &it.provider, 1);
    assert_eq!(code(check_terms(terms.to_signed(), facts)), FaultCode::WRONG_NETWORK);
    assert_eq!(code(it.books.reserve(it.agent.peer.id(), request(1), &terms, usdc("1"), START)), FaultCode::WRONG_NETWORK);
    let other_signer = Kit::named("test-net", 201).terms(&it.agent, &it.provider, 1);
    assert_eq!(code(check_terms(other_signer.to_signed(), facts)), FaultCode::WRONG_NETWORK);
}

#[test]
fn terms_with_a_changed_price_or_a_strangers_countersignature_are_forged() {
    let it = Setting::new("5");
    let facts = it.kit.house.facts();
    let (one, two) = (it.terms(1).to_signed(), it.terms(2).to_signed());
    let mut swapped = one.clone();
    swapped.by_provider = two.by_provider;
    assert_eq!(code(check_terms(swapped, facts)), FaultCode::BAD_SIGNATURE);
    let mut swapped = two;
    swapped.by_agent = one.by_agent;
    assert_eq!(code(check_terms(swapped, facts)), FaultCode::BAD_SIGNATURE);
}

#[test]
fn clocks_apart_and_redemption_beyond_the_exit_delay_are_refused() {
    let mut it = Setting::new("5");
    let terms = it.terms(1);
    assert_eq!(code(it.reserve(1, &terms, "1", after(Millis::from_secs(61)))), FaultCode::CLOCKS);
    let mut late = it.kit.draft(&it.agent, &it.provider, 2);
    late.redeem_until = after(Millis::from_secs(23 * 3600 + 1)).seconds();
    let late = it.kit.sign(late, &it.agent, &it.provider);
    assert_eq!(code(it.reserve(2, &late, "1", START)), FaultCode::TIMES);
    assert_eq!(it.available(), usdc("5"));
}

#[test]
fn a_daily_cap_limits_what_a_day_adds_and_what_comes_back_counts() {
    let mut it = Setting::new("50");
    let cap = Grant { daily_cap: Some(usdc("3")), ..it.agent.grant(Usdc::ZERO) };
    let change = it.books.grant("cap", &cap, START).unwrap();
    apply(&mut it.books, &change);
    let (one, two) = (it.terms(1), it.terms(2));
    it.reserve(1, &one, "2", START).unwrap();
    let fault = it.reserve(2, &two, "1.5", START).unwrap_err();
    assert_eq!((fault.code, fault.missing), (FaultCode::DAILY_CAP, Some(usdc("0.5"))));
    // The first channel expires unused on the same day, and the day has room again.
    let over = after(Millis::from_secs(2 * 3600 + 1));
    let change = it.books.sweep(over).unwrap();
    apply(&mut it.books, &change);
    let mut later = it.kit.draft(&it.agent, &it.provider, 3);
    (later.issued_at, later.work_until, later.redeem_until) = (over, over.plus(WORK).seconds(), over.plus(WORK).plus(WORK).seconds());
    let later = it.kit.sign(later, &it.agent, &it.provider);
    it.reserve(3, &later, "3", over).unwrap();
    assert_eq!(code(it.reserve(4, &later, "3.1", over)), FaultCode::DAILY_CAP);
}

/// Terms that a pair agreed on at `now`.
fn terms_of(it: &Setting, session: u128, now: Timestamp) -> VerifiedTerms {
    let mut draft = it.kit.draft(&it.agent, &it.provider, session);
    (draft.issued_at, draft.work_until, draft.redeem_until) = (now, now.plus(WORK).seconds(), now.plus(WORK).plus(WORK).seconds());
    it.kit.sign(draft, &it.agent, &it.provider)
}

#[test]
fn the_daily_cap_is_whole_again_at_midnight_utc_and_a_clock_that_steps_back_opens_no_day() {
    let mut it = Setting::new("50");
    let cap = Grant { daily_cap: Some(usdc("3")), ..it.agent.grant(Usdc::ZERO) };
    let change = it.books.grant("cap", &cap, START).unwrap();
    apply(&mut it.books, &change);
    // START is 08:00 of day 20,833.
    let midnight = Timestamp(20_834 * 86_400_000);
    let (evening, last) = (Timestamp(midnight.0 - 1_000), Timestamp(midnight.0 - 1));
    let (one, two) = (terms_of(&it, 1, evening), terms_of(&it, 2, midnight));
    it.reserve(1, &one, "2.5", evening).unwrap();
    let fault = it.reserve(2, &two, "1", last).unwrap_err();
    assert_eq!((fault.code, fault.missing), (FaultCode::DAILY_CAP, Some(usdc("0.5"))));
    it.reserve(3, &two, "3", midnight).unwrap();
    for now in [midnight, Timestamp(midnight.0 + 1_000), last, evening] {
        let fault = it.reserve(4, &two, "3.000001", now).unwrap_err();
        assert_eq!((fault.code, fault.missing), (FaultCode::DAILY_CAP, Some(micros(1))), "{now:?}");
    }
    assert_eq!(it.available(), usdc("44.5"));
}

#[test]
fn terms_that_differ_in_network_chain_or_signer_alone_are_refused() {
    let it = Setting::new("5");
    let other = Kit::named("other-net", 201);
    let mut draft = it.kit.draft(&it.agent, &it.provider, 1);
    draft.settlement_signer = other.house.facts().signer;
    let signer = it.kit.sign(draft, &it.agent, &it.provider);
    let part = |network, domain| Kit { house: it.kit.house.clone(), network, domain };
    let network = part(other.network.clone(), it.kit.domain).terms(&it.agent, &it.provider, 1);
    let chain = part(it.kit.network.clone(), other.domain).terms(&it.agent, &it.provider, 1);
    for terms in [signer, network, chain] {
        assert_eq!(code(check_terms(terms.to_signed(), it.kit.house.facts())), FaultCode::WRONG_NETWORK);
        assert_eq!(code(it.books.reserve(it.agent.peer.id(), request(1), &terms, usdc("1"), START)), FaultCode::WRONG_NETWORK);
    }
}

#[test]
fn a_raised_channel_holds_its_newest_allowance_and_asking_for_what_is_held_reserves_nothing() {
    let mut it = Setting::new("5");
    let terms = it.terms(1);
    it.reserve(1, &terms, "2", START).unwrap();
    let raised = it.reserve(2, &terms, "4.5", START).unwrap();
    assert_eq!(it.books.channel(&terms.channel()).unwrap().allowance, raised);
    assert_eq!(it.reserve(3, &terms, "4.5", START).unwrap(), raised);
    assert_eq!((it.available(), it.books.live_channels()), (usdc("0.5"), 1));
    it.reserve(4, &it.terms(2), "0.5", START).unwrap();
    assert_eq!(it.books.live_channels(), 2);
}

#[test]
fn a_channel_is_reserved_in_a_thousand_slices_and_no_more() {
    let mut it = Setting::new("5");
    let terms = it.terms(1);
    for n in 1..=1_000_u64 {
        let (change, _) = it.books.reserve(it.agent.peer.id(), request(n.into()), &terms, micros(n), START).unwrap();
        it.books.apply(&change).unwrap();
    }
    assert_eq!(code(it.reserve(1_001, &terms, "1", START)), FaultCode::BUSY);
    // A request that was answered is still answered.
    assert!(it.books.reserve(it.agent.peer.id(), request(1_000), &terms, micros(1_000), START).unwrap().0.is_empty());
    assert_eq!(it.available(), micros(4_999_000));
}

#[test]
fn a_grant_counts_once_and_its_name_cannot_be_used_for_another() {
    let mut it = Setting::new("5");
    let grant = it.agent.grant(usdc("5"));
    let change = it.books.grant("first", &grant, START).unwrap();
    assert!(change.is_empty());
    assert_eq!(code(it.books.grant("first", &it.agent.grant(usdc("6")), START)), FaultCode::CONFLICT);
    assert_eq!(
        code(it.books.grant("second", &Grant::of(address(7), Usdc::ZERO), START).map(|change| assert!(!change.is_empty()))),
        FaultCode::MALFORMED
    );
    let most = Grant::of(it.agent.principal, micros(u64::MAX));
    assert_eq!(code(it.books.grant("third", &most, START)), FaultCode::TOO_LARGE);
    apply(&mut it.books, &change);
    assert_eq!(it.available(), usdc("5"));
}

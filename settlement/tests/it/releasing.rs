//! What a close of nothing frees, what it leaves alone, and what it refuses.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::ChannelState;
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::{SignedAllowance, SignedClose};
use orien_settlement::books::{Books, Grant};
use orien_settlement::evidence::{CheckedClaim, CheckedRelease};

use crate::kit::{Kit, Party, START, WORK, after, apply, request, usdc};

struct Setting {
    kit: Kit,
    books: Books,
    agent: Party,
    provider: Party,
    terms: VerifiedTerms,
}

impl Setting {
    /// A credit of 10, of which a day may reserve 5.
    fn new() -> Self {
        let (kit, agent, provider) = (Kit::new(), Party::new(1), Party::new(2));
        let mut books = kit.books();
        let grant = Grant { daily_cap: Some(usdc("5")), ..agent.grant(usdc("10")) };
        let change = books.grant("g", &grant, START).unwrap();
        apply(&mut books, &change);
        let terms = kit.terms(&agent, &provider, 1);
        Self { kit, books, agent, provider, terms }
    }

    fn reserve(&mut self, name: u128, ceiling: &str) -> Result<SignedAllowance, Fault> {
        let (change, allowance) = self.books.reserve(self.agent.peer.id(), request(name), &self.terms, usdc(ceiling), START)?;
        apply(&mut self.books, &change);
        Ok(allowance)
    }

    fn close(&self, total: &str) -> SignedClose {
        self.kit.close_of(&self.terms, &self.provider, usdc(total))
    }

    fn release_by(&mut self, caller: PeerId, close: SignedClose, now: Timestamp) -> Result<ChannelState, Fault> {
        let release = CheckedRelease::check(self.terms.to_signed(), close, self.kit.house.facts())?;
        let (change, state) = self.books.release(caller, &release, now)?;
        apply(&mut self.books, &change);
        let (again, same) = self.books.release(caller, &release, now)?;
        assert!(again.is_empty() && same == state, "a repeated release changed something");
        Ok(state)
    }

    fn release(&mut self) -> Result<ChannelState, Fault> {
        self.release_by(self.agent.peer.id(), self.close("0"), START)
    }

    fn claim(&mut self, allowance: SignedAllowance, total: &str) -> Result<ChannelState, Fault> {
        let claim = self.kit.claim(&self.terms, allowance, (&self.agent, &self.provider), 1, usdc(total));
        let checked = CheckedClaim::check(claim, self.kit.house.facts())?;
        let (change, state) = self.books.claim(&checked, START)?;
        apply(&mut self.books, &change);
        Ok(state)
    }
}

#[test]
fn a_release_gives_the_whole_reservation_back_and_the_day_its_room() {
    let mut it = Setting::new();
    let allowance = it.reserve(1, "4").unwrap();
    let state = it.release().unwrap();
    assert_eq!(state, ChannelState { ceiling: usdc("4"), redeemed: Usdc::ZERO, closed: true });
    let funds = it.books.funds(&it.agent.principal);
    assert_eq!((funds.available, funds.reserved, funds.redeemed), (usdc("10"), Usdc::ZERO, Usdc::ZERO));
    assert_eq!((it.books.live_channels(), it.books.account(&it.agent.principal).unwrap().day_reserved), (0, Usdc::ZERO));
    assert_eq!(it.books.channel(&it.terms.channel()).unwrap().close, Some(it.close("0")));
    // Nothing is redeemed from it any more, and nothing reserved for it.
    assert_eq!(it.claim(allowance, "1").unwrap_err().code, FaultCode::SESSION_ENDED);
    assert_eq!(it.reserve(2, "5").unwrap_err().code, FaultCode::SESSION_ENDED);
    let other = it.kit.terms(&it.agent, &it.provider, 2);
    it.books.reserve(it.agent.peer.id(), request(3), &other, usdc("5"), START).unwrap();
}

#[test]
fn whoever_holds_the_payees_close_may_hand_it_in() {
    let mut it = Setting::new();
    it.reserve(1, "4").unwrap();
    let provider = it.provider.peer.id();
    assert!(it.release_by(provider, it.close("0"), START).unwrap().closed);
}

#[test]
fn a_channel_that_was_redeemed_from_is_not_released() {
    let mut it = Setting::new();
    let allowance = it.reserve(1, "4").unwrap();
    it.claim(allowance, "1").unwrap();
    let before = it.books.sums();
    assert_eq!(it.release().unwrap_err().code, FaultCode::WRONG_STATE);
    assert_eq!(it.books.sums(), before);
}

#[test]
fn closes_of_a_stranger_of_another_channel_and_of_a_total_are_refused() {
    let mut it = Setting::new();
    it.reserve(1, "4").unwrap();
    let caller = it.agent.peer.id();
    let by_stranger = it.kit.close_of(&it.terms, &Party::new(9), Usdc::ZERO);
    let by_agent = it.kit.close_of(&it.terms, &it.agent, Usdc::ZERO);
    let elsewhere = it.kit.close_of(&it.kit.terms(&it.agent, &it.provider, 2), &it.provider, Usdc::ZERO);
    let of_a_total = it.close("0.000001");
    for (close, code) in [
        (by_stranger, FaultCode::BAD_SIGNATURE),
        (by_agent, FaultCode::BAD_SIGNATURE),
        (elsewhere, FaultCode::MALFORMED),
        (of_a_total, FaultCode::MALFORMED),
    ] {
        assert_eq!(it.release_by(caller, close, START).unwrap_err().code, code);
    }
    assert_eq!(it.books.funds(&it.agent.principal).reserved, usdc("4"));
}

#[test]
fn terms_that_the_channel_was_not_reserved_under_release_nothing() {
    let mut it = Setting::new();
    it.reserve(1, "4").unwrap();
    let mut draft = it.kit.draft(&it.agent, &it.provider, 1);
    draft.minimum_charge = usdc("1");
    it.terms = it.kit.sign(draft, &it.agent, &it.provider);
    assert_eq!(it.release().unwrap_err().code, FaultCode::CONFLICT);
    assert_eq!(it.books.funds(&it.agent.principal).reserved, usdc("4"));
}

#[test]
fn a_reservation_that_comes_after_its_release_is_refused() {
    let mut it = Setting::new();
    let state = it.release().unwrap();
    assert_eq!(state, ChannelState { closed: true, ..ChannelState::default() });
    let before = it.books.sums();
    assert_eq!(it.reserve(1, "4").unwrap_err().code, FaultCode::SESSION_ENDED);
    assert_eq!((it.books.sums(), it.books.live_channels()), (before, 0));
}

#[test]
fn strangers_and_late_comers_leave_nothing_in_the_books() {
    let mut it = Setting::new();
    let (provider, agent) = (it.provider.peer.id(), it.agent.peer.id());
    assert_eq!(it.release_by(provider, it.close("0"), START).unwrap_err().code, FaultCode::NOT_FOUND);
    assert_eq!(it.release_by(agent, it.close("0"), after(WORK)).unwrap_err().code, FaultCode::NOT_FOUND);
    it.terms = it.kit.terms(&Party::new(7), &it.provider, 1);
    let unknown = Party::new(7).peer.id();
    assert_eq!(it.release_by(unknown, it.close("0"), START).unwrap_err().code, FaultCode::NOT_FOUND);
    assert!(!it.books.holds(&it.terms.channel()));
}

#[test]
fn a_release_after_the_sweep_changes_nothing() {
    let mut it = Setting::new();
    it.reserve(1, "4").unwrap();
    let over = it.terms.redeem_until.timestamp().plus(Millis(1_000));
    let change = it.books.sweep(over).unwrap();
    apply(&mut it.books, &change);
    let before = it.books.sums();
    let caller = it.agent.peer.id();
    assert!(it.release_by(caller, it.close("0"), over).unwrap().closed);
    assert_eq!(it.books.sums(), before);
}

#[test]
fn releases_before_and_after_a_reservation_are_remembered_over_a_restart() {
    let it = Setting::new();
    let folder = tempfile::tempdir().unwrap();
    let desk = it.kit.desk(&folder);
    desk.grant("g", &it.agent.grant(usdc("10")), START).unwrap();
    let (caller, reserved, unreserved) = (it.agent.peer.id(), it.terms.clone(), it.kit.terms(&it.agent, &it.provider, 2));
    desk.reserve(caller, request(1), reserved.to_signed(), usdc("4"), START).unwrap();
    let release = |desk: &orien_settlement::desk::Desk, terms: &VerifiedTerms| {
        desk.release(caller, terms.to_signed(), it.kit.close_of(terms, &it.provider, Usdc::ZERO), START).unwrap()
    };
    let first = [release(&desk, &reserved), release(&desk, &unreserved)];
    let sums = desk.sums().unwrap();
    drop(desk);
    let desk = it.kit.desk(&folder);
    assert_eq!(desk.sums().unwrap(), sums);
    assert_eq!([release(&desk, &reserved), release(&desk, &unreserved)], first);
    assert_eq!(desk.funds(&it.agent.principal).unwrap().available, usdc("10"));
    let late = desk.reserve(caller, request(2), unreserved.to_signed(), usdc("4"), START).unwrap_err();
    assert!(late.to_string().contains("has ended"), "{late}");
}

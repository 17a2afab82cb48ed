//! What a provider risks with each account: work without a voucher, and vouchers not redeemed yet.
//!
//! All sessions and keys of an account share one limit, which grows only with what settlement has really redeemed. What a closed session still owes stays in the book and
//! blocks the next session of that account. Where a chain says what an account's escrow holds, no more than that is risked; what is locked there for a session is no risk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::fault::{Fault, FaultCode};
use crate::id::SessionId;
use crate::money::Usdc;
use crate::signing::Address;

/// Settled sessions whose ids are remembered, because their drivers may still speak of them: far more than end within a minute.
const REMEMBERED_LIMIT: usize = 4096;

/// How much a provider is willing to risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditPolicy {
    /// Most unvouchered work of one account.
    pub cap: Usdc,
    /// Most vouchered and unredeemed value of one account.
    pub unredeemed_cap: Usdc,
}

#[derive(Clone, Copy, Debug, Default)]
struct Exposure {
    unvouchered: Usdc,
    promised: Usdc,
    redeemed: Usdc,
    /// Set aside on the chain for this session alone, and not redeemed yet.
    locked: Usdc,
    closed: bool,
}

impl Exposure {
    /// What is promised or worked and neither redeemed nor locked.
    fn at_risk(&self) -> u64 {
        let used = self.promised.micros().saturating_add(self.unvouchered.micros());
        used.saturating_sub(self.redeemed.micros().saturating_add(self.locked.micros()))
    }
}

/// The exposure to every account, folded from its sessions.
#[derive(Clone, Debug)]
pub struct CreditBook {
    policy: CreditPolicy,
    accounts: BTreeMap<Address, BTreeMap<SessionId, Exposure>>,
    /// What a chain holds for accounts, beyond locks and exits; nothing of those that no chain was asked about.
    held: BTreeMap<Address, Usdc>,
    /// Redeemed value of sessions that are not kept any more.
    settled: BTreeMap<Address, u64>,
    /// The last of those sessions, oldest first.
    remembered: VecDeque<SessionId>,
    remembered_set: BTreeSet<SessionId>,
}

impl CreditBook {
    /// An empty book.
    pub const fn new(policy: CreditPolicy) -> Self {
        Self {
            policy,
            accounts: BTreeMap::new(),
            held: BTreeMap::new(),
            settled: BTreeMap::new(),
            remembered: VecDeque::new(),
            remembered_set: BTreeSet::new(),
        }
    }

    /// Notes what a session stands at: unvouchered charge (running work included) and promised total.
    pub fn note(&mut self, account: Address, session: SessionId, unvouchered: Usdc, promised: Usdc, closed: bool) {
        if self.remembered_set.contains(&session) {
            return;
        }
        let exposure = self.accounts.entry(account).or_default().entry(session).or_default();
        (exposure.unvouchered, exposure.promised, exposure.closed) = (unvouchered, promised, closed);
        self.forget_settled(account, session);
    }

    /// Notes what settlement has redeemed of a session.
    pub fn redeemed(&mut self, account: Address, session: SessionId, total: Usdc) {
        if let Some(exposure) = self.accounts.get_mut(&account).and_then(|all| all.get_mut(&session)) {
            exposure.redeemed = exposure.redeemed.max(total);
        }
        self.forget_settled(account, session);
    }

    /// Notes what the chain holds for an account that is neither locked nor on its way out. With [`Self::locked`] and [`Self::redeemed`] of the same block it limits all that is risked.
    pub fn held(&mut self, account: Address, free: Usdc) {
        self.held.insert(account, free);
    }

    /// Notes what is locked on the chain for a session.
    pub fn locked(&mut self, account: Address, session: SessionId, locked: Usdc) {
        if let Some(exposure) = self.accounts.get_mut(&account).and_then(|all| all.get_mut(&session)) {
            exposure.locked = locked;
        }
    }

    /// Most unvouchered charge that `session` may have now: `min(cap, interval + redeemed / 3)` less what the account's other sessions hold.
    pub fn credit(&self, account: Address, session: SessionId, interval_charge: Usdc) -> Usdc {
        let earned = self.redeemed_total(account) / 3;
        let limit = interval_charge.micros().saturating_add(earned).min(self.policy.cap.micros());
        let others = self.sum(account, |id, e| if *id == session { 0 } else { e.unvouchered.micros() });
        Usdc::from_micros(limit.saturating_sub(others))
    }

    /// What the account owes from sessions that are over.
    pub fn debt(&self, account: Address) -> Usdc {
        Usdc::from_micros(self.sum(account, |_, e| if e.closed { e.unvouchered.micros() } else { 0 }))
    }

    /// How far the charge of `session` may go before something must be redeemed: what it has redeemed or locked, and the cap, or what the chain holds if that is less, without what the
    /// account's other sessions have at risk. So whatever settlement does, no more than the cap is ever lost with one account.
    pub fn unredeemed_ceiling(&self, account: Address, session: SessionId) -> Usdc {
        let held = self.held.get(&account).copied().unwrap_or(self.policy.unredeemed_cap);
        self.ceiling_within(held.min(self.policy.unredeemed_cap), account, session)
    }

    fn ceiling_within(&self, cap: Usdc, account: Address, session: SessionId) -> Usdc {
        let others = self.sum(account, |id, e| if *id == session { 0 } else { e.at_risk() });
        let own = self.sum(account, |id, e| if *id == session { e.redeemed.micros().saturating_add(e.locked.micros()) } else { 0 });
        Usdc::from_micros(cap.micros().saturating_sub(others).saturating_add(own))
    }

    /// Whether the account may open `session`: it owes nothing, and there is room for work that waits for redemption.
    pub fn admits(&self, account: Address, session: SessionId) -> Result<(), Fault> {
        let debt = self.debt(account);
        if debt > Usdc::ZERO {
            let text = "the account owes this provider from an earlier session; resume it and sign";
            return Err(Fault::new(FaultCode::DEBT, text).missing(debt));
        }
        // What the chain holds is asked again at each opening.
        if self.ceiling_within(self.policy.unredeemed_cap, account, session) == Usdc::ZERO {
            let text = "too much of this account waits for redemption; try again when settlement has answered";
            return Err(Fault::new(FaultCode::UNREDEEMED, text));
        }
        Ok(())
    }

    /// What a session promised and has not redeemed; nothing of one that is settled or was never noted.
    pub fn unredeemed(&self, account: Address, session: SessionId) -> Usdc {
        let exposure = self.accounts.get(&account).and_then(|all| all.get(&session));
        exposure.map_or(Usdc::ZERO, |e| e.promised.excess_over(e.redeemed))
    }

    fn redeemed_total(&self, account: Address) -> u64 {
        self.sum(account, |_, e| e.redeemed.micros()).saturating_add(self.settled.get(&account).copied().unwrap_or(0))
    }

    fn sum(&self, account: Address, of: impl Fn(&SessionId, &Exposure) -> u64) -> u64 {
        self.accounts.get(&account).map_or(0, |all| all.iter().fold(0, |sum: u64, (id, e)| sum.saturating_add(of(id, e))))
    }

    /// A closed session without debt and fully redeemed counts only as history.
    fn forget_settled(&mut self, account: Address, session: SessionId) {
        let Some(all) = self.accounts.get_mut(&account) else { return };
        let done = |e: &Exposure| e.closed && e.unvouchered == Usdc::ZERO && e.redeemed >= e.promised;
        if all.get(&session).is_some_and(done)
            && let Some(exposure) = all.remove(&session)
        {
            let sum = self.settled.entry(account).or_default();
            *sum = sum.saturating_add(exposure.redeemed.micros());
            if self.remembered_set.insert(session) {
                self.remembered.push_back(session);
            }
            if self.remembered.len() > REMEMBERED_LIMIT
                && let Some(oldest) = self.remembered.pop_front()
            {
                self.remembered_set.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: CreditPolicy = CreditPolicy { cap: Usdc::from_micros(1_000), unredeemed_cap: Usdc::from_micros(500) };

    fn session(n: u128) -> SessionId {
        SessionId::from_parts(1, n)
    }

    #[test]
    fn credit_starts_at_one_interval_grows_with_redemption_and_stops_at_the_cap() {
        let (mut book, account) = (CreditBook::new(POLICY), Address::default());
        let interval = Usdc::from_micros(100);
        assert_eq!(book.credit(account, session(1), interval).micros(), 100);
        book.note(account, session(1), Usdc::ZERO, Usdc::from_micros(300), true);
        assert_eq!(book.credit(account, session(2), interval).micros(), 100, "promised is not redeemed");
        book.redeemed(account, session(1), Usdc::from_micros(300));
        assert_eq!(book.credit(account, session(2), interval).micros(), 200);
        book.note(account, session(3), Usdc::ZERO, Usdc::from_micros(90_000), false);
        book.redeemed(account, session(3), Usdc::from_micros(90_000));
        assert_eq!(book.credit(account, session(2), interval).micros(), 1_000);
    }

    #[test]
    fn sessions_of_an_account_share_one_limit_and_a_closed_one_leaves_a_debt() {
        let (mut book, account) = (CreditBook::new(POLICY), Address::default());
        book.note(account, session(1), Usdc::from_micros(60), Usdc::ZERO, false);
        assert_eq!(book.credit(account, session(2), Usdc::from_micros(100)).micros(), 40);
        assert_eq!(book.debt(account), Usdc::ZERO);
        book.note(account, session(1), Usdc::from_micros(60), Usdc::ZERO, true);
        assert_eq!(book.debt(account).micros(), 60);
        book.note(account, session(1), Usdc::ZERO, Usdc::from_micros(60), true);
        assert_eq!(book.debt(account), Usdc::ZERO);
    }

    #[test]
    fn an_account_with_a_debt_or_without_room_opens_nothing_and_hears_why() {
        let (mut book, account) = (CreditBook::new(POLICY), Address::default());
        assert_eq!(book.admits(account, session(9)), Ok(()));
        book.note(account, session(1), Usdc::from_micros(7), Usdc::ZERO, true);
        let fault = book.admits(account, session(9)).unwrap_err();
        assert_eq!((fault.code, fault.missing), (FaultCode::DEBT, Some(Usdc::from_micros(7))));
        book.note(account, session(1), Usdc::ZERO, Usdc::from_micros(500), true);
        assert_eq!(book.admits(account, session(9)).unwrap_err().code, FaultCode::UNREDEEMED);
        book.redeemed(account, session(1), Usdc::from_micros(1));
        assert_eq!(book.admits(account, session(9)), Ok(()));
    }

    #[test]
    fn unredeemed_value_is_capped() {
        let (mut book, account) = (CreditBook::new(POLICY), Address::default());
        book.note(account, session(1), Usdc::ZERO, Usdc::from_micros(450), false);
        assert_eq!(book.unredeemed_ceiling(account, session(2)).micros(), 50);
        book.note(account, session(3), Usdc::from_micros(20), Usdc::ZERO, false);
        assert_eq!(book.unredeemed_ceiling(account, session(2)).micros(), 30, "what others ran ahead counts");
        assert_eq!(book.unredeemed_ceiling(account, session(3)).micros(), 50);
        assert_eq!(book.unredeemed_ceiling(account, session(1)).micros(), 480, "its own promise does not count twice");
        book.note(account, session(3), Usdc::ZERO, Usdc::ZERO, false);
        book.redeemed(account, session(1), Usdc::from_micros(450));
        assert_eq!(book.unredeemed_ceiling(account, session(2)).micros(), 500);
    }

    #[test]
    fn no_more_is_risked_than_the_chain_holds_and_what_is_locked_is_no_risk() {
        let (mut book, account) = (CreditBook::new(POLICY), Address::default());
        book.note(account, session(1), Usdc::ZERO, Usdc::from_micros(100), false);
        book.held(account, Usdc::from_micros(300));
        assert_eq!(book.unredeemed_ceiling(account, session(1)).micros(), 300);
        assert_eq!(book.unredeemed_ceiling(account, session(2)).micros(), 200, "both draw on the same escrow");
        // A lock takes from what is free, and is the session's alone.
        book.held(account, Usdc::from_micros(50));
        book.locked(account, session(1), Usdc::from_micros(250));
        assert_eq!(book.unredeemed_ceiling(account, session(1)).micros(), 300);
        assert_eq!(book.unredeemed_ceiling(account, session(2)).micros(), 50);
        // Redeemed out of the lock: what is locked falls as what is redeemed grows.
        book.redeemed(account, session(1), Usdc::from_micros(100));
        book.locked(account, session(1), Usdc::from_micros(150));
        assert_eq!(book.unredeemed_ceiling(account, session(1)).micros(), 300);
        // Never more than the cap beyond locks, however rich the account is.
        book.held(account, Usdc::from_micros(1_000_000));
        assert_eq!(book.unredeemed_ceiling(account, session(2)).micros(), 500);
        // An empty escrow leaves nothing; whether the account may open is asked of the chain again.
        book.held(account, Usdc::ZERO);
        assert_eq!(book.unredeemed_ceiling(account, session(2)), Usdc::ZERO);
        assert_eq!(book.admits(account, session(2)), Ok(()));
    }

    #[test]
    fn a_settled_session_is_remembered_until_as_many_others_are() {
        let (mut book, account) = (CreditBook::new(POLICY), Address::default());
        let last = REMEMBERED_LIMIT as u128;
        // A session that is remembered cannot leave a debt any more.
        let owes = |book: &CreditBook, n: u128| {
            let mut book = book.clone();
            book.note(account, session(n), Usdc::from_micros(7), Usdc::ZERO, true);
            book.debt(account) != Usdc::ZERO
        };
        for n in 1..=last {
            book.note(account, session(n), Usdc::ZERO, Usdc::ZERO, true);
        }
        assert_eq!([1, 2, last].map(|n| owes(&book, n)), [false, false, false]);
        book.note(account, session(last + 1), Usdc::ZERO, Usdc::ZERO, true);
        assert_eq!([1, 2, last + 1].map(|n| owes(&book, n)), [true, false, false]);
    }
}

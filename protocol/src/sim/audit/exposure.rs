//! What honest parties stand to lose, while it happens and in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::{Audit, Auditor, MS_PER_MINUTE};
use crate::credit::CreditPolicy;
use crate::signing::Address;
use crate::sim::house::HouseFacts;

/// What providers of a world risk, and how late they look.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Policy {
    pub(in crate::sim) credit: CreditPolicy,
    pub(in crate::sim) tick_ms: u64,
}

/// One account at one provider.
#[derive(Default)]
struct Exposure {
    unvouchered: u128,
    unredeemed: u128,
    redeemed: u128,
    interval: u128,
    /// What every tool that ever ran costs in one tick, rounded up: by so much each may pass its limit before anybody looks.
    tick: u128,
    /// See [`Audit::forgone`], and the runs that ended.
    forgone: u128,
    ended: u128,
    sessions: u128,
}

impl Auditor {
    fn exposures(&self, facts: &HouseFacts, policy: &Policy) -> BTreeMap<(usize, Address), Exposure> {
        let mut all: BTreeMap<(usize, Address), Exposure> = BTreeMap::new();
        for audit in self.sessions.iter().filter(|audit| audit.is_honest_provider()) {
            let redeemed = facts.channels.get(&audit.channel).map_or(0, |state| u128::from(state.redeemed.micros()));
            let exposure = all.entry((audit.provider, audit.account)).or_default();
            let value = audit.value();
            // Beyond the allowance the time is the provider's own (M8).
            let due = value.min(audit.ceiling);
            exposure.unvouchered += due.saturating_sub(audit.accepted);
            exposure.unredeemed += due.saturating_sub(redeemed);
            exposure.redeemed += redeemed;
            exposure.interval = exposure.interval.max(audit.interval());
            exposure.tick += audit.tick(policy);
            exposure.forgone += audit.forgone;
            exposure.ended += audit.reported.values().filter(|run| run.ended).count() as u128;
            exposure.sessions += 1;
        }
        all
    }

    /// M7 and M13, at any moment.
    pub(in crate::sim) fn exposed(&mut self, facts: &HouseFacts, policy: &Policy, lies: bool) {
        for ((provider, account), exposure) in self.exposures(facts, policy) {
            let cap = u128::from(policy.credit.cap.micros());
            let credit = cap.min(exposure.interval + exposure.redeemed / 3) + exposure.tick;
            let room = u128::from(policy.credit.unredeemed_cap.micros()) + exposure.tick;
            // A settlement that lies about what it redeemed is believed on the rail where its word is the ledger.
            // Each run that ends may have been the one that all running ones of the account overtook its limit by, and there are at most two in a session.
            let forgone = exposure.ended * exposure.sessions * 2 * (exposure.interval / 4 + 2);
            self.check(exposure.forgone <= forgone, || format!("provider {provider}: {} was worked and never charged", exposure.forgone));
            let (within, capped) = (lies || exposure.unvouchered <= credit, lies || exposure.unredeemed <= room);
            self.check(within, || {
                format!("provider {provider}: {account} has {} without a voucher; {credit} is the most", exposure.unvouchered)
            });
            self.check(capped, || format!("provider {provider}: {account} has {} unredeemed; {room} is the most", exposure.unredeemed));
        }
    }

    /// The worst that came of it, when everything is over.
    pub(in crate::sim) fn settle_losses(&mut self, facts: &HouseFacts, policy: &Policy) {
        let mut losses = self.losses;
        for exposure in self.exposures(facts, policy).values() {
            losses.provider = losses.provider.max(exposure.unredeemed);
            losses.unpaid += exposure.unredeemed;
            losses.redeemed += exposure.redeemed;
            losses.ticks += exposure.tick;
            losses.provider_bound = losses.provider_bound.max(u128::from(policy.credit.unredeemed_cap.micros()) + exposure.tick);
        }
        for audit in self.sessions.iter().filter(|audit| !audit.agent_cheats) {
            let promised = audit.vouchers.last().map_or(0, |voucher| voucher.0);
            let fair = audit.value().max(audit.minimum);
            losses.agent = losses.agent.max(promised.saturating_sub(fair));
            losses.agent_bound = losses.agent_bound.max(audit.reserved);
        }
        self.losses = losses;
    }

    /// With everybody honest and streams that keep their order, nothing is owed in the end.
    pub(in crate::sim) fn is_even(&mut self, facts: &HouseFacts) {
        for slot in 0..self.sessions.len() {
            let audit = &self.sessions[slot];
            let charged = audit.chain.last().map_or(0, |(_, charged)| *charged);
            let (accepted, promised) = (audit.accepted, audit.vouchers.last().map_or(0, |voucher| voucher.0));
            let redeemed = facts.channels.get(&audit.channel).map_or(0, |state| u128::from(state.redeemed.micros()));
            // A session that never got its first voucher through is worth nothing to anybody.
            let opened = audit.is_paid_for;
            let even = !opened || (charged == accepted && accepted == promised && promised == redeemed);
            self.check(even, || {
                format!("session {slot}: {charged} charged, {accepted} accepted, {promised} promised, {redeemed} redeemed")
            });
            let disputed = self.sessions[slot].disputed;
            self.check(!disputed, || format!("session {slot}: a dispute between honest parties"));
        }
        for (account, sums) in &facts.accounts {
            let held = sums.reserved;
            self.check(held == 0, || format!("settlement: {held} of {account} is held for sessions that are over"));
        }
        self.check_ends();
    }

    /// Every execution that an agent asked for has one end, or none of its costs.
    fn check_ends(&mut self) {
        for slot in 0..self.sessions.len() {
            let audit = &self.sessions[slot];
            let open: BTreeSet<_> = audit.answered.iter().filter(|(_, run)| !run.ended).map(|(id, _)| *id).collect();
            let running = audit.running.len();
            self.check(open.is_empty(), || format!("session {slot}: {open:?} never ended"));
            self.check(running == 0, || format!("session {slot}: {running} tools still run"));
        }
    }
}

impl Audit {
    /// What the session's tools cost within one look of the provider each, rounded up.
    fn tick(&self, policy: &Policy) -> u128 {
        let ms = u128::from(policy.tick_ms) + 1;
        self.worked.values().fold(0, |sum, (tool, _)| sum + self.tariff(tool).per_minute * ms / MS_PER_MINUTE + 1)
    }
}

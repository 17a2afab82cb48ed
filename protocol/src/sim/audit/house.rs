//! What an honest settlement may hold, free, redeem and pay.

use std::collections::BTreeMap;

use super::Auditor;
use crate::signing::Address;
use crate::sim::house::{HouseFacts, Payment};
use crate::time::Timestamp;

/// Shares of a cumulative total: provider, platform, reserve.
const fn shares(total: u128) -> (u128, u128, u128) {
    let fees = total / 10;
    let platform = fees * 7 / 10;
    (total - fees, platform, fees - platform)
}

impl Auditor {
    /// Settlement's books, whenever they may have changed; `wall` is its clock.
    pub(in crate::sim) fn books(&mut self, facts: &HouseFacts, wall: Timestamp) {
        for (account, sums) in &facts.accounts {
            let sum = sums.available + sums.reserved + sums.redeemed;
            self.check(sum == sums.granted, || format!("settlement: account {account} has {sum} of {} granted", sums.granted));
        }
        self.check_channels(facts, wall);
        self.check_shares(facts);
        self.channels = facts.channels.clone();
    }

    fn check_channels(&mut self, facts: &HouseFacts, wall: Timestamp) {
        let (mut held, mut redeemed): (BTreeMap<Address, u128>, BTreeMap<Address, u128>) = (BTreeMap::new(), BTreeMap::new());
        for slot in 0..self.sessions.len() {
            let audit = &self.sessions[slot];
            let Some(now) = facts.channels.get(&audit.channel).copied() else { continue };
            let before = self.channels.get(&audit.channel).copied().unwrap_or_default();
            let total = u128::from(now.redeemed.micros());
            let (signed, account) = (audit.signed, audit.account);
            let over = wall.seconds() > audit.redeem_until;
            let is_close_allowed = audit.provider_cheats || audit.close.is_some() || over;
            let is_redeemed_in_time = total == u128::from(before.redeemed.micros()) || !over;
            *redeemed.entry(account).or_default() += total;
            if !now.closed {
                *held.entry(account).or_default() += u128::from(now.ceiling.micros()).saturating_sub(total);
            }
            self.check(total <= signed, || format!("session {slot}: {total} redeemed where {signed} was ever signed"));
            self.check(now.redeemed <= now.ceiling, || format!("session {slot}: {total} redeemed of {} reserved", now.ceiling.micros()));
            self.check(now.redeemed >= before.redeemed, || format!("session {slot}: what was redeemed fell to {total}"));
            self.check(now.closed || !before.closed, || format!("session {slot}: an ended channel is live again"));
            self.check(now.closed <= (before.closed || is_close_allowed), || format!("session {slot}: freed before its time"));
            self.check(is_redeemed_in_time, || format!("session {slot}: redeemed after its time"));
        }
        for (account, sums) in &facts.accounts {
            let held = held.get(account).copied().unwrap_or(0);
            let redeemed = redeemed.get(account).copied().unwrap_or(0);
            let same = held == sums.reserved && redeemed == sums.redeemed;
            self.check(same, || format!("settlement: {account} has {held} held and {redeemed} redeemed, not {sums:?}"));
            if !self.house_cheats {
                self.losses.settlement = self.losses.settlement.max((held + redeemed).saturating_sub(sums.granted));
            }
            self.check(held + redeemed <= sums.granted, || format!("settlement: {account} is worth {} and holds more", sums.granted));
        }
    }

    fn check_shares(&mut self, facts: &HouseFacts) {
        let (mut payees, mut fees): (BTreeMap<Address, u128>, (u128, u128)) = (BTreeMap::new(), (0, 0));
        for audit in &self.sessions {
            let Some(state) = facts.channels.get(&audit.channel) else { continue };
            let (provider, platform, reserve) = shares(u128::from(state.redeemed.micros()));
            *payees.entry(audit.payout).or_default() += provider;
            fees = (fees.0 + platform, fees.1 + reserve);
        }
        for (payee, earned) in payees {
            let (pending, settled) = facts.payees.get(&payee).copied().unwrap_or_default();
            self.check(pending + settled == earned, || format!("settlement: {payee} has {pending} + {settled} of {earned} earned"));
        }
        let held = facts.fees;
        self.check(held == fees, || format!("settlement: platform and reserve are {held:?}, not {fees:?}"));
    }

    /// Settlement paid.
    pub(in crate::sim) fn payments(&mut self, payments: &[Payment], facts: &HouseFacts) {
        for payment in payments {
            let new = self.payments.insert(payment.id);
            let paid = self.paid.entry(payment.payee).or_default();
            *paid += u128::from(payment.amount.micros());
            let (paid, settled) = (*paid, facts.payees.get(&payment.payee).copied().unwrap_or_default().1);
            self.check(new, || format!("settlement: payment {} was made twice", payment.id));
            self.check(paid <= settled, || format!("settlement: {} was paid {paid} of {settled} settled", payment.payee));
        }
    }

    /// Everything is over: nothing is held and everything earned is paid.
    pub(in crate::sim) fn is_settled(&mut self, facts: &HouseFacts) {
        for (account, sums) in &facts.accounts {
            self.check(sums.reserved == 0, || format!("settlement: {} of {account} is still held", sums.reserved));
        }
        for (payee, (pending, settled)) in &facts.payees {
            let paid = self.paid.get(payee).copied().unwrap_or(0);
            self.check(*pending == 0 && *settled == paid, || {
                format!("settlement: {payee} waits for {pending}, was paid {paid} of {settled}")
            });
        }
    }
}

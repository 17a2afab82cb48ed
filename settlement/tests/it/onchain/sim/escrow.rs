//! The escrow of the chain in memory: what the contract does with deposits, exits and claims (signatures aside), with code of its own.

use std::collections::{BTreeMap, BTreeSet};

use orien_chain::{EscrowEvent, Refusal};
use orien_protocol::channel::ChannelId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, MoneyDomain};
use orien_protocol::time::UnixSeconds;

use crate::onchain::EXIT_DELAY;
use crate::onchain::decode::{OnWire, claims_of};

/// What the escrow holds of one account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) balance: u64,
    pub(crate) exiting: u64,
    pub(crate) exit_at: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Paid {
    pub(crate) redeemed: u64,
    ceiling: u64,
    redeem_until: u64,
    pub(crate) closed: bool,
}

/// Everything that blocks change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Escrow {
    pub(crate) accounts: BTreeMap<Address, Held>,
    pub(crate) channels: BTreeMap<ChannelId, Paid>,
    pub(crate) delivered: BTreeMap<Address, u64>,
    pub(crate) credits: BTreeMap<Address, u64>,
    pub(crate) withdrawn: u64,
    pub(crate) deposited: u64,
    pub(crate) fees: u64,
    pub(crate) donated: u64,
    /// Tokens that are gone without a log.
    pub(crate) lost: u64,
    pub(crate) nonces: BTreeMap<Address, u64>,
}

/// What a transaction does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Ours: a signed one.
    Ours(OnWire),
    /// Somebody else redeems.
    Rival(Vec<u8>),
    Deposit(Address, Address, u64),
    RequestExit(Address, u64),
    Withdraw(Address),
    /// Tokens that somebody sends to the contract without a word.
    Donate(u64),
}

/// What the contract goes by.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) sender: Address,
    pub(crate) domain: MoneyDomain,
    pub(crate) blocklisted: BTreeSet<Address>,
}

impl Escrow {
    /// None when it cannot be in a block now.
    pub(crate) fn apply(&mut self, act: &Act, ground: &Ground, now: u64, log: &mut dyn FnMut(EscrowEvent)) -> Option<bool> {
        match act {
            Act::Ours(wire) => {
                let nonce = self.nonces.entry(ground.sender).or_default();
                if *nonce != wire.nonce {
                    return None;
                }
                *nonce += 1;
                if !wire.data.is_empty() {
                    self.redeem(&wire.data, ground, now, log);
                }
                Some(true)
            }
            Act::Rival(data) => {
                self.redeem(data, ground, now, log);
                Some(true)
            }
            Act::Deposit(account, key, amount) => {
                let held = self.accounts.entry(*account).or_default();
                if held.balance == 0 {
                    log(EscrowEvent::KeyAuthorized { account: *account, key: *key });
                }
                held.balance += amount;
                self.deposited += amount;
                log(EscrowEvent::Deposited { account: *account, spending_key: *key, amount: Usdc::from_micros(*amount) });
                Some(true)
            }
            Act::RequestExit(account, amount) => {
                let held = self.accounts.entry(*account).or_default();
                (held.exiting, held.exit_at) = (*amount, now + EXIT_DELAY);
                log(EscrowEvent::ExitRequested { account: *account, amount: Usdc::from_micros(*amount), due: UnixSeconds(held.exit_at) });
                Some(true)
            }
            Act::Withdraw(account) => {
                let held = self.accounts.entry(*account).or_default();
                if held.exiting == 0 || now < held.exit_at {
                    return Some(false);
                }
                let amount = held.exiting.min(held.balance);
                held.balance -= amount;
                (held.exiting, held.exit_at) = (0, 0);
                self.withdrawn += amount;
                log(EscrowEvent::Withdrawn { account: *account, amount: Usdc::from_micros(amount) });
                Some(true)
            }
            Act::Donate(amount) => {
                self.donated += amount;
                Some(true)
            }
        }
    }

    fn redeem(&mut self, data: &[u8], ground: &Ground, now: u64, log: &mut dyn FnMut(EscrowEvent)) {
        let mut due: Vec<(Address, u64)> = Vec::new();
        for claim in claims_of(data) {
            let id = claim.channel(ground.domain);
            let channel = self.channels.entry(id).or_default();
            let refusal = if channel.closed {
                Some(Refusal::ChannelClosed)
            } else if now > claim.redeem_until {
                Some(Refusal::TooLate)
            } else {
                None
            };
            if let Some(reason) = refusal {
                log(EscrowEvent::ClaimRefused { channel: id, reason });
                continue;
            }
            (channel.ceiling, channel.redeem_until) = (channel.ceiling.max(claim.ceiling), claim.redeem_until);
            let mut limit = claim.total.min(claim.ceiling);
            if let Some(close) = claim.close {
                limit = limit.min(close);
            }
            let held = self.accounts.entry(claim.account).or_default();
            let paid = limit.saturating_sub(channel.redeemed).min(held.balance);
            let closes = claim.close.is_some() && channel.redeemed + paid >= limit;
            if paid == 0 && !closes {
                continue;
            }
            held.balance -= paid;
            let before = provider_share(channel.redeemed);
            channel.redeemed += paid;
            channel.closed = closes;
            let provider = provider_share(channel.redeemed) - before;
            self.fees += paid - provider;
            due.push((claim.payout, provider));
            log(EscrowEvent::Redeemed {
                channel: id,
                account: claim.account,
                payout: claim.payout,
                paid: Usdc::from_micros(paid),
                redeemed: Usdc::from_micros(channel.redeemed),
                closed: closes,
            });
        }
        for (payee, amount) in due {
            if ground.blocklisted.contains(&payee) && amount > 0 {
                *self.credits.entry(payee).or_default() += amount;
                log(EscrowEvent::Credited { payee, amount: Usdc::from_micros(amount) });
            } else {
                *self.delivered.entry(payee).or_default() += amount;
            }
        }
    }

    /// Tokens that the contract has.
    pub(crate) fn tokens(&self) -> u64 {
        let out = self.delivered.values().sum::<u64>() + self.withdrawn;
        self.deposited + self.donated - self.lost - out
    }
}

/// M3, with arithmetic of its own: nine tenths and what does not divide.
fn provider_share(total: u64) -> u64 {
    total - total / 10
}

//! Reservations: an agent asks to have part of its credit held for one channel, and gets the allowance that a provider works against.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::hash::Hash;
use orien_protocol::id::RequestId;
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::{Allowance, MoneyVerified, SignedAllowance};

use super::{AccountRecord, Books, Change, ChannelRecord, ChannelStatus, FirstAnswer, RequestKey, RequestRecord};
use crate::evidence::terms_fault;
use crate::ledger::{LedgerAccount, Postings, Reason};

/// Most live channels of one account; each takes room here until it is closed or expires.
pub const LIVE_CHANNELS_MAX: usize = 10_000;
/// Most requests that are answered for one channel: a budget reserved in a thousand slices. Each is remembered until after the channel's end.
pub const REQUESTS_PER_CHANNEL_MAX: u32 = 1_000;
/// How long a request is remembered after its channel's end.
const REMEMBER: Millis = Millis::from_secs(24 * 3600);
const SECONDS_PER_DAY: u64 = 24 * 3600;

impl Books {
    /// Plans a reservation for terms that were checked, asked for by an authenticated peer.
    pub fn reserve(
        &self,
        caller: PeerId,
        request: RequestId,
        terms: &VerifiedTerms,
        ceiling: Usdc,
        now: Timestamp,
    ) -> Result<(Change, SignedAllowance), Fault> {
        let (key, body) = (RequestKey::Reserve(caller, request), body(terms, ceiling));
        if let Some(FirstAnswer::Allowance(allowance)) = self.seen(&key, &body)? {
            return Ok((Change::default(), *allowance));
        }
        self.check_caller(caller, terms)?;
        self.check_sight(now)?;
        if ceiling == Usdc::ZERO {
            return Err(Fault::new(FaultCode::MALFORMED, "a reservation of nothing"));
        }
        let old = self.channel(&terms.channel());
        match old {
            None => self.check_new(terms, now)?,
            Some(old) => check_again(old, terms, ceiling, now)?,
        }
        let raise = ceiling.excess_over(old.map_or(Usdc::ZERO, |old| old.ceiling));
        let account = self.check_credit(terms, ceiling, raise, now)?;

        let mut postings = Postings::new(self.ledger(), now);
        let (from, to) = (LedgerAccount::Agent(terms.account()), LedgerAccount::Channel(terms.channel()));
        postings.add(from, to, raise, Reason::Reserve).map_err(|error| Fault::new(FaultCode::INTERNAL, error))?;
        let allowance = self.allowance(terms, ceiling);
        let record = old.map_or_else(
            || opened(terms, allowance),
            |old| ChannelRecord { allowance, ceiling, requests: old.requests.saturating_add(1), ..old.clone() },
        );
        let keep_until = Some(terms.redeem_until.timestamp().plus(REMEMBER));
        let change = Change {
            transfers: postings.finish(),
            accounts: vec![(terms.account(), account)],
            channels: vec![record],
            requests: vec![(key, RequestRecord { body, answer: FirstAnswer::Allowance(allowance), keep_until })],
            ..Change::default()
        };
        Ok((change, allowance))
    }

    pub(super) fn check_caller(&self, caller: PeerId, terms: &VerifiedTerms) -> Result<(), Fault> {
        let facts = self.house().facts();
        if *terms.network() != facts.network || terms.domain != facts.domain || terms.settlement_signer != facts.signer {
            return Err(Fault::new(FaultCode::WRONG_NETWORK, "the terms name another network, chain, escrow or settlement signer"));
        }
        if caller != terms.agent() {
            return Err(Fault::new(FaultCode::NOT_YOURS, "only the agent of the terms may reserve for them"));
        }
        match self.account(&terms.account()) {
            Some(account) if !account.spending_keys.contains(&terms.spending_key()) => {
                let text = format!("{} is not a spending key of account {}", terms.spending_key(), terms.account());
                Err(Fault::new(FaultCode::NOT_YOURS, text))
            }
            // An account that was never granted anything has no keys and no money; the latter is what its owner needs to hear.
            _ => Ok(()),
        }
    }

    fn check_new(&self, terms: &VerifiedTerms, now: Timestamp) -> Result<(), Fault> {
        terms.check_times(now, self.house().finality_lag, self.house().exit_delay).map_err(|error| terms_fault(&error))?;
        if terms.work_until.timestamp() <= now {
            return Err(Fault::new(FaultCode::TIMES, "the time to work under these terms is over"));
        }
        if self.accounts.get(&terms.account()).is_some_and(|account| account.live >= LIVE_CHANNELS_MAX) {
            return Err(Fault::new(FaultCode::BUSY, format_args!("the account already has {LIVE_CHANNELS_MAX} live channels")));
        }
        Ok(())
    }

    /// Checks credit (M11) and daily cap for `raise` more, and gives the account as it will be.
    fn check_credit(&self, terms: &VerifiedTerms, ceiling: Usdc, raise: Usdc, now: Timestamp) -> Result<AccountRecord, Fault> {
        let address = terms.account();
        let Some(record) = self.account(&address) else {
            return Err(Fault::new(FaultCode::INSUFFICIENT_FUNDS, format_args!("account {address} has no credit here")).missing(ceiling));
        };
        let available = self.funds(&address).available;
        if raise > available {
            let text = format!("account {address} can reserve {available} USDC more, not {raise}");
            return Err(Fault::new(FaultCode::INSUFFICIENT_FUNDS, text).missing(raise.excess_over(available)));
        }
        let mut record = record.on_day(now);
        let reserved = record.day_reserved.plus(raise).map_err(|error| Fault::new(FaultCode::TOO_LARGE, error))?;
        if let Some(cap) = record.daily_cap.filter(|cap| reserved > *cap) {
            let text = format!("account {address} may reserve {cap} USDC a day");
            return Err(Fault::new(FaultCode::DAILY_CAP, text).missing(reserved.excess_over(cap)));
        }
        record.day_reserved = reserved;
        Ok(record)
    }

    pub(super) fn allowance(&self, terms: &VerifiedTerms, ceiling: Usdc) -> SignedAllowance {
        let allowance = Allowance {
            channel: terms.channel(),
            ceiling,
            work_until: terms.work_until,
            redeem_until: terms.redeem_until,
            terms: terms.hash(),
            claim_key: terms.claim_key(),
        };
        *MoneyVerified::sign(allowance, &self.house().facts().domain, self.house().signer()).signed()
    }
}

impl AccountRecord {
    /// The record with its day counter set to the day of `now`. A clock that steps back does not open a day again.
    fn on_day(&self, now: Timestamp) -> Self {
        let day = now.seconds().0 / SECONDS_PER_DAY;
        let mut record = self.clone();
        if day > record.day {
            (record.day, record.day_reserved) = (day, Usdc::ZERO);
        }
        record
    }

    /// The record after `amount` came back from a channel. It can be reserved again on the same day: the cap is on what a day adds.
    pub(super) fn with_returned(&self, amount: Usdc, now: Timestamp) -> Self {
        let mut record = self.on_day(now);
        record.day_reserved = record.day_reserved.excess_over(amount);
        record
    }
}

pub(super) fn opened(terms: &VerifiedTerms, allowance: SignedAllowance) -> ChannelRecord {
    ChannelRecord {
        allowance,
        session: terms.session,
        terms: terms.hash(),
        account: terms.account(),
        spending_key: terms.spending_key(),
        payout: terms.payout(),
        provider: terms.provider(),
        ceiling: allowance.unverified().ceiling,
        redeemed: Usdc::ZERO,
        voucher: None,
        batched: Usdc::ZERO,
        batched_voucher: None,
        redeem_until: terms.redeem_until,
        requests: 1,
        status: ChannelStatus::Live,
        close: None,
    }
}

/// A channel that exists may only be raised, under the same terms, while there is time to work.
fn check_again(old: &ChannelRecord, terms: &VerifiedTerms, ceiling: Usdc, now: Timestamp) -> Result<(), Fault> {
    if old.terms != terms.hash() {
        return Err(Fault::new(FaultCode::CONFLICT, "the channel was reserved under other terms"));
    }
    if !old.live() || terms.work_until.timestamp() <= now {
        return Err(Fault::new(FaultCode::SESSION_ENDED, "the channel has ended or its time to work is over"));
    }
    if ceiling < old.ceiling {
        let text = format!("{} USDC are promised to the provider; a reservation cannot be lowered to {ceiling}", old.ceiling);
        return Err(Fault::new(FaultCode::WRONG_STATE, text));
    }
    if old.requests >= REQUESTS_PER_CHANNEL_MAX {
        return Err(Fault::new(FaultCode::BUSY, format_args!("a channel is reserved in at most {REQUESTS_PER_CHANNEL_MAX} requests")));
    }
    Ok(())
}

fn body(terms: &VerifiedTerms, ceiling: Usdc) -> Hash {
    let mut bytes = terms.hash().as_bytes().to_vec();
    bytes.extend_from_slice(&ceiling.micros().to_be_bytes());
    Hash::of(&bytes)
}

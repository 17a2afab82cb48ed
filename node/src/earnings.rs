//! What this provider earned: sums over all sessions, and each of the newest.
//!
//! Always true: everything is folded from what is stored; what counts as redeemed is settlement's word on the ledger rail, and what a final block says where there is a chain.

use std::cmp::Reverse;

use orien_protocol::frame::CloseReason;
use orien_protocol::id::SessionId;
use orien_protocol::ledger::Balance;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::{Timestamp, UnixSeconds};

use crate::house::House;
use crate::store::{StoreError, Summary};

/// Sums over all sessions that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takings {
    /// Sessions that opened and are kept.
    pub sessions: u64,
    /// Their sums; what is redeemed includes sessions that are forgotten.
    pub balance: Balance,
    /// What is promised and not redeemed yet.
    pub waiting: Usdc,
}

/// What one session earned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEarnings {
    /// Which.
    pub session: SessionId,
    /// Whose money it is.
    pub account: Address,
    /// When its terms were written.
    pub started_at: Timestamp,
    /// Charged, promised, redeemed.
    pub balance: Balance,
    /// The most that settlement has reserved for it.
    pub ceiling: Usdc,
    /// Of it, locked on the chain for this session alone.
    pub locked: Usdc,
    /// Until when it can be redeemed.
    pub redeem_until: UnixSeconds,
    /// Why it closed, if it did.
    pub closed: Option<CloseReason>,
    /// Whether the end of the channel is known: nothing more can be redeemed.
    pub is_ended: bool,
}

impl SessionEarnings {
    /// What can be redeemed and is not yet.
    pub fn redeemable(&self, now: Timestamp) -> Usdc {
        if self.redeem_until.timestamp() > now { self.balance.promised.excess_over(self.balance.redeemed) } else { Usdc::ZERO }
    }

    /// What could have been redeemed and was not in time.
    pub fn lost(&self, now: Timestamp) -> Usdc {
        if self.redeem_until.timestamp() > now { Usdc::ZERO } else { self.balance.promised.excess_over(self.balance.redeemed) }
    }
}

/// Sums, and the newest sessions.
#[derive(Clone, Debug, Default)]
pub struct Earnings {
    /// Over all.
    pub takings: Takings,
    /// The newest first, as many as were asked for.
    pub newest: Vec<SessionEarnings>,
}

fn plus(a: Usdc, b: Usdc) -> Usdc {
    Usdc::from_micros(a.micros().saturating_add(b.micros()))
}

/// Adds up everything that is kept.
pub(crate) async fn of(house: &House, limit: usize) -> Result<Earnings, StoreError> {
    let mut takings = Takings::default();
    for (_, redeemed) in house.store.history().await? {
        takings.balance.redeemed = plus(takings.balance.redeemed, redeemed);
    }
    let mut sessions = house.store.sessions().await?;
    // Ids begin with the time at which they were made.
    sessions.sort_by_key(|session| Reverse(*session));
    let mut newest = Vec::new();
    for session in sessions {
        let Some(summary) = house.store.summary(session).await?.filter(Summary::has_opened) else { continue };
        let handed = house.store.handed(session).await?;
        let balance = Balance { charged: summary.charged, promised: summary.promised(), redeemed: handed.state.redeemed };
        takings.sessions = takings.sessions.saturating_add(1);
        takings.balance.charged = plus(takings.balance.charged, balance.charged);
        takings.balance.promised = plus(takings.balance.promised, balance.promised);
        takings.balance.redeemed = plus(takings.balance.redeemed, balance.redeemed);
        takings.waiting = plus(takings.waiting, balance.promised.excess_over(balance.redeemed));
        if newest.len() < limit {
            newest.push(SessionEarnings {
                session,
                account: summary.account(),
                started_at: summary.terms.by_agent.unverified().issued_at,
                balance,
                ceiling: summary.allowance.unverified().ceiling,
                locked: house.chain.as_ref().and_then(|chain| chain.seen(session)).map_or(Usdc::ZERO, |seen| seen.locked),
                redeem_until: summary.redeem_until(),
                closed: summary.closed,
                is_ended: handed.state.closed,
            });
        }
    }
    Ok(Earnings { takings, newest })
}

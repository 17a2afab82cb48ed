//! What each token has committed, against what it may.
//!
//! Always true: the sum is made anew each time from the token's sessions themselves (the budget of one that is live, what was promised of one that is over),
//! with what is being opened or raised at this moment on top; two requests cannot both be given the last of a cap. There is no second account of it.
//!
//! It does not know how a token is made or shown, and decides nothing about sessions of the owner, who has no cap.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orien_door::OWNER;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use tokio::sync::Semaphore;

use crate::rows::SessionFacts;
use crate::sessions::Sessions;
use crate::store::StoreError;

/// Whose money it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spender {
    /// The id of a token, or of the owner.
    pub(crate) id: String,
    /// How much it may commit in all.
    pub(crate) cap: Option<Usdc>,
}

impl Default for Spender {
    fn default() -> Self {
        Self { id: OWNER.to_owned(), cap: None }
    }
}

impl Spender {
    /// The token that opens a session, to be remembered with it; none for the owner.
    pub(crate) fn token(&self) -> Option<&str> {
        (self.id != OWNER).then_some(self.id.as_str())
    }
}

/// Why no more can be committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// It would be more than the cap.
    #[error("the token may commit {cap} USDC in all and {committed} are committed; {missing} too little for this")]
    Cap {
        /// How much it may commit.
        cap: Usdc,
        /// How much it has.
        committed: Usdc,
        /// How much too little that leaves.
        missing: Usdc,
    },
    /// The store failed: the process has to stop.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is being committed at this moment.
#[derive(Debug)]
pub(crate) struct Spending {
    /// One sum at a time: what one finds is held before the next begins.
    turn: Semaphore,
    holds: Arc<Mutex<Holds>>,
}

#[derive(Debug, Default)]
struct Holds {
    next: u64,
    /// Bounded by the requests that act at once.
    all: BTreeMap<u64, Hold>,
}

#[derive(Clone, Debug)]
struct Hold {
    spender: String,
    /// The sessions that it is for: the one that is raised, or those that an opening may use in turn.
    sessions: Vec<SessionId>,
    amount: Usdc,
}

/// A part of a cap that is spoken for; free again, or found in the session itself, when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    holds: Arc<Mutex<Holds>>,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.holds).all.remove(&self.number);
    }
}

fn lock(holds: &Mutex<Holds>) -> MutexGuard<'_, Holds> {
    holds.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spending {
    /// Nothing is under way.
    pub(crate) fn new() -> Self {
        Self { turn: Semaphore::new(1), holds: Arc::default() }
    }
}

/// Where a spender stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// How much it may commit.
    pub(crate) cap: Usdc,
    /// How much it has.
    pub(crate) committed: Usdc,
}

impl Sessions {
    /// Where a spender stands; nothing if nobody limits it.
    pub(crate) async fn standing(&self, spender: &Spender) -> Result<Option<Standing>, StoreError> {
        let Some(cap) = spender.cap else { return Ok(None) };
        let under_way = self.under_way(spender);
        let committed = sum(&self.values(spender).await?, under_way.iter());
        Ok(Some(Standing { cap, committed: usdc(committed) }))
    }

    /// What is being committed at this moment. It is looked at before [`Self::values`]: what is found in both counts once, what ends between the two would be in neither.
    fn under_way(&self, spender: &Spender) -> Vec<Hold> {
        lock(&self.spending.holds).all.values().filter(|hold| hold.spender == spender.id).cloned().collect()
    }

    /// What each session takes of its opener's cap.
    async fn values(&self, spender: &Spender) -> Result<BTreeMap<SessionId, Usdc>, StoreError> {
        let opened = self.context.store.opened_by(spender.id.clone()).await?;
        Ok(opened.iter().map(|(session, facts)| (*session, self.committed_to(session, facts))).collect())
    }

    /// Speaks for `amount` as the whole of what one of `sessions` may cost; nothing if nobody limits the spender.
    pub(crate) async fn commit(&self, spender: &Spender, sessions: Vec<SessionId>, amount: Usdc) -> Result<Option<Held>, CommitError> {
        let Some(cap) = spender.cap else { return Ok(None) };
        // Never closed; were it, the sum would still be right for one request at a time.
        let _turn = self.spending.turn.acquire().await;
        let under_way = self.under_way(spender);
        let values = self.values(spender).await?;
        let new = Hold { spender: spender.id.clone(), sessions, amount };
        let committed = sum(&values, under_way.iter());
        if sum(&values, under_way.iter().chain([&new])) > u128::from(cap.micros()) {
            let others = sum(
                &values.iter().filter(|(id, _)| !new.sessions.contains(id)).map(|(id, value)| (*id, *value)).collect(),
                under_way.iter(),
            );
            let missing = others.saturating_add(amount.micros().into()).saturating_sub(cap.micros().into());
            return Err(CommitError::Cap { cap, committed: usdc(committed), missing: usdc(missing) });
        }
        let mut holds = lock(&self.spending.holds);
        let number = holds.next;
        holds.next = number.wrapping_add(1);
        holds.all.insert(number, new);
        drop(holds);
        Ok(Some(Held { holds: Arc::clone(&self.spending.holds), number }))
    }

    /// What a session takes of its opener's cap.
    fn committed_to(&self, session: &SessionId, facts: &SessionFacts) -> Usdc {
        match (self.desk(session), &facts.closing) {
            (_, Some(closing)) => closing.promised.max(closing.charged),
            // While it is live, all of its budget, and what settlement is being asked for beyond.
            (Some(desk), None) => desk.read(|state| state.budget.max(state.asked)),
            (None, None) => facts.budget,
        }
    }
}

/// Everything committed, in micro-USDC. A session that something is under way for counts once, with the larger of both.
fn sum<'a>(values: &BTreeMap<SessionId, Usdc>, holds: impl Iterator<Item = &'a Hold>) -> u128 {
    let mut values = values.clone();
    // By the first session that it is for: two of the same are about the same session.
    let mut groups: BTreeMap<SessionId, (Usdc, Vec<SessionId>)> = BTreeMap::new();
    for hold in holds {
        let Some(first) = hold.sessions.first() else { continue };
        let group = groups.entry(*first).or_insert_with(|| (Usdc::ZERO, hold.sessions.clone()));
        group.0 = group.0.max(hold.amount);
    }
    let held = groups.into_values().map(|(amount, sessions)| {
        let known: u128 = sessions.iter().filter_map(|session| values.remove(session)).map(|value| u128::from(value.micros())).sum();
        known.max(amount.micros().into())
    });
    let held: u128 = held.sum();
    held.saturating_add(values.values().map(|value| u128::from(value.micros())).sum())
}

fn usdc(micros: u128) -> Usdc {
    Usdc::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u8) -> SessionId {
        SessionId::from_bytes([number; 16])
    }

    fn hold(sessions: &[u8], amount: u64) -> Hold {
        Hold { spender: "t".to_owned(), sessions: sessions.iter().copied().map(session).collect(), amount: Usdc::from_micros(amount) }
    }

    #[test]
    fn a_session_counts_once_with_the_larger_of_what_it_has_and_what_is_under_way_for_it() {
        let values = BTreeMap::from([(session(1), Usdc::from_micros(10)), (session(2), Usdc::from_micros(5))]);
        for (holds, total) in [
            (vec![], 15),
            (vec![hold(&[3, 4], 7)], 22),
            (vec![hold(&[1], 12)], 17),
            (vec![hold(&[1], 8)], 15),
            (vec![hold(&[1], 12), hold(&[1], 20)], 25),
            (vec![hold(&[3, 1], 4), hold(&[2], 6)], 16),
            (vec![hold(&[3], u64::MAX), hold(&[4], u64::MAX)], 2 * u128::from(u64::MAX) + 15),
        ] {
            assert_eq!(sum(&values, holds.iter()), total, "{holds:?}");
        }
    }
}

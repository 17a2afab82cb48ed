//! How many sessions this provider holds at once, and for whom.
//!
//! Always true: never more than the configured number of sessions hold a place, a place is given back by dropping it, and one account or peer holds few places
//! that it has not opened, so that proposals that lead nowhere keep nobody out for long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::peer::PeerId;
use orien_protocol::signing::Address;
use tokio::sync::watch;

/// Unopened proposals of one account or one peer: enough for two openings at the same moment.
const UNOPENED_PER_PARTY: usize = 2;

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    accounts: BTreeMap<Address, usize>,
    peers: BTreeMap<PeerId, usize>,
}

/// The places of a provider. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    limit: u16,
    taken: Arc<Mutex<Taken>>,
    free: Arc<watch::Sender<u16>>,
}

/// A place that one session holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    /// Who holds it, until it is opened.
    unopened: Option<(Address, PeerId)>,
}

impl Places {
    /// So many places, all free.
    pub(crate) fn new(limit: u16) -> Self {
        Self { limit, taken: Arc::default(), free: Arc::new(watch::Sender::new(limit)) }
    }

    /// Takes a place for a proposal.
    pub(crate) fn take(&self, account: Address, peer: PeerId) -> Result<Place, Fault> {
        let mut taken = self.lock();
        if taken.all >= usize::from(self.limit) {
            return Err(Fault::new(FaultCode::BUSY, "every place of this provider is taken; try again later or elsewhere"));
        }
        let few = |held: Option<&usize>| held.copied().unwrap_or(0) < UNOPENED_PER_PARTY;
        if !few(taken.accounts.get(&account)) || !few(taken.peers.get(&peer)) {
            return Err(Fault::new(FaultCode::BUSY, "this account or peer already has proposals that it has not opened"));
        }
        taken.all += 1;
        *taken.accounts.entry(account).or_default() += 1;
        *taken.peers.entry(peer).or_default() += 1;
        self.tell(&taken);
        Ok(Place { places: self.clone(), unopened: Some((account, peer)) })
    }

    /// How many places are free, now and whenever that changes.
    pub(crate) fn free(&self) -> watch::Receiver<u16> {
        self.free.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Counts only: a panic elsewhere leaves them whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, taken: &Taken) {
        let free = self.limit.saturating_sub(u16::try_from(taken.all).unwrap_or(u16::MAX));
        self.free.send_if_modified(|told| std::mem::replace(told, free) != free);
    }
}

impl Taken {
    fn opened(&mut self, holder: Option<(Address, PeerId)>) {
        let Some((account, peer)) = holder else { return };
        less(&mut self.accounts, &account);
        less(&mut self.peers, &peer);
    }
}

fn less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Place {
    /// The session has its first voucher: it does not count as a mere proposal any more.
    pub(crate) fn opened(&mut self) {
        let holder = self.unopened.take();
        self.places.lock().opened(holder);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.opened(self.unopened.take());
        taken.all = taken.all.saturating_sub(1);
        self.places.tell(&taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(n: u8) -> Address {
        Address::from_bytes([n; 20])
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn never_more_places_than_configured_are_held_and_a_dropped_one_is_free_again() {
        let places = Places::new(2);
        let free = places.free();
        let first = places.take(account(1), peer(1)).unwrap();
        let _second = places.take(account(2), peer(2)).unwrap();
        assert_eq!(*free.borrow(), 0);
        assert_eq!(places.take(account(3), peer(3)).unwrap_err().code, FaultCode::BUSY);
        drop(first);
        assert_eq!(*free.borrow(), 1);
        assert!(places.take(account(3), peer(3)).is_ok());
    }

    #[test]
    fn one_account_and_one_peer_hold_two_unopened_places_and_opened_ones_do_not_count() {
        let places = Places::new(10);
        let mut held = vec![places.take(account(1), peer(1)).unwrap(), places.take(account(1), peer(2)).unwrap()];
        assert!(places.take(account(1), peer(3)).is_err(), "same account, other peer");
        held.push(places.take(account(2), peer(1)).unwrap());
        assert!(places.take(account(3), peer(1)).is_err(), "same peer, other account");
        held.iter_mut().for_each(Place::opened);
        assert!(places.take(account(1), peer(1)).is_ok());
        drop(held);
        assert_eq!(*places.free().borrow(), 10);
        assert!(places.lock().accounts.is_empty() && places.lock().peers.is_empty(), "nothing is remembered of who came");
    }
}

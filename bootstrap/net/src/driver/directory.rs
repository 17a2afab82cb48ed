//! The directory: who advertises a key, and where a peer is, as far as other peers know.
//!
//! An advertisement is placed with the peers nearest to its key. It is placed again whenever that failed for want of peers or a bootstrap
//! peer comes (back), because the others keep it only in memory. The answers are hints from strangers, never the truth.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::PeerId as WireId;
use libp2p::kad::{self, GetProvidersOk, QueryId, QueryResult, RecordKey};
use orien_protocol::peer::PeerId;
use tokio::time::Instant;

use super::{Driver, tell};
use crate::error::NetError;
use crate::handle::Answer;
use crate::peer;

/// Keys of our own: one per capability, and a provider has a short list of tools.
const ADVERTISEMENTS_LIMIT: usize = 64;
/// Searches under way; each costs some dozens of requests.
const FINDS_LIMIT: usize = 64;
/// Advertisers returned by one search.
const FOUND_LIMIT: usize = 64;
/// Advertisements placed per tick, so that a provider's list does not start as one burst.
const PLACED_PER_TICK: usize = 8;
/// Pause after a placement that reached nobody.
const PLACE_AGAIN: Duration = Duration::from_secs(5);
/// While fewer peers than this answer lookups, each new one is worth placing everything again (it is among the nearest).
const FEW_PEERS: usize = 20;

/// Our advertisements and the searches under way.
#[derive(Default)]
pub(super) struct Directory {
    advertised: HashMap<[u8; 32], Placement>,
    placing: HashMap<QueryId, [u8; 32]>,
    finds: HashMap<QueryId, Find>,
}

struct Placement {
    /// When to place it (again); `None` while it is placed.
    due: Option<Instant>,
}

struct Find {
    answer: Answer<Vec<PeerId>>,
    at_least: usize,
    found: Vec<PeerId>,
}

impl Driver {
    pub(super) fn advertise(&mut self, key: [u8; 32]) -> Result<(), NetError> {
        let known = self.directory.advertised.contains_key(&key);
        if !known && self.directory.advertised.len() >= ADVERTISEMENTS_LIMIT {
            return Err(NetError::TooMany { limit: ADVERTISEMENTS_LIMIT });
        }
        self.directory.advertised.insert(key, Placement { due: Some(Instant::now()) });
        self.place_advertisements();
        Ok(())
    }

    pub(super) fn withdraw(&mut self, key: [u8; 32]) {
        self.directory.advertised.remove(&key);
        self.swarm.behaviour_mut().kad.stop_providing(&RecordKey::new(&key));
    }

    /// A peer that answers lookups has come.
    pub(super) fn on_directory_grew(&mut self, wire: &WireId) {
        if self.reach.is_bootstrap(wire) || self.peers.count_answering() <= FEW_PEERS {
            let now = Instant::now();
            for placement in self.directory.advertised.values_mut() {
                placement.due = Some(now);
            }
        }
    }

    /// Places what is due.
    pub(super) fn place_advertisements(&mut self) {
        let now = Instant::now();
        let due = |placement: &Placement| placement.due.is_some_and(|due| due <= now);
        let keys: Vec<[u8; 32]> =
            self.directory.advertised.iter().filter(|(_, p)| due(p)).map(|(key, _)| *key).take(PLACED_PER_TICK).collect();
        for key in keys {
            let placed = self.swarm.behaviour_mut().kad.start_providing(RecordKey::new(&key));
            let Some(placement) = self.directory.advertised.get_mut(&key) else { continue };
            match placed {
                Ok(query) => {
                    placement.due = None;
                    self.directory.placing.insert(query, key);
                }
                Err(error) => {
                    tracing::warn!(%error, "an advertisement found no room in our own table");
                    placement.due = Some(now + PLACE_AGAIN);
                }
            }
        }
    }

    pub(super) fn find(&mut self, key: [u8; 32], at_least: usize, answer: Answer<Vec<PeerId>>) {
        if self.directory.finds.len() >= FINDS_LIMIT {
            return tell(answer, Err(NetError::Busy));
        }
        let query = self.swarm.behaviour_mut().kad.get_providers(RecordKey::new(&key));
        let at_least = at_least.clamp(1, FOUND_LIMIT);
        self.directory.finds.insert(query, Find { answer, at_least, found: Vec::new() });
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { id, result, stats, step } = event else { return };
        match result {
            QueryResult::GetClosestPeers(result) => self.on_closest(id, result),
            QueryResult::GetProviders(result) => {
                let done = step.last || self.on_found(id, result.ok());
                if done && let Some(find) = self.directory.finds.remove(&id) {
                    tell(find.answer, Ok(find.found));
                }
            }
            QueryResult::StartProviding(_) => {
                let key = self.directory.placing.remove(&id);
                let placement = key.and_then(|key| self.directory.advertised.get_mut(&key));
                if let Some(placement) = placement
                    && placement.due.is_none()
                    && stats.num_successes() == 0
                {
                    placement.due = Some(Instant::now() + PLACE_AGAIN);
                }
            }
            QueryResult::Bootstrap(Err(error)) => tracing::debug!(%error, "the table of peers could not be refreshed"),
            _ => {}
        }
    }

    /// Adds what a search has found; `true` when it is enough, and the search has been told to stop.
    fn on_found(&mut self, id: QueryId, progress: Option<GetProvidersOk>) -> bool {
        let Some(find) = self.directory.finds.get_mut(&id) else { return false };
        if let Some(GetProvidersOk::FoundProviders { providers, .. }) = progress {
            let others = providers.into_iter().filter(|wire| *wire != self.local);
            for found in others.filter_map(|wire| peer::from_wire(&wire)) {
                if find.found.len() < FOUND_LIMIT && !find.found.contains(&found) {
                    find.found.push(found);
                }
            }
        }
        let enough = find.found.len() >= find.at_least;
        if enough && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id) {
            query.finish();
        }
        enough
    }
}

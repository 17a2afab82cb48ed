//! Getting a connection to a peer: given addresses, then known ones, then those the directory knows.
//!
//! At most one attempt per peer runs; callers join it, and each ends within [`ATTEMPT_LIMIT`]. The bootstrap peers are kept connected by
//! attempts nobody waits for, with a growing pause between failures.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use libp2p::kad::{GetClosestPeersError, GetClosestPeersOk, GetClosestPeersResult, QueryId};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId as WireId};
use orien_protocol::peer::PeerId;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Driver, tell};
use crate::address;
use crate::error::NetError;
use crate::handle::Answer;
use crate::peer;

/// The longest a caller waits for a connection.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
/// Peers being reached at a time; each costs a few dials and a lookup.
const ATTEMPTS_LIMIT: usize = 256;
/// Callers that may wait for one peer.
const WAITERS_LIMIT: usize = 256;
/// Addresses of one peer that are tried.
const ADDRESSES_LIMIT: usize = 16;
/// Host names being looked up at a time; each occupies a thread of the resolver.
const RESOLVING_LIMIT: usize = 16;
/// Pause before the directory is asked again while no bootstrap peer is connected.
const LOOKUP_PAUSE: Duration = Duration::from_millis(500);
/// First and longest pause between two attempts at a bootstrap peer.
const REDIAL_FIRST: Duration = Duration::from_secs(1);
const REDIAL_LONGEST: Duration = Duration::from_secs(60);

/// Attempts under way and peers to be kept.
pub(super) struct Reach {
    attempts: HashMap<WireId, Attempt>,
    bootstrap: HashMap<WireId, Bootstrap>,
    resolving: JoinSet<Resolved>,
}

struct Attempt {
    waiters: Vec<Answer<()>>,
    deadline: Instant,
    dials: HashSet<ConnectionId>,
    resolving: usize,
    lookup: Lookup,
    /// The last thing that failed.
    why: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lookup {
    NotBefore(Instant),
    Running(QueryId),
    Done,
}

struct Bootstrap {
    addresses: Vec<Multiaddr>,
    failures: u32,
    due: Instant,
}

/// The outcome of looking up one host name for one attempt.
pub(super) type Resolved = (WireId, Result<Vec<Multiaddr>, String>);

impl Reach {
    pub(super) fn new(bootstrap: Vec<(WireId, Vec<Multiaddr>)>) -> Self {
        let now = Instant::now();
        let keep = |(wire, addresses)| (wire, Bootstrap { addresses, failures: 0, due: now });
        Self { attempts: HashMap::new(), bootstrap: bootstrap.into_iter().map(keep).collect(), resolving: JoinSet::new() }
    }

    /// The next finished name lookup; pending work is kept when this is dropped.
    pub(super) async fn resolved(&mut self) -> Option<Resolved> {
        self.resolving.join_next().await?.ok()
    }

    pub(super) fn is_bootstrap(&self, wire: &WireId) -> bool {
        self.bootstrap.contains_key(wire)
    }
}

impl Driver {
    pub(super) fn connect(&mut self, peer: PeerId, addresses: &[String], answer: Answer<()>) {
        let Some(wire) = peer::to_wire(&peer) else {
            return tell(answer, Err(NetError::InvalidPeer { peer }));
        };
        if wire == self.local {
            return tell(answer, Err(NetError::OwnPeer));
        }
        if self.peers.is_ours(&wire) {
            return tell(answer, Ok(()));
        }
        if self.peers.is_foreign(&wire) {
            return tell(answer, Err(NetError::UnsupportedByPeer { peer }));
        }
        let usable = |text: &String| match address::parse(text) {
            Ok((address, id)) if id.is_none_or(|id| id == wire) => Some(address),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%peer, %error, "passing over an address");
                None
            }
        };
        let stated = self.reach.bootstrap.get(&wire).map_or(&[][..], |bootstrap| &bootstrap.addresses).iter().cloned();
        let addresses: Vec<Multiaddr> = stated.chain(addresses.iter().filter_map(usable)).take(ADDRESSES_LIMIT).collect();
        let full = self.reach.attempts.len() >= ATTEMPTS_LIMIT;
        match self.reach.attempts.get_mut(&wire) {
            Some(attempt) if attempt.waiters.len() >= WAITERS_LIMIT => return tell(answer, Err(NetError::Busy)),
            Some(attempt) => {
                attempt.waiters.push(answer);
                if addresses.is_empty() {
                    return;
                }
            }
            None if full => return tell(answer, Err(NetError::Busy)),
            None => self.begin_attempt(wire, vec![answer], Lookup::NotBefore(Instant::now())),
        }
        self.dial(wire, addresses);
        self.advance(wire);
    }

    fn begin_attempt(&mut self, wire: WireId, waiters: Vec<Answer<()>>, lookup: Lookup) {
        let attempt = Attempt {
            waiters,
            deadline: Instant::now() + ATTEMPT_LIMIT,
            dials: HashSet::new(),
            resolving: 0,
            lookup,
            why: "no address is known".to_owned(),
        };
        self.reach.attempts.insert(wire, attempt);
    }

    /// Dials these addresses and those the swarm knows; looks up host names first.
    fn dial(&mut self, wire: WireId, addresses: Vec<Multiaddr>) {
        let Some(attempt) = self.reach.attempts.get_mut(&wire) else { return };
        let (named, ready): (Vec<_>, Vec<_>) = addresses.into_iter().partition(address::needs_lookup);
        for address in named {
            if self.reach.resolving.len() >= RESOLVING_LIMIT {
                "too many host names are being looked up".clone_into(&mut attempt.why);
                continue;
            }
            attempt.resolving += 1;
            self.reach.resolving.spawn(async move { (wire, address::resolve(address).await) });
        }
        if self.peers.has_connection(&wire) || (ready.is_empty() && attempt.resolving > 0) {
            return;
        }
        let dial = DialOpts::peer_id(wire).addresses(ready).extend_addresses_through_behaviour().condition(PeerCondition::Always).build();
        let connection = dial.connection_id();
        match self.swarm.dial(dial) {
            Ok(()) => {
                attempt.dials.insert(connection);
            }
            Err(DialError::NoAddresses) => {}
            Err(error) => attempt.why = describe(&error),
        }
    }

    pub(super) fn on_resolved(&mut self, (wire, found): Resolved) {
        let Some(attempt) = self.reach.attempts.get_mut(&wire) else { return };
        attempt.resolving = attempt.resolving.saturating_sub(1);
        match found {
            Ok(addresses) => self.dial(wire, addresses),
            Err(why) => attempt.why = why,
        }
        self.advance(wire);
    }

    /// A dial of ours, or of a part of the swarm, has ended.
    pub(super) fn on_dialled(&mut self, wire: WireId, connection: ConnectionId, error: Option<&DialError>) {
        let Some(attempt) = self.reach.attempts.get_mut(&wire) else { return };
        attempt.dials.remove(&connection);
        if let Some(error) = error {
            if !matches!(error, DialError::NoAddresses) {
                attempt.why = describe(error);
            }
            self.advance(wire);
        }
    }

    /// The last connection to a peer is gone.
    pub(super) fn on_lost(&mut self, wire: WireId) {
        if let Some(bootstrap) = self.reach.bootstrap.get_mut(&wire) {
            bootstrap.due = Instant::now() + REDIAL_FIRST;
        }
        if let Some(attempt) = self.reach.attempts.get_mut(&wire) {
            "it closed the connection".clone_into(&mut attempt.why);
            self.advance(wire);
        }
    }

    /// Takes the next step of an attempt that waits for nothing.
    fn advance(&mut self, wire: WireId) {
        let Some(attempt) = self.reach.attempts.get_mut(&wire) else { return };
        if !attempt.dials.is_empty() || attempt.resolving > 0 || self.peers.has_connection(&wire) {
            return;
        }
        match attempt.lookup {
            Lookup::Running(_) => {}
            Lookup::NotBefore(due) if due <= Instant::now() => {
                // What we knew has failed. A search that begins with it counts the peer as gone, and does not try what others know.
                self.swarm.behaviour_mut().kad.remove_peer(&wire);
                attempt.lookup = Lookup::Running(self.swarm.behaviour_mut().kad.get_closest_peers(wire));
            }
            Lookup::NotBefore(_) => {}
            Lookup::Done => {
                let reason = attempt.why.clone();
                self.finish_attempt(&wire, |peer| Err(NetError::Unreachable { peer, reason: reason.clone() }));
            }
        }
    }

    /// The directory has answered who is close to a peer.
    pub(super) fn on_closest(&mut self, query: QueryId, result: GetClosestPeersResult) {
        let searched = self.reach.attempts.iter().find(|(_, attempt)| attempt.lookup == Lookup::Running(query));
        let Some(wire) = searched.map(|(wire, _)| *wire) else { return };
        let (Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. })) = result;
        let found = peers.into_iter().find(|found| found.peer_id == wire).map_or_else(Vec::new, |found| found.addrs);
        let alone = self.is_alone();
        let Some(attempt) = self.reach.attempts.get_mut(&wire) else { return };
        attempt.lookup = if found.is_empty() && alone { Lookup::NotBefore(Instant::now() + LOOKUP_PAUSE) } else { Lookup::Done };
        if found.is_empty() {
            if attempt.dials.is_empty() {
                "no peer knows an address".clone_into(&mut attempt.why);
            }
        } else {
            self.dial(wire, found.into_iter().take(ADDRESSES_LIMIT).collect());
        }
        self.advance(wire);
    }

    /// Whether there are bootstrap peers and none is connected, so that a failed lookup says nothing yet.
    fn is_alone(&self) -> bool {
        !self.reach.bootstrap.is_empty() && !self.reach.bootstrap.keys().any(|wire| self.peers.is_ours(wire))
    }

    /// Ends the attempt at a peer, if there is one, and answers everybody who waits for it.
    pub(super) fn finish_attempt(&mut self, wire: &WireId, outcome: impl Fn(PeerId) -> Result<(), NetError>) {
        let (Some(attempt), Some(peer)) = (self.reach.attempts.remove(wire), peer::from_wire(wire)) else { return };
        if let Lookup::Running(query) = attempt.lookup
            && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&query)
        {
            query.finish();
        }
        let result = outcome(peer);
        if let Some(bootstrap) = self.reach.bootstrap.get_mut(wire) {
            bootstrap.note(&result, wire);
        }
        for waiter in attempt.waiters {
            tell(waiter, result.clone());
        }
    }

    pub(super) fn expire_attempts(&mut self) {
        let now = Instant::now();
        let overdue: Vec<WireId> = self.reach.attempts.iter().filter(|(_, a)| a.deadline <= now).map(|(wire, _)| *wire).collect();
        for wire in overdue {
            self.finish_attempt(&wire, |_| Err(NetError::TimedOut));
        }
        let due = |attempt: &Attempt| matches!(attempt.lookup, Lookup::NotBefore(due) if due <= now);
        let waiting: Vec<WireId> = self.reach.attempts.iter().filter(|(_, a)| due(a)).map(|(wire, _)| *wire).collect();
        for wire in waiting {
            self.advance(wire);
        }
    }

    pub(super) fn redial_bootstrap(&mut self) {
        let now = Instant::now();
        let due: Vec<(WireId, Vec<Multiaddr>)> = self
            .reach
            .bootstrap
            .iter()
            .filter(|(wire, peer)| peer.due <= now && !self.peers.has_connection(wire) && !self.reach.attempts.contains_key(wire))
            .map(|(wire, peer)| (*wire, peer.addresses.clone()))
            .collect();
        for (wire, addresses) in due {
            self.begin_attempt(wire, Vec::new(), Lookup::Done);
            self.dial(wire, addresses);
            self.advance(wire);
        }
    }
}

impl Bootstrap {
    fn note(&mut self, result: &Result<(), NetError>, wire: &WireId) {
        match result {
            Ok(()) => self.failures = 0,
            Err(error) => {
                let pause = REDIAL_LONGEST.min(REDIAL_FIRST.saturating_mul(1 << self.failures.min(6)));
                self.failures = self.failures.saturating_add(1);
                self.due = Instant::now() + pause;
                tracing::warn!(peer = %wire, %error, again_in = ?pause, "a bootstrap peer cannot be reached");
            }
        }
    }
}

/// A dial error without the list of everything that was tried.
fn describe(error: &DialError) -> String {
    match error {
        DialError::Transport(tried) => match tried.last() {
            Some((address, error)) => format!("{address}: {}", innermost(error)),
            None => "no address could be dialled".to_owned(),
        },
        DialError::WrongPeerId { obtained, address } => format!("{address} belongs to another peer, {obtained}"),
        DialError::Denied { cause } => format!("not admitted: {}", innermost(cause)),
        other => innermost(other),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

//! Who is connected, and which of them belong to our network.
//!
//! A peer counts as connected once it has identified itself with our network's name. One that names another network, or says nothing, is
//! left without service and disconnected after a moment, in which it can learn the same about us.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId as WireId, identify};
use orien_protocol::peer::PeerId;
use tokio::time::Instant;

use super::{Driver, tell};
use crate::address;
use crate::error::NetError;
use crate::event::NetEvent;
use crate::handle::{Answer, PeerInfo};
use crate::peer;

/// Time a peer of another network keeps its connection, so that both sides learn why it ends.
const FOREIGN_GRACE: Duration = Duration::from_secs(1);
/// Time a peer has to identify itself.
const SILENT_GRACE: Duration = Duration::from_secs(10);
/// Characters of a peer's own description that are kept.
const AGENT_LIMIT: usize = 64;
/// Addresses believed of one peer; a machine has a few, each for TCP and QUIC.
const ADDRESSES_PER_PEER: usize = 16;
/// Banned peers remembered; beyond it the oldest ban ends, as peer ids cost nothing.
const BANNED_LIMIT: usize = 4096;

/// All connections and what is known of the peers behind them.
#[derive(Default)]
pub(super) struct Peers {
    connected: HashMap<WireId, Connected>,
    /// Peers that the owner believes connected.
    told: HashSet<PeerId>,
    /// Peers whose state may differ from what the owner believes; each at most once.
    changed: VecDeque<PeerId>,
    banned: VecDeque<WireId>,
}

struct Connected {
    /// Oldest first.
    connections: Vec<(ConnectionId, ConnectedPoint)>,
    standing: Standing,
    since: Instant,
}

enum Standing {
    /// Has not identified itself yet.
    Unknown,
    /// Of our network.
    Ours { agent: String, answers_lookups: bool },
    /// Of another network.
    Foreign,
}

impl Peers {
    pub(super) fn opened(&mut self, wire: WireId, connection: ConnectionId, endpoint: ConnectedPoint) {
        let peer = self.connected.entry(wire).or_insert_with(|| Connected {
            connections: Vec::new(),
            standing: Standing::Unknown,
            since: Instant::now(),
        });
        peer.connections.push((connection, endpoint));
    }

    pub(super) fn closed(&mut self, wire: WireId, connection: ConnectionId) {
        let Some(peer) = self.connected.get_mut(&wire) else { return };
        peer.connections.retain(|(id, _)| *id != connection);
        if peer.connections.is_empty() {
            self.connected.remove(&wire);
            self.note_change(wire);
        }
    }

    /// Whether there is any connection, identified or not.
    pub(super) fn has_connection(&self, wire: &WireId) -> bool {
        self.connected.contains_key(wire)
    }

    pub(super) fn is_ours(&self, wire: &WireId) -> bool {
        matches!(self.connected.get(wire), Some(Connected { standing: Standing::Ours { .. }, .. }))
    }

    pub(super) fn is_foreign(&self, wire: &WireId) -> bool {
        matches!(self.connected.get(wire), Some(Connected { standing: Standing::Foreign, .. }))
    }

    /// Connected peers of our network that answer lookups.
    pub(super) fn count_answering(&self) -> usize {
        let answering = |peer: &&Connected| matches!(peer.standing, Standing::Ours { answers_lookups: true, .. });
        self.connected.values().filter(answering).count()
    }

    pub(super) fn list(&self) -> Vec<PeerInfo> {
        let info = |(wire, connected): (&WireId, &Connected)| {
            let Standing::Ours { agent, .. } = &connected.standing else { return None };
            Some(PeerInfo {
                peer: peer::from_wire(wire)?,
                addresses: connected.connections.iter().map(|(_, end)| end.get_remote_address().to_string()).collect(),
                direct: connected.connections.iter().any(|(_, end)| !end.is_relayed()),
                agent: agent.clone(),
            })
        };
        self.connected.iter().filter_map(info).collect()
    }

    fn via(&self, wire: &WireId, connection: ConnectionId) -> Option<&ConnectedPoint> {
        let peer = self.connected.get(wire)?;
        peer.connections.iter().find(|(id, _)| *id == connection).map(|(_, end)| end)
    }

    fn note_change(&mut self, wire: WireId) {
        if let Some(peer) = peer::from_wire(&wire)
            && !self.changed.contains(&peer)
        {
            self.changed.push_back(peer);
        }
    }

    pub(super) fn has_news(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The next change the owner has not heard of.
    pub(super) fn next_news(&mut self) -> Option<NetEvent> {
        while let Some(peer) = self.changed.pop_front() {
            let now = peer::to_wire(&peer).is_some_and(|wire| self.is_ours(&wire));
            match (now, self.told.contains(&peer)) {
                (true, false) => {
                    self.told.insert(peer);
                    return Some(NetEvent::Connected { peer });
                }
                (false, true) => {
                    self.told.remove(&peer);
                    return Some(NetEvent::Disconnected { peer });
                }
                _ => {}
            }
        }
        None
    }
}

impl Driver {
    pub(super) fn on_identified(&mut self, wire: WireId, connection: ConnectionId, info: &identify::Info) {
        let ours = info.protocol_version == self.names.identify;
        let answers_lookups = info.protocols.contains(&self.names.kad);
        let Some(end) = self.peers.via(&wire, connection).cloned() else { return };
        let Some(connected) = self.peers.connected.get_mut(&wire) else { return };
        if !ours {
            tracing::info!(peer = %wire, theirs = %printable(&info.protocol_version), "a peer of another network");
            connected.standing = Standing::Foreign;
            connected.since = Instant::now();
            self.swarm.behaviour_mut().kad.remove_peer(&wire);
            self.peers.note_change(wire);
            self.finish_attempt(&wire, |peer| Err(NetError::UnsupportedByPeer { peer }));
            return;
        }
        let first = !matches!(connected.standing, Standing::Ours { .. });
        connected.standing = Standing::Ours { agent: printable(&info.agent_version), answers_lookups };
        self.learn_addresses(wire, &end, &info.listen_addrs, answers_lookups);
        if first {
            self.peers.note_change(wire);
            self.finish_attempt(&wire, |_| Ok(()));
            if answers_lookups {
                self.on_directory_grew(&wire);
            }
        }
    }

    /// Keeps the addresses a peer claims, and the one at which we reached it.
    fn learn_addresses(&mut self, wire: WireId, end: &ConnectedPoint, claimed: &[Multiaddr], answers_lookups: bool) {
        let via = end.get_remote_address();
        let dialled = end.is_dialer().then(|| without_peer(via.clone()));
        let claimed = claimed.iter().map(|claimed| without_peer(claimed.clone()));
        let usable = dialled.into_iter().chain(claimed).filter(|claimed| address::is_learnable(claimed, via));
        for address in usable.take(ADDRESSES_PER_PEER) {
            self.swarm.add_peer_address(wire, address.clone());
            if answers_lookups {
                self.swarm.behaviour_mut().kad.add_address(&wire, address);
            }
        }
    }

    /// Disconnects peers that are of another network or do not say.
    pub(super) fn close_strangers(&mut self) {
        let overdue: Vec<WireId> = self
            .peers
            .connected
            .iter()
            .filter(|(_, peer)| match peer.standing {
                Standing::Ours { .. } => false,
                Standing::Unknown => peer.since.elapsed() >= SILENT_GRACE,
                Standing::Foreign => peer.since.elapsed() >= FOREIGN_GRACE,
            })
            .map(|(wire, _)| *wire)
            .collect();
        for wire in overdue {
            let _gone = self.swarm.disconnect_peer_id(wire);
        }
    }

    pub(super) fn disconnect(&mut self, peer: PeerId, answer: Answer<()>) {
        let closed = peer::to_wire(&peer).ok_or(NetError::InvalidPeer { peer }).map(|wire| {
            let _gone = self.swarm.disconnect_peer_id(wire);
        });
        tell(answer, closed);
    }

    /// Shuts a peer out of every part that would keep or use it.
    pub(super) fn ban(&mut self, peer: PeerId, answer: Answer<()>) {
        let Some(wire) = peer::to_wire(&peer) else {
            return tell(answer, Err(NetError::InvalidPeer { peer }));
        };
        if wire == self.local {
            return tell(answer, Err(NetError::OwnPeer));
        }
        let behaviour = self.swarm.behaviour_mut();
        behaviour.blocked.block_peer(wire);
        behaviour.gossip.blacklist_peer(&wire);
        behaviour.kad.remove_peer(&wire);
        if !self.peers.banned.contains(&wire) {
            self.peers.banned.push_back(wire);
        }
        if self.peers.banned.len() > BANNED_LIMIT
            && let Some(oldest) = self.peers.banned.pop_front()
        {
            behaviour.blocked.unblock_peer(oldest);
            behaviour.gossip.remove_blacklisted_peer(&oldest);
        }
        let _gone = self.swarm.disconnect_peer_id(wire);
        tell(answer, Ok(()));
    }
}

fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// A stranger's words, safe to log and show.
fn printable(text: &str) -> String {
    text.chars().flat_map(char::escape_default).take(AGENT_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_words_are_cut_and_escaped() {
        assert_eq!(printable("orien/0.1.0"), "orien/0.1.0");
        assert_eq!(printable("\u{1b}[2J\n"), "\\u{1b}[2J\\n");
        assert_eq!(printable(&"x".repeat(5000)).len(), AGENT_LIMIT);
    }
}

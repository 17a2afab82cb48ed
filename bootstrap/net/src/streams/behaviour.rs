//! Which connection a stream is opened on: a direct one before a relayed one, and of those the oldest.
//!
//! Also the place where a peer without an ed25519 id is turned away: without one it has no name here.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::derive_prelude::{ConnectionEstablished, ListenFailure};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId as WireId};
use orien_protocol::peer::PeerId;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::connection::{Connection, Open, Shared};
use super::slots::Slots;
use super::{InboundStream, NetStream, StreamKind};
use crate::config::NetLimits;
use crate::error::NetError;
use crate::event::Counting;
use crate::names::StreamNames;
use crate::peer;

/// A remote peer is no inline ed25519 key.
#[derive(Debug, thiserror::Error)]
#[error("the peer's id is not an ed25519 key")]
struct NotEd25519;

/// A stream to be opened, and who waits for it.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) peer: PeerId,
    pub(crate) kind: StreamKind,
    pub(crate) reply: oneshot::Sender<Result<NetStream, NetError>>,
}

struct Remote {
    /// Oldest first.
    connections: Vec<(ConnectionId, Path)>,
    inbound: Arc<Semaphore>,
    outbound: Arc<Semaphore>,
}

/// Better paths compare smaller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Path {
    Direct,
    Relayed,
}

/// Connections that stay open without streams.
pub(crate) enum Keep {
    All,
    Only(HashSet<WireId>),
}

/// The stream part of the swarm.
pub(crate) struct Behaviour {
    names: Arc<StreamNames>,
    keep: Keep,
    remotes: HashMap<WireId, Remote>,
    inbound: Arc<Semaphore>,
    outbound: Arc<Semaphore>,
    inbound_per_peer: usize,
    outbound_per_peer: usize,
    accepted: mpsc::Sender<InboundStream>,
    counting: Arc<Counting>,
    /// Openings chosen but not yet taken by the swarm; each holds a slot.
    outbox: VecDeque<(WireId, ConnectionId, Open)>,
}

impl Behaviour {
    pub(crate) fn new(
        names: StreamNames,
        limits: &NetLimits,
        keep: Keep,
        accepted: mpsc::Sender<InboundStream>,
        counting: Arc<Counting>,
    ) -> Self {
        Self {
            names: Arc::new(names),
            keep,
            remotes: HashMap::new(),
            inbound: Arc::new(Semaphore::new(limits.streams_in.min(Semaphore::MAX_PERMITS))),
            outbound: Arc::new(Semaphore::new(limits.streams_out.min(Semaphore::MAX_PERMITS))),
            inbound_per_peer: limits.streams_in_per_peer.min(Semaphore::MAX_PERMITS),
            outbound_per_peer: limits.streams_out_per_peer.min(Semaphore::MAX_PERMITS),
            accepted,
            counting,
            outbox: VecDeque::new(),
        }
    }

    /// Starts opening a stream on the best connection. Must be followed by a poll of the swarm.
    pub(crate) fn open(&mut self, wire: WireId, opening: Opening) {
        let Opening { peer, kind, reply } = opening;
        let Some(remote) = self.remotes.get(&wire) else {
            let _gone = reply.send(Err(NetError::NotConnected { peer }));
            return;
        };
        // The first of equals is the oldest.
        let Some((connection, _)) = remote.connections.iter().min_by_key(|(_, path)| *path) else {
            let _gone = reply.send(Err(NetError::NotConnected { peer }));
            return;
        };
        let slots = Slots { total: Arc::clone(&self.outbound), peer: Arc::clone(&remote.outbound) };
        match slots.take() {
            Some(slot) => self.outbox.push_back((wire, *connection, Open { kind, slot, reply })),
            None => {
                let _gone = reply.send(Err(NetError::Busy));
            }
        }
    }

    fn admit(&mut self, wire: WireId) -> Result<Connection, ConnectionDenied> {
        let peer = peer::from_wire(&wire).ok_or_else(|| ConnectionDenied::new(NotEd25519))?;
        let remote = self.remotes.entry(wire).or_insert_with(|| Remote {
            connections: Vec::new(),
            inbound: Arc::new(Semaphore::new(self.inbound_per_peer)),
            outbound: Arc::new(Semaphore::new(self.outbound_per_peer)),
        });
        Ok(Connection::new(Shared {
            peer,
            names: Arc::clone(&self.names),
            kept: match &self.keep {
                Keep::All => true,
                Keep::Only(peers) => peers.contains(&wire),
            },
            inbound: Slots { total: Arc::clone(&self.inbound), peer: Arc::clone(&remote.inbound) },
            accepted: self.accepted.clone(),
            counting: Arc::clone(&self.counting),
        }))
    }

    fn forget_if_gone(&mut self, wire: WireId) {
        if let Entry::Occupied(remote) = self.remotes.entry(wire)
            && remote.get().connections.is_empty()
        {
            remote.remove();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Connection;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        wire: WireId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(wire)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        wire: WireId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(wire)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                if let Some(remote) = self.remotes.get_mut(&peer_id) {
                    let path = if endpoint.is_relayed() { Path::Relayed } else { Path::Direct };
                    remote.connections.push((connection_id, path));
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(remote) = self.remotes.get_mut(&peer_id) {
                    remote.connections.retain(|(id, _)| *id != connection_id);
                }
                self.forget_if_gone(peer_id);
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer_id), .. })
            | FromSwarm::ListenFailure(ListenFailure { peer_id: Some(peer_id), .. }) => self.forget_if_gone(peer_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: WireId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        match self.outbox.pop_front() {
            Some((peer_id, connection, event)) => {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event })
            }
            None => Poll::Pending,
        }
    }
}

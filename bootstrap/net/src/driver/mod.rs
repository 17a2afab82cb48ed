//! The loop that owns the swarm: swarm events and commands in, answers and events out.
//!
//! It awaits nothing but its inputs. Every table it keeps is bounded, by a named constant or by the connection limits. Each file below
//! holds one subject: who is connected, how to reach a peer, who advertises what, gossip, calls.

mod calls;
mod directory;
mod gossip;
mod peers;
mod reach;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId as WireId, Swarm, identify, ping};
use orien_protocol::peer::PeerId;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::config::NetLimits;
use crate::error::NetError;
use crate::event::{Counting, NetEvent};
use crate::handle::{Answer, Command};
use crate::names::Names;
use crate::peer;
use crate::streams::Opening;

/// How often due work is looked for: deadlines, redials, advertisements.
const TICK: Duration = Duration::from_millis(250);

/// Callers waiting for the listeners; they wait only during the start.
const LISTEN_WAITERS: usize = 64;

/// The loop's ends of the queues.
pub(crate) struct Ends {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) gossip: mpsc::Sender<NetEvent>,
    pub(crate) calls: mpsc::Sender<NetEvent>,
    pub(crate) presence: mpsc::Sender<NetEvent>,
    pub(crate) counting: Arc<Counting>,
}

/// The loop's state.
pub(crate) struct Driver {
    swarm: Swarm<Behaviour>,
    local: WireId,
    names: Names,
    commands: mpsc::Receiver<Command>,
    counting: Arc<Counting>,
    listening: Listening,
    peers: peers::Peers,
    presence: mpsc::Sender<NetEvent>,
    reach: reach::Reach,
    directory: directory::Directory,
    gossip: gossip::Gossip,
    calls: calls::Calls,
}

struct Listening {
    /// Configured listeners, and whether each has come up (or failed for good).
    settled: HashMap<ListenerId, bool>,
    waiting: Vec<Answer<Vec<String>>>,
}

impl Driver {
    pub(crate) fn new(
        swarm: Swarm<Behaviour>,
        names: Names,
        limits: &NetLimits,
        listeners: Vec<ListenerId>,
        bootstrap: Vec<(WireId, Vec<Multiaddr>)>,
        ends: Ends,
    ) -> Self {
        let Ends { commands, gossip, calls, presence, counting } = ends;
        Self {
            local: *swarm.local_peer_id(),
            gossip: gossip::Gossip::new(&names, gossip, limits.gossip_queue),
            calls: calls::Calls::new(calls, limits),
            swarm,
            names,
            commands,
            counting,
            listening: Listening { settled: listeners.into_iter().map(|id| (id, false)).collect(), waiting: Vec::new() },
            peers: peers::Peers::default(),
            presence,
            reach: reach::Reach::new(bootstrap),
            directory: directory::Directory::default(),
        }
    }

    /// Runs until cancelled.
    pub(crate) async fn run(&mut self, stop: &CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let presence = self.presence.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                event = self.swarm.select_next_some() => self.on_swarm(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                Some(judged) = self.gossip.judged() => self.on_judged(judged),
                Some((channel, response)) = self.calls.answered() => self.on_answered(channel, response),
                Some(resolved) = self.reach.resolved() => self.on_resolved(resolved),
                Ok(place) = presence.reserve(), if self.peers.has_news() => {
                    if let Some(news) = self.peers.next_news() {
                        place.send(news);
                    }
                }
                _ = tick.tick() => self.on_tick(),
            }
        }
    }

    fn on_tick(&mut self) {
        self.close_strangers();
        self.redial_bootstrap();
        self.expire_attempts();
        self.place_advertisements();
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.peers.opened(peer_id, connection_id, endpoint);
                self.on_dialled(peer_id, connection_id, None);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                self.peers.closed(peer_id, connection_id);
                if num_established == 0 {
                    self.on_lost(peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id: Some(peer_id), error } => {
                self.on_dialled(peer_id, connection_id, Some(&error));
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "an inbound connection failed");
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::info!(%address, "listening");
                self.listener_settled(listener_id);
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                tracing::warn!(?addresses, ?reason, "a listener closed");
                self.listener_settled(listener_id);
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener reported an error"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, connection_id, info }) => {
                self.on_identified(peer_id, connection_id, &info);
            }
            BehaviourEvent::Identify(identify::Event::Error { peer_id, error, .. }) => {
                tracing::debug!(peer = %peer_id, %error, "a peer did not identify itself");
            }
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Rpc(event) => self.on_rpc(event),
            BehaviourEvent::Streams(never) | BehaviourEvent::Blocked(never) | BehaviourEvent::Limits(never) => match never {},
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(failure) }) => {
                // A connection that does not carry a ping carries nothing; closing it tells everybody who waits on its streams.
                tracing::debug!(%peer, %failure, "closing a dead connection");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Identify(_) | BehaviourEvent::Ping(_) => {}
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::ListenAddresses { answer } => {
                if self.listening.waiting.len() >= LISTEN_WAITERS {
                    tell(answer, Err(NetError::Busy));
                } else {
                    self.listening.waiting.push(answer);
                    self.answer_listen_addresses();
                }
            }
            Command::Peers { answer } => tell(answer, Ok(self.peers.list())),
            Command::Connect { peer, addresses, answer } => self.connect(peer, &addresses, answer),
            Command::Disconnect { peer, answer } => self.disconnect(peer, answer),
            Command::Ban { peer, answer } => self.ban(peer, answer),
            Command::Publish { bytes, answer } => tell(answer, self.publish(bytes)),
            Command::Call { peer, request, answer } => self.call(peer, request, answer),
            Command::Open { peer, kind, answer } => match self.connected(peer) {
                Ok(wire) => self.swarm.behaviour_mut().streams.open(wire, Opening { peer, kind, reply: answer }),
                Err(error) => tell(answer, Err(error)),
            },
            Command::Advertise { key, answer } => tell(answer, self.advertise(key)),
            Command::Withdraw { key, answer } => {
                self.withdraw(key);
                tell(answer, Ok(()));
            }
            Command::FindAdvertisers { key, at_least, answer } => self.find(key, at_least, answer),
        }
    }

    /// libp2p's id of a peer that is connected and of our network.
    fn connected(&self, peer: PeerId) -> Result<WireId, NetError> {
        let wire = peer::to_wire(&peer).ok_or(NetError::InvalidPeer { peer })?;
        if self.peers.is_ours(&wire) { Ok(wire) } else { Err(NetError::NotConnected { peer }) }
    }

    fn listener_settled(&mut self, id: ListenerId) {
        if let Some(settled) = self.listening.settled.get_mut(&id) {
            *settled = true;
        }
        self.answer_listen_addresses();
    }

    fn answer_listen_addresses(&mut self) {
        if self.listening.waiting.is_empty() || !self.listening.settled.values().all(|settled| *settled) {
            return;
        }
        let mut addresses: Vec<String> = Vec::new();
        for address in self.swarm.external_addresses().chain(self.swarm.listeners()) {
            let text = format!("{address}/p2p/{}", self.local);
            if !addresses.contains(&text) {
                addresses.push(text);
            }
        }
        for answer in self.listening.waiting.drain(..) {
            tell(answer, Ok(addresses.clone()));
        }
    }
}

/// Answers a command; the asker may have given up.
fn tell<T>(answer: Answer<T>, result: Result<T, NetError>) {
    let _gone = answer.send(result);
}

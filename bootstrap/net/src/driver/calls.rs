//! Calls in both directions, matched to their answers by the library's ids.
//!
//! The number of calls waiting is bounded per peer in each direction, so that one peer cannot fill the owner's queue or ours.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;

use libp2p::PeerId as WireId;
use libp2p::request_response::{Event, InboundFailure, InboundRequestId, Message, OutboundFailure, OutboundRequestId, ResponseChannel};
use orien_protocol::peer::PeerId;
use tokio::sync::mpsc;

use super::{Driver, tell};
use crate::config::NetLimits;
use crate::error::NetError;
use crate::event::{Answered, NetEvent, Reply};
use crate::handle::Answer;
use crate::peer;
use crate::rpc::RESPONSE_LIMIT;
use crate::streams::explain;

/// Answers on their way from the owner to the loop; the owner waits when it is full.
const ANSWERS_QUEUE: usize = 64;
/// Our calls under way to all peers.
const CALLS_LIMIT: usize = 4096;

/// Calls under way.
pub(super) struct Calls {
    events: mpsc::Sender<NetEvent>,
    answers: mpsc::Sender<Answered>,
    answered: mpsc::Receiver<Answered>,
    ours: HashMap<OutboundRequestId, (PeerId, Answer<Vec<u8>>)>,
    ours_per_peer: Counts<PeerId>,
    theirs: HashMap<InboundRequestId, WireId>,
    theirs_per_peer: Counts<WireId>,
}

impl Calls {
    pub(super) fn new(events: mpsc::Sender<NetEvent>, limits: &NetLimits) -> Self {
        let (answers, answered) = mpsc::channel(ANSWERS_QUEUE);
        Self {
            events,
            answers,
            answered,
            ours: HashMap::new(),
            ours_per_peer: Counts::new(limits.calls_per_peer),
            theirs: HashMap::new(),
            theirs_per_peer: Counts::new(limits.calls_per_peer),
        }
    }

    pub(super) async fn answered(&mut self) -> Option<Answered> {
        self.answered.recv().await
    }

    fn take_ours(&mut self, id: OutboundRequestId) -> Option<(PeerId, Answer<Vec<u8>>)> {
        let (peer, answer) = self.ours.remove(&id)?;
        self.ours_per_peer.less(&peer);
        Some((peer, answer))
    }

    fn end_theirs(&mut self, id: InboundRequestId) {
        if let Some(wire) = self.theirs.remove(&id) {
            self.theirs_per_peer.less(&wire);
        }
    }
}

impl Driver {
    pub(super) fn call(&mut self, peer: PeerId, request: Vec<u8>, answer: Answer<Vec<u8>>) {
        let wire = match self.connected(peer) {
            Ok(wire) => wire,
            Err(error) => return tell(answer, Err(error)),
        };
        if self.calls.ours.len() >= CALLS_LIMIT || !self.calls.ours_per_peer.more(peer) {
            return tell(answer, Err(NetError::Busy));
        }
        let id = self.swarm.behaviour_mut().rpc.send_request(&wire, request);
        self.calls.ours.insert(id, (peer, answer));
    }

    pub(super) fn on_answered(&mut self, channel: ResponseChannel<Vec<u8>>, response: Vec<u8>) {
        if self.swarm.behaviour_mut().rpc.send_response(channel, response).is_err() {
            tracing::debug!("the caller was gone before the answer");
        }
    }

    pub(super) fn on_rpc(&mut self, event: Event<Vec<u8>, Vec<u8>>) {
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.on_request(peer, request_id, request, channel);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some((_, answer)) = self.calls.take_ours(request_id) {
                    tell(answer, Ok(response));
                }
            }
            Event::OutboundFailure { request_id, error, .. } => {
                if let Some((peer, answer)) = self.calls.take_ours(request_id) {
                    tell(answer, Err(outbound_error(peer, &error)));
                }
            }
            Event::InboundFailure { peer, request_id, error, .. } => {
                if !matches!(error, InboundFailure::ResponseOmission) {
                    tracing::debug!(%peer, %error, "a peer's call failed");
                }
                self.calls.end_theirs(request_id);
            }
            Event::ResponseSent { request_id, .. } => self.calls.end_theirs(request_id),
        }
    }

    fn on_request(&mut self, wire: WireId, id: InboundRequestId, request: Vec<u8>, channel: ResponseChannel<Vec<u8>>) {
        // Dropping the channel ends the exchange without an answer, which the caller reads as busy.
        let Some(peer) = peer::from_wire(&wire) else { return };
        if !self.calls.theirs_per_peer.more(wire) {
            self.counting.call_dropped();
            return;
        }
        let Ok(place) = self.calls.events.try_reserve() else {
            self.calls.theirs_per_peer.less(&wire);
            self.counting.call_dropped();
            return;
        };
        self.calls.theirs.insert(id, wire);
        place.send(NetEvent::Call { peer, request, reply: Reply::new(channel, self.calls.answers.clone()) });
    }
}

fn outbound_error(peer: PeerId, failure: &OutboundFailure) -> NetError {
    match failure {
        OutboundFailure::Timeout => NetError::TimedOut,
        OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed => NetError::NotConnected { peer },
        OutboundFailure::UnsupportedProtocols => NetError::UnsupportedByPeer { peer },
        OutboundFailure::Io(error) => match error.kind() {
            io::ErrorKind::FileTooLarge => NetError::TooLarge { limit: RESPONSE_LIMIT },
            // The stream was ended or reset without an answer: dropped there for want of room, or refused.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => NetError::RemoteBusy { peer },
            _ => explain(peer, error),
        },
    }
}

/// How many of something each key has, up to a limit; keys without any are forgotten.
struct Counts<K> {
    counts: HashMap<K, usize>,
    limit: usize,
}

impl<K: Eq + Hash> Counts<K> {
    fn new(limit: usize) -> Self {
        Self { counts: HashMap::new(), limit: limit.max(1) }
    }

    /// Adds one, unless that would pass the limit.
    fn more(&mut self, key: K) -> bool {
        let count = self.counts.entry(key).or_insert(0);
        let room = *count < self.limit;
        if room {
            *count += 1;
        }
        room
    }

    fn less(&mut self, key: &K) {
        if let Some(count) = self.counts.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(key);
            }
        }
    }
}

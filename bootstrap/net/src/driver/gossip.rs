//! Gossip on the one topic of the network.
//!
//! Nothing is passed on before the owner has judged it; what the owner has no room to look at is ignored and counted. What could not be
//! published because nobody listens is kept, newest only, and sent when somebody does.

use libp2p::gossipsub::{self, MessageAcceptance, PublishError, TopicHash};
use tokio::sync::mpsc;

use super::Driver;
use crate::GOSSIP_LIMIT;
use crate::error::NetError;
use crate::event::{Judged, NetEvent, Verdict};
use crate::names::Names;
use crate::peer;

/// Verdicts on their way back, beyond the messages that wait for the owner: those it is looking at in parallel.
const JUDGING_LIMIT: usize = 1024;

/// Where gossip goes and comes back judged.
pub(super) struct Gossip {
    topic: TopicHash,
    events: mpsc::Sender<NetEvent>,
    judge: mpsc::Sender<Judged>,
    judged: mpsc::Receiver<Judged>,
    /// The newest message that nobody was there to hear.
    unheard: Option<Vec<u8>>,
}

impl Gossip {
    pub(super) fn new(names: &Names, events: mpsc::Sender<NetEvent>, queue: usize) -> Self {
        let (judge, judged) = mpsc::channel(queue.saturating_add(JUDGING_LIMIT));
        let topic = gossipsub::IdentTopic::new(&names.topic).hash();
        Self { topic, events, judge, judged, unheard: None }
    }

    pub(super) async fn judged(&mut self) -> Option<Judged> {
        self.judged.recv().await
    }
}

impl Driver {
    pub(super) fn publish(&mut self, bytes: Vec<u8>) -> Result<(), NetError> {
        let topic = self.gossip.topic.clone();
        match self.swarm.behaviour_mut().gossip.publish(topic, bytes.clone()) {
            Ok(_) => {
                // Whatever waited is older than what has just been heard.
                self.gossip.unheard = None;
                Ok(())
            }
            Err(PublishError::Duplicate) => Ok(()),
            Err(PublishError::NoPeersSubscribedToTopic) => {
                self.gossip.unheard = Some(bytes);
                Ok(())
            }
            Err(PublishError::MessageTooLarge) => Err(NetError::TooLarge { limit: GOSSIP_LIMIT }),
            Err(error) => {
                tracing::debug!(%error, "a message could not be gossiped");
                Err(NetError::Busy)
            }
        }
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source: relay, message_id, message } => {
                let author = message.source.and_then(|author| peer::from_wire(&author));
                let Some(from) = author.filter(|_| message.topic == self.gossip.topic) else {
                    return self.on_judged(Judged { message: message_id, relay, acceptance: MessageAcceptance::Reject });
                };
                match self.gossip.events.clone().try_reserve_owned() {
                    Ok(place) => {
                        let verdict = Verdict::new(message_id, relay, self.gossip.judge.clone());
                        place.send(NetEvent::Gossip { from, bytes: message.data, verdict });
                    }
                    Err(_) => {
                        self.counting.gossip_ignored();
                        self.on_judged(Judged { message: message_id, relay, acceptance: MessageAcceptance::Ignore });
                    }
                }
            }
            gossipsub::Event::Subscribed { topic, .. } if topic == self.gossip.topic => {
                if let Some(bytes) = self.gossip.unheard.take() {
                    let sent = self.publish(bytes);
                    tracing::debug!(?sent, "gossip that nobody had heard was sent again");
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_judged(&mut self, judged: Judged) {
        let Judged { message, relay, acceptance } = judged;
        let known = self.swarm.behaviour_mut().gossip.report_message_validation_result(&message, &relay, acceptance);
        if !known {
            tracing::debug!("a gossip verdict came after the message was forgotten");
        }
    }
}

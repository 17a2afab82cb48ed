//! Takes what the network brings to where it belongs: general questions are answered here, the rest goes to discovery or to the role.
//!
//! Always true: the network's events are never kept waiting; what finds its queue full is refused as busy, and a question nobody here answers is refused
//! by name. One peer cannot take all places for answers.

use std::collections::HashMap;

use orien_net::{NetEvent, NetEvents, NetStream, Reply, StreamKind};
use orien_protocol::codec;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{ANSWER_LIMIT, Answer, QUESTION_LIMIT, Question};
use orien_protocol::peer::PeerId;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::discovery::Heard;
use crate::publish::OwnOffer;
use crate::shared::SharedCatalogue;

/// Streams and questions waiting for the role; it takes them up at once, so more means that it is stuck.
pub(crate) const ROLE_QUEUE: usize = 256;

/// General answers being made at the same time, each up to 1 MiB.
const ANSWERS_LIMIT: usize = 64;

/// Of those, for one peer.
const ANSWERS_PER_PEER: usize = 8;

/// A stream that a peer opened; it has been accepted.
#[derive(Debug)]
pub struct InboundStream {
    /// Who.
    pub peer: PeerId,
    /// What for.
    pub kind: StreamKind,
    /// The stream, for a [`crate::frame_stream::FrameStream`].
    pub stream: NetStream,
}

/// A question for the role.
#[derive(Debug)]
pub struct InboundQuestion {
    /// Who asks.
    pub peer: PeerId,
    /// What.
    pub question: Question,
    /// Where the answer goes.
    pub reply: QuestionReply,
}

/// Where the answer to one question goes. Dropped without an answer, the peer is told that we are busy.
#[derive(Debug)]
pub struct QuestionReply(Reply);

/// An answer did not get on its way.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// It cannot be encoded or is too large; the peer was told that something is wrong here.
    #[error("the answer cannot be sent: {0}")]
    Unsendable(codec::CodecError),
    /// The network has stopped.
    #[error(transparent)]
    Net(#[from] orien_net::NetError),
}

impl QuestionReply {
    /// Sends the answer.
    pub async fn answer(self, answer: &Answer) -> Result<(), AnswerError> {
        let unsendable = match codec::encode(answer) {
            Ok(bytes) if bytes.len() <= ANSWER_LIMIT => return Ok(self.0.send(bytes).await?),
            Ok(bytes) => codec::CodecError::TooLarge { length: bytes.len(), limit: ANSWER_LIMIT },
            Err(error) => error,
        };
        let fault = Answer::Refused(Fault::new(FaultCode::INTERNAL, "the answer could not be made"));
        if let Ok(bytes) = codec::encode(&fault) {
            self.0.send(bytes).await?;
        }
        Err(AnswerError::Unsendable(unsendable))
    }

    /// Refuses.
    pub async fn refuse(self, fault: Fault) -> Result<(), AnswerError> {
        self.answer(&Answer::Refused(fault)).await
    }
}

/// Where things go that are for the role; a role that takes none of a kind leaves it out.
#[derive(Debug, Default)]
pub(crate) struct ForRole {
    pub(crate) streams: Option<mpsc::Sender<InboundStream>>,
    pub(crate) questions: Option<mpsc::Sender<InboundQuestion>>,
}

/// The state of the dispatch task.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) events: NetEvents,
    pub(crate) discovery: mpsc::Sender<Heard>,
    pub(crate) for_role: ForRole,
    pub(crate) catalogue: SharedCatalogue,
    pub(crate) own: OwnOffer,
    pub(crate) answers: Answers,
}

/// Answers being made.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    tasks: JoinSet<PeerId>,
    per_peer: HashMap<PeerId, usize>,
}

impl Dispatch {
    /// Runs until `stop`, or until the network has stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.events.next() => match event {
                    Some(event) => self.on_event(event),
                    None => break,
                },
                Some(answered) = self.answers.tasks.join_next() => self.answers.on_answered(answered),
            }
        }
        self.answers.tasks.shutdown().await;
    }

    fn on_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::Gossip { from: _, bytes, verdict } => {
                // Full: the verdict is dropped, which means ignore.
                let _ = self.discovery.try_send(Heard::Gossip { bytes, verdict });
            }
            NetEvent::Connected { peer } => {
                tracing::debug!(%peer, "connected");
                if self.discovery.try_send(Heard::Connected(peer)).is_err() {
                    tracing::debug!(%peer, "discovery is busy; the catalogue of this peer is left to a later pull");
                }
            }
            NetEvent::Disconnected { peer } => tracing::debug!(%peer, "disconnected"),
            NetEvent::Stream { peer, kind, stream } => self.on_stream(InboundStream { peer, kind, stream }),
            NetEvent::Call { peer, request, reply } => self.on_call(peer, &request, QuestionReply(reply)),
        }
    }

    /// A stream that finds no taker is dropped, which resets it.
    fn on_stream(&self, stream: InboundStream) {
        let (peer, kind) = (stream.peer, stream.kind);
        let taken = self.for_role.streams.as_ref().is_some_and(|role| role.try_send(stream).is_ok());
        if !taken {
            tracing::debug!(%peer, ?kind, "a stream found nobody to take it");
        }
    }

    fn on_call(&mut self, peer: PeerId, request: &[u8], reply: QuestionReply) {
        let question = match codec::decode(request, QUESTION_LIMIT) {
            Ok(question) => question,
            Err(error) => return self.refuse(peer, reply, Fault::new(FaultCode::MALFORMED, error)),
        };
        match question {
            Question::Catalogue { after } => {
                let catalogue = self.catalogue.clone();
                self.answer(peer, reply, move || {
                    let (offers, more) = catalogue.page(after);
                    Answer::Offers { offers, more }
                });
            }
            Question::Digests { after } => {
                let catalogue = self.catalogue.clone();
                self.answer(peer, reply, move || {
                    let (digests, more) = catalogue.digests(after);
                    Answer::Digests { digests, more }
                });
            }
            Question::Offer => {
                let own = self.own.clone();
                self.answer(peer, reply, move || Answer::Offer(own.get().map(|offer| Box::new(offer.signed().clone()))));
            }
            Question::OfferOf(provider) => {
                let catalogue = self.catalogue.clone();
                self.answer(peer, reply, move || {
                    Answer::Offer(catalogue.provider(&provider).map(|listed| Box::new(listed.offer.signed().clone())))
                });
            }
            question => self.for_role(InboundQuestion { peer, question, reply }),
        }
    }

    fn for_role(&mut self, question: InboundQuestion) {
        let Some(role) = &self.for_role.questions else {
            let fault = Fault::new(FaultCode::NOT_FOUND, "this peer does not answer such questions");
            return self.refuse(question.peer, question.reply, fault);
        };
        if let Err(mpsc::error::TrySendError::Full(question) | mpsc::error::TrySendError::Closed(question)) = role.try_send(question) {
            self.refuse(question.peer, question.reply, Fault::new(FaultCode::BUSY, "too many questions are waiting"));
        }
    }

    fn refuse(&mut self, peer: PeerId, reply: QuestionReply, fault: Fault) {
        self.answer(peer, reply, move || Answer::Refused(fault));
    }

    /// Makes and sends an answer off the loop, if there is a place; else the reply is dropped, which says busy.
    fn answer(&mut self, peer: PeerId, reply: QuestionReply, make: impl FnOnce() -> Answer + Send + 'static) {
        let places = self.answers.per_peer.entry(peer).or_default();
        if *places >= ANSWERS_PER_PEER || self.answers.tasks.len() >= ANSWERS_LIMIT {
            if *places == 0 {
                self.answers.per_peer.remove(&peer);
            }
            return;
        }
        *places += 1;
        self.answers.tasks.spawn(async move {
            if let Err(error) = reply.answer(&make()).await {
                tracing::debug!(%peer, %error, "an answer was not sent");
            }
            peer
        });
    }
}

impl Answers {
    fn on_answered(&mut self, answered: Result<PeerId, tokio::task::JoinError>) {
        match answered {
            Ok(peer) => {
                if let Some(places) = self.per_peer.get_mut(&peer) {
                    *places = places.saturating_sub(1);
                    if *places == 0 {
                        self.per_peer.remove(&peer);
                    }
                }
            }
            // Whose it was is lost with the task; forgetting all counts keeps everybody served.
            Err(error) => {
                tracing::error!(%error, "an answer ended with a panic");
                self.per_peer.clear();
            }
        }
    }
}

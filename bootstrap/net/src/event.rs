//! What the network tells its owner, and how the owner answers.
//!
//! Each kind of event has its own bounded queue, so a flood of gossip cannot displace streams. Connected and Disconnected are never lost:
//! a peer that came and went while nobody looked is not reported at all. Order is kept within a kind, not between kinds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libp2p::PeerId as WireId;
use libp2p::gossipsub::{MessageAcceptance, MessageId};
use libp2p::request_response::ResponseChannel;
use orien_protocol::peer::PeerId;
use tokio::sync::mpsc;

use crate::error::NetError;
use crate::rpc::RESPONSE_LIMIT;
use crate::streams::{InboundStream, NetStream, StreamKind};

/// Something happened on the network.
#[derive(Debug)]
pub enum NetEvent {
    /// A gossip message that the loop has not seen before; it travels on only after [`Verdict::accept`].
    Gossip {
        /// Who signed and published it (checked), not who passed it on.
        from: PeerId,
        /// At most [`crate::GOSSIP_LIMIT`] plus the envelope's slack.
        bytes: Vec<u8>,
        /// What becomes of it.
        verdict: Verdict,
    },
    /// A peer asks something.
    Call {
        /// Who asks.
        peer: PeerId,
        /// At most [`crate::REQUEST_LIMIT`].
        request: Vec<u8>,
        /// Where the answer goes.
        reply: Reply,
    },
    /// A peer opened a stream; it has been told that it is accepted.
    Stream {
        /// Who opened it.
        peer: PeerId,
        /// What for.
        kind: StreamKind,
        /// The stream.
        stream: NetStream,
    },
    /// The first connection to a peer of our network stands and the peer has identified itself.
    Connected {
        /// Who.
        peer: PeerId,
    },
    /// The last connection to a peer is gone.
    Disconnected {
        /// Who.
        peer: PeerId,
    },
}

/// The owner's end of all event queues.
#[derive(Debug)]
pub struct NetEvents {
    pub(crate) gossip: mpsc::Receiver<NetEvent>,
    pub(crate) calls: mpsc::Receiver<NetEvent>,
    pub(crate) streams: mpsc::Receiver<InboundStream>,
    pub(crate) presence: mpsc::Receiver<NetEvent>,
}

impl NetEvents {
    /// The next event of any kind; `None` once the network has stopped. May be dropped and called again without losing an event.
    pub async fn next(&mut self) -> Option<NetEvent> {
        tokio::select! {
            Some(event) = self.presence.recv() => Some(event),
            Some(event) = self.calls.recv() => Some(event),
            Some(InboundStream { peer, kind, stream }) = self.streams.recv() => Some(NetEvent::Stream { peer, kind, stream }),
            Some(event) = self.gossip.recv() => Some(event),
            else => None,
        }
    }
}

/// What the loop is told about one gossip message.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) message: MessageId,
    pub(crate) relay: WireId,
    pub(crate) acceptance: MessageAcceptance,
}

/// Decides about one gossip message. Dropped without a call it means ignore.
pub struct Verdict {
    open: Option<(MessageId, WireId)>,
    judged: mpsc::Sender<Judged>,
}

impl Verdict {
    pub(crate) fn new(message: MessageId, relay: WireId, judged: mpsc::Sender<Judged>) -> Self {
        Self { open: Some((message, relay)), judged }
    }

    /// Valid and new: pass it on.
    pub fn accept(mut self) {
        self.tell(MessageAcceptance::Accept);
    }

    /// Invalid: do not pass it on, and think worse of the peer that did.
    pub fn reject(mut self) {
        self.tell(MessageAcceptance::Reject);
    }

    /// Nothing to say: do not pass it on, blame nobody.
    pub fn ignore(mut self) {
        self.tell(MessageAcceptance::Ignore);
    }

    fn tell(&mut self, acceptance: MessageAcceptance) {
        if let Some((message, relay)) = self.open.take() {
            // A full queue means the loop is far behind: the message is then not passed on, as if ignored.
            if self.judged.try_send(Judged { message, relay, acceptance }).is_err() {
                tracing::debug!("a gossip verdict found no room and counts as ignore");
            }
        }
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        self.tell(MessageAcceptance::Ignore);
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verdict").finish_non_exhaustive()
    }
}

/// An answer on its way to the loop.
pub(crate) type Answered = (ResponseChannel<Vec<u8>>, Vec<u8>);

/// Where the answer to one call goes. Dropped without an answer, the caller is told `RemoteBusy`.
pub struct Reply {
    channel: ResponseChannel<Vec<u8>>,
    answers: mpsc::Sender<Answered>,
}

impl Reply {
    pub(crate) fn new(channel: ResponseChannel<Vec<u8>>, answers: mpsc::Sender<Answered>) -> Self {
        Self { channel, answers }
    }

    /// Sends the answer, at most [`crate::RESPONSE_LIMIT`] bytes. Succeeds when it is handed to the loop; the caller may be gone by then.
    pub async fn send(self, response: Vec<u8>) -> Result<(), NetError> {
        if response.len() > RESPONSE_LIMIT {
            return Err(NetError::TooLarge { limit: RESPONSE_LIMIT });
        }
        self.answers.send((self.channel, response)).await.map_err(|_| NetError::Stopped)
    }

    /// Whether the caller still waits.
    pub fn is_awaited(&self) -> bool {
        self.channel.is_open()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

/// What was turned away because the owner or a limit could not keep up, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Gossip messages ignored without being shown to the owner.
    pub gossip_ignored: u64,
    /// Calls dropped without being shown to the owner.
    pub calls_dropped: u64,
    /// Inbound streams told busy.
    pub streams_refused: u64,
}

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    gossip_ignored: AtomicU64,
    calls_dropped: AtomicU64,
    streams_refused: AtomicU64,
}

impl Counting {
    pub(crate) fn gossip_ignored(&self) {
        self.gossip_ignored.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn call_dropped(&self) {
        self.calls_dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stream_refused(&self) {
        self.streams_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(self: &Arc<Self>) -> NetCounters {
        NetCounters {
            gossip_ignored: self.gossip_ignored.load(Ordering::Relaxed),
            calls_dropped: self.calls_dropped.load(Ordering::Relaxed),
            streams_refused: self.streams_refused.load(Ordering::Relaxed),
        }
    }
}

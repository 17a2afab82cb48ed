//! The streams of one connection: the two-byte opening, in both directions.
//!
//! At most [`OPENINGS_LIMIT`] openings are under way at a time and each ends within [`OPENING_LIMIT`]. An inbound stream is accepted only
//! with a place in the owner's queue already reserved, so an accepted stream always arrives.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};
use libp2p::core::upgrade::{InboundUpgrade, NegotiationError, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol};
use libp2p::{Stream, StreamProtocol};
use orien_protocol::peer::PeerId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::slots::{Slot, Slots};
use super::{InboundStream, NetStream, StreamKind};
use crate::error::NetError;
use crate::event::Counting;
use crate::names::StreamNames;

/// First byte of the opener. Another value would be another opening.
const HELLO: u8 = 1;
/// Answer: the stream is yours.
const ACCEPTED: u8 = 0;
/// Answer: no room, try later.
const BUSY: u8 = 1;

/// Openings under way on one connection, more than the multiplexers let a peer start at once (256).
const OPENINGS_LIMIT: usize = 512;
/// Time for the two bytes, several round trips on a bad line. Also bounds how long a silent peer holds a place in the owner's queue.
const OPENING_LIMIT: Duration = Duration::from_secs(8);

/// A request to open a stream, with its place and its answer.
#[derive(Debug)]
pub(crate) struct Open {
    pub(super) kind: StreamKind,
    pub(super) slot: Slot,
    pub(super) reply: oneshot::Sender<Result<NetStream, NetError>>,
}

/// What the two directions of a connection share with the rest of the peer.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) peer: PeerId,
    pub(super) names: Arc<StreamNames>,
    /// Whether the connection stays open without streams.
    pub(super) kept: bool,
    pub(super) inbound: Slots,
    pub(super) accepted: mpsc::Sender<InboundStream>,
    pub(super) counting: Arc<Counting>,
}

/// Our side of one connection.
pub(crate) struct Connection {
    shared: Shared,
    to_open: VecDeque<Open>,
    openings: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Connection {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared, to_open: VecDeque::new(), openings: FuturesUnordered::new() }
    }

    fn on_inbound(&mut self, kind: StreamKind, stream: Stream) {
        if self.openings.len() >= OPENINGS_LIMIT {
            // Out of the reach of a peer that keeps the multiplexer's rules; the reset tells it.
            self.shared.counting.stream_refused();
            return;
        }
        let shared = self.shared.clone();
        self.openings.push(
            async move {
                let peer = shared.peer;
                match timeout(OPENING_LIMIT, admit(shared, kind, stream)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "an inbound stream failed while opening"),
                    Err(_) => tracing::debug!(%peer, "an inbound stream took too long to open"),
                }
            }
            .boxed(),
        );
    }

    fn on_outbound(&mut self, open: Open, stream: Stream) {
        let peer = self.shared.peer;
        self.openings.push(
            async move {
                let Open { slot, mut reply, .. } = open;
                let opened = tokio::select! {
                    opened = timeout(OPENING_LIMIT, greet(peer, stream, slot)) => opened.unwrap_or(Err(NetError::TimedOut)),
                    () = reply.closed() => return,
                };
                // The receiver may have given up in between; the stream is then reset by being dropped.
                let _gone = reply.send(opened);
            }
            .boxed(),
        );
    }
}

/// The listener's half of the opening.
async fn admit(shared: Shared, kind: StreamKind, mut stream: Stream) -> io::Result<()> {
    let mut hello = [0_u8; 1];
    stream.read_exact(&mut hello).await?;
    if hello != [HELLO] {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown greeting"));
    }
    let place = shared.inbound.take().zip(shared.accepted.try_reserve_owned().ok());
    let Some((slot, place)) = place else {
        shared.counting.stream_refused();
        stream.write_all(&[BUSY]).await?;
        return stream.close().await;
    };
    stream.write_all(&[ACCEPTED]).await?;
    stream.flush().await?;
    place.send(InboundStream { peer: shared.peer, kind, stream: NetStream::new(stream, slot) });
    Ok(())
}

/// The opener's half of the opening. The opener writes first: negotiation is lazy and needs it.
async fn greet(peer: PeerId, mut stream: Stream, slot: Slot) -> Result<NetStream, NetError> {
    let failed = |error: io::Error| explain(peer, &error);
    stream.write_all(&[HELLO]).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut status = [0_u8; 1];
    stream.read_exact(&mut status).await.map_err(failed)?;
    match status {
        [ACCEPTED] => Ok(NetStream::new(stream, slot)),
        [BUSY] => Err(NetError::RemoteBusy { peer }),
        _ => Err(NetError::UnsupportedByPeer { peer }),
    }
}

/// Tells a refused protocol (which lazy negotiation reports on the first read) from a broken stream.
pub(crate) fn explain(peer: PeerId, error: &io::Error) -> NetError {
    let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<NegotiationError>());
    match (refused, error.kind()) {
        (Some(_), _) => NetError::UnsupportedByPeer { peer },
        (None, io::ErrorKind::TimedOut) => NetError::TimedOut,
        (None, _) => NetError::Unreachable { peer, reason: error.to_string() },
    }
}

impl ConnectionHandler for Connection {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Listening;
    type OutboundProtocol = Calling;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<Listening> {
        SubstreamProtocol::new(Listening(Arc::clone(&self.shared.names)), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.shared.kept
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Calling, Open, Infallible>> {
        while let Poll::Ready(Some(())) = self.openings.poll_next_unpin(cx) {}
        if let Some(open) = self.to_open.pop_front() {
            let calling = Calling(self.shared.names.of(open.kind));
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(calling, open).with_timeout(OPENING_LIMIT),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, open: Open) {
        // Bounded by the slots: every entry holds one.
        self.to_open.push_back(open);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Listening, Calling, (), Open>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (Some(kind), stream), .. }) => {
                self.on_inbound(kind, stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: open }) => {
                self.on_outbound(open, stream);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: open, error }) => {
                let peer = self.shared.peer;
                let error = match error {
                    StreamUpgradeError::Timeout => NetError::TimedOut,
                    StreamUpgradeError::NegotiationFailed => NetError::UnsupportedByPeer { peer },
                    StreamUpgradeError::Io(error) => explain(peer, &error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _gone = open.reply.send(Err(error));
            }
            _ => {}
        }
    }
}

/// The protocols we answer to; tells which kind was asked for.
#[derive(Debug)]
pub(crate) struct Listening(Arc<StreamNames>);

impl UpgradeInfo for Listening {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 4];

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.all()
    }
}

impl InboundUpgrade<Stream> for Listening {
    type Output = (Option<StreamKind>, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((self.0.kind(&name), stream)))
    }
}

/// The one protocol we ask for.
#[derive(Debug)]
pub(crate) struct Calling(StreamProtocol);

impl UpgradeInfo for Calling {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 1];

    fn protocol_info(&self) -> Self::InfoIter {
        [self.0.clone()]
    }
}

impl OutboundUpgrade<Stream> for Calling {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

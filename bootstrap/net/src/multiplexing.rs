//! Many streams over one connection, with Yamux.
//!
//! Always true: a peer has at most [`WAITING_LIMIT`] streams that nobody has taken yet, more are reset; data goes in large frames, so that encryption and system calls are not paid for a few bytes each.
//!
//! libp2p's own muxer is the same but for the size of frames, which it does not let anybody choose.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::UpgradeInfo;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use yamux::{Config, Connection, ConnectionError, Mode, Stream};

/// As every libp2p peer calls it.
const NAME: &str = "/yamux/1.0.0";
/// Most data in one frame. Twice what Yamux takes by itself, for half as many system calls. Another stream's frame, such as a receipt, waits for at most one of these: a quarter of a millisecond
/// at 1 Gbit/s.
const FRAME_BYTES: usize = 32 * 1024;
/// Streams that a peer opened and nobody has taken; what Yamux lets a peer start before it hears of any.
const WAITING_LIMIT: usize = 256;

/// Agrees on Yamux.
#[derive(Clone, Debug, Default)]
pub(crate) struct Multiplexing;

impl Multiplexing {
    fn over<C: AsyncRead + AsyncWrite + Unpin>(io: C, mode: Mode) -> Streams<C> {
        let mut config = Config::default();
        config.set_split_send_size(FRAME_BYTES);
        Streams { connection: Connection::new(io, config, mode), waiting: VecDeque::new(), taker: None }
    }
}

impl UpgradeInfo for Multiplexing {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(NAME)
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Multiplexing {
    type Output = Streams<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Streams<C>>>;

    fn upgrade_inbound(self, io: C, _: &'static str) -> Self::Future {
        ready(Ok(Self::over(io, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Multiplexing {
    type Output = Streams<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Streams<C>>>;

    fn upgrade_outbound(self, io: C, _: &'static str) -> Self::Future {
        ready(Ok(Self::over(io, Mode::Client)))
    }
}

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct Streams<C> {
    connection: Connection<C>,
    /// Opened by the peer while nobody asked for one: the connection has to go on all the same.
    waiting: VecDeque<Stream>,
    /// Who asks for one.
    taker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Streams<C> {
    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.connection.poll_next_inbound(cx).map(|next| next.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Streams<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let this = self.get_mut();
        if let Some(stream) = this.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let arrived = this.poll_arrived(cx);
        if arrived.is_pending() {
            this.taker = Some(cx.waker().clone());
        }
        arrived
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.get_mut().connection.poll_new_outbound(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.get_mut().connection.poll_close(cx)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let this = self.get_mut();
        let stream = match this.poll_arrived(cx) {
            Poll::Ready(arrived) => arrived?,
            Poll::Pending => return Poll::Pending,
        };
        if this.waiting.len() < WAITING_LIMIT {
            this.waiting.push_back(stream);
        } else {
            tracing::debug!(%stream, "a stream is reset: too many wait to be taken");
        }
        if let Some(taker) = this.taker.take() {
            taker.wake();
        }
        // There may be more; others have their turn before.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

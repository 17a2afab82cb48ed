//! Long streams between two peers: control, execution log, file, execution input.
//!
//! Opening one is an exchange of two bytes: the opener greets, the listener answers accepted or busy before the opener gets the stream, so
//! nothing is ever dropped in silence. An open stream keeps its connection alive; streams are capped per peer and in total, per direction.
//!
//! It does not know what is written on a stream.

mod behaviour;
mod connection;
mod slots;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::Stream;
use orien_protocol::peer::PeerId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

pub(crate) use behaviour::{Behaviour, Keep, Opening};
pub(crate) use connection::explain;
use slots::Slot;

/// What a stream is for; each kind is a protocol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// The frames of a session.
    Control,
    /// The live log of an execution.
    Log,
    /// One file, in or out.
    File,
    /// The standard input of an execution.
    Input,
}

/// An open stream to a peer.
///
/// `shutdown` ends our direction in an orderly way and leaves the other open; dropping it without `shutdown` resets the stream, and what
/// was not yet sent may be lost.
pub struct NetStream {
    io: Compat<Stream>,
    _slot: Slot,
}

impl NetStream {
    fn new(stream: Stream, slot: Slot) -> Self {
        Self { io: stream.compat(), _slot: slot }
    }
}

impl fmt::Debug for NetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetStream").finish_non_exhaustive()
    }
}

impl AsyncRead for NetStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for NetStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// A stream that a peer opened and that has been accepted.
#[derive(Debug)]
pub(crate) struct InboundStream {
    pub(crate) peer: PeerId,
    pub(crate) kind: StreamKind,
    pub(crate) stream: NetStream,
}

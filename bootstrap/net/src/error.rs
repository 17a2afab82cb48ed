//! What can go wrong with the network, sorted by what the caller can do about it.

use orien_protocol::peer::PeerId;
use thiserror::Error;

/// Why a peer could not be started. Nothing has been left running.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartNetError {
    /// The seed is no ed25519 key.
    #[error("the peer's secret key cannot be used: {0}")]
    Key(String),
    /// An address in the configuration is unusable.
    #[error("{field} address `{address}` cannot be used: {reason}")]
    Address {
        /// Which list it stands in.
        field: &'static str,
        /// As written.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused to listen.
    #[error("cannot listen on `{address}`: {reason}")]
    Listen {
        /// As written.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// A part of the network stack refused its configuration.
    #[error("cannot build the network stack: {0}")]
    Build(String),
    /// `start` was called outside of a tokio runtime.
    #[error("the network needs a running tokio runtime")]
    NoRuntime,
}

/// Why something asked of the network did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetError {
    /// One of our own queues or tables is full. Try again later.
    #[error("this peer is busy, try again")]
    Busy,
    /// The other peer has no room, or closed the exchange without an answer. Try again later or elsewhere.
    #[error("peer {peer} is busy")]
    RemoteBusy {
        /// Who.
        peer: PeerId,
    },
    /// There is no connection to the peer (any more).
    #[error("not connected to peer {peer}")]
    NotConnected {
        /// Who.
        peer: PeerId,
    },
    /// No connection could be made. Another address or another time may help.
    #[error("peer {peer} cannot be reached: {reason}")]
    Unreachable {
        /// Who.
        peer: PeerId,
        /// The last thing that failed.
        reason: String,
    },
    /// No answer in time. It is not known whether the other side acted.
    #[error("no answer in time")]
    TimedOut,
    /// The message is larger than the protocol carries. Final.
    #[error("larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The peer does not speak this protocol of this network. Final for this peer.
    #[error("peer {peer} does not speak this protocol of this network")]
    UnsupportedByPeer {
        /// Who.
        peer: PeerId,
    },
    /// A table of ours holds no more of these. Remove one first.
    #[error("no more than {limit} of these at a time")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A peer does not call itself.
    #[error("this is our own peer id")]
    OwnPeer,
    /// The 32 bytes are not an ed25519 public key.
    #[error("peer {peer} is not a valid key")]
    InvalidPeer {
        /// Who.
        peer: PeerId,
    },
    /// The network has been stopped.
    #[error("the network is stopped")]
    Stopped,
}

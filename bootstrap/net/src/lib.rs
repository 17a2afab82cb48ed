//! The network between peers: the only place that knows libp2p.
//!
//! One task owns the swarm; [`Net`] is a cheap handle that sends it commands over a bounded queue, [`NetEvents`] is what it tells the
//! owner. Every protocol name carries the network id, so peers of two networks never parse each other's bytes. Every queue, table and
//! time is bounded, and a full queue is an answer (`Busy`), never a wait inside the loop.
//!
//! It moves bytes and peers. It does not know what an offer, a session, money or HTTP is.

mod address;
mod behaviour;
mod config;
mod driver;
mod encryption;
mod error;
mod event;
mod handle;
mod multiplexing;
mod names;
mod peer;
mod rpc;
mod streams;
mod task;

pub use config::{NetConfig, NetLimits, Role};
pub use error::{NetError, StartNetError};
pub use event::{NetCounters, NetEvent, NetEvents, Reply, Verdict};
pub use handle::{Net, PeerInfo};
pub use rpc::{REQUEST_LIMIT, RESPONSE_LIMIT};
pub use streams::{NetStream, StreamKind};
pub use task::{NetPanicked, NetTask, start};

/// Largest gossip message in bytes. A digest is under 1 KiB; the rest of the 8 KiB frame is the envelope (author, signature, topic).
pub const GOSSIP_LIMIT: usize = 4 * 1024;

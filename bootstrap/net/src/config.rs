//! What the owner of a peer decides about its network.
//!
//! Addresses are multiaddr text, as operators copy it; they are checked by `start`. The limits have defaults for a machine with a few
//! thousand file descriptors; a queue length of zero is read as one.

use std::fmt;
use std::time::Duration;

use orien_protocol::network::NetworkId;

/// What a peer does for the others. Everything else is the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Bootstrap and settlement: reachable, answers lookups, keeps the connections of all who come.
    Server,
    /// A provider: reachable, answers lookups.
    Provider,
    /// A gateway: asks, but is not part of the lookup table.
    Client,
}

/// Configuration of a peer's network.
pub struct NetConfig {
    /// The network; part of every protocol name.
    pub network: NetworkId,
    /// Secret ed25519 seed of this peer; wiped once the key is made.
    pub seed: [u8; 32],
    /// What this peer does for others.
    pub role: Role,
    /// Where to listen, such as `/ip4/127.0.0.1/tcp/0` or `/ip4/0.0.0.0/udp/0/quic-v1`.
    pub listen: Vec<String>,
    /// Addresses under which an operator knows this peer to be reachable from outside.
    pub external: Vec<String>,
    /// Peers to introduce us, each ending in `/p2p/<peer id>`; dialled at the start and again whenever the connection is lost.
    pub bootstrap: Vec<String>,
    /// Bounds.
    pub limits: NetLimits,
}

impl fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetConfig")
            .field("network", &self.network)
            .field("role", &self.role)
            .field("listen", &self.listen)
            .field("external", &self.external)
            .field("bootstrap", &self.bootstrap)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Bounds of a peer's network.
#[derive(Clone, Debug)]
pub struct NetLimits {
    /// Established connections that others opened. About 80 KiB each.
    pub connections_in: u32,
    /// Established connections that we opened.
    pub connections_out: u32,
    /// Established connections with one peer: TCP and QUIC, each from both sides.
    pub connections_per_peer: u32,
    /// A connection without streams is closed after this, except to a bootstrap peer and at a server.
    pub idle: Duration,
    /// Connections being set up, per direction.
    pub connections_pending: u32,
    /// Streams one peer may have open towards us.
    pub streams_in_per_peer: usize,
    /// Streams all peers together may have open towards us.
    pub streams_in: usize,
    /// Streams we may have open towards one peer.
    pub streams_out_per_peer: usize,
    /// Streams we may have open towards all peers.
    pub streams_out: usize,
    /// Calls of one peer that wait for our answer, and ours that wait for one peer.
    pub calls_per_peer: usize,
    /// Commands waiting for the loop; beyond it the handle says `Busy`.
    pub command_queue: usize,
    /// Gossip waiting for the owner; beyond it gossip is ignored.
    pub gossip_queue: usize,
    /// Calls waiting for the owner; beyond it calls are dropped.
    pub call_queue: usize,
    /// Inbound streams waiting for the owner; beyond it the opener is told busy.
    pub stream_queue: usize,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            connections_in: 512,
            connections_out: 256,
            connections_per_peer: 4,
            // Long enough for a session's pauses, short enough to free a descriptor.
            idle: Duration::from_secs(120),
            connections_pending: 64,
            streams_in_per_peer: 128,
            streams_in: 4096,
            streams_out_per_peer: 128,
            streams_out: 4096,
            calls_per_peer: 64,
            command_queue: 256,
            gossip_queue: 256,
            call_queue: 256,
            stream_queue: 256,
        }
    }
}

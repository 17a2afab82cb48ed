//! The parts of the swarm and how each is set up.
//!
//! The order of the fields is the order in which a connection is judged: refusals first, so that nothing keeps state for a peer that is
//! not let in. The places for relay, hole punching and reachability checks are after `streams`.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::connection_limits::ConnectionLimits;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::request_response::ProtocolSupport;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{
    PeerId as WireId, Transport, allow_block_list, connection_limits, gossipsub, identify, kad, ping, quic, request_response, tcp,
};
use tokio_util::task::TaskTracker;

use crate::config::{NetConfig, NetLimits, Role};
use crate::encryption::Encryption;
use crate::error::StartNetError;
use crate::multiplexing::Multiplexing;
use crate::names::Names;
use crate::rpc::Framing;
use crate::streams;

/// What we say about ourselves.
const AGENT: &str = concat!("orien/", env!("CARGO_PKG_VERSION"));
/// Setting up a connection, as long as the longest wait of a caller.
const SETUP_LIMIT: Duration = Duration::from_secs(10);
/// Time for one call, from sending to the whole answer.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Inbound streams of one connection being negotiated; what a multiplexer lets a peer start at once.
const NEGOTIATING_LIMIT: usize = 256;
/// A whole gossip frame: one digest under 1 KiB and its envelope, with room to grow.
const GOSSIP_FRAME: usize = 8 * 1024;
/// Message ids of 34 bytes in one control message, so that it fits a gossip frame.
const GOSSIP_IDS: usize = 200;
/// One lookup in the table of peers; callers wait at most 10 s.
const QUERY_LIMIT: Duration = Duration::from_secs(8);
/// Advertisers remembered per key.
const ADVERTISERS_PER_KEY: usize = 64;
/// Keys remembered for others, about 10 KiB each when full.
const ADVERTISED_KEYS: usize = 4096;
/// An advertisement is forgotten after this, and renewed three times before.
const ADVERTISEMENT_TTL: Duration = Duration::from_secs(2 * 60 * 60);
const ADVERTISEMENT_RENEWAL: Duration = Duration::from_secs(40 * 60);

pub(crate) type Gossip = gossipsub::Behaviour<gossipsub::IdentityTransform, gossipsub::WhitelistSubscriptionFilter>;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    pub(crate) gossip: Gossip,
    pub(crate) rpc: request_response::Behaviour<Framing>,
    pub(crate) streams: streams::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(config: &NetConfig, names: &Names, keys: &Keypair, streams: streams::Behaviour) -> Result<Self, StartNetError> {
        let local = keys.public().to_peer_id();
        let identify = identify::Config::new(names.identify.clone(), keys.public())
            .with_agent_version(AGENT.to_owned())
            .with_push_listen_addr_updates(true)
            // We decide ourselves which of a peer's claimed addresses are worth keeping.
            .with_cache_size(0);
        let calls = request_response::Config::default()
            .with_request_timeout(CALL_LIMIT)
            .with_max_concurrent_streams(config.limits.calls_per_peer.saturating_mul(2));
        Ok(Self {
            blocked: allow_block_list::Behaviour::default(),
            limits: connection_limits::Behaviour::new(connection_limits(&config.limits)),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
            kad: kademlia(local, names, config.role),
            gossip: gossip(names, keys).map_err(StartNetError::Build)?,
            rpc: request_response::Behaviour::new([(names.rpc.clone(), ProtocolSupport::Full)], calls),
            streams,
        })
    }
}

fn connection_limits(limits: &NetLimits) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.connections_pending))
        .with_max_pending_outgoing(Some(limits.connections_pending))
        .with_max_established_incoming(Some(limits.connections_in))
        .with_max_established_outgoing(Some(limits.connections_out))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
}

fn kademlia(local: WireId, names: &Names, role: Role) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(names.kad.clone());
    config
        .set_query_timeout(QUERY_LIMIT)
        .set_provider_record_ttl(Some(ADVERTISEMENT_TTL))
        .set_provider_publication_interval(Some(ADVERTISEMENT_RENEWAL))
        // No values are kept in the table, only who advertises what; hence nothing to renew.
        .set_record_ttl(None)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        // Only the driver adds peers, after they have said that they speak our protocol.
        .set_kbucket_inserts(kad::BucketInserts::Manual);
    let store = MemoryStoreConfig {
        max_records: 0,
        max_value_bytes: 0,
        max_providers_per_key: ADVERTISERS_PER_KEY,
        max_provided_keys: ADVERTISED_KEYS,
    };
    let mut kad = kad::Behaviour::with_config(local, MemoryStore::with_config(local, store), config);
    kad.set_mode(Some(match role {
        Role::Server | Role::Provider => kad::Mode::Server,
        Role::Client => kad::Mode::Client,
    }));
    kad
}

fn gossip(names: &Names, keys: &Keypair) -> Result<Gossip, String> {
    let topic = gossipsub::IdentTopic::new(&names.topic);
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix(names.gossip_prefix.clone())
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(GOSSIP_FRAME)
        .max_control_messages_sent(GOSSIP_IDS)
        .heartbeat_interval(Duration::from_secs(1))
        .heartbeat_initial_delay(Duration::from_secs(1))
        // A network of two must work, one of thousands must not flood.
        .mesh_outbound_min(1)
        .mesh_n_low(2)
        .mesh_n(6)
        .mesh_n_high(12)
        .message_id_fn(|message| {
            let mut hash = blake3::Hasher::new();
            hash.update(message.topic.as_str().as_bytes());
            hash.update(&message.data);
            gossipsub::MessageId::from(hash.finalize().as_bytes().to_vec())
        })
        .build()
        .map_err(|error| error.to_string())?;
    let ours = gossipsub::WhitelistSubscriptionFilter(std::iter::once(topic.hash()).collect());
    let mut gossip =
        Gossip::new_with_subscription_filter(gossipsub::MessageAuthenticity::Signed(keys.clone()), config, ours).map_err(str::to_owned)?;
    let (scores, thresholds) = scoring(&topic);
    gossip.with_peer_score(scores, thresholds)?;
    gossip.subscribe(&topic).map_err(|error| error.to_string())?;
    Ok(gossip)
}

/// Peers lose standing for invalid messages and broken gossip promises, and for nothing else: what depends on message rates or on sharing
/// an address would need tuning to a network that does not exist yet. About ten
/// invalid messages within minutes and a peer's gossip is ignored.
fn scoring(topic: &gossipsub::IdentTopic) -> (gossipsub::PeerScoreParams, gossipsub::PeerScoreThresholds) {
    let invalid_only = gossipsub::TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -1.0,
        invalid_message_deliveries_decay: gossipsub::score_parameter_decay(Duration::from_secs(10 * 60)),
        ..gossipsub::TopicScoreParams::default()
    };
    let scores = gossipsub::PeerScoreParams {
        topics: std::iter::once((topic.hash(), invalid_only)).collect(),
        ip_colocation_factor_weight: 0.0,
        retain_score: Duration::from_secs(10 * 60),
        ..gossipsub::PeerScoreParams::default()
    };
    (scores, gossipsub::PeerScoreThresholds::default())
}

/// TCP and QUIC, each encrypted and bound to the peer's key.
pub(crate) fn transport(keys: &Keypair) -> Result<Boxed<(WireId, StreamMuxerBox)>, StartNetError> {
    let encryption = Encryption::new(keys).map_err(|error| StartNetError::Build(error.to_string()))?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(encryption)
        .multiplex(Multiplexing)
        .timeout(SETUP_LIMIT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let quic = quic::tokio::Transport::new(quic::Config::new(keys)).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(quic.or_transport(tcp).map(|either, _| either.into_inner()).boxed())
}

/// Runs the connections as tasks of `tasks`, so that the end of the network can wait for them.
pub(crate) fn swarm_config(tasks: TaskTracker, idle: Duration) -> libp2p::swarm::Config {
    libp2p::swarm::Config::with_executor(move |task| {
        tasks.spawn(task);
    })
    .with_idle_connection_timeout(idle)
    // Saves a round trip per stream; needs the opener to speak first, as all of ours do.
    .with_substream_upgrade_protocol_override(Version::V1Lazy)
    .with_max_negotiating_inbound_streams(NEGOTIATING_LIMIT)
    .with_notify_handler_buffer_size(NonZeroUsize::MIN.saturating_add(31))
    .with_per_connection_event_buffer_size(16)
}

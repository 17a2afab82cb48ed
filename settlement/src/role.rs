//! The settlement role: a peer that answers questions about money, makes its rounds, and has a local door.
//!
//! Always true: no answer is under way when the store is closed, and the store is closed before the peer stops. If the desk is shut, the role stops with an error, so
//! that the process ends and a restart recovers from the store.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::door::{self, DoorSettings, PeerDoorError};
use orien_bootstrap::{Network, Peer, PeerConfig, PeerFailure, RoleName, StartPeerError};
use orien_chain::{ChainError, Expected};
use orien_door::ServeError;
use orien_net::NetLimits;
use orien_protocol::time::UnixSeconds;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::answering::answer_all;
use crate::clerk::Clerk;
use crate::desk::OpenDeskError;
use crate::http::{self, ChainDoor, ChainLine};
use crate::offline::{NotSettlement, house, open_desk, rail_of};
use crate::onchain::{Follower, REQUESTS_MAX, Works, follow};
use crate::rounds::make_rounds;

/// Usual port of settlement's local door.
pub const SETTLEMENT_DOOR_PORT: u16 = 8404;
/// Usual time between two batches.
pub const DEFAULT_BATCH_INTERVAL: Duration = Duration::from_secs(60);

/// Usual time between two looks at the chain: final blocks come in seconds to minutes.
const DEFAULT_CHAIN_POLL: Duration = Duration::from_secs(2);

/// How to run settlement.
#[derive(Clone, Debug)]
pub struct Config {
    /// The peer; its role is settlement.
    pub peer: PeerConfig,
    /// Its local door.
    pub door: DoorSettings,
    /// How often a batch is made, if there is anything to settle.
    pub batch_interval: Duration,
    /// How it works with a chain, in a network that has one.
    pub chain: ChainConfig,
}

/// How settlement works with a chain.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// When claims are worth a transaction, and what is compared when.
    pub works: Works,
    /// How often new blocks are looked for.
    pub poll: Duration,
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self { works: Works::default(), poll: DEFAULT_CHAIN_POLL }
    }
}

impl Config {
    /// Settlement in `data_dir`, listening for peers at `listen`, with the usual local door and batches. Without a network, `network.toml` in the data directory
    /// says which it is.
    pub fn new(data_dir: impl Into<PathBuf>, network: Option<Network>, listen: Vec<String>) -> Self {
        let peer = PeerConfig {
            role: RoleName::Settlement,
            data_dir: data_dir.into(),
            network,
            listen,
            external: Vec::new(),
            bootstrap: Vec::new(),
            rpc: Vec::new(),
            limits: NetLimits::default(),
        };
        let door = DoorSettings::local(SocketAddr::from((Ipv4Addr::LOCALHOST, SETTLEMENT_DOOR_PORT)));
        Self { peer, door, batch_interval: DEFAULT_BATCH_INTERVAL, chain: ChainConfig::default() }
    }
}

/// Why settlement did not start or did not go on.
#[derive(Debug, Error)]
pub enum RunError {
    /// The peer did not start.
    #[error(transparent)]
    Start(#[from] StartPeerError),
    /// The network is settled by somebody else.
    #[error(transparent)]
    NotSettlement(#[from] NotSettlement),
    /// The peer was configured for another role.
    #[error("the peer of settlement must have the role settlement")]
    OtherRole,
    /// The store cannot be opened or does not add up.
    #[error(transparent)]
    Desk(#[from] OpenDeskError),
    /// The local door did not open.
    #[error(transparent)]
    Door(#[from] PeerDoorError),
    /// The local door failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The chain cannot be used as the network file says.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The desk was shut: a change was not stored, or did not fit.
    #[error("settlement stopped because it could not go on safely: {0}")]
    Shut(Arc<str>),
    /// A task broke off.
    #[error("a part of settlement broke off: {0}")]
    BrokeOff(#[from] tokio::task::JoinError),
    /// A part of the peer failed.
    #[error("{0}")]
    Peer(Arc<PeerFailure>),
}

/// Runs settlement until `cancel`; when this returns, everything it started has stopped.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), RunError> {
    let Config { peer, door, batch_interval, chain } = config;
    // Cancelled by whoever runs us, by the peer when it fails, or by us.
    let stop = cancel.child_token();
    let peer = Peer::start(peer, stop.clone()).await?;
    let worked = work(&peer, door, (batch_interval, chain), stop).await;
    peer.stop().await;
    match peer.failure() {
        Some(failure) => Err(RunError::Peer(failure)),
        None => worked,
    }
}

/// Starts to follow the network's chain, if it has one, over the nodes that the peer asks.
fn follow_chain(
    peer: &Peer,
    clerk: &Clerk,
    config: ChainConfig,
    parts: &mut JoinSet<Result<(), RunError>>,
    stop: &CancellationToken,
) -> Option<ChainDoor> {
    let (network, port) = (peer.network(), peer.chain()?.clone());
    let (facts, key) = (*port.facts(), peer.money_key());
    let line = ChainLine {
        chain_id: facts.chain_id,
        escrow: facts.escrow.to_string(),
        token: facts.token.to_string(),
        sender: key.address().to_string(),
        payout_cap: config.works.policy.payout_cap.map(|cap| cap.to_string()),
        day_cap: config.works.policy.day_cap.map(|cap| cap.to_string()),
    };
    let expected = Expected { signer: network.settlement().signer, exit_delay: UnixSeconds(network.exit_delay().0 / 1000) };
    let (compare, requests) = mpsc::channel(REQUESTS_MAX);
    let follower = Follower::new(port, clerk.clone(), facts, key, config.works);
    let followed = follow(follower, expected, config.poll, requests, stop.clone());
    parts.spawn(async { Ok(followed.await?) });
    Some(ChainDoor { line, compare })
}

async fn work(
    peer: &Peer,
    settings: DoorSettings,
    (batch_interval, chain): (Duration, ChainConfig),
    stop: CancellationToken,
) -> Result<(), RunError> {
    let questions = peer.take_questions().ok_or(RunError::OtherRole)?;
    let house = house(peer.network(), &peer.key(), &peer.money_key())?;
    let store = peer.data_dir().store(crate::offline::STORE);
    let rail = rail_of(peer.network());
    let desk = Arc::new(tokio::task::spawn_blocking(move || open_desk(&store, house, rail)).await??);
    let failed = desk.failed().clone();
    let clerk = Clerk::new(Arc::clone(&desk));
    let door = door::open(peer, settings).await?.open_route("/health");
    tracing::info!(address = %door.address(), token_file = %door.token_file().display(), rail = desk.rail().name(), "local door open");

    let mut parts: JoinSet<Result<(), RunError>> = JoinSet::new();
    let chain_door = follow_chain(peer, &clerk, chain, &mut parts, &stop);
    let answers = answer_all(clerk.clone(), questions, stop.clone());
    parts.spawn(async {
        answers.await;
        Ok(())
    });
    let rounds = make_rounds(clerk.clone(), batch_interval, stop.clone());
    parts.spawn(async {
        rounds.await;
        Ok(())
    });
    let served = door.serve(http::router(clerk.clone(), chain_door), stop.clone());
    parts.spawn(async { Ok(served.await?) });

    let mut ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = failed.cancelled() => Ok(()),
        Some(ended) = parts.join_next() => ended.unwrap_or_else(|error| Err(error.into())),
    };
    stop.cancel();
    while let Some(next) = parts.join_next().await {
        ended = ended.and(next.unwrap_or_else(|error| Err(error.into())));
    }
    clerk.leave().await;
    door::forget(peer);
    match desk.why_shut() {
        Some(why) => Err(RunError::Shut(why)),
        None => ended,
    }
}

//! The bootstrap role: a peer that introduces others and keeps the catalogue, with a local door.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use orien_door::{ServeError, Uptime};
use orien_net::NetLimits;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::data_dir::RoleName;
use crate::door::{self, DoorSettings, PeerDoorError};
use crate::http::{self, Shown};
use crate::network_file::Network;
use crate::peer::{Peer, PeerConfig, PeerFailure, StartPeerError};

/// Usual port of the bootstrap role's local door.
pub const BOOTSTRAP_DOOR_PORT: u16 = 8401;

/// How to run the bootstrap role.
#[derive(Clone, Debug)]
pub struct Config {
    /// The peer.
    pub peer: PeerConfig,
    /// Its local door.
    pub door: DoorSettings,
}

impl Config {
    /// The bootstrap role in `data_dir`, listening for peers at `listen`, with the usual local door. Without a network, `network.toml` in the data
    /// directory says which it is.
    pub fn new(data_dir: impl Into<PathBuf>, network: Option<Network>, listen: Vec<String>) -> Self {
        let peer = PeerConfig {
            role: RoleName::Bootstrap,
            data_dir: data_dir.into(),
            network,
            listen,
            external: Vec::new(),
            bootstrap: Vec::new(),
            rpc: Vec::new(),
            limits: NetLimits::default(),
        };
        Self { peer, door: DoorSettings::local(SocketAddr::from((Ipv4Addr::LOCALHOST, BOOTSTRAP_DOOR_PORT))) }
    }
}

/// Why the bootstrap role did not start or did not go on.
#[derive(Debug, Error)]
pub enum RunError {
    /// The peer did not start.
    #[error(transparent)]
    Start(#[from] StartPeerError),
    /// The local door did not open.
    #[error(transparent)]
    Door(#[from] PeerDoorError),
    /// The local door failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A part of the peer failed.
    #[error("{0}")]
    Peer(Arc<PeerFailure>),
}

/// Runs the bootstrap role until `cancel`; when this returns, everything it started has stopped.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), RunError> {
    let uptime = Uptime::start();
    // Cancelled by whoever runs us, or by the peer when it fails.
    let stop = cancel.child_token();
    let peer = Arc::new(Peer::start(config.peer, stop.clone()).await?);
    let served = serve(&peer, config.door, uptime, stop).await;
    peer.stop().await;
    match peer.failure() {
        Some(failure) => Err(RunError::Peer(failure)),
        None => served,
    }
}

async fn serve(peer: &Arc<Peer>, settings: DoorSettings, uptime: Uptime, stop: CancellationToken) -> Result<(), RunError> {
    let door = door::open(peer, settings).await?.open_route(http::HEALTH);
    tracing::info!(address = %door.address(), token_file = %door.token_file().display(), "local door open");
    for address in peer.net().listen_addresses().await.unwrap_or_default() {
        tracing::info!("others reach this peer with --bootstrap {address}");
    }
    let served = door.serve(http::routes(Shown { peer: Arc::clone(peer), uptime }), stop).await;
    door::forget(peer);
    Ok(served?)
}

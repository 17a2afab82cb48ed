//! Starts the gateway in order and stops it in reverse.

use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::{DoorSettings, Peer, PeerConfig, PeerDoorError, PeerFailure, StartPeerError, door, escrow};
use orien_chain::ChainError;
use orien_door::{Door, ServeError};
use orien_protocol::money::Usdc;
use orien_protocol::session::agent::AgentKeys;
use orien_protocol::signing::Address;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::directory::Directory;
use crate::http::mcp::Mcp;
use crate::http::{self, App};
use crate::logs::Logs;
use crate::names::Names;
use crate::sessions::{RestoreSessionsError, Sessions};
use crate::store::{StorageBackend, Store, StoreError};
use crate::wallet::{Parties, Wallet};

/// Usual port of the gateway's local door.
pub const GATEWAY_DOOR_PORT: u16 = 8402;

/// How long requests that act may go on after the order to stop; less than the door's grace, so that their callers still get an answer.
const ACTING_LIMIT: Duration = Duration::from_secs(4);

/// How to run the gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// The peer; its role has to be that of a gateway.
    pub peer: PeerConfig,
    /// Its local door.
    pub door: DoorSettings,
    /// The account that pays; without one, the address of this gateway's own money key.
    pub account: Option<Address>,
    /// Let MCP hosts ask their user before more than this is committed at once; never without one.
    pub approve_above: Option<Usdc>,
}

/// Why the gateway did not start or did not go on.
#[derive(Debug, Error)]
pub enum RunGatewayError {
    /// The peer did not start.
    #[error(transparent)]
    Start(#[from] StartPeerError),
    /// The store cannot be opened, or could not be written: what is on disk counts, a restart picks it up.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The chain is not what the network says.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Earlier sessions cannot be picked up.
    #[error(transparent)]
    Sessions(#[from] RestoreSessionsError),
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

/// Runs the gateway until `cancel`; when this returns, everything it started has stopped. Sessions stay open at their providers and are picked up at the next start.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), RunGatewayError> {
    run_with(config, cancel, |peer, broken| Store::open(&peer.data_dir().store("sessions"), broken)).await
}

/// The same with its sessions on another storage than a file.
pub async fn run_over(storage: impl StorageBackend, config: Config, cancel: CancellationToken) -> Result<(), RunGatewayError> {
    run_with(config, cancel, |_, broken| Store::over(storage, broken)).await
}

async fn run_with(
    config: Config,
    cancel: CancellationToken,
    open: impl FnOnce(&Peer, CancellationToken) -> Result<Store, StoreError>,
) -> Result<(), RunGatewayError> {
    // Cancelled by whoever runs us, by the peer when it fails, or by a session that cannot be written.
    let stop = cancel.child_token();
    let peer = Arc::new(Peer::start(config.peer.clone(), stop.clone()).await?);
    let worked = match open(&peer, stop.clone()) {
        Ok(store) => work(&config, &peer, store, stop).await,
        Err(error) => Err(error.into()),
    };
    peer.stop().await;
    match peer.failure() {
        Some(failure) => Err(RunGatewayError::Peer(failure)),
        None => worked,
    }
}

async fn work(config: &Config, peer: &Arc<Peer>, store: Store, stop: CancellationToken) -> Result<(), RunGatewayError> {
    let account = config.account.unwrap_or_else(|| peer.money_key().address());
    let wallet = match peer.chain() {
        Some(chain) => {
            let network = peer.network();
            escrow::preflight_at_start(chain, network.settlement().signer, network.exit_delay()).await?;
            let parties = Parties { account, spending_key: peer.money_key().address(), signer: network.settlement().signer };
            let path = peer.data_dir().store("wallet");
            Some(Arc::new(Wallet::open(chain.clone(), parties, network.exit_delay(), &path)?))
        }
        None => None,
    };
    let context = Context {
        own: peer.id(),
        net: peer.net().clone(),
        network: peer.network().clone(),
        catalogue: peer.catalogue().clone(),
        keys: AgentKeys { peer: peer.key(), spending: peer.money_key() },
        binding: peer.binding(account),
        store,
        wallet,
        names: Arc::new(Names::new(peer.chain().cloned())),
        logs: Arc::new(Logs::default()),
    };
    let sessions = Arc::new(Sessions::new(Arc::new(context), Directory::new(), stop.clone()));
    let served = match sessions.restore().await {
        Ok(count) => {
            tracing::info!(count, %account, "sessions of an earlier run picked up");
            serve(config, peer, &sessions, account, stop).await
        }
        Err(error) => Err(error.into()),
    };
    let stopped = sessions.stop().await;
    served.and(stopped.map_err(RunGatewayError::from))
}

async fn serve(
    config: &Config,
    peer: &Peer,
    sessions: &Arc<Sessions>,
    account: Address,
    stop: CancellationToken,
) -> Result<(), RunGatewayError> {
    let door: Door = http::guarded(door::open(peer, config.door.clone()).await?);
    tracing::info!(address = %door.address(), token_file = %door.token_file().display(), "local door open");
    let app = Arc::new(App::new(Arc::clone(sessions), account));
    let mcp = Mcp::new(config.approve_above, stop.clone());
    let mut beside = JoinSet::new();
    beside.spawn({
        let (app, stop) = (Arc::clone(&app), stop.clone());
        async move { app.clean_up(stop).await }
    });
    let context = &sessions.context;
    beside.spawn(Arc::clone(&context.names).work(context.catalogue.clone(), stop.clone()));
    if let Some(wallet) = context.wallet.clone() {
        let (sessions, stop) = (Arc::clone(sessions), stop.clone());
        beside.spawn(async move {
            if let Err(error) = wallet.work(stop).await {
                sessions.stop_for(error);
            }
        });
    }
    beside.spawn({
        let (app, stop) = (Arc::clone(&app), stop.clone());
        async move {
            stop.cancelled().await;
            app.stop(ACTING_LIMIT).await;
        }
    });
    let served = door.serve(http::routes(Arc::clone(&app)).merge(mcp.routes()), stop).await;
    mcp.stop().await;
    door::forget(peer);
    app.stop(Duration::ZERO).await;
    beside.shutdown().await;
    Ok(served?)
}

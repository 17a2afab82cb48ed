//! The node role: a shop on the network, with a local door.
//!
//! Always true: nothing listens before the shop has put an earlier process's sessions in order; when [`run`] returns, everything it started has stopped; a failed write
//! ends it with an error.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use orien_bootstrap::{
    DoorSettings, InboundStream, OfferSource, OfferStamp, Peer, PeerConfig, PeerDoorError, PeerFailure, PublishError, StartPeerError,
    clock, door, escrow,
};
use orien_chain::ChainError;
use orien_door::{Door, ServeError, Uptime};
use orien_net::{NetError, StreamKind};
use orien_protocol::credit::CreditPolicy;
use orien_protocol::frame::{Answer, ChannelState, Claim, Question};
use orien_protocol::money::Usdc;
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::session::provider::ProviderKeys;
use orien_protocol::signing::{Address, Verified};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::chain::CollectPolicy;
use crate::collector::{ClaimError, Settlement};
use crate::config::{self, ConfigFault, HostPaths, HostPrograms, ProviderConfig};
use crate::http::{self, Shown};
use crate::listing::{Listing, Today, hardware};
use crate::shop::{OpenShopError, Purpose, Shop, ShopConfig};
use crate::store::{Past, StoreError};

/// Usual port of a node's local door.
pub const NODE_DOOR_PORT: u16 = 8403;
/// Most bytes of a configuration: hundreds of times the largest sensible one.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Most unvouchered work of one account when the operator says nothing: it grows to this only with what was redeemed.
const CREDIT_CAP: Usdc = Usdc::from_micros(10_000_000);
/// Most vouchered and unredeemed value of one account when the operator says nothing.
const UNREDEEMED_CAP: Usdc = Usdc::from_micros(100_000_000);
/// The provider's own past is read again this often for the offer.
const PAST_EVERY: Duration = Duration::from_secs(60);

/// How to run a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The peer; its role has to be that of a node.
    pub peer: PeerConfig,
    /// The local door.
    pub door: DoorSettings,
    /// `provider-config.json`.
    pub tools_file: PathBuf,
    /// Where earnings go, before what the configuration says.
    pub payout: Option<Address>,
    /// How much is risked with each account.
    pub credit: CreditPolicy,
    /// When it collects without settlement, where there is a chain.
    pub collect: CollectPolicy,
    /// The program that answers to the sandbox's hidden arguments; none for the running one.
    pub sandbox_helper: Option<PathBuf>,
}

impl Config {
    /// A node with the usual door and credit.
    pub fn new(peer: PeerConfig, tools_file: impl Into<PathBuf>) -> Self {
        Self {
            peer,
            door: DoorSettings::local(SocketAddr::from((Ipv4Addr::LOCALHOST, NODE_DOOR_PORT))),
            tools_file: tools_file.into(),
            payout: None,
            credit: CreditPolicy { cap: CREDIT_CAP, unredeemed_cap: UNREDEEMED_CAP },
            collect: CollectPolicy::default(),
            sandbox_helper: None,
        }
    }
}

/// What is known once a node is at work.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Who it is.
    pub peer_id: PeerId,
    /// Where peers dial it.
    pub addresses: Vec<String>,
    /// Its local door.
    pub http: SocketAddr,
    /// The file with the door's token.
    pub token_file: PathBuf,
}

/// Why a node did not start or did not go on.
#[derive(Debug, Error)]
pub enum RunNodeError {
    /// The configuration cannot be read.
    #[error("the tools file {path} cannot be read; `orien init node` makes one")]
    ToolsFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration is wrong.
    #[error("the tools file {path} has {} faults: {}", faults.len(), first_of(faults))]
    Tools {
        /// Which file.
        path: PathBuf,
        /// All of them.
        faults: Vec<ConfigFault>,
    },
    /// The peer did not start.
    #[error(transparent)]
    Start(#[from] StartPeerError),
    /// The shop did not open.
    #[error(transparent)]
    Shop(#[from] OpenShopError),
    /// The local door did not open.
    #[error(transparent)]
    Door(#[from] PeerDoorError),
    /// The local door failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The offer was not published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The network did not say where it listens.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The chain is not what the network says.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A write failed while sessions were open. The process has to end; a restart puts them in order.
    #[error("a write failed: {0}")]
    Broken(String),
    /// A part of the peer failed.
    #[error("{0}")]
    Peer(Arc<PeerFailure>),
}

fn first_of(faults: &[ConfigFault]) -> String {
    faults.first().map_or_else(String::new, |fault| format!("{}: {}", fault.place.line, fault.problem))
}

/// Runs the node until `cancel`. `ready` is told once it is at work.
pub async fn run(config: Config, cancel: CancellationToken, ready: oneshot::Sender<Ready>) -> Result<(), RunNodeError> {
    let uptime = Uptime::start();
    let provider = load(&config.tools_file, &config.peer.data_dir)?;
    // Cancelled by whoever runs us, or by the peer when it fails.
    let stop = cancel.child_token();
    let peer = Arc::new(Peer::start(config.peer.clone(), stop.clone()).await?);
    let worked = work(&config, &provider, &peer, uptime, stop, ready).await;
    peer.stop().await;
    match peer.failure() {
        Some(failure) => Err(RunNodeError::Peer(failure)),
        None => worked,
    }
}

fn load(path: &std::path::Path, data_dir: &std::path::Path) -> Result<ProviderConfig, RunNodeError> {
    let read = || {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path)?.take(CONFIG_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| RunNodeError::ToolsFile { path: path.to_owned(), source })?;
    let loaded = config::load(&text, &HostPrograms, &HostPaths::beside(data_dir));
    let loaded = loaded.map_err(|faults| RunNodeError::Tools { path: path.to_owned(), faults })?;
    for tool in &loaded.tools {
        if let Err(reason) = &tool.program {
            tracing::warn!(tool = tool.tool.id, reason, "a tool is not offered");
        }
    }
    if loaded.offered().next().is_none() {
        tracing::warn!(path = %path.display(), "no tool of this provider is available; it offers nothing until one is");
    }
    Ok(loaded)
}

async fn work(
    config: &Config,
    provider: &ProviderConfig,
    peer: &Arc<Peer>,
    uptime: Uptime,
    stop: CancellationToken,
    ready: oneshot::Sender<Ready>,
) -> Result<(), RunNodeError> {
    if let Some(chain) = peer.chain() {
        escrow::preflight_at_start(chain, peer.network().settlement().signer, peer.network().exit_delay()).await?;
    }
    let settlement = OverNetwork { peer: Arc::clone(peer) };
    let shop = Arc::new(Shop::open(shop_config(config, provider, peer), settlement).await?);
    let served = serve(config, provider, peer, &shop, uptime, stop, ready).await;
    // Sessions still need the network for their last words.
    shop.close().await;
    match shop.failure() {
        Some(failure) => Err(RunNodeError::Broken(failure)),
        None => served,
    }
}

fn shop_config(config: &Config, provider: &ProviderConfig, peer: &Peer) -> ShopConfig {
    let own = peer.money_key().address();
    let payout = config.payout.or(provider.payout).unwrap_or_else(|| {
        tracing::warn!(address = %own, "no payout address is configured; earnings go to this node's own key, which is only as safe as its file");
        own
    });
    let network = peer.network();
    ShopConfig {
        store: peer.data_dir().store("sessions"),
        workspaces: peer.data_dir().path().join("workspaces"),
        helper: config.sandbox_helper.clone(),
        provider: provider.clone(),
        keys: ProviderKeys { peer: peer.key(), claim: peer.money_key() },
        payout,
        network: network.id().clone(),
        domain: network.domain(),
        settlement_signer: network.settlement().signer,
        finality_lag: network.finality_lag(),
        exit_delay: network.exit_delay(),
        credit: config.credit,
        chain: peer.chain().cloned(),
        collect: config.collect,
    }
}

async fn serve(
    config: &Config,
    provider: &ProviderConfig,
    peer: &Arc<Peer>,
    shop: &Arc<Shop>,
    uptime: Uptime,
    stop: CancellationToken,
    ready: oneshot::Sender<Ready>,
) -> Result<(), RunNodeError> {
    let door = door::open(peer, config.door.clone()).await?.open_route(http::HEALTH);
    let served = open(provider, peer, shop, uptime, stop, door, ready).await;
    door::forget(peer);
    served
}

async fn open(
    provider: &ProviderConfig,
    peer: &Arc<Peer>,
    shop: &Arc<Shop>,
    uptime: Uptime,
    stop: CancellationToken,
    door: Door,
    ready: oneshot::Sender<Ready>,
) -> Result<(), RunNodeError> {
    let source = Arc::new(Source::new(provider, peer, Arc::clone(shop)).await?);
    let at = (door.address(), door.token_file().to_owned());
    let addresses = peer.net().listen_addresses().await?;
    let mut tasks = JoinSet::new();
    if let Some(streams) = peer.take_streams() {
        tasks.spawn(receive(streams, Arc::clone(shop)));
    }
    peer.publish(Arc::clone(&source) as Arc<dyn OfferSource>).await?;
    tasks.spawn(refresh(Arc::clone(peer), source));
    tracing::info!(address = %at.0, token_file = %at.1.display(), tools = provider.offered().count(), "node at work");
    // Nobody may be waiting for it.
    let _ = ready.send(Ready { peer_id: peer.id(), addresses, http: at.0, token_file: at.1 });
    let shown = Shown { peer: Arc::clone(peer), shop: Arc::clone(shop), config: Arc::new(provider.clone()), uptime };
    let door_stop = stop.child_token();
    let serving = door.serve(http::routes(shown), door_stop.clone());
    let served = tokio::select! {
        served = serving => served,
        () = shop.broken() => Ok(()),
    };
    door_stop.cancel();
    tasks.shutdown().await;
    Ok(served?)
}

/// Hands streams to the shop.
async fn receive(mut streams: mpsc::Receiver<InboundStream>, shop: Arc<Shop>) {
    while let Some(InboundStream { peer, kind, stream }) = streams.recv().await {
        let purpose = match kind {
            StreamKind::Control => Purpose::Control,
            StreamKind::Log => Purpose::Log,
            StreamKind::File => Purpose::File,
            StreamKind::Input => Purpose::Input,
        };
        shop.receive(peer, purpose, stream);
    }
}

/// Has the offer published again when the number of free places has changed; how often is the peer's concern.
async fn refresh(peer: Arc<Peer>, source: Arc<Source>) {
    let mut free = source.shop.free();
    loop {
        match tokio::time::timeout(PAST_EVERY, free.changed()).await {
            Ok(Ok(())) => peer.republish(),
            Ok(Err(_)) => return,
            // The past shows at the next publication; it is no reason for one.
            Err(_) => source.look_back().await,
        }
    }
}

/// What this provider sells, for the peer to publish.
struct Source {
    listing: Listing,
    shop: Arc<Shop>,
    past: Mutex<Past>,
}

impl Source {
    async fn new(provider: &ProviderConfig, peer: &Peer, shop: Arc<Shop>) -> Result<Self, StoreError> {
        let listing = Listing {
            config: provider.clone(),
            provider: peer.id(),
            binding: peer.binding(shop.payout()),
            confinement: shop.confinement(),
            hardware: hardware(),
            up_since: clock::wall(),
        };
        let past = Mutex::new(shop.past().await?);
        Ok(Self { listing, shop, past })
    }

    async fn look_back(&self) {
        match self.shop.past().await {
            Ok(past) => *self.past.lock().unwrap_or_else(PoisonError::into_inner) = past,
            Err(error) => tracing::warn!(%error, "the provider's past cannot be read"),
        }
    }
}

impl OfferSource for Source {
    fn offer(&self, stamp: OfferStamp) -> Offer {
        let past = *self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let free = *self.shop.free().borrow();
        let offer = self.listing.offer(stamp.version, stamp.issued_at, &Today { free, past, addresses: stamp.addresses });
        Offer { expires_at: offer.expires_at.min(stamp.expires_at), ..offer }
    }

    fn published(&self, offer: &Arc<Verified<Offer>>) {
        self.shop.honour(offer.hash(), (***offer).clone());
    }
}

/// Settlement as a peer of the network.
struct OverNetwork {
    peer: Arc<Peer>,
}

impl Settlement for OverNetwork {
    async fn claim(&self, claim: Claim) -> Result<ChannelState, ClaimError> {
        match self.peer.ask_settlement(&Question::Claim(Box::new(claim))).await {
            Ok(Answer::Claimed(state)) => Ok(state),
            Ok(_) => Err(ClaimError::Unanswered("settlement answered something else than was asked".to_owned())),
            Err(error) if error.is_passing() => Err(ClaimError::Unanswered(error.to_string())),
            Err(error) => match error.fault() {
                Some(fault) => Err(ClaimError::Refused(fault.clone())),
                None => Err(ClaimError::Unanswered(error.to_string())),
            },
        }
    }
}

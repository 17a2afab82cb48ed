//! A running peer: everything a role stands on, started in order and stopped in reverse.
//!
//! Always true: the data directory is locked for as long as the [`Peer`] exists; the network runs only while the catalogue is kept; when
//! [`Peer::stop`] returns, no task of the peer is left. A part that fails for good cancels the token given to [`Peer::start`], so that the role stops.
//!
//! It does not know what the role does with streams, questions and money.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use orien_chain::{Chain, ChainError, ChainLimits, RpcUrl};
use orien_net::{Net, NetConfig, NetLimits, NetPanicked, Role, StartNetError};
use orien_protocol::binding::SignedBinding;
use orien_protocol::frame::{Answer, Question};
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Address, MoneyKey, PeerKey, Verified};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::ask::{self, AskError};
use crate::catalogue::Catalogue;
use crate::clock;
use crate::data_dir::{DataDir, OpenDataDirError, RoleName};
use crate::discovery::{Discovery, DiscoveryPanicked, HEARD_QUEUE};
use crate::dispatch::{Answers, Dispatch, ForRole, InboundQuestion, InboundStream, ROLE_QUEUE};
use crate::keeper::{keep, keeper};
use crate::keys::{Keys, KeysError};
use crate::network_file::{Network, NetworkFileError};
use crate::publish::{OfferSource, OwnOffer, PublishError, Publisher};
use crate::shared::{Intake, SharedCatalogue};
use crate::stage::{Alarm, Stage};
use crate::store::{Loaded, Store, StoreError};

/// Longest orderly stop; what has not ended by then is ended where it stands.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How to start a peer.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// What it is for. Decides what it does for other peers, and which streams and questions it takes.
    pub role: RoleName,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// Its network, or none: then `network.toml` in the data directory says.
    pub network: Option<Network>,
    /// Where to listen for peers, such as `/ip4/0.0.0.0/tcp/4001`.
    pub listen: Vec<String>,
    /// Addresses under which it is known to be reachable.
    pub external: Vec<String>,
    /// Bootstrap peers beside those of the network.
    pub bootstrap: Vec<String>,
    /// Nodes of the network's chain; none for those that the network names. Not needed on the ledger rail.
    pub rpc: Vec<RpcUrl>,
    /// Bounds of the network.
    pub limits: NetLimits,
}

impl PeerConfig {
    /// A peer that others on this machine can reach, on ports that happen to be free: for development and tests.
    pub fn loopback(role: RoleName, data_dir: impl Into<PathBuf>, network: Network) -> Self {
        Self {
            role,
            data_dir: data_dir.into(),
            network: Some(network),
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned(), "/ip4/127.0.0.1/udp/0/quic-v1".to_owned()],
            external: Vec::new(),
            bootstrap: Vec::new(),
            rpc: Vec::new(),
            limits: NetLimits::default(),
        }
    }
}

/// Why a peer did not start. Nothing is left running.
#[derive(Debug, Error)]
pub enum StartPeerError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] OpenDataDirError),
    /// A key cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// It is not known which network this is.
    #[error(transparent)]
    Network(#[from] NetworkFileError),
    /// The catalogue cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network did not start.
    #[error(transparent)]
    Net(#[from] StartNetError),
    /// The network's chain cannot be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Why a running peer cannot go on. The process should stop; a restart recovers.
#[derive(Debug, Error)]
pub enum PeerFailure {
    /// The network loop panicked.
    #[error(transparent)]
    Net(#[from] NetPanicked),
    /// The catalogue cannot be kept any more.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Discovery panicked.
    #[error(transparent)]
    Discovery(#[from] DiscoveryPanicked),
    /// A task panicked.
    #[error("the {stage} of this peer has panicked")]
    Panicked {
        /// Which part.
        stage: &'static str,
    },
    /// A task ended although nobody stopped it.
    #[error("the {stage} of this peer has ended unexpectedly")]
    Ended {
        /// Which part.
        stage: &'static str,
    },
}

/// A running peer. Stops when dropped, but in order only by [`Peer::stop`].
#[derive(Debug)]
pub struct Peer {
    // First, so that a drop ends the tasks before anything they use.
    stages: Stages,
    role: RoleName,
    data: DataDir,
    keys: Keys,
    network: Network,
    chain: Option<Chain>,
    net: Net,
    intake: Intake,
    own: OwnOffer,
    /// The version our offer had when this peer was started.
    stored_version: u64,
    publishing: AtomicBool,
    alarm: Alarm,
    streams: Mutex<Option<mpsc::Receiver<InboundStream>>>,
    questions: Mutex<Option<mpsc::Receiver<InboundQuestion>>>,
}

/// In the order of their start.
#[derive(Debug)]
struct Stages {
    keeping: Stage,
    net: Stage,
    listening: Stage,
    publishing: Stage,
}

impl Stages {
    fn new(alarm: &Alarm) -> Self {
        let stage = |name| Stage::new(name, alarm.clone());
        Self { keeping: stage("store"), net: stage("network"), listening: stage("discovery"), publishing: stage("publisher") }
    }

    /// In the order of their stop.
    fn reversed(&self) -> [&Stage; 4] {
        [&self.publishing, &self.listening, &self.net, &self.keeping]
    }
}

impl Peer {
    /// Starts everything. `failed` is not a stop signal to the peer: the peer cancels it when a part fails for good, and goes on until
    /// [`Peer::stop`] so that a role told to stop can still finish its work over the network.
    pub async fn start(config: PeerConfig, failed: CancellationToken) -> Result<Self, StartPeerError> {
        let PeerConfig { role, data_dir, network, listen, external, bootstrap, rpc, limits } = config;
        let data = DataDir::open(&data_dir, role)?;
        let keys = Keys::load_or_create(&data)?;
        let network = network.map_or_else(|| Network::load(&data.network_file()), Ok)?.with_bootstrap(&bootstrap)?;
        let chain = chain_of(role, &network, &rpc)?;
        let own_id = keys.peer().id();
        let (store, loaded) = open_store(&data, &network).await?;

        let alarm = Alarm::new(failed);
        let stages = Stages::new(&alarm);
        let config = NetConfig {
            network: network.id().clone(),
            seed: *keys.seed(),
            role: net_role(role),
            listen,
            external,
            bootstrap: network.bootstrap().to_vec(),
            limits,
        };
        let (net, events, net_task) = orien_net::start(config, stages.net.stop_token())?;
        stages.net.spawn(net_task);

        let (keeper, orders) = keeper();
        let catalogue = SharedCatalogue::new(restored(own_id, loaded.offers));
        stages.keeping.spawn(keep(store, catalogue.clone(), orders, stages.keeping.stop_token()));
        let intake = Intake {
            network: network.id().clone(),
            own: own_id,
            introducers: network.introducers().into(),
            catalogue: catalogue.clone(),
            keeper,
            refresh: Arc::new(Notify::new()),
        };

        let own = OwnOffer::default();
        let (heard, hears) = mpsc::channel(HEARD_QUEUE);
        let discovery = Discovery::new(net.clone(), intake.clone(), network.introducers().to_vec(), hears);
        let (for_role, streams, questions) = role_queues(role);
        let dispatch = Dispatch { events, discovery: heard, for_role, catalogue, own: own.clone(), answers: Answers::default() };
        let stop = stages.listening.stop_token();
        let stopped = stop.clone();
        stages.listening.spawn(async move {
            discovery.run(stopped.clone()).await?;
            // It also ends when the network has, which is then the failure to report.
            stopped.cancelled().await;
            Ok::<(), PeerFailure>(())
        });
        stages.listening.spawn(async move {
            dispatch.run(stop.clone()).await;
            stop.cancelled().await;
            Ok::<(), PeerFailure>(())
        });
        tracing::info!(%role, peer = %own_id, network = %network.id(), "peer started");
        Ok(Self {
            stages,
            role,
            data,
            keys,
            network,
            chain,
            net,
            intake,
            own,
            stored_version: loaded.own_version,
            publishing: AtomicBool::new(false),
            alarm,
            streams: Mutex::new(streams),
            questions: Mutex::new(questions),
        })
    }

    /// Who this peer is.
    pub fn id(&self) -> PeerId {
        self.intake.own
    }

    /// What it is for.
    pub fn role(&self) -> RoleName {
        self.role
    }

    /// The key of its identity.
    pub fn key(&self) -> Arc<PeerKey> {
        Arc::clone(self.keys.peer())
    }

    /// The key that moves its money.
    pub fn money_key(&self) -> Arc<MoneyKey> {
        Arc::clone(self.keys.money())
    }

    /// Its network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The network's chain; none on the ledger rail, and for peers that only introduce others.
    pub fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref()
    }

    /// The handle on the network between peers.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// What is for sale.
    pub fn catalogue(&self) -> &SharedCatalogue {
        &self.intake.catalogue
    }

    /// Where it keeps everything.
    pub fn data_dir(&self) -> &DataDir {
        &self.data
    }

    /// Binds both keys of this peer, with `principal` as the account that funds it or the address that it earns for.
    pub fn binding(&self, principal: Address) -> SignedBinding {
        SignedBinding::make(self.keys.peer(), self.keys.money(), principal, self.network.id(), &self.network.domain())
    }

    /// Streams that peers open to this role; once, and only for a role that takes streams.
    pub fn take_streams(&self) -> Option<mpsc::Receiver<InboundStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Questions to this role; once, and only for a role that answers some. The general ones are answered already.
    pub fn take_questions(&self) -> Option<mpsc::Receiver<InboundQuestion>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Asks a peer, connecting first if need be.
    pub async fn ask(&self, peer: PeerId, question: &Question) -> Result<Answer, AskError> {
        ask::ask(&self.net, peer, question).await
    }

    /// Asks the settlement peer of the network.
    pub async fn ask_settlement(&self, question: &Question) -> Result<Answer, AskError> {
        let settlement = self.network.settlement();
        self.net.connect(settlement.peer, &settlement.addresses).await?;
        self.ask(settlement.peer, question).await
    }

    /// Publishes what `source` sells, now and for as long as this peer runs.
    pub async fn publish(&self, source: Arc<dyn OfferSource>) -> Result<Arc<Verified<Offer>>, PublishError> {
        if self.publishing.swap(true, Ordering::Relaxed) {
            return Err(PublishError::Already);
        }
        let (net, intake, key) = (self.net.clone(), self.intake.clone(), self.key());
        let mut publisher = Publisher::new(net, intake, key, source, self.own.clone(), self.stored_version);
        let first = publisher.publish().await;
        if first.is_err() {
            self.publishing.store(false, Ordering::Relaxed);
            return first;
        }
        let stop = self.stages.publishing.stop_token();
        self.stages.publishing.spawn(async move {
            publisher.run(stop).await;
            Ok::<(), PeerFailure>(())
        });
        first
    }

    /// Says that what is for sale has changed: a new version is published as soon as our pace allows. Changes in between become one version.
    pub fn republish(&self) {
        self.intake.refresh.notify_one();
    }

    /// Our offer, as last published.
    pub fn own_offer(&self) -> Option<Arc<Verified<Offer>>> {
        self.own.get()
    }

    /// The first thing that failed for good, if anything did.
    pub fn failure(&self) -> Option<Arc<PeerFailure>> {
        self.alarm.failure()
    }

    /// Stops everything in the reverse order of its start; at most about 10 s. The data directory stays locked until the peer is dropped.
    pub async fn stop(&self) {
        let deadline = Instant::now() + STOP_LIMIT;
        for stage in self.stages.reversed() {
            if timeout_at(deadline, stage.stop()).await.is_err() {
                tracing::warn!(stage = stage.name(), "did not stop in time and is ended where it stands");
                stage.kill();
                stage.stop().await;
            }
        }
        tracing::info!(role = %self.role, peer = %self.id(), "peer stopped");
    }
}

/// The chain of a network, behind the nodes that were given or those that the network names. Nothing is asked of it yet.
fn chain_of(role: RoleName, network: &Network, rpc: &[RpcUrl]) -> Result<Option<Chain>, ChainError> {
    match network.chain() {
        Some(facts) if role != RoleName::Bootstrap => {
            let nodes = if rpc.is_empty() { network.rpc() } else { rpc };
            Ok(Some(Chain::new(*facts, nodes, ChainLimits::default())?))
        }
        _ => Ok(None),
    }
}

const fn net_role(role: RoleName) -> Role {
    match role {
        RoleName::Bootstrap | RoleName::Settlement => Role::Server,
        RoleName::Node => Role::Provider,
        RoleName::Gateway => Role::Client,
    }
}

type RoleQueues = (ForRole, Option<mpsc::Receiver<InboundStream>>, Option<mpsc::Receiver<InboundQuestion>>);

/// Queues for what the role takes; everything else is refused before it waits anywhere.
fn role_queues(role: RoleName) -> RoleQueues {
    let mut for_role = ForRole::default();
    match role {
        RoleName::Node => {
            let (sender, streams) = mpsc::channel(ROLE_QUEUE);
            for_role.streams = Some(sender);
            (for_role, Some(streams), None)
        }
        RoleName::Settlement => {
            let (sender, questions) = mpsc::channel(ROLE_QUEUE);
            for_role.questions = Some(sender);
            (for_role, None, Some(questions))
        }
        RoleName::Bootstrap | RoleName::Gateway => (for_role, None, None),
    }
}

async fn open_store(data: &DataDir, network: &Network) -> Result<(Store, Loaded), StoreError> {
    let (path, id) = (data.store("catalogue"), network.id().clone());
    let opened = tokio::task::spawn_blocking(move || {
        let store = Store::open(&path)?;
        let loaded = store.load(&id)?;
        Ok((store, loaded))
    });
    opened.await.unwrap_or_else(|error| Err(StoreError::interrupted(&error)))
}

/// The catalogue as it was, less what has expired since.
fn restored(own: PeerId, offers: Vec<Arc<Verified<Offer>>>) -> Catalogue {
    let mut catalogue = Catalogue::new(own);
    let now = clock::now();
    for offer in offers {
        catalogue.insert(offer, now);
    }
    catalogue
}

//! Starting the network of a peer, and waiting for its end.
//!
//! Everything that can be refused is refused before anything runs. The loop ends when the caller's token is cancelled or the [`NetTask`] is
//! dropped; the task resolves when every connection task has ended too.

use std::collections::HashSet;
use std::fmt;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId as WireId, Swarm};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::behaviour::{self, Behaviour};
use crate::config::{NetConfig, Role};
use crate::driver::{Driver, Ends};
use crate::error::StartNetError;
use crate::event::{Counting, NetEvents};
use crate::handle::Net;
use crate::names::Names;
use crate::streams::Keep;
use crate::{address, peer, streams};

/// Connection tasks end as soon as the swarm is gone; one that does not is abandoned after this, so that a stop stays a stop.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Connects and disconnects waiting for the owner; they are kept elsewhere when this is full.
const PRESENCE_QUEUE: usize = 64;

/// The network loop has panicked. The process should end: what it was doing is unknown.
#[derive(Debug, Error)]
#[error("the network loop has panicked")]
pub struct NetPanicked;

/// Resolves when the network has stopped. Dropping it stops the network.
#[must_use = "dropping this stops the network"]
pub struct NetTask {
    task: JoinHandle<()>,
    _stop: DropGuard,
}

impl fmt::Debug for NetTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetTask").finish_non_exhaustive()
    }
}

impl Future for NetTask {
    type Output = Result<(), NetPanicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.task).poll(cx).map_err(|_| NetPanicked)
    }
}

/// Starts the network of this peer on the current tokio runtime.
pub fn start(mut config: NetConfig, cancel: CancellationToken) -> Result<(Net, NetEvents, NetTask), StartNetError> {
    let runtime = Handle::try_current().map_err(|_| StartNetError::NoRuntime)?;
    let keys = Keypair::ed25519_from_bytes(&mut config.seed).map_err(|error| StartNetError::Key(error.to_string()))?;
    let wire = keys.public().to_peer_id();
    let local = peer::from_wire(&wire).ok_or_else(|| StartNetError::Key("not an ed25519 key".to_owned()))?;
    let names = Names::new(&config.network).map_err(|error| StartNetError::Build(error.to_string()))?;
    let bootstrap = bootstrap_peers(&config.bootstrap, wire)?;

    let counting = Arc::new(Counting::default());
    let limits = &config.limits;
    let (commands, commanded) = mpsc::channel(limits.command_queue.max(1));
    let (gossip, gossip_events) = mpsc::channel(limits.gossip_queue.max(1));
    let (calls, call_events) = mpsc::channel(limits.call_queue.max(1));
    let (accepted, stream_events) = mpsc::channel(limits.stream_queue.max(1));
    let (presence, presence_events) = mpsc::channel(PRESENCE_QUEUE);

    let kept = match config.role {
        Role::Server => Keep::All,
        Role::Provider | Role::Client => Keep::Only(bootstrap.iter().map(|(peer, _)| *peer).collect::<HashSet<_>>()),
    };
    let streams = streams::Behaviour::new(names.streams.clone(), limits, kept, accepted, Arc::clone(&counting));
    let tasks = TaskTracker::new();
    let behaviour = Behaviour::new(&config, &names, &keys, streams)?;
    let mut swarm = Swarm::new(behaviour::transport(&keys)?, behaviour, wire, behaviour::swarm_config(tasks.clone(), limits.idle));
    let listeners = listen(&mut swarm, &config)?;

    let ends = Ends { commands: commanded, gossip, calls, presence, counting: Arc::clone(&counting) };
    let driver = Driver::new(swarm, names, limits, listeners, bootstrap, ends);
    let stop = cancel.child_token();
    let stopped = CancellationToken::new();
    let task = runtime.spawn(run(driver, stop.clone(), stopped.clone(), tasks));
    let net = Net { local, commands, stopped, counting };
    let events = NetEvents { gossip: gossip_events, calls: call_events, streams: stream_events, presence: presence_events };
    Ok((net, events, NetTask { task, _stop: stop.drop_guard() }))
}

async fn run(mut driver: Driver, stop: CancellationToken, stopped: CancellationToken, tasks: TaskTracker) {
    {
        // Declared after the driver, so that it fires first, also when a panic unwinds: whoever sees an answer dropped can tell why.
        let _told = stopped.drop_guard();
        driver.run(&stop).await;
    }
    drop(driver);
    tasks.close();
    if tokio::time::timeout(CLOSE_LIMIT, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "some connections did not close in time");
    }
}

fn listen(swarm: &mut Swarm<Behaviour>, config: &NetConfig) -> Result<Vec<libp2p::core::transport::ListenerId>, StartNetError> {
    for text in &config.external {
        let (address, _) = parse("external", text)?;
        swarm.add_external_address(address);
    }
    let refused = |text: &str, reason: String| StartNetError::Listen { address: text.to_owned(), reason };
    let mut addresses = Vec::new();
    for text in &config.listen {
        let (address, _) = parse("listen", text)?;
        // libp2p shares TCP ports so that dials can come from the listening one; the system would let two of our programs share it too, and
        // deal connections out between them. So first see that the port is free, for all addresses before the first is taken.
        if let Some(socket) = address::tcp_socket(&address) {
            drop(TcpListener::bind(socket).map_err(|error| refused(text, error.to_string()))?);
        }
        addresses.push((address, text));
    }
    let listening = addresses.into_iter().map(|(address, text)| swarm.listen_on(address).map_err(|error| refused(text, error.to_string())));
    listening.collect()
}

/// The bootstrap peers and the addresses of each; our own entry, which a shared configuration may contain, is left out.
fn bootstrap_peers(texts: &[String], local: WireId) -> Result<Vec<(WireId, Vec<Multiaddr>)>, StartNetError> {
    let mut peers: Vec<(WireId, Vec<Multiaddr>)> = Vec::new();
    for text in texts {
        let (address, id) = parse("bootstrap", text)?;
        let usable = id.filter(|id| peer::from_wire(id).is_some());
        let id = usable.ok_or_else(|| refused("bootstrap", text, "must end in /p2p/ and the id of an ed25519 peer"))?;
        if id == local {
            continue;
        }
        match peers.iter_mut().find(|(known, _)| *known == id) {
            Some((_, addresses)) => addresses.push(address),
            None => peers.push((id, vec![address])),
        }
    }
    Ok(peers)
}

fn parse(field: &'static str, text: &str) -> Result<(Multiaddr, Option<WireId>), StartNetError> {
    address::parse(text).map_err(|reason| refused(field, text, &reason))
}

fn refused(field: &'static str, address: &str, reason: &str) -> StartNetError {
    StartNetError::Address { field, address: address.to_owned(), reason: reason.to_owned() }
}

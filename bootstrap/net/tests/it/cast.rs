//! Starting peers for a test and waiting for what they should come to.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orien_net::{Net, NetConfig, NetEvent, NetEvents, NetLimits, NetTask, Role, StreamKind, start};
use orien_protocol::peer::PeerId;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Far above anything expected even on a busy machine; it only turns a hang into a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static NEXT_SEED: AtomicU64 = AtomicU64::new(1);

/// A running peer. Dropping it stops it.
pub(crate) struct Actor {
    pub(crate) net: Net,
    pub(crate) events: NetEvents,
    pub(crate) task: NetTask,
    pub(crate) cancel: CancellationToken,
    pub(crate) addresses: Vec<String>,
}

pub(crate) fn config(role: Role, listen: &[&str], bootstrap: &[String]) -> NetConfig {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&NEXT_SEED.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    NetConfig {
        network: "test-0123456789abcdef".parse().unwrap(),
        seed,
        role,
        listen: listen.iter().map(|&text| text.to_owned()).collect(),
        external: Vec::new(),
        bootstrap: bootstrap.to_vec(),
        limits: NetLimits::default(),
    }
}

pub(crate) async fn raise(config: NetConfig) -> Actor {
    let cancel = CancellationToken::new();
    let (net, events, task) = start(config, cancel.clone()).unwrap();
    let addresses = net.listen_addresses().await.unwrap();
    Actor { net, events, task, cancel, addresses }
}

pub(crate) async fn server(listen: &[&str], bootstrap: &[String]) -> Actor {
    raise(config(Role::Server, listen, bootstrap)).await
}

pub(crate) async fn client(bootstrap: &[String]) -> Actor {
    raise(config(Role::Client, &[TCP], bootstrap)).await
}

impl Actor {
    pub(crate) fn peer(&self) -> PeerId {
        self.net.local_peer()
    }

    /// The next event that `pick` wants; others are dropped.
    pub(crate) async fn wait_for<T>(&mut self, mut pick: impl FnMut(NetEvent) -> Option<T>) -> T {
        within(async {
            loop {
                let event = self.events.next().await.expect("the network stopped");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        })
        .await
    }

    /// Answers every call with the same bytes and every stream with what comes in, accepts all gossip, until the network stops.
    pub(crate) fn echo(self) -> Echo {
        let Self { net, mut events, task, cancel, addresses } = self;
        let echoing = tokio::spawn(async move {
            let mut streams = tokio::task::JoinSet::new();
            while let Some(event) = events.next().await {
                match event {
                    NetEvent::Gossip { verdict, .. } => verdict.accept(),
                    NetEvent::Call { request, reply, .. } => drop(reply.send(request).await),
                    NetEvent::Stream { stream, .. } => {
                        streams.spawn(async move {
                            let (mut from, mut to) = tokio::io::split(stream);
                            if tokio::io::copy(&mut from, &mut to).await.is_ok() {
                                let _gone = to.shutdown().await;
                            }
                        });
                    }
                    NetEvent::Connected { .. } | NetEvent::Disconnected { .. } => {}
                }
            }
        });
        Echo { net, addresses, task, cancel, echoing }
    }
}

/// A peer that serves itself.
pub(crate) struct Echo {
    pub(crate) net: Net,
    pub(crate) addresses: Vec<String>,
    pub(crate) task: NetTask,
    pub(crate) cancel: CancellationToken,
    pub(crate) echoing: tokio::task::JoinHandle<()>,
}

impl Echo {
    pub(crate) fn peer(&self) -> PeerId {
        self.net.local_peer()
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        within(self.task).await.unwrap();
        within(self.echoing).await.unwrap();
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this hangs")
}

/// Asks again until the answer is wanted.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    within(async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Whether a peer still answers calls and echoes streams.
pub(crate) async fn is_healthy(asker: &Net, echo: &Echo) {
    asker.connect(echo.peer(), &echo.addresses).await.unwrap();
    assert_eq!(asker.call(echo.peer(), b"well?".to_vec()).await.unwrap(), b"well?");
    let stream = asker.open(echo.peer(), StreamKind::Control).await.unwrap();
    drop(stream);
}

//! The handle: what the rest of the program may ask of the network.
//!
//! Each method is one command to the loop and one answer back. A full command queue is `Busy`, a stopped loop is `Stopped`; nothing waits
//! longer than about ten seconds. Dropping a future gives up the wait, not the work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orien_protocol::peer::PeerId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::GOSSIP_LIMIT;
use crate::error::NetError;
use crate::event::{Counting, NetCounters};
use crate::rpc::REQUEST_LIMIT;
use crate::streams::{NetStream, StreamKind};

/// Longest wait for an answer of the loop. The loop answers everything within 10 s; this only bounds what nobody has thought of.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);

/// Where the answer to a command goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, NetError>>;

/// What the loop can be asked.
pub(crate) enum Command {
    ListenAddresses { answer: Answer<Vec<String>> },
    Peers { answer: Answer<Vec<PeerInfo>> },
    Connect { peer: PeerId, addresses: Vec<String>, answer: Answer<()> },
    Disconnect { peer: PeerId, answer: Answer<()> },
    Ban { peer: PeerId, answer: Answer<()> },
    Publish { bytes: Vec<u8>, answer: Answer<()> },
    Call { peer: PeerId, request: Vec<u8>, answer: Answer<Vec<u8>> },
    Open { peer: PeerId, kind: StreamKind, answer: Answer<NetStream> },
    Advertise { key: [u8; 32], answer: Answer<()> },
    Withdraw { key: [u8; 32], answer: Answer<()> },
    FindAdvertisers { key: [u8; 32], at_least: usize, answer: Answer<Vec<PeerId>> },
}

/// A connected peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Who.
    pub peer: PeerId,
    /// The other end of each connection, oldest first.
    pub addresses: Vec<String>,
    /// Whether at least one connection does not go through a relay.
    pub direct: bool,
    /// What the peer calls its software: its own words, cut short and escaped.
    pub agent: String,
}

/// A cheap handle on the network of this peer.
#[derive(Clone)]
pub struct Net {
    pub(crate) local: PeerId,
    pub(crate) commands: mpsc::Sender<Command>,
    /// Cancelled once the loop takes no more commands.
    pub(crate) stopped: CancellationToken,
    pub(crate) counting: Arc<Counting>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Net {
    /// Who we are.
    pub fn local_peer(&self) -> PeerId {
        self.local
    }

    /// What has been turned away so far.
    pub fn counters(&self) -> NetCounters {
        self.counting.read()
    }

    /// Addresses under which others can reach us, each ending in `/p2p/<our id>`: stated ones first, then those we listen on. Waits until
    /// every configured listener is up.
    pub async fn listen_addresses(&self) -> Result<Vec<String>, NetError> {
        self.ask(None, |answer| Command::ListenAddresses { answer }).await
    }

    /// The connected peers of our network.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, NetError> {
        self.ask(None, |answer| Command::Peers { answer }).await
    }

    /// Makes sure there is a connection: over the given addresses, those already known, or those that other peers know. Addresses that
    /// cannot be used are passed over. At most 10 s.
    pub async fn connect(&self, peer: PeerId, addresses: &[String]) -> Result<(), NetError> {
        let addresses = addresses.to_vec();
        self.ask(Some(peer), |answer| Command::Connect { peer, addresses, answer }).await
    }

    /// Closes all connections to a peer, with all streams on them.
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), NetError> {
        self.ask(Some(peer), |answer| Command::Disconnect { peer, answer }).await
    }

    /// Closes all connections to a peer and refuses it until the program restarts.
    pub async fn ban(&self, peer: PeerId) -> Result<(), NetError> {
        self.ask(Some(peer), |answer| Command::Ban { peer, answer }).await
    }

    /// Gossips a message of at most [`GOSSIP_LIMIT`] bytes. If nobody listens yet, the newest such message is sent as soon as somebody
    /// does. The same bytes twice within a minute are sent once.
    pub async fn publish(&self, bytes: Vec<u8>) -> Result<(), NetError> {
        if bytes.len() > GOSSIP_LIMIT {
            return Err(NetError::TooLarge { limit: GOSSIP_LIMIT });
        }
        self.ask(None, |answer| Command::Publish { bytes, answer }).await
    }

    /// Asks a peer something small and waits for the answer, connecting first if need be. At most 10 s for each of the two.
    pub async fn call(&self, peer: PeerId, request: Vec<u8>) -> Result<Vec<u8>, NetError> {
        if request.len() > REQUEST_LIMIT {
            return Err(NetError::TooLarge { limit: REQUEST_LIMIT });
        }
        self.connect(peer, &[]).await?;
        self.ask(Some(peer), |answer| Command::Call { peer, request, answer }).await
    }

    /// Opens a stream to a peer, connecting first if need be. The peer has accepted it when this returns.
    pub async fn open(&self, peer: PeerId, kind: StreamKind) -> Result<NetStream, NetError> {
        self.connect(peer, &[]).await?;
        self.ask(Some(peer), |answer| Command::Open { peer, kind, answer }).await
    }

    /// Lets others find us under a key, until [`Net::withdraw`]. Returns at once; the loop places the advertisement with other peers as
    /// they come and renews it.
    pub async fn advertise(&self, key: [u8; 32]) -> Result<(), NetError> {
        self.ask(None, |answer| Command::Advertise { key, answer }).await
    }

    /// Stops renewing an advertisement. Others may hold it for up to two hours more.
    pub async fn withdraw(&self, key: [u8; 32]) -> Result<(), NetError> {
        self.ask(None, |answer| Command::Withdraw { key, answer }).await
    }

    /// Who else advertises a key. Ends as soon as `at_least` peers are known, or when nobody knows more; may be empty.
    pub async fn find_advertisers(&self, key: [u8; 32], at_least: usize) -> Result<Vec<PeerId>, NetError> {
        self.ask(None, |answer| Command::FindAdvertisers { key, at_least, answer }).await
    }

    async fn ask<T>(&self, peer: Option<PeerId>, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, NetError> {
        let (answer, answered) = oneshot::channel();
        self.commands.try_send(command(answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NetError::Busy,
            mpsc::error::TrySendError::Closed(_) => NetError::Stopped,
        })?;
        match tokio::time::timeout(ANSWER_LIMIT, answered).await {
            Ok(Ok(result)) => result,
            // Unanswered: the loop has stopped, or the connection that was to carry it closed on the way.
            Ok(Err(_)) if self.stopped.is_cancelled() => Err(NetError::Stopped),
            Ok(Err(_)) => Err(peer.map_or(NetError::Stopped, |peer| NetError::NotConnected { peer })),
            Err(_) => Err(NetError::TimedOut),
        }
    }
}

//! A tool's only way out: an HTTP CONNECT proxy that the node serves on a listening socket inside the tool's own network.
//!
//! Always true: a connection is made only to a host and port that the grant names, and to the very address that was checked. A name never leads to an address
//! that is not public, nor to this machine; an address that the provider itself wrote into the grant may be any. What no rule names is not even
//! looked up. Everything has a limit in time and number, and all of it has ended when [`serve`] returns.
//!
//! It sees names and byte counts, not what is said: tools speak TLS through it.

mod counters;
mod grant;
mod outside;
mod public;
mod request;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub use counters::{EGRESS_BYTES_DEFAULT, EgressCounters, EgressUsage};
pub use grant::{HOSTS_MAX, HostError, HostPattern, HostRule, NetworkGrant, PORTS_MAX, RuleError};

use grant::Host;
use outside::{Internet, Outside};
use public::is_public;
use request::{Refusal, Status, read_head, target};

/// Addresses of one name that are tried; real services have fewer, and a hostile name server could list thousands.
const ADDRESSES_MAX: usize = 8;
/// After a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long and how many.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at once; more wait.
    connections: usize,
    /// How long one more waits for a place before it is refused.
    place: Duration,
    /// From the connection to the end of the request's head.
    head: Duration,
    /// For the name.
    resolve: Duration,
    /// For all attempts to connect together.
    connect: Duration,
    /// For one attempt, if there is another address.
    attempt: Duration,
    /// Without a byte either way.
    idle: Duration,
    /// For an answer to be taken.
    answer: Duration,
}

const LIMITS: Limits = Limits {
    connections: 32,
    place: Duration::from_secs(10),
    head: Duration::from_secs(10),
    resolve: Duration::from_secs(10),
    connect: Duration::from_secs(10),
    attempt: Duration::from_secs(3),
    idle: Duration::from_mins(5),
    answer: Duration::from_secs(2),
};

/// Serves the listener until `stop`, which ends every tunnel at once.
pub(crate) async fn serve(listener: TcpListener, grant: Arc<NetworkGrant>, counters: Arc<EgressCounters>, stop: CancellationToken) {
    serve_through(listener, Proxy { grant, counters, outside: Internet::default(), limits: LIMITS }, stop).await;
}

struct Proxy<O> {
    grant: Arc<NetworkGrant>,
    counters: Arc<EgressCounters>,
    outside: O,
    limits: Limits,
}

async fn serve_through<O: Outside>(listener: TcpListener, proxy: Proxy<O>, stop: CancellationToken) {
    let proxy = Arc::new(proxy);
    let places = Arc::new(Semaphore::new(proxy.limits.connections));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((mut client, _)) = accepted else {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(ACCEPT_PAUSE) => continue,
            }
        };
        // Meanwhile others wait in the kernel's own short queue. So at most one refusal for want of a place is under way in each waiting time.
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = timeout(proxy.limits.place, Arc::clone(&places).acquire_owned()) => place,
        };
        let proxy = Arc::clone(&proxy);
        if let Ok(Ok(place)) = place {
            tasks.spawn(async move {
                proxy.handle(client).await;
                drop(place);
            });
        } else {
            let reason = format!("this tool already has {} connections open", proxy.limits.connections);
            tasks.spawn(async move { proxy.refuse(&mut client, &Refusal::new(Status::Busy, reason)).await });
        }
    }
    drop(listener);
    tasks.shutdown().await;
}

impl<O: Outside> Proxy<O> {
    async fn handle(&self, mut client: TcpStream) {
        match self.open(&mut client).await {
            Ok(Some((host, early))) => {
                self.counters.opened();
                if let Err(error) = tunnel::run(client, early, host, &self.counters, self.limits.idle).await {
                    debug!(%error, "a tool's connection ended early");
                }
            }
            Ok(None) => {}
            Err(refusal) => self.refuse(&mut client, &refusal).await,
        }
    }

    async fn refuse(&self, client: &mut TcpStream, refusal: &Refusal) {
        if refusal.status.is_the_tools() {
            self.counters.refused();
        }
        debug!(reason = refusal.reason, "a tool's connection was refused");
        // Whether a tool hears its refusal is its own affair.
        let _ = timeout(self.limits.answer, refusal.answer(client)).await;
    }

    /// A connection to the host that the client asked for, already announced to it, and the bytes that it sent ahead.
    async fn open(&self, client: &mut TcpStream) -> Result<Option<(TcpStream, BytesMut)>, Refusal> {
        let slow = |_| Refusal::new(Status::RequestTimeout, "the request did not arrive in time");
        let Some((head, early)) = timeout(self.limits.head, read_head(client)).await.map_err(slow)?? else { return Ok(None) };
        let (host, port) = target(&head)?;
        self.grant.allows(&host, port).map_err(|reason| Refusal::new(Status::Forbidden, reason))?;
        if self.counters.is_used_up() {
            return Err(Refusal::new(Status::Forbidden, "this session has transferred all the bytes that it may"));
        }
        let upstream = self.reach(&host, port).await?;
        let told = timeout(self.limits.answer, client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")).await;
        // Small packets of an interactive protocol are not held back for larger ones; without it a tunnel works too.
        let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
        Ok(if matches!(told, Ok(Ok(()))) { Some((upstream, early)) } else { None })
    }

    /// Connects to an address of the host, which is checked here and nowhere looked up again.
    async fn reach(&self, host: &Host, port: u16) -> Result<TcpStream, Refusal> {
        let addresses = match host {
            // The provider named this very address.
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.public_addresses(name).await?,
        };
        let deadline = Instant::now().checked_add(self.limits.connect).unwrap_or_else(Instant::now);
        let mut timed_out = false;
        for (index, address) in addresses.iter().enumerate() {
            let is_last = index.saturating_add(1) == addresses.len();
            let attempt = if is_last { self.limits.connect } else { self.limits.attempt };
            let connected = timeout_at(deadline, timeout(attempt, self.outside.connect(SocketAddr::new(*address, port)))).await;
            match connected {
                Ok(Ok(Ok(stream))) => return Ok(stream),
                Ok(Ok(Err(error))) => {
                    timed_out = false;
                    debug!(%error, "a granted host did not accept a connection");
                }
                Ok(Err(_)) => timed_out = true,
                Err(_) => {
                    timed_out = true;
                    break;
                }
            }
        }
        let target = host.with(port);
        Err(if timed_out {
            Refusal::new(Status::GatewayTimeout, format!("{target} did not answer in time"))
        } else {
            Refusal::new(Status::BadGateway, format!("{target} cannot be connected to"))
        })
    }

    async fn public_addresses(&self, name: &str) -> Result<Vec<IpAddr>, Refusal> {
        let slow = |_| Refusal::new(Status::GatewayTimeout, format!("the name {name} was not resolved in time"));
        let found = timeout(self.limits.resolve, self.outside.resolve(name)).await.map_err(slow)?.unwrap_or_default();
        if found.is_empty() {
            return Err(Refusal::new(Status::BadGateway, format!("the name {name} has no address")));
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.into_iter().map(|address| address.to_canonical()) {
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) && is_public(address) && !self.outside.is_own(address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            // Which private address it has is not the tool's business.
            let reason = format!("{name} is granted, but none of its addresses is on the public internet outside this machine");
            return Err(Refusal::new(Status::Forbidden, reason));
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests;

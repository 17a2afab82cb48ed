//! Names to addresses, and connections to them: the part of the way out that touches the network.
//!
//! Always true: a lookup that its caller gave up keeps its place until the system's resolver has answered, so threads do not pile up behind slow name servers.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Lookups at once. Each occupies a thread of the node until the system's resolver answers or gives up, which may take half a minute.
const LOOKUPS_MAX: usize = 8;

/// The network, or a test's.
pub(super) trait Outside: Send + Sync + 'static {
    /// The addresses of a name.
    fn resolve(&self, name: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
    /// A connection to exactly this address.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send;
    /// Whether an address is one of this machine's own.
    fn is_own(&self, address: IpAddr) -> bool;
}

/// The network of this machine.
#[derive(Debug)]
pub(super) struct Internet {
    lookups: Arc<Semaphore>,
}

impl Default for Internet {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Outside for Internet {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let place = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let name = name.to_owned();
        let lookup = tokio::task::spawn_blocking(move || {
            let _place = place;
            // The port plays no part in the answer.
            (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
        });
        lookup.await.map_err(io::Error::other)?
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    /// To its own addresses a machine speaks from that same address. Connecting a datagram socket asks for the route and sends nothing.
    fn is_own(&self, address: IpAddr) -> bool {
        let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let source = UdpSocket::bind(any).and_then(|socket| {
            // Any port will do; nothing is sent.
            socket.connect((address, 9))?;
            socket.local_addr()
        });
        source.is_ok_and(|source| source.ip() == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machines_own_addresses_are_known_as_such_and_its_names_are_looked_up() {
        let internet = Internet::default();
        assert!(internet.is_own([127, 0, 0, 1].into()));
        assert!(!internet.is_own([192, 0, 2, 1].into()));
        let found = internet.resolve("localhost").await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert_eq!(internet.lookups.available_permits(), LOOKUPS_MAX);
    }
}

//! Multiaddr text in, things that can be dialled out.
//!
//! Only four shapes are dialled: an IP address or a DNS name, then TCP, or UDP with QUIC v1. Anything else, and anything a stranger claims
//! that could only point back into our own machine or site, is left out before it reaches the swarm.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libp2p::PeerId as WireId;
use libp2p::multiaddr::{Multiaddr, Protocol};

/// Longest address text looked at; a DNS name has at most 253 characters and the rest is short.
const TEXT_LIMIT: usize = 512;

/// Answers of one DNS name that are dialled; more only multiply failing attempts.
const RESOLVED_LIMIT: usize = 4;

/// A name server that has not answered by now will not in time for a 10 s connect.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// Parses an address and takes off a trailing `/p2p/<peer>`.
pub(crate) fn parse(text: &str) -> Result<(Multiaddr, Option<WireId>), String> {
    if text.len() > TEXT_LIMIT {
        return Err("longer than an address can be".to_owned());
    }
    let mut address: Multiaddr = text.parse().map_err(|error: libp2p::multiaddr::Error| error.to_string())?;
    let mut peer = None;
    if let Some(Protocol::P2p(id)) = address.iter().last() {
        peer = Some(id);
        address.pop();
    }
    if !is_dialable(&address) {
        return Err("expected /ip4|ip6|dns/.../tcp/PORT or /ip4|ip6|dns/.../udp/PORT/quic-v1".to_owned());
    }
    Ok((address, peer))
}

fn is_dialable(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let host = matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)));
    let carrier = match parts.next() {
        Some(Protocol::Tcp(_)) => true,
        Some(Protocol::Udp(_)) => matches!(parts.next(), Some(Protocol::QuicV1)),
        _ => false,
    };
    host && carrier && parts.next().is_none()
}

/// Whether the address names a host that must be looked up first.
pub(crate) fn needs_lookup(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)))
}

/// Looks up the host of a DNS address.
pub(crate) async fn resolve(address: Multiaddr) -> Result<Vec<Multiaddr>, String> {
    let (host, v4, v6) = match address.iter().next() {
        Some(Protocol::Dns(name)) => (name.into_owned(), true, true),
        Some(Protocol::Dns4(name)) => (name.into_owned(), true, false),
        Some(Protocol::Dns6(name)) => (name.into_owned(), false, true),
        _ => return Ok(vec![address]),
    };
    let found = tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((host.as_str(), 0)))
        .await
        .map_err(|_| format!("looking up {host} took too long"))?
        .map_err(|error| format!("looking up {host}: {error}"))?;
    let mut resolved: Vec<Multiaddr> = found
        .map(|socket: SocketAddr| socket.ip())
        .filter(|ip| if ip.is_ipv4() { v4 } else { v6 })
        .map(|ip| std::iter::once(Protocol::from(ip)).chain(address.iter().skip(1)).collect())
        .collect();
    resolved.dedup();
    resolved.truncate(RESOLVED_LIMIT);
    if resolved.is_empty() { Err(format!("{host} has no address of the wanted kind")) } else { Ok(resolved) }
}

/// Whether an address that a peer claims for itself is worth remembering, given the address we talk to it over.
///
/// A public peer cannot make us dial into our own machine or site; a peer on our own machine or site can name such addresses.
pub(crate) fn is_learnable(claimed: &Multiaddr, via: &Multiaddr) -> bool {
    if !is_dialable(claimed) {
        return false;
    }
    match (ip(claimed), ip(via)) {
        (Some(claimed), Some(via)) => !claimed.is_unspecified() && reach(claimed) >= reach(via),
        _ => false,
    }
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(IpAddr::V4(ip)),
        Some(Protocol::Ip6(ip)) => Some(ip.to_canonical()),
        _ => None,
    }
}

/// The socket of a TCP address with a port of its own.
pub(crate) fn tcp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) if port != 0 => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// How far an address means the same host: this machine, this site, everywhere.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Machine,
    Site,
    World,
}

fn reach(ip: IpAddr) -> Reach {
    /// Carrier-grade NAT, 100.64.0.0/10 (RFC 6598), which `is_private` leaves out.
    fn is_shared([a, b, ..]: [u8; 4]) -> bool {
        a == 100 && (64..128).contains(&b)
    }
    if ip.is_loopback() {
        return Reach::Machine;
    }
    let site = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || is_shared(ip.octets()),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    if site { Reach::Site } else { Reach::World }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_peer_at_the_end_is_taken_off() {
        let id = "12D3KooWD3bfmNbuuuVCYwkjnFt3ukm3qaB3hDED3peHHXawvRAi";
        let (address, peer) = parse(&format!("/dns4/boot.example/tcp/4001/p2p/{id}")).unwrap();
        assert_eq!(address, at("/dns4/boot.example/tcp/4001"));
        assert_eq!(peer.unwrap().to_string(), id);
    }

    #[test]
    fn other_shapes_are_refused_without_panic() {
        for text in ["", "/", "tcp", "/ip4/1.2.3.4", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/1/ws", "/tcp/1", &"/".repeat(9000)] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_public_peer_cannot_point_into_our_site() {
        let public = at("/ip4/203.0.113.9/tcp/1");
        assert!(!is_learnable(&at("/ip4/127.0.0.1/tcp/1"), &public));
        assert!(!is_learnable(&at("/ip4/192.168.1.1/tcp/80"), &public));
        assert!(!is_learnable(&at("/ip6/::ffff:10.0.0.1/tcp/80"), &public));
        assert!(!is_learnable(&at("/dns4/internal/tcp/80"), &public));
        assert!(is_learnable(&at("/ip4/198.51.100.7/udp/1/quic-v1"), &public));
    }

    #[test]
    fn on_loopback_everything_with_a_host_is_learned() {
        let local = at("/ip4/127.0.0.1/tcp/1");
        assert!(is_learnable(&at("/ip4/127.0.0.1/udp/9/quic-v1"), &local));
        assert!(is_learnable(&at("/ip4/10.0.0.4/tcp/9"), &local));
        assert!(!is_learnable(&at("/ip4/0.0.0.0/tcp/9"), &local));
    }

    #[tokio::test]
    async fn a_name_becomes_addresses_with_the_same_tail() {
        let found = resolve(at("/dns4/localhost/udp/9/quic-v1")).await.unwrap();
        assert_eq!(found, vec![at("/ip4/127.0.0.1/udp/9/quic-v1")]);
    }
}

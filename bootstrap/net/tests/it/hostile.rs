//! Other networks, garbage and lies.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, Codec, Message, OutboundFailure, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId as WireId, StreamProtocol, Swarm, SwarmBuilder, tcp, tls, yamux};
use orien_net::{NetError, Role, StreamKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cast::{QUIC, TCP, client, config, is_healthy, raise, server, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_network_is_told_apart_and_left_without_service() {
    for transport in [TCP, QUIC] {
        let echo = server(&[transport], &[]).await.echo();
        let mut other = config(Role::Client, &[TCP], &[]);
        other.network = "other-0123456789abcdef".parse().unwrap();
        let other = raise(other).await;
        let peer = echo.peer();
        assert_eq!(other.net.connect(peer, &echo.addresses).await.err(), Some(NetError::UnsupportedByPeer { peer }));
        assert!(within(other.net.call(peer, vec![1])).await.is_err());
        assert!(within(other.net.open(peer, StreamKind::Control)).await.is_err());
        assert!(echo.net.peers().await.unwrap().is_empty());
        is_healthy(&client(&[]).await.net, &echo).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_wire_leaves_the_peer_healthy() {
    let echo = server(&[TCP], &[]).await.echo();
    let port = echo.addresses[0].split('/').nth(4).unwrap().parse::<u16>().unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 10], b"\x13/multistream/1.0.0\n\xff\xff\xff\xff"] {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // The peer may hang up before all of it is written.
        let _refused = socket.write_all(garbage).await;
        let _refused = socket.shutdown().await;
        let mut answer = Vec::new();
        let _reset = within(socket.read_to_end(&mut answer)).await;
    }
    is_healthy(&client(&[]).await.net, &echo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_protocols_gets_no_answer_and_leaves_the_peer_healthy() {
    let echo = server(&[TCP], &[]).await.echo();
    let network = "/orien/test-0123456789abcdef";
    let cut_frame = [0, 0, 0, 200, 1, 2, 3];
    let too_long = [0xff; 64];
    for (name, garbage) in
        [("rpc/1", &too_long[..]), ("rpc/1", &cut_frame), ("rpc/1", &[]), ("control/1", &[9; 500]), ("control/1", &[]), ("file/1", &[0])]
    {
        let answer = vandal(&format!("{network}/{name}"), &echo.addresses[0], garbage).await;
        assert!(answer.as_ref().is_none_or(Vec::is_empty), "{name} answered {garbage:?} with {answer:?}");
    }
    assert_eq!(echo.net.counters().calls_dropped, 0);
    is_healthy(&client(&[]).await.net, &echo).await;
}

/// Writes bytes as they are on a protocol and returns what comes back, `None` if the stream was reset.
async fn vandal(protocol: &str, address: &str, garbage: &[u8]) -> Option<Vec<u8>> {
    let protocol = StreamProtocol::try_from_owned(protocol.to_owned()).unwrap();
    let mut swarm: Swarm<request_response::Behaviour<Raw>> = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), tls::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| request_response::Behaviour::new([(protocol, ProtocolSupport::Outbound)], request_response::Config::default()))
        .unwrap()
        .build();
    let (address, peer) = address.rsplit_once("/p2p/").unwrap();
    let (address, peer): (Multiaddr, WireId) = (address.parse().unwrap(), peer.parse().unwrap());
    swarm.behaviour_mut().send_request_with_addresses(&peer, garbage.to_vec(), vec![address]);
    within(async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(request_response::Event::Message { message: Message::Response { response, .. }, .. }) => {
                    return Some(response);
                }
                SwarmEvent::Behaviour(request_response::Event::OutboundFailure { error, .. }) => {
                    assert!(matches!(error, OutboundFailure::Io(_)), "{error}");
                    return None;
                }
                _ => {}
            }
        }
    })
    .await
}

/// No framing at all.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await?;
        Ok(answer)
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()> {
        io.write_all(&bytes).await?;
        io.flush().await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(&mut self, _: &StreamProtocol, _: &mut T, _: Vec<u8>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

//! Long streams: whole, attributed, bounded, and never lost in silence.

use orien_net::{NetError, NetEvent, Role, StreamKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cast::{QUIC, TCP, client, config, is_healthy, raise, server, until, within};

const FILE_SIZE: usize = 8 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn eight_mebibytes_come_back_unchanged_over_tcp_and_over_quic() {
    let file: Vec<u8> = (0..FILE_SIZE).map(|at| (at % 251) as u8).collect();
    for transport in [TCP, QUIC] {
        let echo = server(&[transport], &[]).await.echo();
        let sender = client(&[]).await;
        sender.net.connect(echo.peer(), &echo.addresses).await.unwrap();
        let stream = sender.net.open(echo.peer(), StreamKind::File).await.unwrap();
        let (mut from, mut to) = tokio::io::split(stream);
        let sent = file.clone();
        let sending = tokio::spawn(async move {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        });
        let mut back = Vec::new();
        within(from.read_to_end(&mut back)).await.unwrap();
        within(sending).await.unwrap();
        assert!(back == file, "{transport}");
        echo.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_learns_who_opened_a_stream_and_what_for() {
    let mut listener = server(&[TCP], &[]).await;
    let opener = client(&[]).await;
    opener.net.connect(listener.peer(), &listener.addresses).await.unwrap();
    for wanted in [StreamKind::Control, StreamKind::Log, StreamKind::File] {
        let _stream = opener.net.open(listener.peer(), wanted).await.unwrap();
        let opened = listener.wait_for(|event| match event {
            NetEvent::Stream { peer, kind, .. } => Some((peer, kind)),
            _ => None,
        });
        assert_eq!(opened.await, (opener.peer(), wanted));
    }
}

async fn burst(transport: &str) {
    let mut roomy = config(Role::Server, &[transport], &[]);
    roomy.limits.streams_in_per_peer = 120;
    roomy.limits.stream_queue = 40;
    let mut listener = raise(roomy).await;
    let mut eager = config(Role::Client, &[TCP], &[]);
    eager.limits.streams_out_per_peer = 1000;
    eager.limits.command_queue = 1000;
    let opener = raise(eager).await;
    let peer = listener.peer();
    opener.net.connect(peer, &listener.addresses).await.unwrap();

    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let net = opener.net.clone();
        opening.spawn(async move { net.open(peer, StreamKind::Control).await });
    }
    let (mut accepted, mut busy) = (Vec::new(), 0_usize);
    while let Some(opened) = within(opening.join_next()).await {
        match opened.unwrap() {
            Ok(stream) => accepted.push(stream),
            Err(NetError::RemoteBusy { .. }) => busy += 1,
            Err(other) => panic!("neither accepted nor told busy: {other}"),
        }
    }
    // Nobody took one out of the queue, so exactly its length was accepted; each of those arrives.
    assert_eq!((accepted.len(), busy), (40, 160));
    for _ in 0..accepted.len() {
        listener.wait_for(|event| if let NetEvent::Stream { stream, .. } = event { Some(stream) } else { None }).await;
    }
    assert_eq!(listener.net.counters().streams_refused, 160);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_streams_at_once_over_tcp_each_is_accepted_or_told_busy() {
    burst(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_streams_at_once_over_quic_each_is_accepted_or_told_busy() {
    burst(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stream_gives_its_place_back_on_both_sides() {
    let mut narrow = config(Role::Server, &[TCP], &[]);
    narrow.limits.streams_in_per_peer = 1;
    let echo = raise(narrow).await.echo();
    let mut opener = config(Role::Client, &[TCP], &[]);
    opener.limits.streams_out_per_peer = 2;
    let opener = raise(opener).await;
    let peer = echo.peer();
    opener.net.connect(peer, &echo.addresses).await.unwrap();

    let first = opener.net.open(peer, StreamKind::Log).await.unwrap();
    assert_eq!(opener.net.open(peer, StreamKind::Log).await.err(), Some(NetError::RemoteBusy { peer }));
    drop(first);
    let _second = until(|| async { opener.net.open(peer, StreamKind::Log).await.ok() }).await;
    is_healthy_elsewhere(&echo).await;
}

/// One peer's full share takes nothing from another.
async fn is_healthy_elsewhere(echo: &crate::cast::Echo) {
    is_healthy(&client(&[]).await.net, echo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_limit_on_open_streams_is_busy() {
    let echo = server(&[TCP], &[]).await.echo();
    let mut opener = config(Role::Client, &[TCP], &[]);
    opener.limits.streams_out_per_peer = 1;
    let opener = raise(opener).await;
    opener.net.connect(echo.peer(), &echo.addresses).await.unwrap();
    let _first = opener.net.open(echo.peer(), StreamKind::Log).await.unwrap();
    assert_eq!(opener.net.open(echo.peer(), StreamKind::Log).await.err(), Some(NetError::Busy));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_to_a_peer_that_goes_away_end() {
    for transport in [TCP, QUIC] {
        let echo = server(&[transport], &[]).await.echo();
        let opener = client(&[]).await;
        opener.net.connect(echo.peer(), &echo.addresses).await.unwrap();
        let mut stream = opener.net.open(echo.peer(), StreamKind::Control).await.unwrap();
        echo.stop().await;
        let mut byte = [0; 1];
        let read = within(stream.read(&mut byte)).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{transport}: {read:?}");
    }
}

//! Start, stop, and who is here in between.

use std::time::Duration;

use orien_net::{NetError, NetEvent, Role, StartNetError, StreamKind, start};
use tokio_util::sync::CancellationToken;

use crate::cast::{QUIC, TCP, client, config, raise, server, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_the_task_ends_soon_and_everything_says_stopped() {
    let mut listener = server(&[TCP], &[]).await;
    let asker = client(&[]).await;
    let peer = listener.peer();
    asker.net.connect(peer, &listener.addresses).await.unwrap();
    let _stream = asker.net.open(peer, StreamKind::Control).await.unwrap();
    // A call in flight: the other side has it and does not answer.
    let net = asker.net.clone();
    let waiting = tokio::spawn(async move { net.call(peer, vec![1]).await });
    let _reply = listener.wait_for(|event| if let NetEvent::Call { reply, .. } = event { Some(reply) } else { None }).await;

    asker.cancel.cancel();
    tokio::time::timeout(Duration::from_secs(2), asker.task).await.expect("stops within 2 s").unwrap();
    assert_eq!(within(waiting).await.unwrap(), Err(NetError::Stopped));
    assert_eq!(asker.net.call(peer, vec![1]).await, Err(NetError::Stopped));
    assert_eq!(asker.net.open(peer, StreamKind::Log).await.err(), Some(NetError::Stopped));
    assert_eq!(asker.net.publish(vec![1]).await, Err(NetError::Stopped));
    assert_eq!(asker.net.connect(peer, &[]).await, Err(NetError::Stopped));
    assert_eq!(asker.net.listen_addresses().await, Err(NetError::Stopped));
    let mut events = asker.events;
    within(async { while events.next().await.is_some() {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_task_stops_the_network() {
    let actor = server(&[TCP], &[]).await;
    drop(actor.task);
    until(|| async { (actor.net.peers().await.err() == Some(NetError::Stopped)).then_some(()) }).await;
    assert!(!actor.cancel.is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_told_once_who_comes_and_goes() {
    let mut listener = server(&[TCP], &[]).await;
    let visitor = client(&[]).await;
    visitor.net.connect(listener.peer(), &listener.addresses).await.unwrap();
    // A second connection would be no news.
    visitor.net.connect(listener.peer(), &listener.addresses).await.unwrap();
    assert!(matches!(within(listener.events.next()).await, Some(NetEvent::Connected { peer }) if peer == visitor.peer()));
    let known = listener.net.peers().await.unwrap();
    assert_eq!(known.len(), 1);
    assert!(known[0].direct && known[0].agent.starts_with("orien/") && known[0].peer == visitor.peer(), "{known:?}");
    visitor.net.disconnect(listener.peer()).await.unwrap();
    assert!(matches!(within(listener.events.next()).await, Some(NetEvent::Disconnected { peer }) if peer == visitor.peer()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_peer_is_disconnected_and_cannot_come_back() {
    let mut listener = server(&[TCP], &[]).await;
    let visitor = client(&[]).await;
    visitor.net.connect(listener.peer(), &listener.addresses).await.unwrap();
    listener.wait_for(|event| matches!(event, NetEvent::Connected { .. }).then_some(())).await;
    listener.net.ban(visitor.peer()).await.unwrap();
    listener.wait_for(|event| matches!(event, NetEvent::Disconnected { .. }).then_some(())).await;
    until(|| async { visitor.net.peers().await.unwrap().is_empty().then_some(()) }).await;
    assert!(within(visitor.net.connect(listener.peer(), &listener.addresses)).await.is_err());
    assert!(listener.net.peers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_work_is_refused_with_the_address_named() {
    let taken = server(&[TCP, QUIC], &[]).await;
    for address in &taken.addresses {
        let occupied = address.split("/p2p/").next().unwrap();
        let outcome = start(config(Role::Server, &[occupied], &[]), CancellationToken::new());
        assert!(matches!(&outcome, Err(StartNetError::Listen { address, .. }) if *address == occupied), "{:?}", outcome.err());
    }

    for bad in ["", "127.0.0.1:80", "/ip4/127.0.0.1", "/ip4/127.0.0.1/tcp/1/ws"] {
        let outcome = start(config(Role::Server, &[bad], &[]), CancellationToken::new());
        assert!(matches!(outcome, Err(StartNetError::Address { field: "listen", .. })), "{bad}");
    }
    let nameless = "/ip4/127.0.0.1/tcp/1".to_owned();
    let outcome = start(config(Role::Server, &[TCP], &[nameless]), CancellationToken::new());
    assert!(matches!(outcome, Err(StartNetError::Address { field: "bootstrap", .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_command_queue_is_busy_not_a_wait() {
    let mut narrow = config(Role::Server, &[TCP], &[]);
    narrow.limits.command_queue = 1;
    let narrow = raise(narrow).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let net = narrow.net.clone();
        asking.spawn(async move { net.peers().await.map(|_| ()) });
    }
    while let Some(outcome) = within(asking.join_next()).await {
        assert!(matches!(outcome.unwrap(), Ok(()) | Err(NetError::Busy)));
    }
    narrow.net.peers().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stated_addresses_come_first() {
    let mut stated = config(Role::Server, &[TCP], &[]);
    stated.external = vec!["/dns4/node.example/tcp/4001".to_owned()];
    let actor = raise(stated).await;
    assert_eq!(actor.addresses.len(), 2);
    assert_eq!(actor.addresses[0], format!("/dns4/node.example/tcp/4001/p2p/{}", actor.peer()));
}

#[test]
fn without_a_runtime_there_is_no_network() {
    assert!(matches!(start(config(Role::Client, &[], &[]), CancellationToken::new()), Err(StartNetError::NoRuntime)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_an_open_stream_or_to_a_bootstrap_peer_outlives_silence() {
    let impatient = |role, bootstrap: &[String]| {
        let mut config = config(role, &[TCP], bootstrap);
        config.limits.idle = Duration::from_millis(300);
        config
    };
    let mut bootstrap = raise(impatient(Role::Server, &[])).await;
    let mut provider = raise(impatient(Role::Provider, &[])).await;
    let visitor = raise(impatient(Role::Client, &bootstrap.addresses)).await;
    let user = raise(impatient(Role::Client, &[])).await;
    bootstrap.wait_for(|event| matches!(event, NetEvent::Connected { .. }).then_some(())).await;

    user.net.connect(provider.peer(), &provider.addresses).await.unwrap();
    let silent = user.net.open(provider.peer(), StreamKind::Log).await.unwrap();
    let _theirs = provider.wait_for(|event| if let NetEvent::Stream { stream, .. } = event { Some(stream) } else { None }).await;
    // No wait-until here: that nothing happens for several idle times is the fact.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(user.net.peers().await.unwrap().len(), 1);
    assert_eq!(visitor.net.peers().await.unwrap().len(), 1);
    drop(silent);
}

//! Reaching peers: through others, through the directory, again after a loss, and not at all.

use orien_net::{NetError, NetEvent, Role};

use crate::cast::{QUIC, TCP, client, config, is_healthy, raise, server, until, within};

const KEY: [u8; 32] = [42; 32];

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_that_know_only_a_third_reach_each_other() {
    let bootstrap = server(&[TCP], &[]).await.echo();
    let provider = raise(config(Role::Provider, &[TCP, QUIC], &bootstrap.addresses)).await.echo();
    until(|| async { bootstrap.net.peers().await.unwrap().iter().any(|info| info.peer == provider.peer()).then_some(()) }).await;
    let gateway = client(&bootstrap.addresses).await;
    within(gateway.net.connect(provider.peer(), &[])).await.unwrap();
    is_healthy(&gateway.net, &provider).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_comes_back_at_another_port_is_found_through_a_third() {
    let bootstrap = server(&[TCP], &[]).await.echo();
    let again = || {
        let mut config = config(Role::Server, &[TCP], &bootstrap.addresses);
        config.seed = [98; 32];
        config
    };
    let gateway = client(&bootstrap.addresses).await;
    let known = async |peer| bootstrap.net.peers().await.unwrap().iter().any(|info| info.peer == peer).then_some(());
    let first = raise(again()).await.echo();
    let peer = first.peer();
    until(|| known(peer)).await;
    within(gateway.net.connect(peer, &[])).await.unwrap();
    first.stop().await;
    until(|| async { known(peer).await.is_none().then_some(()) }).await;
    let second = raise(again()).await.echo();
    until(|| known(peer)).await;
    until(|| async { gateway.net.connect(peer, &[]).await.ok() }).await;
    is_healthy(&gateway.net, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_known_peer_connects_by_itself() {
    let bootstrap = server(&[TCP], &[]).await.echo();
    // Asked in the same moment as it starts: the way to the bootstrap peer is waited for.
    let gateway = client(&bootstrap.addresses).await;
    assert_eq!(gateway.net.call(bootstrap.peer(), b"hi".to_vec()).await.unwrap(), b"hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_comer_finds_an_advertiser_through_a_bootstrap_peer() {
    let bootstrap = server(&[TCP], &[]).await.echo();
    let provider = raise(config(Role::Provider, &[TCP], &bootstrap.addresses)).await;
    provider.net.advertise(KEY).await.unwrap();
    let late = client(&bootstrap.addresses).await;
    let found = until(|| async {
        let found = late.net.find_advertisers(KEY, 1).await.unwrap();
        (!found.is_empty()).then_some(found)
    });
    assert_eq!(found.await, vec![provider.peer()]);
    assert_eq!(late.net.find_advertisers([1; 32], 1).await.unwrap(), vec![]);
    within(late.net.connect(provider.peer(), &[])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_advertisement_made_before_anybody_is_there_is_placed_when_somebody_comes() {
    let provider = raise(config(Role::Provider, &[TCP], &[])).await;
    provider.net.advertise(KEY).await.unwrap();
    let bootstrap = server(&[TCP], &[]).await;
    provider.net.connect(bootstrap.peer(), &bootstrap.addresses).await.unwrap();
    until(|| async { bootstrap.net.find_advertisers(KEY, 1).await.unwrap().contains(&provider.peer()).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_peer_that_comes_back_is_found_again() {
    let mut seed = config(Role::Server, &[TCP], &[]);
    seed.seed = [99; 32];
    let bootstrap = raise(seed).await;
    let (peer, addresses) = (bootstrap.peer(), bootstrap.addresses.clone());
    let mut gateway = client(&addresses).await;
    gateway.wait_for(|event| matches!(event, NetEvent::Connected { .. }).then_some(())).await;
    bootstrap.cancel.cancel();
    within(bootstrap.task).await.unwrap();
    gateway.wait_for(|event| matches!(event, NetEvent::Disconnected { .. }).then_some(())).await;

    let listen = addresses[0].split("/p2p/").next().unwrap().to_owned();
    let mut again = config(Role::Server, &[&listen], &[]);
    again.seed = [99; 32];
    let again = raise(again).await;
    assert_eq!(again.peer(), peer);
    gateway.wait_for(|event| matches!(event, NetEvent::Connected { peer: back } if back == peer).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_name_is_looked_up() {
    let echo = server(&[TCP], &[]).await.echo();
    let named: Vec<String> = echo.addresses.iter().map(|text| text.replace("/ip4/127.0.0.1/", "/dns4/localhost/")).collect();
    let asker = client(&[]).await;
    asker.net.connect(echo.peer(), &named).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_nowhere_says_why() {
    let lonely = client(&[]).await;
    let nobody = client(&[]).await;
    let peer = nobody.peer();
    nobody.cancel.cancel();
    within(nobody.task).await.unwrap();
    for addresses in [&[][..], &nobody.addresses, &["garbage".to_owned()], &["/dns4/nowhere.invalid/tcp/1".to_owned()]] {
        let outcome = lonely.net.connect(peer, addresses).await;
        assert!(matches!(outcome, Err(NetError::Unreachable { .. })), "{addresses:?}: {outcome:?}");
    }
    assert_eq!(lonely.net.connect(lonely.peer(), &lonely.addresses).await, Err(NetError::OwnPeer));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_peer_at_the_address_is_not_taken_for_the_wanted_one() {
    let other = server(&[TCP], &[]).await;
    let absent = client(&[]).await;
    let asker = client(&[]).await;
    let address = other.addresses[0].split("/p2p/").next().unwrap().to_owned();
    let outcome = asker.net.connect(absent.peer(), &[address]).await;
    assert!(matches!(&outcome, Err(NetError::Unreachable { .. })), "{outcome:?}");
}

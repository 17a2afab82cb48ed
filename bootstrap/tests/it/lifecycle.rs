//! Start, what a role gets, and stop.

use orien_bootstrap::{AskError, FrameStream, OpenDataDirError, Peer, RoleName, Settlement, StartPeerError};
use orien_net::{NetError, StreamKind};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{Answer, CONTROL_FRAME_LIMIT, Funds, Question};
use orien_protocol::signing::Address;
use tokio_util::sync::CancellationToken;

use crate::support::{World, addresses};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_peer_on_the_same_data_directory_is_refused_until_the_first_is_gone() {
    let world = World::new();
    let first = world.start("data", RoleName::Gateway, &[]).await;
    let second = Peer::start(world.config("data", RoleName::Gateway, &[]), CancellationToken::new()).await;
    assert!(matches!(second, Err(StartPeerError::DataDir(OpenDataDirError::InUse { .. }))));
    let id = first.id();
    first.stop().await;
    drop(first);
    assert_eq!(world.start("data", RoleName::Gateway, &[]).await.id(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_a_network_is_told_which_file_is_missing() {
    let world = World::new();
    let mut config = world.config("data", RoleName::Gateway, &[]);
    config.network = None;
    let error = Peer::start(config.clone(), CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("data/network.toml; copy"), "{error}");
    world.network.save(&world.data_dir("data").join("network.toml")).unwrap();
    let peer = Peer::start(config, CancellationToken::new()).await.unwrap();
    assert_eq!(peer.network(), &world.network);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_everything_and_may_be_repeated() {
    let world = World::new();
    let failed = CancellationToken::new();
    let peer = Peer::start(world.config("data", RoleName::Node, &[]), failed.clone()).await.unwrap();
    let other = world.start("other", RoleName::Bootstrap, &addresses(&peer).await).await;
    peer.stop().await;
    peer.stop().await;
    assert_eq!(peer.ask(other.id(), &Question::Offer).await, Err(AskError::Net(NetError::Stopped)));
    assert!(peer.failure().is_none() && !failed.is_cancelled(), "an orderly stop is no failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_goes_on_when_its_role_is_told_to_stop() {
    let world = World::new();
    let told = CancellationToken::new();
    let peer = Peer::start(world.config("data", RoleName::Node, &[]), told.clone()).await.unwrap();
    told.cancel();
    let other = world.start("other", RoleName::Bootstrap, &addresses(&peer).await).await;
    assert_eq!(other.ask(peer.id(), &Question::Offer).await, Ok(Answer::Offer(None)));
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_to_settlement_reach_its_role_and_refusals_are_typed() {
    let mut world = World::new();
    let settlement = world.start("settlement", RoleName::Settlement, &[]).await;
    let at = Settlement { peer: settlement.id(), signer: settlement.money_key().address(), addresses: addresses(&settlement).await };
    // The first start only made the keys; a settlement peer knows its network from them.
    settlement.stop().await;
    drop(settlement);
    world.network = orien_bootstrap::Network::new_ledger("test", at, Vec::new()).unwrap();
    let mut config = world.config("settlement", RoleName::Settlement, &[]);
    config.listen = world.network.settlement().addresses.iter().map(|address| address.split("/p2p/").next().unwrap().to_owned()).collect();
    let settlement = Peer::start(config, CancellationToken::new()).await.unwrap();
    let gateway = world.start("gateway", RoleName::Gateway, &[]).await;
    let mut questions = settlement.take_questions().unwrap();
    assert!(settlement.take_questions().is_none() && gateway.take_questions().is_none());
    let answering = tokio::spawn(async move {
        let first = questions.recv().await.unwrap();
        first.reply.answer(&Answer::Balance(Funds::default())).await.unwrap();
        let second = questions.recv().await.unwrap();
        second.reply.refuse(Fault::new(FaultCode::INSUFFICIENT_FUNDS, "no\x1b[31m money")).await.unwrap();
        drop(questions.recv().await.unwrap().reply);
        first.peer
    });
    let question = Question::Balance(Address::default());
    assert_eq!(gateway.ask_settlement(&question).await, Ok(Answer::Balance(Funds::default())));
    let refused = gateway.ask_settlement(&question).await.unwrap_err();
    let fault = refused.fault().unwrap();
    assert_eq!((fault.code, fault.text.as_str()), (FaultCode::INSUFFICIENT_FUNDS, "no [31m money"));
    assert!(!refused.is_passing());
    assert!(gateway.ask_settlement(&question).await.unwrap_err().is_passing());
    assert_eq!(answering.await.unwrap(), gateway.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_reach_the_role_and_carry_frames() {
    let world = World::new();
    let node = world.start("node", RoleName::Node, &[]).await;
    let gateway = world.start("gateway", RoleName::Gateway, &addresses(&node).await).await;
    let mut streams = node.take_streams().unwrap();
    let echo = tokio::spawn(async move {
        let inbound = streams.recv().await.unwrap();
        let mut stream = FrameStream::new(inbound.stream, CONTROL_FRAME_LIMIT);
        while let Some(text) = stream.recv::<String>().await.unwrap() {
            stream.send(&text).await.unwrap();
        }
        stream.finish().await.unwrap();
        (inbound.peer, inbound.kind)
    });
    gateway.net().connect(node.id(), &addresses(&node).await).await.unwrap();
    let stream = gateway.net().open(node.id(), StreamKind::Control).await.unwrap();
    let (mut reader, mut writer) = FrameStream::new(stream, CONTROL_FRAME_LIMIT).split();
    let sent = "x".repeat(100_000);
    writer.send(&sent).await.unwrap();
    assert_eq!(reader.recv::<String>().await.unwrap(), Some(sent));
    writer.finish().await.unwrap();
    assert_eq!(reader.recv::<String>().await.unwrap(), None);
    assert_eq!(echo.await.unwrap(), (gateway.id(), StreamKind::Control));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_names_both_keys_and_is_valid_in_its_network() {
    let world = World::new();
    let peer = world.start("node", RoleName::Node, &[]).await;
    let principal = Address::from_bytes([9; 20]);
    let binding = peer.binding(principal).verify(world.network.id(), &world.network.domain()).unwrap();
    assert_eq!((binding.peer, binding.money_key, binding.principal), (peer.id(), peer.money_key().address(), principal));
}

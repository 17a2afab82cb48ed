//! Offers reach everybody: by gossip those who are there, by a pull those who come later.

use std::time::Duration;

use orien_bootstrap::{PublishError, RoleName};
use orien_protocol::frame::{Answer, Question};
use orien_protocol::offer::capability_key;

use crate::support::{World, addresses, knows, shop, until};

/// Promised to a late joiner, from its start to knowing all offers.
const LATE_JOIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_knows_all_offers_within_two_seconds() {
    let world = World::new();
    let bootstrap = world.start("bootstrap", RoleName::Bootstrap, &[]).await;
    let known = addresses(&bootstrap).await;
    let mut providers = Vec::new();
    for name in ["one", "two", "three"] {
        let provider = world.start(name, RoleName::Node, &known).await;
        let offer = provider.publish(shop("run_build")).await.unwrap();
        knows(&bootstrap, provider.id(), offer.version).await;
        providers.push(provider);
    }
    let began = tokio::time::Instant::now();
    let late = world.start("late", RoleName::Gateway, &known).await;
    until("the late joiner knows all offers", || (late.catalogue().by_capability("run_build").len() == 3).then_some(())).await;
    assert!(began.elapsed() < LATE_JOIN, "{:?}", began.elapsed());
    let listed = late.catalogue().all();
    assert!(listed.iter().all(|listed| !listed.equivocated && !listed.offer.addresses.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_reaches_those_who_are_there_by_gossip() {
    let world = World::new();
    let bootstrap = world.start("bootstrap", RoleName::Bootstrap, &[]).await;
    let known = addresses(&bootstrap).await;
    let gateway = world.start("gateway", RoleName::Gateway, &known).await;
    let provider = world.start("provider", RoleName::Node, &known).await;
    let mut news = gateway.catalogue().watch();
    let first = provider.publish(shop("run_build")).await.unwrap();
    knows(&gateway, provider.id(), first.version).await;
    assert_eq!(news.recv().await.unwrap().provider, provider.id());
    provider.republish();
    knows(&gateway, provider.id(), first.version + 1).await;
    assert!(news.recv().await.unwrap().version > first.version);
    let held = provider.own_offer().unwrap();
    assert_eq!(gateway.catalogue().provider(&provider.id()).unwrap().offer.hash(), held.hash());
    let Answer::Digests { digests, more: false } = gateway.ask(provider.id(), &Question::Digests { after: None }).await.unwrap() else {
        panic!("expected digests")
    };
    assert_eq!(digests[0].unverified().offer, held.hash());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_is_advertised_and_found() {
    let world = World::new();
    let bootstrap = world.start("bootstrap", RoleName::Bootstrap, &[]).await;
    let known = addresses(&bootstrap).await;
    let provider = world.start("provider", RoleName::Node, &known).await;
    let offer = provider.publish(shop("rare_tool")).await.unwrap();
    knows(&bootstrap, provider.id(), offer.version).await;
    let gateway = world.start("gateway", RoleName::Gateway, &known).await;
    knows(&gateway, provider.id(), offer.version).await;
    let key = *capability_key(world.network.id(), "rare_tool").as_bytes();
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let found = gateway.net().find_advertisers(key, 1).await.unwrap_or_default();
        if found == [provider.id()] {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the advertisement was not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_provider_gets_above_its_old_version_and_a_restarted_bootstrap_keeps_the_catalogue() {
    let world = World::new();
    let bootstrap = world.start("bootstrap", RoleName::Bootstrap, &[]).await;
    let provider = world.start("provider", RoleName::Node, &addresses(&bootstrap).await).await;
    let first = provider.publish(shop("run_build")).await.unwrap();
    knows(&bootstrap, provider.id(), first.version).await;
    provider.stop().await;
    let id = provider.id();
    drop(provider);
    bootstrap.stop().await;
    drop(bootstrap);

    let bootstrap = world.start("bootstrap", RoleName::Bootstrap, &[]).await;
    let listed = bootstrap.catalogue().provider(&id).unwrap();
    assert_eq!(listed.offer.hash(), first.hash());
    let provider = world.start("provider", RoleName::Node, &addresses(&bootstrap).await).await;
    assert_eq!(provider.id(), id);
    let second = provider.publish(shop("run_build")).await.unwrap();
    assert!(second.version > first.version);
    knows(&bootstrap, id, second.version).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_restored_from_nothing_learns_its_old_version_and_gets_above_it() {
    let world = World::new();
    let bootstrap = world.start("bootstrap", RoleName::Bootstrap, &[]).await;
    let known = addresses(&bootstrap).await;
    let provider = world.start("provider", RoleName::Node, &known).await;
    let first = provider.publish(shop("run_build")).await.unwrap();
    knows(&bootstrap, provider.id(), first.version).await;
    provider.stop().await;
    let store = provider.data_dir().store("catalogue");
    drop(provider);
    std::fs::remove_file(store).unwrap();
    let provider = world.start("provider", RoleName::Node, &known).await;
    knows(&provider, provider.id(), first.version).await;
    assert!(provider.publish(shop("run_build")).await.unwrap().version > first.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_one_offer_and_a_bad_one_is_refused_before_anybody_sees_it() {
    let world = World::new();
    let provider = world.start("provider", RoleName::Node, &[]).await;
    let error = provider.publish(shop("")).await.unwrap_err();
    assert!(matches!(error, PublishError::Offer(_)), "{error}");
    assert!(provider.own_offer().is_none() && provider.catalogue().is_empty());
    provider.publish(shop("run_build")).await.unwrap();
    assert!(matches!(provider.publish(shop("run_build")).await, Err(PublishError::Already)));
}

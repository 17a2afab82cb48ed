//! A peer that lies: in gossip, in offers, in catalogues, in questions. The others stay healthy and believe nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use orien_bootstrap::{OfferStamp, Peer, RoleName, clock};
use orien_net::{Net, NetConfig, NetEvent, NetLimits, NetTask, Role};
use orien_protocol::codec;
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{ANSWER_LIMIT, Answer, QUESTION_LIMIT, Question};
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{PeerKey, Signed, Verified};
use orien_protocol::time::{Millis, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{World, addresses, knows, sample_offer, shop, until};

/// A liar with a real network and answers of its own.
struct Liar {
    net: Net,
    key: PeerKey,
    world_id: orien_protocol::network::NetworkId,
    _tasks: JoinSet<()>,
    _net: NetTask,
}

impl Liar {
    fn start(world: &World, bootstrap: &[String], answer: impl Fn(&Question) -> Option<Answer> + Send + 'static) -> Self {
        let config = NetConfig {
            network: world.network.id().clone(),
            seed: [66; 32],
            role: Role::Provider,
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            external: Vec::new(),
            bootstrap: bootstrap.to_vec(),
            limits: NetLimits::default(),
        };
        let (net, mut events, task) = orien_net::start(config, CancellationToken::new()).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(event) = events.next().await {
                if let NetEvent::Call { request, reply, .. } = event {
                    let question: Question = codec::decode(&request, QUESTION_LIMIT).unwrap();
                    if let Some(answer) = answer(&question) {
                        let _ = reply.send(codec::encode(&answer).unwrap()).await;
                    }
                }
            }
        });
        Self { net, key: liar_key(), world_id: world.network.id().clone(), _tasks: tasks, _net: task }
    }

    async fn gossip(&self, bytes: Vec<u8>) {
        self.net.publish(bytes).await.unwrap();
    }

    async fn announce(&self, offer: &Verified<Offer>, change: impl FnOnce(&mut orien_protocol::digest::Digest)) {
        let mut digest = offer.digest(offer.hash());
        change(&mut digest);
        self.gossip(codec::encode(Verified::sign(digest, &self.world_id, &self.key).signed()).unwrap()).await;
    }
}

fn liar_key() -> PeerKey {
    PeerKey::from_seed(&[66; 32])
}

fn offer(world: &World, key: &PeerKey, version: u64, change: impl FnOnce(&mut Offer)) -> Verified<Offer> {
    let now = clock::wall();
    let stamp =
        OfferStamp { provider: key.id(), version, issued_at: now, expires_at: now.plus(Millis::from_secs(600)), addresses: Vec::new() };
    let mut body = sample_offer("run_build", stamp);
    change(&mut body);
    Verified::sign(body, world.network.id(), key)
}

fn stranger(seed: u8) -> PeerKey {
    PeerKey::from_seed(&[seed; 32])
}

/// A provider comes and everybody learns of it: the peer works.
async fn is_healthy(world: &World, peer: &Peer) {
    let provider = world.start("healthy", RoleName::Node, &addresses(peer).await).await;
    let offer = provider.publish(shop("run_build")).await.unwrap();
    knows(peer, provider.id(), offer.version).await;
    assert!(peer.failure().is_none());
}

fn nothing_of(peer: &Peer, providers: &[PeerId]) -> bool {
    providers.iter().all(|provider| peer.catalogue().provider(provider).is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_expired_future_oversized_and_garbled_announcements_are_refused() {
    let world = World::new();
    let peer = world.start("peer", RoleName::Bootstrap, &[]).await;
    let (first, last) = (offer(&world, &liar_key(), 1, |_| {}), offer(&world, &liar_key(), 9, |_| {}));
    // Sells the first offer truthfully until told to go on, so that the gossip is known to flow in order.
    let go_on = Arc::new(AtomicBool::new(false));
    let (sold, then) = (Arc::clone(&go_on), [first.signed().clone(), last.signed().clone()]);
    let liar = Liar::start(&world, &addresses(&peer).await, move |question| match question {
        Question::Offer => Some(Answer::Offer(Some(Box::new(then[usize::from(sold.load(Ordering::Relaxed))].clone())))),
        _ => None,
    });
    liar.announce(&first, |_| {}).await;
    knows(&peer, liar.key.id(), 1).await;
    go_on.store(true, Ordering::Relaxed);

    let now = clock::wall();
    let others = stranger(50);
    liar.announce(&offer(&world, &others, 5, |_| {}), |_| {}).await;
    liar.announce(&first, |digest| {
        digest.version = 5;
        digest.issued_at = now.plus(Millis::from_secs(500));
    })
    .await;
    liar.announce(&first, |digest| {
        digest.version = 5;
        digest.issued_at = Timestamp(now.0 - 3_000_000);
        digest.expires_at = Timestamp(now.0 - 1);
    })
    .await;
    liar.announce(&first, |digest| {
        digest.version = 5;
        digest.expires_at = now.plus(Millis::from_secs(4000));
    })
    .await;
    liar.gossip(vec![7; 3000]).await;
    liar.gossip(b"garbage".to_vec()).await;
    assert_eq!(peer.catalogue().provider(&liar.key.id()).unwrap().offer.version, 1);
    // Gossip keeps its order, so everything above has been judged when this one is known.
    liar.announce(&last, |_| {}).await;
    knows(&peer, liar.key.id(), 9).await;
    assert!(nothing_of(&peer, &[others.id()]));
    is_healthy(&world, &peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_is_not_the_announced_one_is_not_taken() {
    let world = World::new();
    let peer = world.start("peer", RoleName::Bootstrap, &[]).await;
    let plain = |version| offer(&world, &liar_key(), version, |_| {});
    let mut altered = plain(1).signed().unverified().clone();
    altered.label = "cheaper".to_owned();
    let oversized = offer(&world, &liar_key(), 5, |offer| offer.description = "d".repeat(9000));
    let cases = [
        (plain(1), Signed::join(altered, *plain(1).signed().signature())),
        (plain(2), offer(&world, &liar_key(), 2, |offer| offer.label = "other".to_owned()).into_signed()),
        (plain(3), plain(1).into_signed()),
        (plain(4), offer(&world, &stranger(50), 9, |_| {}).into_signed()),
        (oversized.clone(), oversized.into_signed()),
    ];
    let answers: Vec<Answer> = cases.iter().map(|(_, answer)| Answer::Offer(Some(Box::new(answer.clone())))).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let liar = Liar::start(&world, &addresses(&peer).await, move |question| {
        matches!(question, Question::Offer).then(|| answers[count.fetch_add(1, Ordering::Relaxed)].clone())
    });
    for (number, (announced, _)) in (1..).zip(&cases) {
        liar.announce(announced, |_| {}).await;
        until("the offer was asked for", || (asked.load(Ordering::Relaxed) >= number).then_some(())).await;
        // There is nothing to wait for: the answer is on its way and must have no effect.
        for _ in 0..10 {
            assert!(nothing_of(&peer, &[liar.key.id(), stranger(50).id()]), "answer {number} was taken");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    is_healthy(&world, &peer).await;
    assert!(nothing_of(&peer, &[liar.key.id(), stranger(50).id()]));
    assert_eq!(asked.load(Ordering::Relaxed), cases.len(), "a liar is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_of_lies_adds_nothing_and_one_without_end_is_left() {
    let world = World::new();
    let peer = world.start("peer", RoleName::Bootstrap, &[]).await;
    let mut pages = [
        offer(&world, &stranger(51), 1, |offer| offer.issued_at = clock::wall().plus(Millis::from_secs(400))),
        offer(&world, &stranger(52), 1, |offer| offer.description = "d".repeat(600)),
        offer(&world, &stranger(53), 1, |offer| {
            offer.issued_at = Timestamp(offer.issued_at.0 - 9000);
            offer.expires_at = Timestamp(offer.issued_at.0 + 1);
        }),
    ];
    pages.sort_by_key(|offer| offer.provider);
    let honest = offer(&world, &stranger(54), 1, |_| {});
    let (forged, truthful) = (Signed::join(honest.signed().unverified().clone(), *pages[0].signed().signature()), honest.signed().clone());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // First nonsense with a promise of more; then for ever the same page, with a forgery that verifies for nobody.
    let liar = Liar::start(&world, &addresses(&peer).await, move |question| {
        let Question::Catalogue { after } = question else { return None };
        count.fetch_add(1, Ordering::Relaxed);
        let offers = match after {
            None => pages.iter().map(|offer| offer.signed().clone()).collect(),
            Some(after) if truthful.unverified().provider > *after => vec![forged.clone()],
            Some(_) => vec![pages[0].signed().clone()],
        };
        Some(Answer::Offers { offers, more: true })
    });
    until("the liar's second page was read", || (asked.load(Ordering::Relaxed) >= 2).then_some(())).await;
    is_healthy(&world, &peer).await;
    assert!(nothing_of(&peer, &[51, 52, 53, 54].map(|seed| stranger(seed).id())));
    assert_eq!(asked.load(Ordering::Relaxed), 2, "a peer that repeats itself is not read on");
    drop(liar);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_offers_travel_in_pages_and_survive_a_restart() {
    const OFFERS: u16 = 1000;
    const PAGE: usize = 300;
    let world = World::new();
    let peer = world.start("peer", RoleName::Bootstrap, &[]).await;
    let mut offers: Vec<Verified<Offer>> = (0..OFFERS)
        .map(|number| {
            let mut seed = [9; 32];
            seed[..2].copy_from_slice(&number.to_be_bytes());
            offer(&world, &PeerKey::from_seed(&seed), 1, |offer| offer.description = "d".repeat(500))
        })
        .collect();
    offers.sort_by_key(|offer| offer.provider);
    let _archive = Liar::start(&world, &addresses(&peer).await, move |question| {
        let Question::Catalogue { after } = question else { return None };
        let mut rest = offers.iter().filter(|offer| after.is_none_or(|after| offer.provider > after)).map(|offer| offer.signed().clone());
        let page = rest.by_ref().take(PAGE).collect();
        Some(Answer::Offers { offers: page, more: rest.next().is_some() })
    });
    let all = |peer: &Peer| (peer.catalogue().len() == usize::from(OFFERS)).then_some(());
    until("all offers came from the archive", || all(&peer)).await;
    let late = world.start("late", RoleName::Gateway, &addresses(&peer).await).await;
    until("all offers were passed on", || all(&late)).await;
    late.stop().await;
    drop(late);
    let late = world.start("late", RoleName::Gateway, &[]).await;
    assert_eq!(all(&late), Some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbled_and_misplaced_questions_are_refused_by_name() {
    let world = World::new();
    let peer = world.start("peer", RoleName::Bootstrap, &[]).await;
    let liar = Liar::start(&world, &addresses(&peer).await, |_| None);
    let misplaced = codec::encode(&Question::Balance(orien_protocol::signing::Address::default())).unwrap();
    let cases = [(b"garbage".to_vec(), FaultCode::MALFORMED), (Vec::new(), FaultCode::MALFORMED), (misplaced, FaultCode::NOT_FOUND)];
    for (request, expected) in cases {
        let response = liar.net.call(peer.id(), request).await.unwrap();
        let answer: Answer = codec::decode(&response, ANSWER_LIMIT).unwrap();
        assert!(matches!(&answer, Answer::Refused(fault) if fault.code == expected), "{answer:?}");
    }
    is_healthy(&world, &peer).await;
}

//! Gossip: heard by all, judged before it travels, bounded.

use orien_net::{GOSSIP_LIMIT, NetError, NetEvent, Role};

use crate::cast::{Actor, TCP, client, config, raise, server, until, within};

async fn heard(actor: &mut Actor) -> (orien_protocol::peer::PeerId, Vec<u8>, orien_net::Verdict) {
    actor
        .wait_for(|event| match event {
            NetEvent::Gossip { from, bytes, verdict } => Some((from, bytes, verdict)),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_published_before_anybody_listens_is_heard_through_a_peer_in_between() {
    let mut middle = server(&[TCP], &[]).await;
    let mut far = client(&middle.addresses).await;
    let speaker = client(&[]).await;
    speaker.net.publish(b"old".to_vec()).await.unwrap();
    speaker.net.publish(b"offer".to_vec()).await.unwrap();
    speaker.net.connect(middle.peer(), &middle.addresses).await.unwrap();

    let (from, bytes, verdict) = heard(&mut middle).await;
    assert_eq!((from, bytes.as_slice()), (speaker.peer(), b"offer".as_slice()));
    verdict.accept();
    let (from, bytes, verdict) = heard(&mut far).await;
    assert_eq!((from, bytes.as_slice()), (speaker.peer(), b"offer".as_slice()));
    verdict.ignore();
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_and_ignored_gossip_goes_no_further() {
    let mut middle = server(&[TCP], &[]).await;
    let mut far = client(&middle.addresses).await;
    let speaker = client(&middle.addresses).await;
    for bytes in [&b"bad"[..], b"dull", b"unjudged", b"good"] {
        speaker.net.publish(bytes.to_vec()).await.unwrap();
        let (_, heard, verdict) = heard(&mut middle).await;
        assert_eq!(heard, bytes);
        match bytes {
            b"bad" => verdict.reject(),
            b"dull" => verdict.ignore(),
            b"good" => verdict.accept(),
            _ => drop(verdict),
        }
    }
    // The mesh keeps order between two peers, so anything passed on before the good message would be heard before it.
    let (_, bytes, _) = heard(&mut far).await;
    assert_eq!(bytes, b"good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_keeps_sending_invalid_messages_is_no_longer_listened_to() {
    let mut judge = server(&[TCP], &[]).await;
    let liar = client(&judge.addresses).await;
    let honest = client(&judge.addresses).await;
    until(|| async { (judge.net.peers().await.unwrap().len() == 2).then_some(()) }).await;
    let mut lies_heard = 0_usize;
    for count in 0..30_u8 {
        liar.net.publish(vec![b'x', count]).await.unwrap();
        honest.net.publish(vec![b'y', count]).await.unwrap();
        // The honest message of this round comes after most lies of it; a few lies may still be on their way.
        loop {
            let (from, _, verdict) = heard(&mut judge).await;
            if from == honest.peer() {
                break verdict.accept();
            }
            lies_heard += 1;
            verdict.reject();
        }
    }
    assert!((1..20).contains(&lies_heard), "{lies_heard} of 30 lies were heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_the_owner_has_no_room_for_is_counted_and_ignored() {
    let mut slow = config(Role::Server, &[TCP], &[]);
    slow.limits.gossip_queue = 1;
    let slow = raise(slow).await;
    let speaker = client(&slow.addresses).await;
    for count in 0..5_u8 {
        until(|| async { speaker.net.publish(vec![count]).await.ok() }).await;
        // Only what is really sent counts: the first may wait for the peer to come, and only the newest waits.
        until(|| async { (!speaker.net.peers().await.unwrap().is_empty()).then_some(()) }).await;
    }
    until(|| async { (slow.net.counters().gossip_ignored >= 3).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_gossip_is_refused_and_the_largest_is_heard() {
    let mut listener = server(&[TCP], &[]).await;
    let speaker = client(&listener.addresses).await;
    let refused = speaker.net.publish(vec![0; GOSSIP_LIMIT + 1]).await;
    assert_eq!(refused, Err(NetError::TooLarge { limit: GOSSIP_LIMIT }));
    speaker.net.publish(vec![9; GOSSIP_LIMIT]).await.unwrap();
    let (_, bytes, _) = within(heard(&mut listener)).await;
    assert_eq!(bytes.len(), GOSSIP_LIMIT);
}

//! Small questions and their answers, and what happens when there is no room for them.

use orien_net::{NetError, NetEvent, REQUEST_LIMIT, RESPONSE_LIMIT};

use crate::cast::{QUIC, TCP, client, config, raise, server, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_over_tcp_and_over_quic() {
    for transport in [TCP, QUIC] {
        let echo = server(&[transport], &[]).await.echo();
        let asker = client(&[]).await;
        asker.net.connect(echo.peer(), &echo.addresses).await.unwrap();
        for size in [0, 1, 70_000, REQUEST_LIMIT] {
            let request = vec![5; size];
            assert_eq!(asker.net.call(echo.peer(), request.clone()).await.unwrap(), request);
        }
        echo.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_requests_and_answers_are_refused_before_they_are_sent() {
    let mut answerer = server(&[TCP], &[]).await;
    let asker = client(&[]).await;
    let peer = answerer.peer();
    asker.net.connect(peer, &answerer.addresses).await.unwrap();

    let refused = asker.net.call(peer, vec![0; REQUEST_LIMIT + 1]).await;
    assert_eq!(refused, Err(NetError::TooLarge { limit: REQUEST_LIMIT }));

    let call = asker.net.call(peer, vec![1]);
    let answer = answerer.wait_for(|event| match event {
        NetEvent::Call { reply, .. } => Some(reply),
        _ => None,
    });
    let (outcome, refused) = tokio::join!(call, async { answer.await.send(vec![0; RESPONSE_LIMIT + 1]).await });
    assert_eq!(refused, Err(NetError::TooLarge { limit: RESPONSE_LIMIT }));
    assert_eq!(outcome, Err(NetError::RemoteBusy { peer }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_dropped_without_an_answer_tells_the_caller() {
    let mut answerer = server(&[TCP], &[]).await;
    let asker = client(&[]).await;
    let peer = answerer.peer();
    asker.net.connect(peer, &answerer.addresses).await.unwrap();
    let (outcome, ()) = tokio::join!(asker.net.call(peer, vec![1]), async {
        answerer.wait_for(|event| matches!(event, NetEvent::Call { .. }).then_some(())).await;
    });
    assert_eq!(outcome, Err(NetError::RemoteBusy { peer }));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_owners_queue_are_dropped_and_counted_not_kept() {
    let mut slow = config(orien_net::Role::Server, &[TCP], &[]);
    slow.limits.call_queue = 2;
    let slow = raise(slow).await;
    let asker = client(&[]).await;
    let peer = slow.peer();
    asker.net.connect(peer, &slow.addresses).await.unwrap();

    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let net = asker.net.clone();
        calls.spawn(async move { net.call(peer, vec![1]).await });
    }
    for _ in 0..4 {
        let outcome = within(calls.join_next()).await.unwrap().unwrap();
        assert_eq!(outcome, Err(NetError::RemoteBusy { peer }));
    }
    until(|| async { (slow.net.counters().calls_dropped == 4).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_cannot_have_more_calls_waiting_than_its_share() {
    let mut fair = config(orien_net::Role::Server, &[TCP], &[]);
    fair.limits.calls_per_peer = 2;
    let mut answerer = raise(fair).await;
    let asker = client(&[]).await;
    let peer = answerer.peer();
    asker.net.connect(peer, &answerer.addresses).await.unwrap();

    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let net = asker.net.clone();
        calls.spawn(async move { net.call(peer, vec![1]).await });
    }
    assert_eq!(within(calls.join_next()).await.unwrap().unwrap(), Err(NetError::RemoteBusy { peer }));
    for _ in 0..2 {
        let reply = answerer.wait_for(|event| if let NetEvent::Call { reply, .. } = event { Some(reply) } else { None }).await;
        reply.send(vec![2]).await.unwrap();
        assert_eq!(within(calls.join_next()).await.unwrap().unwrap(), Ok(vec![2]));
    }
    assert_eq!(answerer.net.counters().calls_dropped, 1);
}

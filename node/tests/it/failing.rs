//! A shop whose disk fails at work: it says and does nothing that is not on the disk, ends, and is picked up from what is left.

use std::sync::Arc;

use orien_bootstrap::FaultyDisk;
use orien_node::shop::Shop;
use orien_node::store::Store;
use orien_protocol::offer::Offer;
use orien_protocol::session::agent::{AgentEvent, AgentInput};
use orien_protocol::signing::Verified;

use crate::agent::Agent;
use crate::kit::{HUNG, Kit, MINIMUM, agent_keys, eventually};

/// What an agent does with a shop, from beginning to end.
async fn job<'a>(kit: &'a Kit, shop: &Shop, offer: &Arc<Verified<Offer>>, agent: &mut Option<Agent<'a>>) {
    *agent = Some(Agent::propose(kit, shop, offer, agent_keys(1), 5_000_000).await);
    let agent = agent.as_mut().unwrap();
    agent.opened().await;
    agent.run_to_end("echo", &[("text", "one")]).await;
    agent.run_to_end("sleep", &[("seconds", "1.2")]).await;
    let session = agent.session.id();
    agent.end().await;
    let total = agent.session.charged().micros();
    eventually("redeemed", || kit.till.redeemed(session) == Some((total, true))).await;
}

/// Everything that left the shop before it ended must be on the disk.
async fn nothing_was_said_too_early(kit: &Kit, agent: &mut Agent<'_>, disk: FaultyDisk, what: &str) {
    // What was on its way when the shop ended.
    let deadline = tokio::time::Instant::now() + HUNG;
    while agent.is_connected() && tokio::time::Instant::now() < deadline {
        agent.listen().await;
    }
    let store = Store::over(disk).unwrap();
    let session = agent.session.id();
    let stored = store.receipts_after(session, 0, 0).await.unwrap().receipts;
    let numbers: Vec<u64> = stored.iter().map(|receipt| receipt.unverified().number).collect();
    let heard: Vec<u64> = agent.receipts().map(|receipt| receipt.number).collect();
    assert!(heard.iter().all(|number| numbers.contains(number)), "{what}: heard {heard:?}, stored {numbers:?}");
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{what}: {numbers:?}");
    let handed = store.handed(session).await.unwrap().state.redeemed.micros();
    assert!(handed <= kit.till.redeemed(session).map_or(0, |(total, _)| total), "{what}");
    let started = agent.events.iter().filter(|event| matches!(event, AgentEvent::Started(..))).count();
    let jobs = store.read(session, |records| {
        records.filter(|record| matches!(record, orien_protocol::session::provider::ProviderRecord::Job(_))).count()
    });
    assert!(started <= jobs.await.unwrap(), "{what}: a tool ran for a job that is not kept");
}

async fn crash(operation: u64, seed: u64) {
    let (kit, what, disk) = (Kit::new(), format!("crash {operation} {seed}"), FaultyDisk::default());
    disk.cut_at(operation, seed);
    let mut agent = None;
    if let Ok((shop, offer)) = kit.open_over(&disk).await {
        tokio::select! {
            () = shop.broken() => assert!(shop.failure().is_some()),
            () = job(&kit, &shop, &offer, &mut agent) => {}
            () = tokio::time::sleep(HUNG) => panic!("{what}: the shop does not end"),
        }
        // A disk that goes off only while the shop closes was written to until then.
        let (was_off, operations) = (disk.is_off(), disk.operations());
        shop.close().await;
        assert!(!was_off || disk.operations() == operations, "{what}: written after a failed write");
    }
    let left = disk.left(seed);
    if let Some(agent) = &mut agent {
        nothing_was_said_too_early(&kit, agent, FaultyDisk::holding(left.clone()), &what).await;
        agent.hang_up().await;
    }
    let (shop, offer) = kit.open_over(&FaultyDisk::holding(left)).await.unwrap();
    assert_eq!(kit.workspace_names(), Vec::<String>::new(), "{what}");
    if let Some(mut agent) = agent.filter(|agent| agent.not_opened().is_none()) {
        for _ in 0..20 {
            if agent.closed().is_some() {
                break;
            }
            agent.reconnect(&shop).await;
            agent.input(AgentInput::End).await;
            // One that was just being put away hangs up, and is asked again.
            agent.until("closed or hung up", |agent| agent.closed().is_some() || !agent.is_connected()).await;
        }
        assert!(agent.closed().is_some(), "{what}: the session never closes");
        assert!(!agent.session.is_disputed() && !agent.has(|event| matches!(event, AgentEvent::Disputed(_))), "{what}: {:?}", agent.events);
        let (session, total) = (agent.session.id(), agent.session.charged().micros());
        assert_eq!(agent.session.promised().micros(), total);
        // A first voucher that did not reach the disk is the provider's loss.
        let is_paid = || kit.till.redeemed(session) == Some((total, true)) || (total == MINIMUM && kit.till.redeemed(session).is_none());
        eventually("redeemed once", is_paid).await;
    }
    let next = Agent::open(&kit, &shop, &offer, agent_keys(2), 5_000_000).await;
    assert!(next.not_opened().is_none(), "{what}");
    drop(next);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_whose_disk_fails_says_nothing_that_is_not_kept_and_is_picked_up_without_a_dispute() {
    let (kit, disk, mut agent) = (Kit::new(), FaultyDisk::default(), None);
    let (shop, offer) = kit.open_over(&disk).await.unwrap();
    let opened = disk.operations();
    job(&kit, &shop, &offer, &mut agent).await;
    let end = disk.operations();
    drop(agent);
    shop.close().await;
    let is_all = std::env::var("ORIEN_CRASHES").is_ok_and(|which| which == "all");
    let step = if is_all { 1 } else { ((end - opened) / 9).max(1) };
    for operation in (opened..end).filter(|operation| (operation - opened).is_multiple_of(step)) {
        crash(operation, operation * 31).await;
    }
}

//! A provider that is killed, and started again on the same directory.

use orien_node::shop::Shop;
use orien_protocol::frame::CloseReason;
use orien_protocol::receipt::EndReason;
use orien_protocol::session::agent::AgentEvent;
use orien_protocol::session::provider::ProviderRecord;
use orien_protocol::voucher::{Close, MoneyVerified};

use crate::agent::Agent;
use crate::kit::{Kit, MINIMUM, PER_MS, agent_keys, eventually, usdc};

/// Whether a process with this text in its command line runs.
fn runs(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line.split(|byte| *byte == 0).any(|word| word == text.as_bytes()))
}

/// Runs what `until` wants of a shop on a runtime of its own, then lets everything of it vanish at once, as a kill does.
pub(crate) fn killed<T>(until: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let value = runtime.block_on(until);
    runtime.shutdown_timeout(std::time::Duration::from_secs(30));
    value
}

/// Leaves a shop to its runtime, so that both vanish together and nothing is done in order.
pub(crate) fn forgotten(shop: Shop) {
    tokio::spawn(async move {
        let _shop = shop;
        std::future::pending::<()>().await;
    });
}

#[test]
fn after_a_kill_in_mid_run_the_last_committed_receipt_becomes_final_and_no_process_or_workspace_is_left() {
    let kit = Kit::new();
    let seconds = "61.0625";
    let mut agent = killed(async {
        let (shop, offer) = kit.open().await;
        let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
        agent.run("sleep", &[("seconds", seconds)]).await;
        agent.until("an interim receipt", |agent| agent.receipts().count() >= 3).await;
        assert!(runs(seconds));
        agent.hang_up().await;
        forgotten(shop);
        agent
    });
    let before = agent.session.charged().micros();
    killed(async {
        eventually("the tool died with the node", || !runs(seconds)).await;
        let (shop, _) = kit.open().await;
        assert_eq!(kit.workspace_names(), Vec::<String>::new());
        agent.reconnect(&shop).await;
        agent.until("closed", |agent| agent.closed().is_some()).await;
        assert_eq!(agent.closed(), Some(CloseReason::ProviderStopped));
        let last = agent.receipts().filter_map(|receipt| receipt.work.as_ref()).last().unwrap().clone();
        assert_eq!(last.outcome.unwrap().end, EndReason::ProviderStopped);
        assert_eq!(agent.session.charged().micros(), before.max(last.usage.effective_ms * PER_MS));
        let session = agent.session.id();
        eventually("redeemed once", || kit.till.redeemed(session) == Some((agent.session.charged().micros(), true))).await;
        shop.close().await;
    });
}

#[test]
fn a_kill_before_the_agent_signed_for_a_run_costs_it_no_more_than_the_credit() {
    let kit = Kit::new();
    let mut agent = killed(async {
        let (shop, offer) = kit.open().await;
        let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
        let run = agent.run("sleep", &[("seconds", "60")]).await;
        agent.started(run).await;
        agent.hang_up().await;
        forgotten(shop);
        agent
    });
    killed(async {
        let (shop, _) = kit.open().await;
        agent.reconnect(&shop).await;
        agent.until("closed", |agent| agent.closed().is_some()).await;
        let credit = agent.session.proposed_terms().interval_charge().micros();
        assert!(agent.session.charged().micros() <= MINIMUM + credit, "never more than promise and credit");
        assert_eq!(agent.session.charged(), agent.session.promised());
        shop.close().await;
    });
}

#[test]
fn a_session_that_is_over_is_read_from_disk_for_an_agent_that_did_not_hear_of_its_end() {
    let kit = Kit::new();
    kit.till.silent.store(true, std::sync::atomic::Ordering::SeqCst);
    let (mut agent, charged) = killed(async {
        let (shop, offer) = kit.open().await;
        let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
        agent.run_to_end("echo", &[("text", "x")]).await;
        let charged = agent.session.charged();
        agent.input(orien_protocol::session::agent::AgentInput::End).await;
        let session = agent.session.id();
        let over = || !shop.sessions().iter().any(|(id, view)| *id == session && view.running > 0) && *shop.free().borrow() == 4;
        eventually("over", over).await;
        agent.hang_up().await;
        forgotten(shop);
        (agent, charged)
    });
    killed(async {
        let (shop, _) = kit.open().await;
        assert!(shop.sessions().is_empty(), "what is over takes no memory");
        agent.reconnect(&shop).await;
        agent.until("closed", |agent| agent.closed().is_some()).await;
        assert_eq!((agent.closed(), agent.session.charged()), (Some(CloseReason::Ended), charged));
        kit.till.silent.store(false, std::sync::atomic::Ordering::SeqCst);
        let session = agent.session.id();
        eventually("what was never handed in is handed in now", || kit.till.redeemed(session) == Some((charged.micros(), true))).await;
        shop.close().await;
    });
}

#[test]
fn an_agent_whose_first_voucher_was_lost_in_a_kill_sends_it_again_and_the_session_ends_with_the_minimum_paid() {
    let kit = Kit::new();
    let mut agent = killed(async {
        let (shop, offer) = kit.open().await;
        let mut agent = Agent::propose(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
        agent.signs = false;
        agent.opened().await;
        agent.hang_up().await;
        forgotten(shop);
        agent
    });
    killed(async {
        let (shop, _) = kit.open().await;
        agent.signs = true;
        agent.reconnect(&shop).await;
        agent.until("closed", |agent| agent.closed().is_some()).await;
        assert_eq!(agent.closed(), Some(CloseReason::ProviderStopped));
        assert!(!agent.has(|event| matches!(event, AgentEvent::Disputed(_))), "{:?}", agent.events);
        eventually("the minimum is redeemed", || kit.till.redeemed(agent.session.id()) == Some((MINIMUM, true))).await;
        shop.close().await;
    });
}

#[test]
fn a_second_shop_on_the_same_store_is_refused() {
    let kit = Kit::new();
    killed(async {
        let (shop, _) = kit.open().await;
        let second = orien_node::store::Store::open(&kit.directory.path().join("sessions.redb"));
        assert!(second.unwrap_err().to_string().contains("sessions.redb"));
        shop.close().await;
    });
}

#[test]
fn agents_that_all_come_back_at_once_are_never_refused_what_they_only_have_to_wait_for() {
    const AGENTS: u8 = 24;
    let kit = Kit::new();
    let agents = killed(async {
        let (shop, offer) = kit.open().await;
        let mut agents = Vec::new();
        for seed in 20..20 + AGENTS {
            let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(seed), 5_000_000).await;
            agent.input(orien_protocol::session::agent::AgentInput::End).await;
            eventually("over", || *shop.free().borrow() == 4).await;
            agent.hang_up().await;
            agents.push(agent);
        }
        forgotten(shop);
        agents
    });
    killed(async {
        let (shop, _) = kit.open().await;
        let mut left = agents;
        // As agents do: whoever hears nothing comes again.
        while !left.is_empty() {
            for agent in &mut left {
                agent.reconnect(&shop).await;
            }
            for agent in &mut left {
                agent.until("an answer", |agent| agent.closed().is_some() || !agent.is_connected()).await;
            }
            assert!(left.iter().all(|agent| agent.closed().is_none_or(|reason| reason == CloseReason::Ended)), "taken for a dispute");
            left.retain(|agent| agent.closed().is_none());
        }
        shop.close().await;
    });
}

#[test]
fn an_agent_hears_of_the_end_of_a_session_that_a_kill_kept_from_being_forgotten() {
    let kit = Kit::new();
    let mut agent = killed(async {
        let (shop, offer) = kit.open().await;
        let mut agent = Agent::propose(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
        agent.signs = false;
        agent.opened().await;
        agent.hang_up().await;
        forgotten(shop);
        agent
    });
    killed(async {
        // Killed again, between the end of the session and its removal.
        let terms = agent.session.terms().unwrap();
        let close = Close { channel: terms.channel(), total: usdc(0) };
        let close = Some(*MoneyVerified::sign(close, &kit.domain, &kit.provider.claim).signed());
        let reason = CloseReason::ProviderStopped;
        let store = orien_node::store::Store::open(&kit.directory.path().join("sessions.redb")).unwrap();
        let ended = vec![ProviderRecord::Draining(reason), ProviderRecord::Closed { reason, close }];
        store.append(agent.session.id(), ended).await.unwrap();
        drop(store);
        let (shop, _) = kit.open().await;
        agent.reconnect(&shop).await;
        agent.until("an answer", |agent| agent.closed().is_some() || !agent.is_connected()).await;
        assert_eq!(agent.closed(), Some(reason));
        shop.close().await;
    });
}

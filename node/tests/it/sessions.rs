//! Sessions from their opening to their close.

use orien_node::shop::SessionView;
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::CloseReason;
use orien_protocol::receipt::{EndReason, Party};
use orien_protocol::session::agent::AgentInput;
use orien_protocol::session::provider::ProviderPhase;

use crate::agent::{Agent, hash};
use crate::kit::{Kit, MINIMUM, PER_MS, agent_keys, eventually};

fn view(shop: &orien_node::shop::Shop, agent: &Agent<'_>) -> Option<SessionView> {
    shop.sessions().into_iter().find(|(id, _)| *id == agent.session.id()).map(|(_, view)| view)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_charged_by_the_millisecond_and_redeemed_after_the_close_with_nothing_left_behind() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    assert_eq!(agent.session.charged().micros(), MINIMUM, "receipt 1 charges the minimum");
    let work = agent.run_to_end("sleep", &[("seconds", "1.3")]).await;
    assert!(work.usage.effective_ms >= 1_300, "{work:?}");
    assert_eq!(work.outcome.unwrap().exit_code, Some(0));
    let echoed = agent.run_to_end("echo", &[("text", "hello there")]).await;
    assert_eq!((echoed.usage.bytes_in, echoed.usage.bytes_out, echoed.usage.output_hash), (11, 12, hash(b"hello there\n")));
    assert_eq!(agent.log(&shop, echoed.execution).await.unwrap(), b"hello there\n");
    let expected = (work.usage.effective_ms + echoed.usage.effective_ms) * PER_MS;
    assert_eq!(agent.session.charged().micros(), expected.max(MINIMUM));
    assert!(agent.receipts().count() >= 4, "opening, at least one interim, two final");
    let session = agent.session.id();
    assert_eq!(agent.end().await, CloseReason::Ended);
    eventually("the claim with the close is redeemed", || kit.till.redeemed(session) == Some((expected, true))).await;
    eventually("the place is free again", || *shop.free().borrow() == 4).await;
    assert_eq!(kit.workspace_names(), Vec::<String>::new());
    let takings = shop.takings().await.unwrap();
    assert_eq!((takings.balance.charged.micros(), takings.balance.promised.micros()), (expected, expected));
    let past = shop.past().await.unwrap();
    assert_eq!((past.sessions_total, past.sessions_completed), (1, 1));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_reaches_the_budget_is_stopped_and_never_charged_above_it() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 150_000).await;
    let work = agent.run_to_end("sleep", &[("seconds", "30")]).await;
    assert_eq!(work.outcome.unwrap().end, EndReason::BudgetReached);
    assert_eq!(work.outcome.unwrap().party, Party::Agent);
    assert!(agent.session.charged().micros() <= 150_000 && agent.session.charged().micros() > 140_000, "{:?}", agent.session.charged());
    let refused = agent.run("sleep", &[("seconds", "1")]).await;
    let fault = agent.refusal(refused).unwrap();
    assert_eq!(fault.code, FaultCode::BUDGET_EXHAUSTED);
    assert!(fault.missing.is_some());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_stopped_at_its_maximum_cost_and_a_cancelled_one_at_once() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    let capped = agent.run_at_most("sleep", &[("seconds", "30")], Some(40_000)).await;
    let work = agent.ended(capped).await;
    assert_eq!(work.outcome.unwrap().end, EndReason::CostReached);
    assert!(work.charge.micros() <= 40_000);
    let cancelled = agent.run("sleep", &[("seconds", "30")]).await;
    agent.started(cancelled).await;
    agent.input(AgentInput::Cancel(cancelled)).await;
    let outcome = agent.outcome(cancelled).await;
    assert_eq!((outcome.end, outcome.exit_code), (EndReason::Cancelled, Some(137)));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_beyond_the_places_of_a_session_wait_their_turn() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    let mut runs = Vec::new();
    for _ in 0..6 {
        runs.push(agent.run("sleep", &[("seconds", "0.2")]).await);
    }
    agent.started(runs[1]).await;
    assert!(view(&shop, &agent).unwrap().running <= 2);
    for run in runs {
        assert!(agent.outcome(run).await.succeeded());
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_and_tools_that_do_not_fit_are_refused_and_cost_nothing() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    assert!(offer.tool("absent").is_none(), "a tool without a program is not offered");
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    for (tool, arguments) in [
        ("echo", vec![]),
        ("echo", vec![("text", "x"), ("more", "y")]),
        ("count", vec![("last", "many")]),
        ("compile", vec![("source", "../secret"), ("output", "out")]),
        ("compile", vec![("source", "/etc/passwd"), ("output", "out")]),
    ] {
        let run = agent.run(tool, &arguments).await;
        agent.until("refused", |agent| agent.refusal(run).is_some()).await;
        assert_eq!(agent.refusal(run).unwrap().code, FaultCode::BAD_ARGUMENTS, "{tool} {arguments:?}");
    }
    assert_eq!(agent.session.charged().micros(), MINIMUM);
    assert_eq!(agent.end().await, CloseReason::Ended);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_ends_its_runs_pays_attention_to_the_last_voucher_and_hands_in() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    let run = agent.run("sleep", &[("seconds", "30")]).await;
    agent.started(run).await;
    let listening = agent.until("closed", |agent| agent.closed().is_some());
    tokio::join!(shop.close(), listening);
    assert_eq!(agent.closed(), Some(CloseReason::ProviderStopped));
    assert_eq!(agent.final_work(run).unwrap().outcome.unwrap().end, EndReason::ProviderStopped);
    assert_eq!(kit.till.redeemed(agent.session.id()), Some((agent.session.charged().micros(), true)));
    assert_eq!(kit.workspace_names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_over_a_new_stream_and_no_receipt_is_lost() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    let run = agent.run("sleep", &[("seconds", "0.5")]).await;
    agent.started(run).await;
    agent.hang_up().await;
    eventually("it ended without us", || view(&shop, &agent).is_some_and(|view| view.running == 0)).await;
    agent.reconnect(&shop).await;
    assert!(agent.outcome(run).await.succeeded());
    assert_eq!(view(&shop, &agent).unwrap().phase, ProviderPhase::Open);
    assert_eq!(agent.end().await, CloseReason::Ended);
    // Over, and still there for an agent that did not hear it.
    agent.hang_up().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_that_does_not_answer_is_asked_again_until_it_does() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    kit.till.silent.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    agent.run_to_end("echo", &[("text", "x")]).await;
    agent.end().await;
    assert_eq!(kit.till.redeemed(agent.session.id()), None);
    kit.till.silent.store(false, std::sync::atomic::Ordering::SeqCst);
    eventually("redeemed", || kit.till.redeemed(agent.session.id()).is_some()).await;
    shop.close().await;
}

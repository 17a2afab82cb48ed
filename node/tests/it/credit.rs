//! What a provider risks with an agent that stops signing, and what it costs to be asked for nothing.

use orien_node::shop::Purpose;
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{AgentFrame, ProviderFrame};
use orien_protocol::receipt::EndReason;
use orien_protocol::session::agent::AgentSession;
use orien_protocol::session::provider::ProviderPhase;

use crate::agent::{Agent, Wire, stream_to};
use crate::kit::{Kit, MINIMUM, agent_keys, eventually, usdc};

/// Proposes a session by hand and gives the provider's first word.
async fn propose(kit: &Kit, shop: &orien_node::shop::Shop, terms: orien_protocol::terms::Terms, seed: u8) -> (Wire, ProviderFrame) {
    let keys = agent_keys(seed);
    let (_, effects) = AgentSession::propose(terms, usdc(1_000_000), &kit.network, keys.clone()).unwrap();
    let frame = effects.into_iter().find_map(|effect| match effect {
        orien_protocol::session::agent::AgentEffect::Send(frame) => Some(frame),
        _ => None,
    });
    let mut stream = stream_to(shop, &keys, Purpose::Control);
    stream.send(&frame.unwrap()).await.unwrap();
    let answer = stream.recv::<ProviderFrame>().await.unwrap().unwrap();
    (stream, answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stops_signing_is_stopped_within_the_credit_and_its_debt_blocks_its_account_until_it_signs() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    agent.signs = false;
    let run = agent.run("sleep", &[("seconds", "60")]).await;
    let work = agent.ended(run).await;
    assert_eq!(work.outcome.unwrap().end, EndReason::CreditExhausted);
    // One metering interval of the dearest tool, beyond the minimum that is promised.
    let interval = agent.session.proposed_terms().interval_charge().micros();
    assert!(work.charge.micros() <= MINIMUM + interval, "{work:?}");
    let session = agent.session.id();
    let phase = || shop.sessions().into_iter().find(|(id, _)| *id == session).map(|(_, view)| view.phase);
    eventually("released with a debt", || matches!(phase(), Some(ProviderPhase::Owing(_)))).await;
    eventually("the workspace removed", || kit.workspace_names().is_empty()).await;

    let second = kit.terms(&offer, offer.hash(), &agent_keys(1));
    let (_, answer) = propose(&kit, &shop, second, 1).await;
    let ProviderFrame::Refused(fault) = answer else { panic!("{answer:?}") };
    assert_eq!(fault.code, FaultCode::DEBT);
    assert!(fault.missing.is_some_and(|missing| missing.micros() > 0 && missing.micros() <= interval), "{fault:?}");
    let other = Agent::open(&kit, &shop, &offer, agent_keys(2), 1_000_000).await;
    assert!(other.not_opened().is_none(), "another account is served");

    agent.signs = true;
    agent.hang_up().await;
    agent.reconnect(&shop).await;
    eventually_paid(&kit, &mut agent).await;
    let third = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    assert!(third.not_opened().is_none());
    shop.close().await;
}

async fn eventually_paid(kit: &Kit, agent: &mut Agent<'_>) {
    let (session, charged) = (agent.session.id(), agent.session.charged().micros());
    agent.until("redeemed", |_| kit.till.redeemed(session) == Some((charged, true))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_proposals_that_lead_nowhere_leave_no_session_no_workspace_and_no_record() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let (mut accepted, mut refused) = (0, 0);
    let mut held = Vec::new();
    for n in 0..1000_u32 {
        let seed = u8::try_from(10 + n % 20).unwrap();
        let terms = kit.terms(&offer, offer.hash(), &agent_keys(seed));
        let (stream, answer) = propose(&kit, &shop, terms, seed).await;
        match answer {
            ProviderFrame::Accepted(_) => accepted += 1,
            ProviderFrame::Refused(fault) => {
                assert_eq!(fault.code, FaultCode::BUSY);
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
        // Some hang on, most hang up.
        if n % 50 == 0 {
            held.push(stream);
        }
    }
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
    drop(held);
    eventually("every place is free", || *shop.free().borrow() == 4).await;
    eventually("no session is left", || shop.sessions().is_empty()).await;
    assert_eq!(kit.workspace_names(), Vec::<String>::new());
    assert_eq!(shop.takings().await.unwrap().sessions, 0);
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    assert!(agent.run_to_end("echo", &[("text", "still here")]).await.outcome.unwrap().succeeded());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_not_paid_for_ends_by_itself_with_a_close_of_nothing_and_does_not_count() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let terms = kit.terms(&offer, offer.hash(), &agent_keys(1));
    let mut agent = Agent::propose_terms(&kit, &shop, terms, agent_keys(1), 1_000_000).await;
    agent.signs = false;
    agent.until("receipt 1 came", |agent| agent.receipts().count() == 1).await;
    agent.until("given up", |agent| agent.closed().is_some()).await;
    eventually("the place is free", || *shop.free().borrow() == 4).await;
    assert_eq!(agent.handed_back.len(), 1, "the agent can have its reservation back");
    assert_eq!(shop.takings().await.unwrap().sessions, 0);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_is_held_by_few_proposals_of_one_agent_and_never_by_more_sessions_than_configured() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut streams = Vec::new();
    for seed in [1, 1, 1, 2, 2, 3] {
        let terms = kit.terms(&offer, offer.hash(), &agent_keys(seed));
        streams.push(propose(&kit, &shop, terms, seed).await);
    }
    let accepted: Vec<bool> = streams.iter().map(|(_, answer)| matches!(answer, ProviderFrame::Accepted(_))).collect();
    assert_eq!(accepted, [true, true, false, true, true, false]);
    assert_eq!(*shop.free().borrow(), 0);
    let again = streams[0].0.send(&AgentFrame::End).await;
    assert!(again.is_ok());
    eventually("an ended proposal gives its place back", || *shop.free().borrow() == 1).await;
    shop.close().await;
}

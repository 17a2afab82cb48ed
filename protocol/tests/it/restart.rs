//! What is left after a crash of either side.

use orien_protocol::frame::{CloseReason, ProviderFrame};
use orien_protocol::job::{Job, Stdin};
use orien_protocol::receipt::EndReason;
use orien_protocol::session::agent::{AgentInput, AgentPhase, AgentRecord, AgentSession};
use orien_protocol::session::provider::{ProviderEffect, ProviderEnv, ProviderPhase, ProviderRecord, ProviderSession, RestoreError};
use orien_protocol::signing::{Statement, Verified};

use crate::kit::usdc;
use crate::pair::Pair;

impl Pair {
    pub(crate) fn crash_provider(&mut self) {
        self.tools.clear();
        self.to_agent.clear();
        self.to_provider.clear();
        let vet = |_: &orien_protocol::job::Job| Ok(());
        let env = ProviderEnv {
            now: self.now,
            credit: usdc(0),
            unredeemed_ceiling: usdc(u64::MAX),
            redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
            vet: &vet,
        };
        let records = self.provider_log.clone();
        if !self.is_stored() {
            self.provider = None;
            return;
        }
        let (session, effects) = ProviderSession::restore(records, &self.kit.network, self.kit.provider.clone(), &env).unwrap();
        self.provider = Some(session);
        self.carry_out_provider(effects);
        // Nobody is connected yet.
        self.to_agent.clear();
    }

    pub(crate) fn crash_agent(&mut self) {
        self.to_agent.clear();
        self.to_provider.clear();
        let records = self.agent_log.clone();
        let (session, effects) = AgentSession::restore(records, &self.kit.network, self.kit.agent.clone(), self.now).unwrap();
        self.agent = session;
        self.carry_out_agent(effects);
    }

    pub(crate) fn reconnect(&mut self) {
        self.agent_input(AgentInput::Connected);
        self.talk();
    }
}

#[test]
fn after_a_provider_crash_the_last_committed_interim_receipt_becomes_final() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(13_000);
    let committed = pair.promised();
    pair.crash_provider();
    pair.reconnect();
    let (end, ms) = pair.outcome(run).unwrap();
    assert_eq!((end, ms), (EndReason::ProviderStopped, committed));
    assert_eq!((pair.charged(), pair.promised()), (committed, committed));
    assert_eq!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Closed(CloseReason::ProviderStopped));
    assert_eq!(pair.agent.phase(), AgentPhase::Closed(CloseReason::ProviderStopped));
    assert!(pair.claims.last().unwrap().close.is_some());
}

#[test]
fn a_job_without_a_committed_receipt_costs_nothing_after_a_provider_crash() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "call", None);
    pair.pass(2_000);
    pair.crash_provider();
    pair.reconnect();
    assert_eq!(pair.outcome(run), Some((EndReason::SetupFailed, 0)));
    assert_eq!(pair.charged(), 5_000);
}

#[test]
fn after_an_agent_crash_the_session_goes_on_and_a_lost_voucher_is_the_same_bytes() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(8_000);
    let before = pair.agent_log.len();
    pair.crash_agent();
    pair.reconnect();
    assert_eq!(pair.agent_log.len(), before, "nothing new to say");
    pair.pass(8_000);
    pair.finish(run, EndReason::Exited, Some(0));
    assert_eq!(pair.outcome(run), Some((EndReason::Exited, 16_000)));
    pair.agent_input(AgentInput::End);
    pair.talk();
    assert_eq!((pair.charged(), pair.promised(), pair.agent.promised()), (16_000, 16_000, usdc(16_000)));
}

#[test]
fn a_receipt_whose_voucher_was_lost_is_answered_after_the_next_connection() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(6_000);
    pair.agent_is_silent = true;
    pair.finish(run, EndReason::Exited, Some(0));
    assert!(pair.charged() > pair.promised());
    pair.agent_is_silent = false;
    pair.crash_agent();
    pair.reconnect();
    assert_eq!(pair.charged(), pair.promised());
}

#[test]
fn a_provider_whose_history_is_older_than_the_agents_is_not_signed_for() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(20_000);
    pair.finish(run, EndReason::Exited, Some(0));
    let promised = pair.agent.promised();
    // A backup from before the run.
    pair.provider_log.truncate(3);
    pair.crash_provider();
    pair.reconnect();
    assert_eq!(pair.agent.phase(), AgentPhase::Closed(CloseReason::Dispute));
    assert_eq!(pair.agent.promised(), promised);
}

#[test]
fn records_out_of_order_or_tampered_with_do_not_make_a_session() {
    let pair = Pair::open(1_000_000);
    let vet = |_: &orien_protocol::job::Job| Ok(());
    let env = ProviderEnv {
        now: pair.now,
        credit: usdc(0),
        unredeemed_ceiling: usdc(0),
        redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
        vet: &vet,
    };
    let restore = |records| ProviderSession::restore(records, &pair.kit.network, pair.kit.provider.clone(), &env).err();
    assert!(matches!(restore(pair.provider_log[1..].to_vec()), Some(RestoreError::Order)));
    assert!(matches!(restore(Vec::new()), Some(RestoreError::Order)));
    let twice = [pair.provider_log.clone(), pair.provider_log[1..2].to_vec()].concat();
    assert!(matches!(restore(twice), Some(RestoreError::Ledger(_))));
}

#[test]
fn a_closed_session_that_is_cheated_afterwards_is_still_closed_after_a_restart() {
    let mut pair = Pair::open(100_000);
    pair.agent_input(AgentInput::End);
    pair.talk();
    assert_eq!(pair.agent.phase(), AgentPhase::Closed(CloseReason::Ended));
    let ProviderRecord::Receipt(first) = &pair.provider_log[1] else { panic!("not a receipt: {:?}", pair.provider_log[1]) };
    let mut second = first.unverified().clone();
    (second.number, second.previous) = (2, second.hash(&pair.kit.network));
    let second = Verified::sign(second, &pair.kit.network, &pair.kit.provider.peer).into_signed();
    pair.agent_input(AgentInput::Frame(ProviderFrame::Receipt(Box::new(second))));
    assert!(pair.agent.is_disputed(), "only receipt 1 may be without work");
    pair.crash_agent();
    assert_eq!(pair.agent.phase(), AgentPhase::Closed(CloseReason::Ended));
    let closes = pair.agent_log.iter().filter(|record| matches!(record, AgentRecord::Closed { .. })).count();
    assert_eq!(closes, 1);
}

#[test]
fn jobs_on_disk_that_the_terms_do_not_name_make_no_receipt_and_end_the_session_in_dispute() {
    let pair = Pair::open(1_000_000);
    let mut records = pair.provider_log.clone();
    for n in 0..2 {
        let order = pair.order(n, "play");
        let job = Job {
            session: pair.agent.id(),
            execution: order.execution,
            tool: order.tool,
            arguments: order.arguments,
            max_cost: usdc(1_000),
            max_duration: order.max_duration,
            issued_at: pair.now.wall,
            stdin: Stdin::Empty,
        };
        records.push(ProviderRecord::Job(Verified::sign(job, &pair.kit.network, &pair.kit.agent.peer).into_signed()));
    }
    let vet = |_: &Job| Ok(());
    let env = ProviderEnv {
        now: pair.now,
        credit: usdc(5_000),
        unredeemed_ceiling: usdc(u64::MAX),
        redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
        vet: &vet,
    };
    let (session, effects) = ProviderSession::restore(records, &pair.kit.network, pair.kit.provider.clone(), &env).unwrap();
    assert_eq!(session.phase(), ProviderPhase::Closed(CloseReason::Dispute));
    let mut written = Vec::new();
    for effect in &effects {
        if let ProviderEffect::Persist(record) = effect {
            written.push(&**record);
        }
    }
    let [ProviderRecord::Draining(CloseReason::Dispute), ProviderRecord::Closed { close: Some(close), .. }] = written[..] else {
        panic!("{written:?}")
    };
    assert_eq!(close.unverified().total, usdc(5_000));
}

//! Which jobs either side takes, what the provider says of one that it has already, and how long one waits for its turn.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{AgentFrame, ProviderFrame};
use orien_protocol::id::ExecutionId;
use orien_protocol::job::{Job, Stdin};
use orien_protocol::receipt::EndReason;
use orien_protocol::session::agent::{AgentEvent, AgentInput, AgentRecord};
use orien_protocol::session::provider::ProviderInput;
use orien_protocol::signing::{Signed, Verified};
use orien_protocol::time::Millis;

use crate::kit::usdc;
use crate::pair::Pair;

impl Pair {
    /// A job of the agent's, whatever its machine thinks of it.
    fn job(&self, n: u128, tool: &str, max_cost: u64) -> Signed<Job> {
        let job = Job {
            session: self.agent.id(),
            execution: ExecutionId::from_parts(self.now.wall.0, n),
            tool: tool.to_owned(),
            arguments: Vec::new(),
            max_cost: usdc(max_cost),
            max_duration: Millis(3_600_000),
            issued_at: self.now.wall,
            stdin: Stdin::Empty,
        };
        Verified::sign(job, &self.kit.network, &self.kit.agent.peer).into_signed()
    }

    /// What the provider says to a job, to its agent.
    fn offer(&mut self, job: &Signed<Job>) -> Vec<ProviderFrame> {
        self.to_agent.clear();
        self.provider_input(ProviderInput::Frame(AgentFrame::Run(Box::new(job.clone()))));
        self.to_agent.drain(..).collect()
    }

    /// How the provider refuses a job.
    fn refused(&mut self, job: &Signed<Job>) -> Option<Fault> {
        match self.offer(job).pop() {
            Some(ProviderFrame::JobRefused { fault, .. }) => Some(fault),
            _ => None,
        }
    }
}

fn why(refusal: Option<Fault>) -> Option<(FaultCode, Option<u64>)> {
    refusal.map(|fault| (fault.code, fault.missing.map(|missing| missing.micros())))
}

#[test]
fn an_agent_asks_for_no_job_that_its_session_cannot_take_or_pay_for() {
    let check = |pair: &Pair, tool: &str, max_cost: Option<u64>| why(pair.agent.check_run(tool, max_cost.map(usdc)).err());
    let mut unopened = Pair::propose(100_000);
    assert_eq!(check(&unopened, "work", None), Some((FaultCode::WRONG_STATE, None)));
    unopened.talk();
    assert_eq!(check(&unopened, "work", None), None);
    assert_eq!(check(&unopened, "play", None), Some((FaultCode::UNKNOWN_TOOL, None)));
    assert_eq!(check(&unopened, "call", Some(499)), Some((FaultCode::BUDGET_EXHAUSTED, Some(1))));
    assert_eq!(check(&unopened, "call", Some(500)), None);
    let mut poor = Pair::open(5_400);
    assert_eq!(check(&poor, "work", None), None);
    assert_eq!(check(&poor, "call", None), Some((FaultCode::BUDGET_EXHAUSTED, Some(100))));
    // Nobody else hears of it, and nothing is left of it.
    let (before, order) = (poor.agent_log.len(), poor.order(1, "call"));
    poor.agent_input(AgentInput::Run(order));
    assert_eq!((poor.agent_log.len(), poor.to_provider.len()), (before, 0));
    assert_eq!(poor.agent.unfinished().count(), 0);
}

#[test]
fn a_provider_takes_jobs_between_the_first_voucher_and_the_end() {
    let mut pair = Pair::propose(100_000);
    pair.deliver_one();
    let job = pair.job(1, "work", 100_000);
    let accepted = pair.to_agent.clone();
    assert_eq!(why(pair.refused(&job)), Some((FaultCode::WRONG_STATE, None)));
    pair.to_agent = accepted;
    pair.talk();
    assert_eq!((why(pair.refused(&job)), pair.tools.len()), (None, 1));
    pair.provider_input(ProviderInput::Stop);
    let late = pair.job(2, "work", 100_000);
    assert_eq!(why(pair.refused(&late)), Some((FaultCode::SESSION_ENDED, None)));
}

#[test]
fn a_provider_takes_no_job_that_is_not_paid_for_whatever_the_agent_thinks() {
    let mut pair = Pair::open(5_999);
    let job = |pair: &Pair, n, tool, cost| pair.job(n, tool, cost);
    let cheap = job(&pair, 1, "call", 499);
    assert_eq!(why(pair.refused(&cheap)), Some((FaultCode::BUDGET_EXHAUSTED, Some(1))));
    pair.room = usdc(5_000);
    let unredeemed = job(&pair, 2, "work", 100_000);
    assert_eq!(why(pair.refused(&unredeemed)), Some((FaultCode::UNREDEEMED, None)));
    pair.room = usdc(u64::MAX);
    // Two run, one waits: its call fee counts, although it has not started.
    for n in 3..5 {
        let work = job(&pair, n, "work", 100_000);
        assert_eq!(why(pair.refused(&work)), None);
    }
    let first = job(&pair, 5, "call", 100_000);
    assert_eq!((why(pair.refused(&first)), pair.tools.len()), (None, 2));
    let second = job(&pair, 6, "call", 100_000);
    assert_eq!(why(pair.refused(&second)), Some((FaultCode::BUDGET_EXHAUSTED, Some(1))));
}

#[test]
fn a_job_that_comes_again_is_answered_with_where_it_stands() {
    let mut pair = Pair::open(1_000_000);
    let jobs: Vec<_> = (0..3).map(|n| pair.job(n, "work", 100_000)).collect();
    for job in &jobs {
        pair.offer(job);
    }
    let (runs, waits) = (jobs[0].unverified().execution, jobs[2].unverified().execution);
    assert_eq!(pair.offer(&jobs[0]), [ProviderFrame::Started { execution: runs, at: pair.now.wall }]);
    assert_eq!(pair.offer(&jobs[2]), [ProviderFrame::Waiting(waits)]);
    pair.provider_input(ProviderInput::Frame(AgentFrame::Cancel(waits)));
    assert_eq!(why(pair.refused(&jobs[2])), Some((FaultCode::CANCELLED, None)));
    pair.finish(runs, EndReason::Exited, Some(0));
    assert_eq!(pair.offer(&jobs[0]), [], "its final receipt says it all");
}

#[test]
fn a_job_that_was_lost_on_the_way_is_sent_again_and_one_that_has_a_receipt_is_not() {
    let mut pair = Pair::open(100_000);
    pair.agent_is_silent = true;
    let run = pair.run(1, "work", None);
    pair.agent_is_silent = false;
    assert!(pair.tools.is_empty());
    pair.reconnect();
    assert!(pair.tools.contains_key(&run));
    pair.pass(6_000);
    pair.agent_input(AgentInput::Connected);
    pair.deliver_one();
    let resumed = pair.to_agent.pop_front().unwrap();
    assert!(matches!(resumed, ProviderFrame::Resumed { .. }));
    pair.agent_input(AgentInput::Frame(resumed));
    assert!(!pair.to_provider.iter().any(|frame| matches!(frame, AgentFrame::Run(_))), "{:?}", pair.to_provider);
}

#[test]
fn the_caller_hears_that_a_run_waits_and_starts_until_it_has_ended() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    let at = pair.now.wall;
    pair.provider_input(ProviderInput::Started(run));
    pair.talk();
    let told = |pair: &Pair| {
        let news = |event: &&AgentEvent| matches!(event, AgentEvent::Waiting(_) | AgentEvent::Started(..));
        format!("{:?}", pair.events.iter().filter(news).collect::<Vec<_>>())
    };
    let expected = format!("{:?}", [AgentEvent::Waiting(run), AgentEvent::Started(run, at)]);
    assert_eq!(told(&pair), expected);
    pair.finish(run, EndReason::Exited, Some(0));
    pair.agent_input(AgentInput::Frame(ProviderFrame::Started { execution: run, at }));
    pair.agent_input(AgentInput::Frame(ProviderFrame::Waiting(ExecutionId::from_parts(1, 1))));
    assert_eq!(told(&pair), expected);
}

#[test]
fn a_run_that_is_cancelled_twice_is_written_down_once_and_asked_for_twice() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    for times in 1..=2 {
        pair.agent_input(AgentInput::Cancel(run));
        let written = pair.agent_log.iter().filter(|record| **record == AgentRecord::Cancelled(run)).count();
        let sent = pair.to_provider.iter().filter(|frame| matches!(frame, AgentFrame::Cancel(_))).count();
        assert_eq!((written, sent), (1, times));
    }
}

/// A call waits that the credit cannot start although nothing runs and every receipt is answered.
fn waiting_for_credit() -> (Pair, ExecutionId) {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    pair.pass(6_000);
    pair.finish(run, EndReason::Exited, Some(0));
    assert_eq!((pair.charged(), pair.promised()), (6_000, 6_000));
    pair.credit = usdc(400);
    let call = pair.run(2, "call", None);
    assert!(pair.tools.is_empty());
    (pair, call)
}

#[test]
fn a_job_that_credit_cannot_start_is_given_back_after_ten_seconds_and_not_before() {
    let (mut pair, call) = waiting_for_credit();
    pair.pass(9_750);
    assert_eq!(pair.refusal(call), None);
    pair.pass(250);
    assert_eq!(pair.refusal(call).map(|fault| fault.code), Some(FaultCode::BUSY));
}

#[test]
fn a_job_that_waits_for_redemption_is_not_given_back() {
    let (mut pair, call) = waiting_for_credit();
    (pair.room, pair.credit) = (usdc(6_000), usdc(5_000));
    pair.pass(60_000);
    assert_eq!((pair.refusal(call), pair.tools.len()), (None, 0));
    pair.room = usdc(u64::MAX);
    pair.pass(250);
    assert!(pair.tools.contains_key(&call));
}

#[test]
fn a_job_that_waits_for_others_of_its_session_is_not_given_back() {
    let mut pair = Pair::open(1_000_000);
    let runs: Vec<_> = (0..3).map(|n| pair.run(n, "work", None)).collect();
    pair.pass(30_000);
    assert_eq!((pair.refusal(runs[2]), pair.tools.len()), (None, 2));
}

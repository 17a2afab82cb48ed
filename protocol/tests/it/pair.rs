//! An agent and a provider machine joined by two queues, with a clock and an executor that the test moves by hand.

use std::collections::{BTreeMap, VecDeque};

use orien_protocol::fault::Fault;
use orien_protocol::frame::{AgentFrame, ChannelState, Claim, ProviderFrame};
use orien_protocol::id::ExecutionId;
use orien_protocol::job::{Job, Stdin};
use orien_protocol::money::Usdc;
use orien_protocol::receipt::{EndReason, Usage};
use orien_protocol::session::REDEMPTION_GRACE;
use orien_protocol::session::agent::{AgentEffect, AgentEvent, AgentInput, AgentRecord, AgentSession, RunOrder};
use orien_protocol::session::provider::{ProviderEffect, ProviderEnv, ProviderInput, ProviderRecord, ProviderSession, let_go};
use orien_protocol::terms::{ProposedTerms, SignedTerms, Terms};
use orien_protocol::time::{Millis, Now};
use orien_protocol::voucher::SignedClose;

use crate::kit::{Kit, START, usdc};

/// What the test's executor knows of a tool.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tool {
    pub(crate) ms: u64,
    pub(crate) paused: bool,
    pub(crate) limit: u64,
}

pub(crate) struct Pair {
    pub(crate) kit: Kit,
    pub(crate) agent: AgentSession,
    pub(crate) provider: Option<ProviderSession>,
    pub(crate) now: Now,
    pub(crate) credit: Usdc,
    pub(crate) room: Usdc,
    pub(crate) redemption_grace: Millis,
    pub(crate) to_agent: VecDeque<ProviderFrame>,
    pub(crate) to_provider: VecDeque<AgentFrame>,
    pub(crate) agent_log: Vec<AgentRecord>,
    pub(crate) provider_log: Vec<ProviderRecord>,
    pub(crate) events: Vec<AgentEvent>,
    pub(crate) tools: BTreeMap<ExecutionId, Tool>,
    pub(crate) claims: Vec<Claim>,
    /// What settlement holds, as far as this pair knows; none while it was never asked or after it was given back.
    pub(crate) reserved: Option<Usdc>,
    /// Closes that were handed in and wait for an answer.
    pub(crate) handed_back: Vec<SignedClose>,
    /// What settlement hears reaches it, and no answer comes back.
    pub(crate) settlement_is_silent: bool,
    pub(crate) released: bool,
    /// While set, nothing the agent says arrives.
    pub(crate) agent_is_silent: bool,
}

impl Pair {
    /// Two machines; the agent's proposal is under way.
    pub(crate) fn propose(budget: u64) -> Self {
        Self::propose_with(budget, 5_000, |_| {})
    }

    /// The same under changed terms, with so much credit.
    pub(crate) fn propose_with(budget: u64, credit: u64, change: impl FnOnce(&mut Terms)) -> Self {
        let kit = Kit::new();
        let mut terms = kit.terms();
        change(&mut terms);
        let (agent, effects) = AgentSession::propose(terms, usdc(budget), &kit.network, kit.agent.clone()).unwrap();
        let mut pair = Self {
            agent,
            provider: None,
            now: Now { wall: START, mono: Millis(1_000_000) },
            credit: usdc(credit),
            room: usdc(u64::MAX),
            redemption_grace: REDEMPTION_GRACE,
            to_agent: VecDeque::new(),
            to_provider: VecDeque::new(),
            agent_log: Vec::new(),
            provider_log: Vec::new(),
            events: Vec::new(),
            tools: BTreeMap::new(),
            claims: Vec::new(),
            reserved: None,
            handed_back: Vec::new(),
            settlement_is_silent: false,
            released: false,
            agent_is_silent: false,
            kit,
        };
        pair.carry_out_agent(effects);
        pair
    }

    /// An open session.
    pub(crate) fn open(budget: u64) -> Self {
        let mut pair = Self::propose(budget);
        pair.talk();
        assert!(pair.events.iter().any(|event| matches!(event, AgentEvent::Opened)), "{:?}", pair.events);
        pair
    }

    pub(crate) fn charged(&self) -> u64 {
        self.provider.as_ref().unwrap().charged().micros()
    }

    pub(crate) fn promised(&self) -> u64 {
        self.provider.as_ref().unwrap().promised().micros()
    }

    /// Delivers frames both ways until nobody says anything.
    pub(crate) fn talk(&mut self) {
        let mut turns = 0;
        while !self.to_agent.is_empty() || !self.to_provider.is_empty() {
            turns += 1;
            assert!(turns < 100_000, "the machines talk for ever: {:?} {:?}", self.to_agent.front(), self.to_provider.front());
            if let Some(frame) = self.to_provider.pop_front() {
                self.deliver_to_provider(frame);
            }
            if let Some(frame) = self.to_agent.pop_front() {
                self.agent_input(AgentInput::Frame(frame));
            }
        }
    }

    /// Delivers the next frame to the provider.
    pub(crate) fn deliver_one(&mut self) {
        if let Some(frame) = self.to_provider.pop_front() {
            self.deliver_to_provider(frame);
        }
    }

    fn deliver_to_provider(&mut self, frame: AgentFrame) {
        if self.agent_is_silent {
            return;
        }
        if let (None, AgentFrame::Propose(signed)) = (&self.provider, &frame) {
            let proposal = ProposedTerms::verify((**signed).clone(), &self.kit.network).unwrap();
            let (session, effects) = ProviderSession::accept(proposal, self.kit.provider.clone(), self.now).unwrap();
            self.provider = Some(session);
            return self.carry_out_provider(effects);
        }
        // What a node's desk does for a session of which nothing is left but its id.
        let is_here = self.provider.as_ref().is_some_and(|session| !session.is_over() || self.is_stored());
        if let (false, AgentFrame::LetGo(terms)) = (is_here, &frame) {
            let terms = (**terms).clone().verify(&self.kit.network).unwrap();
            let (record, answer) = let_go(&terms, &self.kit.provider);
            return self.carry_out_provider(vec![ProviderEffect::Persist(Box::new(record)), ProviderEffect::Send(answer)]);
        }
        if self.provider.is_some() {
            self.provider_input(ProviderInput::Frame(frame));
        }
    }

    /// Whether the provider has more of the session than that it is given up.
    pub(crate) fn is_stored(&self) -> bool {
        self.provider_log.iter().any(|record| !matches!(record, ProviderRecord::GivenUp { .. }))
    }

    pub(crate) fn agent_input(&mut self, input: AgentInput) {
        let effects = self.agent.handle(input, self.now);
        self.carry_out_agent(effects);
    }

    pub(crate) fn provider_input(&mut self, input: ProviderInput) {
        let vet = |_: &Job| -> Result<(), Fault> { Ok(()) };
        let (credit, unredeemed_ceiling, redemption_grace) = (self.credit, self.room, self.redemption_grace);
        let env = ProviderEnv { now: self.now, credit, unredeemed_ceiling, redemption_grace, vet: &vet };
        let effects = self.provider.as_mut().unwrap().handle(input, &env);
        self.carry_out_provider(effects);
    }

    pub(crate) fn carry_out_agent(&mut self, effects: Vec<AgentEffect>) {
        for effect in effects {
            match effect {
                AgentEffect::Persist(record) => self.agent_log.push(*record),
                AgentEffect::Send(frame) => self.to_provider.push_back(frame),
                AgentEffect::Reserve { terms, ceiling } => {
                    self.reserved = Some(ceiling);
                    let allowance = self.kit.allowance(&terms, ceiling);
                    if !self.settlement_is_silent {
                        self.agent_input(AgentInput::Reserved { asked: ceiling, allowance });
                    }
                }
                AgentEffect::HandBack { terms, close } => self.release(&terms, close),
                AgentEffect::Tell(event) => self.events.push(event),
            }
        }
    }

    /// Settlement takes a close of nothing, if it is one.
    fn release(&mut self, terms: &SignedTerms, close: SignedClose) {
        let terms = terms.clone().verify(&self.kit.network).unwrap();
        let checked = close.verify(&terms.domain, &terms.claim_key()).unwrap();
        assert_eq!((checked.channel, checked.total), (terms.channel(), Usdc::ZERO));
        self.handed_back.push(close);
        let state = ChannelState { ceiling: self.reserved.take().unwrap_or_default(), redeemed: Usdc::ZERO, closed: true };
        if !self.settlement_is_silent {
            self.agent_input(AgentInput::HandedBack(Ok(state)));
        }
    }

    pub(crate) fn carry_out_provider(&mut self, effects: Vec<ProviderEffect>) {
        for effect in effects {
            match effect {
                ProviderEffect::Persist(record) => self.provider_log.push(*record),
                ProviderEffect::Send(frame) => self.to_agent.push_back(frame),
                ProviderEffect::SendReceiptsAfter(number) => {
                    for record in &self.provider_log {
                        if let ProviderRecord::Receipt(receipt) = record
                            && receipt.unverified().number > number
                        {
                            self.to_agent.push_back(ProviderFrame::Receipt(Box::new(receipt.clone())));
                        }
                    }
                }
                ProviderEffect::Start { job, limit } => {
                    self.tools.insert(job.execution, Tool { limit: limit.0, ..Tool::default() });
                }
                ProviderEffect::Pause(execution) => self.tools.get_mut(&execution).unwrap().paused = true,
                ProviderEffect::Unpause(execution) => self.tools.get_mut(&execution).unwrap().paused = false,
                ProviderEffect::Kill(execution) => self.finish(execution, EndReason::Signalled, Some(137)),
                ProviderEffect::HandIn(claim) => {
                    self.reserved = self.reserved.filter(|_| claim.close.is_none());
                    self.claims.push(*claim);
                }
                ProviderEffect::Release(_) => self.released = true,
            }
        }
    }

    /// Asks for a run; `n` makes the id.
    pub(crate) fn run(&mut self, n: u128, tool: &str, max_cost: Option<u64>) -> ExecutionId {
        let execution = ExecutionId::from_parts(self.now.wall.0, n);
        let order = RunOrder {
            execution,
            tool: tool.to_owned(),
            arguments: Vec::new(),
            max_cost: max_cost.map(usdc),
            max_duration: Millis(3_600_000),
            stdin: Stdin::Empty,
        };
        self.agent_input(AgentInput::Run(order));
        self.talk();
        execution
    }

    /// A run of a tool without a limit on its cost, for a day at most.
    pub(crate) fn order(&self, n: u128, tool: &str) -> RunOrder {
        RunOrder {
            execution: ExecutionId::from_parts(self.now.wall.0, n),
            tool: tool.to_owned(),
            arguments: Vec::new(),
            max_cost: None,
            max_duration: Millis(3_600_000 * 24),
            stdin: Stdin::Empty,
        }
    }

    /// Settlement raises the reservation to that much.
    pub(crate) fn top_up(&mut self, ceiling: u64) {
        let terms = self.agent.terms().unwrap().to_signed();
        let allowance = self.kit.allowance(&terms, usdc(ceiling));
        self.agent_input(AgentInput::Reserved { asked: usdc(ceiling), allowance });
    }

    pub(crate) fn was_disputed(&self) -> bool {
        self.agent.is_disputed() || self.events.iter().any(|event| matches!(event, AgentEvent::Disputed(_)))
    }

    /// A job of the agent's reaches the provider; nothing else that the agent says does.
    pub(crate) fn order_unheard(&mut self, n: u128) {
        let job = orien_protocol::job::Job {
            session: self.agent.id(),
            execution: ExecutionId::from_parts(self.now.wall.0, n),
            tool: "work".to_owned(),
            arguments: Vec::new(),
            max_cost: usdc(1_000_000),
            max_duration: Millis(3_600_000),
            issued_at: self.now.wall,
            stdin: Stdin::Empty,
        };
        let job = orien_protocol::signing::Verified::sign(job, &self.kit.network, &self.kit.agent.peer).into_signed();
        self.provider_input(ProviderInput::Frame(AgentFrame::Run(Box::new(job))));
    }

    /// Lets time pass in metering ticks of 250 ms.
    pub(crate) fn pass(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(250);
            left -= step;
            self.now = Now { wall: self.now.wall.plus(Millis(step)), mono: Millis(self.now.mono.0 + step) };
            for execution in self.tools.keys().copied().collect::<Vec<_>>() {
                self.progress(execution, step);
            }
            self.provider_input(ProviderInput::Tick);
            self.talk();
        }
    }

    fn progress(&mut self, execution: ExecutionId, step: u64) {
        let Some(tool) = self.tools.get_mut(&execution) else { return };
        if tool.paused {
            return;
        }
        tool.ms = (tool.ms + step).min(tool.limit);
        let (ms, at_limit) = (tool.ms, tool.ms >= tool.limit);
        let usage = Usage { effective_ms: ms, ..Usage::default() };
        self.provider_input(ProviderInput::Progress(execution, usage));
        self.talk();
        if at_limit {
            self.finish(execution, EndReason::TimedOut, Some(137));
        }
    }

    /// The tool ends.
    pub(crate) fn finish(&mut self, execution: ExecutionId, end: EndReason, exit_code: Option<i32>) {
        let Some(tool) = self.tools.remove(&execution) else { return };
        let usage = Usage { effective_ms: tool.ms, ..Usage::default() };
        self.provider_input(ProviderInput::Ended { execution, usage, end, exit_code });
        self.talk();
    }

    /// The outcome of an execution, from the final receipt that the agent answered.
    pub(crate) fn outcome(&self, execution: ExecutionId) -> Option<(EndReason, u64)> {
        self.events.iter().find_map(|event| match event {
            AgentEvent::Receipt(receipt) => {
                let work = receipt.work.as_ref().filter(|work| work.execution == execution)?;
                work.outcome.map(|outcome| (outcome.end, work.usage.effective_ms))
            }
            _ => None,
        })
    }

    pub(crate) fn refusal(&self, execution: ExecutionId) -> Option<&Fault> {
        self.events.iter().find_map(|event| match event {
            AgentEvent::RunRefused(id, fault) if *id == execution => Some(fault),
            _ => None,
        })
    }
}

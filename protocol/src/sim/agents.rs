//! Agents at work: what gateways do with the agent's machine, and what their callers want.

use crate::fault::Fault;
use crate::frame::ProviderFrame;
use crate::id::{ExecutionId, RequestId, SessionId};
use crate::job::Stdin;
use crate::money::Usdc;
use crate::session::agent::{AgentEffect, AgentEvent, AgentInput, AgentPhase, AgentSession, RunOrder};
use crate::sim::scenario::Weather;
use crate::sim::seats::{Drawing, Link, Slot};
use crate::sim::story::Brief;
use crate::sim::world::{Event, World};
use crate::time::Millis;
use crate::voucher::SignedAllowance;

/// How long a gateway asks settlement to reserve.
const ASK_LIMIT_MS: u64 = 20_000;

impl World<'_> {
    pub(super) fn agent_input(&mut self, slot: usize, input: AgentInput) {
        let agent = self.slots[slot].agent;
        let now = self.agents[agent].clock.now(self.t);
        let Some(machine) = self.slots[slot].agent_machine.as_mut().filter(|_| self.agents[agent].up) else { return };
        let effects = machine.handle(input, now);
        self.agent_effects(slot, effects);
    }

    fn agent_effects(&mut self, slot: usize, effects: Vec<AgentEffect>) {
        let agent = self.slots[slot].agent;
        for effect in effects {
            if self.misfortune() {
                return self.crash_agent(agent);
            }
            match effect {
                AgentEffect::Persist(record) => {
                    self.say(|| format!("session {slot}: agent keeps {}", record.brief()));
                    self.auditor.agent_wrote(slot, &record, self.t);
                    self.slots[slot].agent_log.push(*record);
                }
                AgentEffect::Send(frame) => self.agent_sends(slot, frame),
                AgentEffect::Reserve { ceiling, .. } => self.ask(slot, ceiling),
                AgentEffect::HandBack { terms, close } => {
                    self.slots[slot].asked.clear();
                    let latency = self.latency();
                    self.after(latency, Event::AskRelease(slot, terms, close));
                }
                AgentEffect::Tell(event) => self.told(slot, &event),
            }
        }
        let Some(machine) = &self.slots[slot].agent_machine else { return };
        let on_errand = self.slots[slot].link.errand && machine.owes_release() && !machine.is_let_go();
        let closed = matches!(machine.phase(), AgentPhase::Closed(_)) && !on_errand;
        if closed && self.slots[slot].link.agent_up {
            // A gateway hangs up when a session is over.
            let generation = self.slots[slot].link.generation;
            self.slots[slot].link.agent_up = false;
            let soon = self.latency() + 200;
            self.after(soon, Event::ProviderLosesLink(slot, generation));
            // It dials again for what it may still get back.
            self.redial(slot);
        }
    }

    fn told(&mut self, slot: usize, event: &AgentEvent) {
        self.say(|| format!("session {slot}: agent is told {}", event.brief()));
        // Old news is no reason to refuse a voucher, and between honest parties there is no other.
        let honest = self.scenario.adversary.is_none() && self.scenario.weather == Weather::Orderly;
        if let AgentEvent::VoucherRefused(fault) = event
            && honest
        {
            self.auditor.breach(|| format!("session {slot}: an honest voucher was refused: {fault}"));
        }
    }

    /// Asks settlement for a ceiling, under a name that is the same after a crash.
    fn ask(&mut self, slot: usize, ceiling: Usdc) {
        self.slots[slot].asked.insert(ceiling);
        self.auditor.budget_asked(slot, ceiling);
        let latency = self.latency();
        self.after(latency, Event::AskReserve(slot, ceiling));
        self.after(ASK_LIMIT_MS, Event::GivesUpAsking(slot, ceiling));
    }

    pub(super) fn gives_up_asking(&mut self, slot: usize, ceiling: Usdc) {
        if self.slots[slot].asked.remove(&ceiling) {
            let fault = Fault::new(crate::fault::FaultCode::INTERNAL, "settlement gave no answer");
            self.agent_input(slot, AgentInput::NotAnswered(fault));
        }
    }

    pub(super) fn reserve(&mut self, slot: usize, ceiling: Usdc) {
        let agent = self.slots[slot].agent;
        // Whoever does not hear asks again.
        if !self.agents[agent].up || !self.slots[slot].asked.contains(&ceiling) {
            return;
        }
        self.after(2_000, Event::AskReserve(slot, ceiling));
        let Some(terms) = self.slots[slot].agent_machine.as_ref().and_then(|machine| machine.terms().map(|terms| terms.to_signed())) else {
            return;
        };
        if !self.house_up {
            return;
        }
        let request = request_id(slot, ceiling);
        let (caller, wall) = (self.agents[agent].keys.peer.id(), self.house_clock.wall(self.t));
        let mut answer = self.house.reserve(caller, request, terms.clone(), ceiling, wall);
        if let Ok(allowance) = &answer {
            let again = self.random.chance(500).then(|| self.house.reserve(caller, request, terms.clone(), ceiling, wall));
            if again.as_ref().is_some_and(|again| again.as_ref().ok() != Some(allowance)) {
                self.auditor.breach(|| format!("session {slot}: the same request again was answered {again:?}"));
            }
        }
        // A cheating agent makes its own use of what settlement forges.
        let fooled = !self.agents[agent].cheats;
        let forged = if fooled { self.cheat_as_house(&terms, ceiling, answer.as_ref().ok().copied()) } else { None };
        if let Some(forged) = forged {
            answer = Ok(forged);
        }
        self.say(|| format!("session {slot}: settlement is asked for {ceiling}: {:?}", answer.as_ref().map(|a| a.unverified().ceiling)));
        self.look_at_books();
        if self.house_stumbles() {
            return;
        }
        let latency = self.latency();
        self.after(latency, Event::Reserved(slot, ceiling, Box::new(answer)));
    }

    pub(super) fn reserved(&mut self, slot: usize, ceiling: Usdc, answer: Result<SignedAllowance, Fault>) {
        if !self.slots[slot].asked.remove(&ceiling) {
            return;
        }
        match answer {
            Ok(allowance) => self.agent_input(slot, AgentInput::Reserved { asked: ceiling, allowance }),
            Err(fault) => self.agent_input(slot, AgentInput::NotReserved(fault)),
        }
    }

    pub(super) fn agent_ticks(&mut self, agent: usize) {
        for slot in self.slots_of_agent(agent) {
            self.agent_input(slot, AgentInput::Tick);
        }
        let pause = if self.is_over() { 10_000 } else { 1_000 };
        self.after(pause, Event::AgentTicks(agent));
    }

    pub(super) fn slots_of_agent(&self, agent: usize) -> Vec<usize> {
        (0..self.slots.len()).filter(|slot| self.slots[*slot].agent == agent).collect()
    }

    /// One thing that a caller wants, or that goes wrong.
    pub(super) fn agent_acts(&mut self, agent: usize) {
        if self.calm {
            return;
        }
        let pause = self.random.between(50, 2_500);
        self.after(pause, Event::AgentActs(agent));
        if !self.agents[agent].up {
            return;
        }
        let slots = self.slots_of_agent(agent);
        let slot = slots.get(self.random.index(slots.len())).copied();
        match (self.random.below(20), slot) {
            (0..=4, _) | (_, None) if self.slots.len() < self.scenario.sessions => self.propose(agent),
            (0..=9, Some(slot)) => self.order(slot),
            (10, Some(slot)) => self.cancel(slot),
            (11, Some(slot)) => self.top_up(slot),
            (12, Some(slot)) if self.random.chance(300) => {
                // In every other world sessions are not only ended but given up for others.
                let end = if self.scenario.seed.is_multiple_of(2) { AgentInput::End } else { AgentInput::Seal };
                self.agent_input(slot, end);
            }
            (13, Some(slot)) => self.cut(slot),
            (14, _) if self.scenario.steps => {
                let offset = Self::skew(&mut self.random);
                self.agents[agent].clock.step_to(offset);
            }
            (15, _) if self.scenario.steps => {
                let (provider, offset) = (self.random.index(self.providers.len()), Self::skew(&mut self.random));
                self.providers[provider].clock.step_to(offset);
            }
            (16, Some(slot)) => self.cheat_now(slot),
            (17, _) if self.random.chance(100) => self.crash_agent(agent),
            (18, _) if self.random.chance(60) => {
                let provider = self.random.index(self.providers.len());
                self.crash_provider(provider);
            }
            _ => {}
        }
    }

    fn propose(&mut self, agent: usize) {
        let provider = self.random.index(self.providers.len());
        let index = self.slots.len();
        let id = SessionId::from_parts(crate::sim::clock::BEGINNING.0 + self.t, index as u128 + 1);
        let seat = &self.agents[agent];
        let drawing = Drawing {
            network: &self.network,
            domain: &self.domain,
            signer: self.signer,
            price: self.scenario.price,
            interval_ms: self.scenario.interval_ms,
            runs_at_once: 1 + u16::from(self.random.chance(600)),
            issued_at: seat.clock.wall(self.t),
            work_s: self.random.between(60, 200),
        };
        let terms = drawing.terms(id, seat, &self.providers[provider]);
        let keys = seat.keys.clone();
        let least = terms.minimum_charge.micros();
        let budget = Usdc::from_micros(self.random.between(least.saturating_sub(1), self.scenario.budget.micros().max(least) + 1));
        self.auditor.session(&terms, provider, (seat.cheats, self.providers[provider].cheats));
        let Ok((machine, effects)) = AgentSession::propose(terms, budget, &self.network, keys) else {
            return self.auditor.breach(|| "a proposal could not be made".to_owned());
        };
        self.say(|| format!("session {index}: agent {agent} proposes to provider {provider}, budget {budget}"));
        self.counts.sessions += 1;
        let mut slot = Slot::new(agent, provider, machine);
        slot.link = Link { generation: 1, agent_up: true, provider_up: self.providers[provider].up, ..Link::default() };
        self.slots.push(slot);
        self.agent_effects(index, effects);
        if !self.providers[provider].up {
            let latency = self.latency();
            self.after(latency, Event::AgentLosesLink(index, 1));
        }
    }

    fn order(&mut self, slot: usize) {
        let number = self.slots[slot].executions.len() as u128 + ((slot as u128) << 32);
        // Sometimes the same order again.
        let repeated = self.slots[slot].executions.last().copied().filter(|_| self.random.chance(100));
        let execution = repeated.unwrap_or_else(|| ExecutionId::from_parts(self.t, number));
        let max_cost = self.random.chance(400).then(|| Usdc::from_micros(self.random.below(self.scenario.budget.micros() + 1)));
        let tool = if self.random.chance(500) { "work" } else { "call" }.to_owned();
        let max_duration = Millis(self.random.between(500, 60_000));
        if repeated.is_none() {
            self.slots[slot].executions.push(execution);
        }
        let order = RunOrder { execution, tool, arguments: Vec::new(), max_cost, max_duration, stdin: Stdin::Empty };
        self.agent_input(slot, AgentInput::Run(order));
    }

    fn cancel(&mut self, slot: usize) {
        let executions = &self.slots[slot].executions;
        if let Some(execution) = executions.get(self.random.index(executions.len())).copied() {
            self.agent_input(slot, AgentInput::Cancel(execution));
        }
    }

    fn top_up(&mut self, slot: usize) {
        let machine = self.slots[slot].agent_machine.as_ref();
        if let Some(machine) = machine.filter(|machine| machine.phase() == AgentPhase::Open && !machine.is_disputed()) {
            let more = machine.budget().micros() + self.random.between(1, self.scenario.budget.micros() + 1);
            self.ask(slot, Usdc::from_micros(more));
        }
    }

    /// The agent's process is gone, with all of its streams.
    pub(super) fn crash_agent(&mut self, agent: usize) {
        if !std::mem::replace(&mut self.agents[agent].up, false) {
            return;
        }
        self.say(|| format!("agent {agent} crashes"));
        self.counts.crashes += 1;
        for slot in self.slots_of_agent(agent) {
            self.slots[slot].agent_machine = None;
            self.slots[slot].asked.clear();
            let generation = self.slots[slot].link.generation;
            if std::mem::take(&mut self.slots[slot].link.agent_up) {
                let later = self.latency();
                self.after(later, Event::ProviderLosesLink(slot, generation));
            }
        }
        let down = self.random.between(50, 4_000);
        self.after(down, Event::AgentStarts(agent));
    }

    pub(super) fn agent_starts(&mut self, agent: usize) {
        self.say(|| format!("agent {agent} starts"));
        self.agents[agent].up = true;
        self.agents[agent].clock.restart(self.t);
        for slot in self.slots_of_agent(agent) {
            self.restore_agent(slot);
            if !self.agents[agent].up {
                return;
            }
        }
    }

    pub(super) fn restore_agent(&mut self, slot: usize) {
        let agent = self.slots[slot].agent;
        // Nothing was kept: nothing was ever said.
        if self.slots[slot].agent_log.is_empty() {
            return;
        }
        let (keys, now) = (self.agents[agent].keys.clone(), self.agents[agent].clock.now(self.t));
        match AgentSession::restore(self.slots[slot].agent_log.clone(), &self.network, keys, now) {
            Ok((machine, effects)) => {
                self.slots[slot].agent_machine = Some(machine);
                self.agent_effects(slot, effects);
                self.redial(slot);
            }
            Err(error) => self.auditor.breach(|| format!("session {slot}: the agent's records do not make a session: {error}")),
        }
    }

    /// In the end everybody ends.
    pub(super) fn end_all(&mut self) {
        for slot in 0..self.slots.len() {
            self.agent_input(slot, AgentInput::End);
        }
    }

    fn agent_sends(&mut self, slot: usize, frame: crate::frame::AgentFrame) {
        if self.agents[self.slots[slot].agent].cheats {
            return self.cheat_as_agent(slot, frame);
        }
        self.send_to_provider(slot, frame);
    }

    /// Refuses to pick up a session of which nothing is known.
    pub(super) fn refuse(&mut self, slot: usize) {
        let fault = Fault::new(crate::fault::FaultCode::NOT_FOUND, "there is no such session of this peer here");
        self.send_to_agent(slot, ProviderFrame::Refused(fault));
    }
}

/// The name under which a ceiling is asked for: the same whenever it is asked again.
fn request_id(slot: usize, ceiling: Usdc) -> RequestId {
    RequestId::from_parts(slot as u64, u128::from(ceiling.micros()))
}

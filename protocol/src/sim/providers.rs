//! Providers at work: what nodes do with the provider's machine, its tools, its book of credit and its claims.

use crate::fault::Fault;
use crate::frame::{Claim, ProviderFrame};
use crate::id::ExecutionId;
use crate::job::Job;
use crate::money::Usdc;
use crate::receipt::{EndReason, Usage};
use crate::session::provider::{ProviderEffect, ProviderEnv, ProviderInput, ProviderPhase, ProviderRecord, ProviderSession, let_go};
use crate::signing::Signed;
use crate::sim::TICK_MS;
use crate::sim::house::LAG_AND_DELAY;
use crate::sim::scenario::Adversary;
use crate::sim::story::Brief;
use crate::sim::tools::Tool;
use crate::sim::world::{Event, World};
use crate::terms::{ProposedTerms, SignedTerms, Terms};

impl World<'_> {
    pub(super) fn slots_of_provider(&self, provider: usize) -> Vec<usize> {
        (0..self.slots.len()).filter(|slot| self.slots[*slot].provider == provider).collect()
    }

    pub(super) fn provider_input(&mut self, slot: usize, input: ProviderInput) {
        let seat = &self.providers[self.slots[slot].provider];
        let Some(machine) = self.slots[slot].provider_machine.as_mut().filter(|_| seat.up) else { return };
        let (account, id, interval) = (machine.terms().account(), machine.terms().session, machine.terms().interval_charge());
        let (credit, unredeemed_ceiling) = (seat.book.credit(account, id, interval), seat.book.unredeemed_ceiling(account, id));
        let vet = |_: &Job| -> Result<(), Fault> { Ok(()) };
        let env = ProviderEnv {
            now: seat.clock.now(self.t),
            credit,
            unredeemed_ceiling,
            redemption_grace: crate::session::REDEMPTION_GRACE,
            vet: &vet,
        };
        let effects = machine.handle(input, &env);
        self.note(slot);
        self.provider_effects(slot, effects);
    }

    /// The book of credit knows where a session stands after every turn.
    fn note(&mut self, slot: usize) {
        let Some(machine) = &self.slots[slot].provider_machine else { return };
        let (unvouchered, promised) = (machine.unvouchered(), machine.promised());
        if unvouchered > Usdc::ZERO || promised > Usdc::ZERO {
            let (account, id, released) = (machine.terms().account(), machine.terms().session, machine.is_released());
            self.providers[self.slots[slot].provider].book.note(account, id, unvouchered, promised, released);
        }
    }

    fn provider_effects(&mut self, slot: usize, effects: Vec<ProviderEffect>) {
        let provider = self.slots[slot].provider;
        let groups = self.providers[provider].groups;
        if groups {
            for record in effects.iter().filter_map(record_of) {
                self.keep(slot, record.clone());
            }
        }
        for effect in effects {
            if self.misfortune() {
                return self.crash_provider(provider);
            }
            match effect {
                ProviderEffect::Persist(record) if !groups => self.keep(slot, *record),
                ProviderEffect::Persist(_) => {}
                effect => self.carry_out(slot, effect),
            }
        }
    }

    fn keep(&mut self, slot: usize, record: ProviderRecord) {
        self.say(|| format!("session {slot}: provider keeps {}", record.brief()));
        self.auditor.provider_wrote(slot, &record);
        self.slots[slot].provider_log.push(record);
    }

    fn carry_out(&mut self, slot: usize, effect: ProviderEffect) {
        match effect {
            ProviderEffect::Persist(_) => {}
            ProviderEffect::Send(frame) => self.provider_says(slot, frame),
            ProviderEffect::SendReceiptsAfter(number) => {
                for receipt in self.receipts_after(slot, number) {
                    self.provider_says(slot, ProviderFrame::Receipt(Box::new(receipt)));
                }
            }
            ProviderEffect::Start { job, limit } => self.start(slot, &job, limit.0),
            ProviderEffect::Pause(execution) => self.pause(slot, execution, true),
            ProviderEffect::Unpause(execution) => self.pause(slot, execution, false),
            ProviderEffect::Kill(execution) => {
                if let Some(ended) = self.tool_ends(slot, execution, EndReason::Signalled, Some(137)) {
                    self.after(0, Event::Executor(slot, Box::new(ended)));
                }
            }
            ProviderEffect::HandIn(_) => self.slots[slot].due = true,
            ProviderEffect::Release(_) => {
                let running = self.slots[slot].tools.len();
                if running > 0 {
                    self.auditor.breach(|| format!("session {slot}: released with {running} tools running"));
                }
            }
        }
    }

    fn receipts_after(&self, slot: usize, number: u64) -> Vec<Signed<crate::receipt::Receipt>> {
        let receipts = self.slots[slot].provider_log.iter().filter_map(|record| match record {
            ProviderRecord::Receipt(receipt) => Some(receipt),
            _ => None,
        });
        receipts.filter(|receipt| receipt.unverified().number > number).cloned().collect()
    }

    fn provider_says(&mut self, slot: usize, frame: ProviderFrame) {
        if self.slots[slot].link.provider_up {
            self.auditor.provider_said(slot, &frame);
        }
        if self.providers[self.slots[slot].provider].cheats {
            return self.cheat_as_provider(slot, frame);
        }
        self.send_to_agent(slot, frame);
    }

    fn start(&mut self, slot: usize, job: &Job, limit: u64) {
        let provider = self.slots[slot].provider;
        self.counts.runs += 1;
        if self.random.chance(20) {
            // It cannot be started, and says so within the turn.
            let ended =
                ProviderInput::Ended { execution: job.execution, usage: Usage::default(), end: EndReason::SetupFailed, exit_code: None };
            return self.after(0, Event::Executor(slot, Box::new(ended)));
        }
        let wall = self.providers[provider].clock.wall(self.t);
        self.auditor.tool_started(slot, job.execution, &job.tool, wall);
        let length = self.random.between(1, 40_000);
        let mono = self.providers[provider].clock.now(self.t).mono.0;
        self.slots[slot].tools.insert(job.execution, Tool::new(limit, length, mono));
        self.after(0, Event::Executor(slot, Box::new(ProviderInput::Started(job.execution))));
    }

    fn pause(&mut self, slot: usize, execution: ExecutionId, paused: bool) {
        let mono = self.providers[self.slots[slot].provider].clock.now(self.t).mono.0;
        if let Some(tool) = self.slots[slot].tools.get_mut(&execution) {
            // What it did up to this moment counts; its end is seen at the next look.
            tool.work(mono);
            tool.paused = paused;
            let ms = tool.ms;
            let idle = self.is_idle(slot);
            self.auditor.tool_worked(slot, execution, if idle { 0 } else { ms });
        }
    }

    fn tool_ends(&mut self, slot: usize, execution: ExecutionId, end: EndReason, exit_code: Option<i32>) -> Option<ProviderInput> {
        let mono = self.providers[self.slots[slot].provider].clock.now(self.t).mono.0;
        let mut tool = self.slots[slot].tools.remove(&execution)?;
        tool.work(mono);
        let idle = self.is_idle(slot);
        self.auditor.tool_worked(slot, execution, if idle { 0 } else { tool.ms });
        self.auditor.tool_ended(slot, execution);
        let usage = self.reported(slot, &tool);
        Some(ProviderInput::Ended { execution, usage, end, exit_code })
    }

    pub(super) fn provider_ticks(&mut self, provider: usize) {
        let pause = if self.is_over() { 10_000 } else { TICK_MS };
        self.after(pause, Event::ProviderTicks(provider));
        if !self.providers[provider].up {
            return;
        }
        for slot in self.slots_of_provider(provider) {
            self.cheat_with_budget(slot);
            self.tools_work(slot);
            if self.t.is_multiple_of(1_000) || !self.slots[slot].tools.is_empty() {
                self.provider_input(slot, ProviderInput::Tick);
                let wall = self.providers[provider].clock.wall(self.t);
                if !self.slots[slot].tools.is_empty() {
                    self.auditor.still_runs(slot, wall);
                }
            }
            if self.t.is_multiple_of(1_000) {
                self.hand_in(slot);
            }
        }
        let (facts, policy) = (std::mem::take(&mut self.facts), self.policy());
        self.auditor.exposed(&facts, &policy, self.cheats(Adversary::LiesAboutRedeemed));
        self.facts = facts;
    }

    fn tools_work(&mut self, slot: usize) {
        let mono = self.providers[self.slots[slot].provider].clock.now(self.t).mono.0;
        let mut ended = Vec::new();
        let idle = self.is_idle(slot);
        let executions: Vec<ExecutionId> = self.slots[slot].tools.keys().copied().collect();
        for execution in executions {
            let Some(tool) = self.slots[slot].tools.get_mut(&execution) else { continue };
            let end = tool.work(mono);
            let tool = tool.clone();
            self.auditor.tool_worked(slot, execution, if idle { 0 } else { tool.ms });
            match end {
                Some((end, code)) => ended.push((execution, end, code)),
                None => {
                    let usage = self.reported(slot, &tool);
                    self.provider_input(slot, ProviderInput::Progress(execution, usage));
                }
            }
        }
        for (execution, end, code) in ended {
            if let Some(ended) = self.tool_ends(slot, execution, end, code) {
                self.provider_input(slot, ended);
            }
        }
    }

    /// A proposal arrives.
    pub(super) fn proposed(&mut self, slot: usize, terms: Signed<Terms>) {
        let provider = self.slots[slot].provider;
        let now = self.providers[provider].clock.now(self.t);
        let accepted = ProposedTerms::verify(terms, &self.network).and_then(|proposal| {
            proposal.terms().check_times(now.wall, LAG_AND_DELAY.0, LAG_AND_DELAY.1)?;
            Ok(proposal)
        });
        let seat = &self.providers[provider];
        let admitted = accepted.map_err(|error| Fault::new(crate::fault::FaultCode::TIMES, error)).and_then(|proposal| {
            let account = proposal.terms().agent.unverified().principal;
            seat.book.admits(account, proposal.terms().session)?;
            let keys = seat.keys.clone();
            ProviderSession::accept(proposal, keys, now).map_err(|error| Fault::new(crate::fault::FaultCode::MALFORMED, error))
        });
        let used = !self.slots[slot].provider_log.is_empty();
        match admitted {
            Ok((machine, effects)) if !used => {
                self.auditor.admitted(slot);
                self.slots[slot].provider_machine = Some(machine);
                self.provider_effects(slot, effects);
            }
            Ok(_) => self.refuse(slot),
            Err(fault) => self.send_to_agent(slot, ProviderFrame::Refused(fault)),
        }
    }

    /// As the node does: a session that is over and left nothing, or only that it was given up, is on disk alone.
    pub(super) fn put_away(&mut self, slot: usize) {
        let over = self.slots[slot].provider_machine.as_ref().is_some_and(ProviderSession::is_over);
        if over && self.slots[slot].provider_log.iter().all(is_given_up) {
            self.slots[slot].provider_machine = None;
        }
    }

    /// The agent gives up a session that is not here.
    pub(super) fn let_go(&mut self, slot: usize, terms: SignedTerms) {
        let Ok(terms) = terms.verify(&self.network) else { return };
        let keys = self.providers[self.slots[slot].provider].keys.clone();
        let (record, answer) = let_go(&terms, &keys);
        if self.slots[slot].provider_log.is_empty() {
            if self.misfortune() {
                return self.crash_provider(self.slots[slot].provider);
            }
            self.keep(slot, record);
        }
        if self.slots[slot].provider_log.iter().all(is_given_up) {
            self.provider_says(slot, answer);
        }
    }

    /// As the node does: of a session that was only proposed nothing is kept when its stream is gone.
    pub(super) fn forget_if_proposed(&mut self, slot: usize) {
        let phase = self.slots[slot].provider_machine.as_ref().map(ProviderSession::phase);
        if matches!(phase, Some(ProviderPhase::Proposed(_))) {
            self.provider_input(slot, ProviderInput::Stop);
            self.slots[slot].provider_machine = None;
        }
    }

    /// The provider's process is gone, with its tools and streams.
    pub(super) fn crash_provider(&mut self, provider: usize) {
        if !std::mem::replace(&mut self.providers[provider].up, false) {
            return;
        }
        self.say(|| format!("provider {provider} crashes"));
        self.counts.crashes += 1;
        for slot in self.slots_of_provider(provider) {
            self.slots[slot].provider_machine = None;
            self.slots[slot].tools.clear();
            self.auditor.tools_lost(slot);
            let generation = self.slots[slot].link.generation;
            if std::mem::take(&mut self.slots[slot].link.provider_up) {
                let later = self.latency();
                self.after(later, Event::AgentLosesLink(slot, generation));
            }
        }
        let down = self.random.between(50, 4_000);
        self.after(down, Event::ProviderStarts(provider));
    }

    pub(super) fn provider_starts(&mut self, provider: usize) {
        self.say(|| format!("provider {provider} starts"));
        let t = self.t;
        let seat = &mut self.providers[provider];
        (seat.up, seat.book) = (true, crate::credit::CreditBook::new(self.scenario.credit));
        seat.clock.restart(t);
        for slot in self.slots_of_provider(provider) {
            self.restore_provider(slot);
            if !self.providers[provider].up {
                return;
            }
        }
    }

    fn restore_provider(&mut self, slot: usize) {
        let seat = &self.providers[self.slots[slot].provider];
        if self.slots[slot].provider_log.iter().all(is_given_up) {
            return;
        }
        let vet = |_: &Job| -> Result<(), Fault> { Ok(()) };
        let env = ProviderEnv {
            now: seat.clock.now(self.t),
            credit: Usdc::ZERO,
            unredeemed_ceiling: Usdc::ZERO,
            redemption_grace: crate::session::REDEMPTION_GRACE,
            vet: &vet,
        };
        match ProviderSession::restore(self.slots[slot].provider_log.clone(), &self.network, seat.keys.clone(), &env) {
            Ok((machine, effects)) => {
                let (account, id) = (machine.terms().account(), machine.terms().session);
                self.slots[slot].provider_machine = Some(machine);
                self.slots[slot].due = true;
                self.note(slot);
                let redeemed = self.slots[slot].handed.0.redeemed;
                self.providers[self.slots[slot].provider].book.redeemed(account, id, redeemed);
                self.provider_effects(slot, effects);
            }
            Err(error) => self.auditor.breach(|| format!("session {slot}: the provider's records do not make a session: {error}")),
        }
    }

    /// Hands in what was promised and not redeemed, as it is on disk.
    fn hand_in(&mut self, slot: usize) {
        let Some(machine) = &self.slots[slot].provider_machine else { return };
        let (state, close_taken) = self.slots[slot].handed;
        let is_settled = state.redeemed >= machine.promised() && (!machine.is_over() || close_taken);
        let waits = machine.promised().excess_over(state.redeemed);
        let much = waits.micros() >= self.scenario.credit.unredeemed_cap.micros() / 4;
        if is_settled || !(self.slots[slot].due || much) {
            return;
        }
        let close = self.slots[slot].provider_log.iter().rev().find_map(|record| match record {
            ProviderRecord::Closed { close, .. } => *close,
            _ => None,
        });
        let Some(claim) = machine.claim(close) else { return };
        for claim in self.claims(slot, claim) {
            let latency = self.latency();
            self.after(latency, Event::AskClaim(slot, Box::new(claim)));
        }
    }

    pub(super) fn claimed(&mut self, slot: usize, claim: &Claim, answer: Result<crate::frame::ChannelState, Fault>) {
        let provider = self.slots[slot].provider;
        let (Ok(state), true) = (answer, self.providers[provider].up) else { return };
        // Stored before it counts.
        let taken = self.slots[slot].handed.1 || claim.close.is_some();
        self.slots[slot].handed = (state, taken);
        let Some(machine) = &self.slots[slot].provider_machine else { return };
        let (account, id) = (machine.terms().account(), machine.terms().session);
        self.slots[slot].due = state.redeemed < machine.promised() || machine.is_over() && !taken;
        self.providers[provider].book.redeemed(account, id, state.redeemed);
    }
}

const fn is_given_up(record: &ProviderRecord) -> bool {
    matches!(record, ProviderRecord::GivenUp { .. })
}

fn record_of(effect: &ProviderEffect) -> Option<&ProviderRecord> {
    match effect {
        ProviderEffect::Persist(record) => Some(record),
        _ => None,
    }
}

//! The world: virtual time, everything that is under way, and whoever acts on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fault::Fault;
use crate::frame::{AgentFrame, ChannelState, Claim, ProviderFrame};
use crate::money::Usdc;
use crate::network::NetworkId;
use crate::session::agent::AgentInput;
use crate::session::provider::ProviderInput;
use crate::signing::{Address, MoneyDomain, MoneyKey};
use crate::sim::audit::{Auditor, Policy};
use crate::sim::clock::{Clock, SKEW_MAX_MS};
use crate::sim::house::{House, HouseFacts};
use crate::sim::random::Random;
use crate::sim::scenario::{Adversary, Scenario, Weather};
use crate::sim::seats::{AgentSeat, ProviderSeat, Slot};
use crate::sim::{Counts, TICK_MS};
use crate::terms::SignedTerms;
use crate::voucher::{SignedAllowance, SignedClose};

/// What will happen.
#[derive(Debug)]
pub(super) enum Event {
    AgentTicks(usize),
    AgentActs(usize),
    AgentStarts(usize),
    ProviderTicks(usize),
    ProviderStarts(usize),
    /// What a provider's executor tells the machine, after the turn that it was asked in.
    Executor(usize, Box<ProviderInput>),
    ToAgent(usize, u32, Box<ProviderFrame>),
    ToProvider(usize, u32, Box<AgentFrame>),
    AgentLosesLink(usize, u32),
    ProviderLosesLink(usize, u32),
    Dial(usize),
    AskReserve(usize, Usdc),
    Reserved(usize, Usdc, Box<Result<SignedAllowance, Fault>>),
    GivesUpAsking(usize, Usdc),
    AskRelease(usize, Box<SignedTerms>, SignedClose),
    Released(usize, Box<Result<ChannelState, Fault>>),
    AskClaim(usize, Box<Claim>),
    Claimed(usize, Box<Claim>, Box<Result<ChannelState, Fault>>),
    HouseRounds,
    HouseStarts,
    /// Some process dies.
    Dies(u64),
}

/// One world.
pub(super) struct World<'h> {
    pub(super) scenario: Scenario,
    pub(super) random: Random,
    pub(super) t: u64,
    pub(super) sequence: u64,
    pub(super) events: BTreeMap<(u64, u64), Event>,
    pub(super) agents: Vec<AgentSeat>,
    pub(super) providers: Vec<ProviderSeat>,
    pub(super) slots: Vec<Slot>,
    pub(super) house: &'h mut dyn House,
    pub(super) house_clock: Clock,
    pub(super) house_up: bool,
    pub(super) house_key: Arc<MoneyKey>,
    pub(super) facts: HouseFacts,
    pub(super) network: NetworkId,
    pub(super) domain: MoneyDomain,
    pub(super) signer: Address,
    pub(super) auditor: Auditor,
    /// Chaos is over: nothing more goes wrong by itself.
    pub(super) calm: bool,
    pub(super) counts: Counts,
    pub(super) trace: Option<Vec<String>>,
}

impl World<'_> {
    /// Adds a line to the trace, if one is kept.
    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        let t = self.t;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>4}.{:03} {}", t / 1000, t % 1000, line()));
        }
    }

    pub(super) fn after(&mut self, ms: u64, event: Event) {
        self.at(self.t + ms, event);
    }

    pub(super) fn at(&mut self, t: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((t.max(self.t), self.sequence), event);
    }

    pub(super) const fn cheats(&self, adversary: Adversary) -> bool {
        match self.scenario.adversary {
            Some(cheat) => cheat as u8 == adversary as u8,
            None => false,
        }
    }

    /// Whether something goes wrong now.
    pub(super) fn misfortune(&mut self) -> bool {
        !self.calm && self.random.below(100_000) < self.scenario.crashes
    }

    pub(super) const fn is_wild(&self) -> bool {
        matches!(self.scenario.weather, Weather::Wild) && !self.calm
    }

    pub(super) const fn policy(&self) -> Policy {
        Policy { credit: self.scenario.credit, tick_ms: TICK_MS }
    }

    /// Everybody had time to finish: what is left waits for its end.
    pub(super) const fn is_over(&self) -> bool {
        self.calm && self.t >= self.scenario.chaos_ms + crate::sim::run::CALM_MS
    }

    /// How long a message takes.
    pub(super) fn latency(&mut self) -> u64 {
        if self.calm { 5 } else { 2 + self.random.below(120) }
    }

    /// Lets everything happen until `t`, or until somebody has broken a rule.
    pub(super) fn run_until(&mut self, t: u64) {
        while let Some(((at, _), _)) = self.events.first_key_value() {
            if *at > t || !self.auditor.is_content() {
                break;
            }
            let Some(((at, _), event)) = self.events.pop_first() else { break };
            self.t = at;
            self.counts.events += 1;
            self.happen(event);
        }
        self.t = self.t.max(t);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::AgentTicks(agent) => self.agent_ticks(agent),
            Event::AgentActs(agent) => self.agent_acts(agent),
            Event::AgentStarts(agent) => self.agent_starts(agent),
            Event::ProviderTicks(provider) => self.provider_ticks(provider),
            Event::Executor(slot, input) => self.provider_input(slot, *input),
            Event::ProviderStarts(provider) => self.provider_starts(provider),
            Event::ToAgent(slot, generation, frame) => self.hear_provider(slot, generation, *frame),
            Event::ToProvider(slot, generation, frame) => self.hear_agent(slot, generation, *frame),
            Event::AgentLosesLink(slot, generation) => self.agent_loses_link(slot, generation),
            Event::ProviderLosesLink(slot, generation) => self.provider_loses_link(slot, generation),
            Event::Dial(slot) => self.dial(slot),
            Event::AskReserve(slot, ceiling) => self.reserve(slot, ceiling),
            Event::Reserved(slot, ceiling, answer) => self.reserved(slot, ceiling, *answer),
            Event::GivesUpAsking(slot, ceiling) => self.gives_up_asking(slot, ceiling),
            Event::AskRelease(slot, terms, close) => self.release(slot, &terms, close),
            Event::Released(slot, answer) => self.agent_input(slot, AgentInput::HandedBack(*answer)),
            Event::AskClaim(slot, claim) => self.redeem(slot, *claim),
            Event::Claimed(slot, claim, answer) => self.claimed(slot, &claim, *answer),
            Event::HouseRounds => self.house_rounds(),
            Event::HouseStarts => self.house_up = true,
            Event::Dies(which) => self.dies(which),
        }
    }

    /// One of all processes dies.
    fn dies(&mut self, which: u64) {
        let all = self.agents.len() + self.providers.len() + 1;
        let which = usize::try_from(which).unwrap_or(0) % all;
        match which.checked_sub(self.agents.len()) {
            None => self.crash_agent(which),
            Some(provider) if provider < self.providers.len() => self.crash_provider(provider),
            Some(_) if self.house_up => self.crash_house(),
            Some(_) => {}
        }
    }

    /// A wall clock that is off by some seconds.
    pub(super) fn skew(random: &mut Random) -> u64 {
        random.below(SKEW_MAX_MS * 2)
    }
}

//! Runs a world from its first event to the last payment.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::credit::CreditBook;
use crate::network::NetworkId;
use crate::signing::{MoneyDomain, MoneyKey};
use crate::sim::audit::Auditor;
use crate::sim::clock::{Clock, SKEW_MAX_MS};
use crate::sim::house::{House, HouseFacts, PlainHouse};
use crate::sim::random::Random;
use crate::sim::scenario::{Adversary, Scenario, Weather};
use crate::sim::seats::{AgentSeat, ProviderSeat, money_key};
use crate::sim::world::{Event, World};
use crate::sim::{Counts, Report};

/// Everybody gets so long to end sessions, sign, and hand in after the chaos.
pub(super) const CALM_MS: u64 = 100_000;
/// The longest that a session can be redeemed after the chaos began, with room for skewed clocks.
const OVER_MS: u64 = 700_000;

/// The network that every world is in: settlement's key, the network id, and what money is signed for.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Signs allowances.
    pub key: Arc<MoneyKey>,
    /// The network.
    pub network: NetworkId,
    /// Its rail.
    pub domain: MoneyDomain,
}

impl Stage {
    /// The stage; none only if a fixed key were no key.
    pub fn new() -> Option<Self> {
        let key = money_key(9, 0)?;
        let network: NetworkId = "sim-0011223344556677".parse().ok()?;
        let domain = MoneyDomain::ledger(network.as_str(), &key.address());
        Some(Self { key, network, domain })
    }

    /// The plain settlement of this stage.
    pub fn plain_house(&self) -> Option<PlainHouse> {
        Some(PlainHouse::new(self.network.clone(), self.domain, crate::sim::seats::money_key_of(9, 0)?))
    }
}

/// Runs a world to its end. With `traced`, the report tells what happened.
pub fn run(scenario: &Scenario, stage: &Stage, house: &mut dyn House, traced: bool) -> Report {
    let Some(mut world) = World::new(scenario, stage, house, traced) else {
        return Report { breaches: vec!["the world has no keys".to_owned()], ..Report::default() };
    };
    world.begin();
    world.run_until(scenario.chaos_ms);
    world.calm_down();
    world.run_until(scenario.chaos_ms + CALM_MS);
    let even =
        scenario.weather == Weather::Orderly && !scenario.steps && matches!(scenario.adversary, None | Some(Adversary::SharesOneEscrow));
    world.conclude(even);
    world.report()
}

impl<'h> World<'h> {
    fn new(scenario: &Scenario, stage: &Stage, house: &'h mut dyn House, traced: bool) -> Option<Self> {
        let mut random = Random::new(scenario.seed);
        let cheat = scenario.adversary;
        let tampers = cheat.is_some_and(|cheat| match cheat {
            Adversary::Redirects => true,
            Adversary::SharesOneEscrow | Adversary::OverPromises => false,
            cheat => cheat.is_agent(),
        });
        let mut clock = || Clock::new(random.below(SKEW_MAX_MS * 2), random.below(200));
        let mut agents = Vec::new();
        for index in 0..scenario.agents {
            agents.push(AgentSeat::new(
                index,
                index % scenario.accounts.max(1),
                clock(),
                tampers && (index == 0 || cheat == Some(Adversary::Sybils)),
            )?);
        }
        let mut providers = Vec::new();
        for index in 0..scenario.providers {
            let cheats = index == 0 && cheat.is_some_and(Adversary::is_provider);
            providers.push(ProviderSeat::new(index, clock(), CreditBook::new(scenario.credit), cheats, index % 2 == 0)?);
        }
        let house_clock = clock();
        let house_cheats = cheat.is_some_and(Adversary::is_house);
        Some(Self {
            scenario: scenario.clone(),
            random,
            t: 0,
            sequence: 0,
            events: BTreeMap::new(),
            agents,
            providers,
            slots: Vec::new(),
            house,
            house_clock,
            house_up: true,
            house_key: Arc::clone(&stage.key),
            facts: HouseFacts::default(),
            network: stage.network.clone(),
            domain: stage.domain,
            signer: stage.key.address(),
            auditor: Auditor::new(stage.network.clone(), house_cheats, scenario.steps),
            calm: false,
            counts: Counts::default(),
            trace: traced.then(Vec::new),
        })
    }

    fn begin(&mut self) {
        let wall = self.house_clock.wall(0);
        for agent in 0..self.agents.len() {
            let (account, key) = (self.agents[agent].account, self.agents[agent].keys.spending.address());
            // An account is granted once, whoever spends it.
            let first = agent < self.scenario.accounts.max(1);
            let amount = if first { self.scenario.escrow } else { crate::money::Usdc::ZERO };
            self.house.grant(account, key, amount, wall);
            self.at(agent as u64 * 7, Event::AgentActs(agent));
            self.at(500, Event::AgentTicks(agent));
        }
        for provider in 0..self.providers.len() {
            self.at(250, Event::ProviderTicks(provider));
        }
        self.at(5_000, Event::HouseRounds);
        // No world without a crash, and few before anything happened.
        let (at, which) = (self.random.between(500, self.scenario.chaos_ms), self.random.bits());
        self.at(at, Event::Dies(which));
        self.look_at_books();
    }

    /// Nothing goes wrong any more; whoever is down comes back, and every agent ends what it has.
    fn calm_down(&mut self) {
        self.calm = true;
        self.say(|| "calm".to_owned());
        for slot in 0..self.slots.len() {
            self.slots[slot].due = true;
        }
        // Whoever is down is back within four seconds; then everybody wants to end.
        let soon = self.t + 6_000;
        self.run_until(soon);
        self.end_all();
    }

    /// What can still be redeemed is over; nothing may be held by then.
    fn conclude(&mut self, even: bool) {
        if !self.auditor.is_content() {
            return;
        }
        self.look_at_books();
        let (facts, policy) = (std::mem::take(&mut self.facts), self.policy());
        if even {
            self.auditor.is_even(&facts);
        }
        self.facts = facts;
        self.run_until(OVER_MS);
        if !self.auditor.is_content() {
            return;
        }
        self.look_at_books();
        let facts = std::mem::take(&mut self.facts);
        self.auditor.settle_losses(&facts, &policy);
        self.auditor.is_settled(&facts);
    }

    fn report(mut self) -> Report {
        let trace = self.trace.take().unwrap_or_default();
        let losses = self.auditor.losses;
        Report { breaches: self.auditor.into_breaches(), trace, counts: self.counts, losses }
    }
}

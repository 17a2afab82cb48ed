//! The auditor: independent arithmetic over what was observed.
//!
//! It sees every record as it is committed, every frame as it is sent, what tools really did, and settlement's books; it computes charges, shares and exposures in its own way and shares no
//! code with the product beyond ids and content ids. A rule holds for whoever is honest, whatever the others do. Every breach becomes a line; none stops the world.

mod agent;
mod exposure;
mod house;
mod provider;

use std::collections::{BTreeMap, BTreeSet};

use crate::channel::ChannelId;
use crate::frame::ChannelState;
use crate::hash::Hash;
use crate::id::ExecutionId;
use crate::network::NetworkId;
use crate::signing::Address;
use crate::terms::Terms;
use crate::time::UnixSeconds;
use crate::voucher::Allowance;

pub(super) use exposure::Policy;

/// Most breaches that are kept: the first one is what matters.
const BREACHES_KEPT: usize = 20;
const MS_PER_MINUTE: u128 = 60_000;

/// A tool's price as the auditor counts.
#[derive(Clone, Copy, Debug, Default)]
struct Tariff {
    per_minute: u128,
    fee: u128,
}

/// What receipts say of one execution.
#[derive(Clone, Debug, Default)]
struct Reported {
    tool: String,
    ms: u128,
    ended: bool,
    never_ran: bool,
}

/// What an agent asked for.
#[derive(Clone, Debug)]
struct Asked {
    tool: String,
    max_cost: u128,
    at: u64,
}

/// Everything observed of one session.
#[derive(Debug)]
struct Audit {
    provider: usize,
    account: Address,
    payout: Address,
    channel: ChannelId,
    tariffs: BTreeMap<String, Tariff>,
    minimum: u128,
    interval_ms: u128,
    work_until: UnixSeconds,
    redeem_until: UnixSeconds,
    claim_key: Address,
    agent_cheats: bool,
    provider_cheats: bool,

    /// The provider's disk: content id and charge of each receipt, from number 1.
    chain: Vec<(Hash, u128)>,
    reported: BTreeMap<ExecutionId, Reported>,
    taken: BTreeSet<ExecutionId>,
    dropped: BTreeSet<ExecutionId>,
    ceiling: u128,
    accepted: u128,
    is_paid_for: bool,
    close: Option<u128>,
    /// Released, with something unanswered.
    owes: bool,

    /// The agent's disk.
    asked: BTreeMap<ExecutionId, Asked>,
    answered: BTreeMap<ExecutionId, Reported>,
    vouchers: Vec<(u128, u64, Hash)>,
    /// The highest budget that was asked for.
    budget: u128,
    reserved: u128,
    disputed: bool,
    /// Given up for another: nothing beyond this may be signed.
    sealed: Option<u128>,

    /// The highest total that the spending key has signed, honestly or not.
    signed: u128,
    /// What tools really worked.
    worked: BTreeMap<ExecutionId, (String, u128)>,
    running: BTreeSet<ExecutionId>,
    /// Worth of work that a provider looked at too late to charge, in sessions where everything it did charge was promised since.
    forgone: u128,
}

/// The worst that happened to each party in a world, and the bound on it, in micro-USDC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// What an honest agent promised beyond the work that was really done, the minimum charge aside.
    pub agent: u128,
    /// Most that may be.
    pub agent_bound: u128,
    /// What an honest provider worked and did not get.
    pub provider: u128,
    /// Most that may be, over all accounts and providers.
    pub provider_bound: u128,
    /// What an honest settlement redeemed beyond what it was granted.
    pub settlement: u128,
    /// All work at honest providers that was never paid for.
    pub unpaid: u128,
    /// All that was redeemed at honest providers.
    pub redeemed: u128,
    /// What all tools at honest providers cost within one look of their provider each: by so much a limit may be passed.
    pub ticks: u128,
}

/// Watches one world.
#[derive(Debug)]
pub(super) struct Auditor {
    network: NetworkId,
    sessions: Vec<Audit>,
    breaches: Vec<String>,
    house_cheats: bool,
    /// Whether wall clocks are set.
    steps: bool,
    channels: BTreeMap<ChannelId, ChannelState>,
    payments: BTreeSet<u128>,
    paid: BTreeMap<Address, u128>,
    pub(super) losses: Losses,
}

impl Auditor {
    pub(super) fn new(network: NetworkId, house_cheats: bool, steps: bool) -> Self {
        Self {
            network,
            steps,
            sessions: Vec::new(),
            breaches: Vec::new(),
            house_cheats,
            channels: BTreeMap::new(),
            payments: BTreeSet::new(),
            paid: BTreeMap::new(),
            losses: Losses::default(),
        }
    }

    /// A session is proposed; slots count from zero.
    pub(super) fn session(&mut self, terms: &Terms, provider: usize, cheats: (bool, bool)) {
        let tariff = |p: &crate::terms::ToolPrice| Tariff {
            per_minute: u128::from(p.price.per_minute.micros()),
            fee: u128::from(p.price.call_fee.micros()),
        };
        self.sessions.push(Audit {
            provider,
            account: terms.agent.unverified().principal,
            payout: terms.provider.unverified().principal,
            channel: terms.channel().id(),
            tariffs: terms.prices.iter().map(|p| (p.tool.clone(), tariff(p))).collect(),
            minimum: u128::from(terms.minimum_charge.micros()),
            interval_ms: u128::from(terms.metering_interval.0),
            work_until: terms.work_until,
            redeem_until: terms.redeem_until,
            claim_key: terms.provider.unverified().money_key,
            agent_cheats: cheats.0,
            provider_cheats: cheats.1,
            chain: Vec::new(),
            reported: BTreeMap::new(),
            taken: BTreeSet::new(),
            dropped: BTreeSet::new(),
            ceiling: 0,
            accepted: 0,
            is_paid_for: false,
            close: None,
            owes: false,
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            vouchers: Vec::new(),
            budget: 0,
            reserved: 0,
            disputed: false,
            sealed: None,
            signed: 0,
            worked: BTreeMap::new(),
            running: BTreeSet::new(),
            forgone: 0,
        });
    }

    /// Notes a breach of a rule.
    pub(super) fn breach(&mut self, text: impl FnOnce() -> String) {
        if self.breaches.len() < BREACHES_KEPT {
            self.breaches.push(text());
        }
    }

    pub(super) const fn is_content(&self) -> bool {
        self.breaches.is_empty()
    }

    pub(super) fn into_breaches(self) -> Vec<String> {
        self.breaches
    }

    fn check(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.breach(text);
        }
    }
}

impl Audit {
    /// Whether an allowance is for this session and nothing else.
    fn is_ours(&self, allowance: &Allowance) -> bool {
        let times = allowance.work_until == self.work_until && allowance.redeem_until == self.redeem_until;
        times && allowance.channel == self.channel && allowance.claim_key == self.claim_key
    }

    fn tariff(&self, tool: &str) -> Tariff {
        self.tariffs.get(tool).copied().unwrap_or_default()
    }

    /// Time and fees of all of these, rounded down once.
    fn cost<'a>(&self, runs: impl Iterator<Item = (&'a str, u128)>) -> u128 {
        let (mut product, mut fees) = (0, 0);
        for (tool, ms) in runs {
            let tariff = self.tariff(tool);
            product += tariff.per_minute * ms;
            fees += tariff.fee;
        }
        product / MS_PER_MINUTE + fees
    }

    /// What receipts that say this must charge.
    fn charge(&self, reported: &BTreeMap<ExecutionId, Reported>) -> u128 {
        let ran = reported.values().filter(|run| !run.never_ran);
        self.cost(ran.map(|run| (run.tool.as_str(), run.ms))).max(self.minimum)
    }

    /// Once every receipt is answered, what ended runs worked beyond their last receipt is the provider's own: it looked too late.
    fn forgo(&mut self) {
        let before = self.value();
        for (execution, run) in self.reported.iter().filter(|(_, run)| run.ended) {
            if let Some((_, worked)) = self.worked.get_mut(execution) {
                *worked = run.ms;
            }
        }
        self.forgone += before.saturating_sub(self.value());
    }

    /// What the work that was really done is worth.
    fn value(&self) -> u128 {
        self.cost(self.worked.values().map(|(tool, ms)| (tool.as_str(), *ms)))
    }

    /// What one interval of the dearest tool costs, its fee included.
    fn interval(&self) -> u128 {
        let cost = |tariff: &Tariff| tariff.per_minute * self.interval_ms / MS_PER_MINUTE + tariff.fee;
        self.tariffs.values().map(cost).max().unwrap_or(0).max(1)
    }
}

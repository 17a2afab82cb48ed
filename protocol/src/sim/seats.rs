//! Who and what is in a world: agents, providers, and one slot for every session between two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::binding::SignedBinding;
use crate::credit::CreditBook;
use crate::frame::{AgentFrame, ChannelState};
use crate::hash::Hash;
use crate::id::{ExecutionId, SessionId};
use crate::ledger::Account;
use crate::money::{Price, Usdc};
use crate::network::NetworkId;
use crate::offer::Confinement;
use crate::session::agent::{AgentKeys, AgentRecord, AgentSession};
use crate::session::provider::{ProviderKeys, ProviderRecord, ProviderSession};
use crate::signing::{Address, MoneyDomain, MoneyKey, PeerKey};
use crate::sim::clock::Clock;
use crate::sim::tools::Tool;
use crate::terms::{Terms, ToolPrice};
use crate::time::{Millis, Timestamp, UnixSeconds};

/// Fee of the tool `call`.
pub(super) const CALL_FEE: u64 = 500;

/// An agent's process.
#[derive(Debug)]
pub(super) struct AgentSeat {
    pub(super) keys: AgentKeys,
    pub(super) account: Address,
    pub(super) clock: Clock,
    pub(super) up: bool,
    pub(super) cheats: bool,
}

/// A provider's process.
#[derive(Debug)]
pub(super) struct ProviderSeat {
    pub(super) keys: ProviderKeys,
    pub(super) payout: Address,
    pub(super) clock: Clock,
    pub(super) up: bool,
    pub(super) cheats: bool,
    pub(super) book: CreditBook,
    /// Commits all records of a turn before anything else of it, as the node does; else each in its place.
    pub(super) groups: bool,
}

/// One control stream.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) generation: u32,
    pub(super) agent_up: bool,
    pub(super) provider_up: bool,
    /// When the last frame of this stream arrives, each way.
    pub(super) to_agent: u64,
    pub(super) to_provider: u64,
    pub(super) dialling: bool,
    /// Only for what may still be got back from a session that never opened.
    pub(super) errand: bool,
}

/// A session with both of its sides, and what each has on disk.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) agent: usize,
    pub(super) provider: usize,
    pub(super) agent_machine: Option<AgentSession>,
    pub(super) agent_log: Vec<AgentRecord>,
    pub(super) provider_machine: Option<ProviderSession>,
    pub(super) provider_log: Vec<ProviderRecord>,
    pub(super) link: Link,
    pub(super) tools: BTreeMap<ExecutionId, Tool>,
    pub(super) executions: Vec<ExecutionId>,
    /// What settlement said of the channel, as the provider stored it, and whether it has taken the close.
    pub(super) handed: (ChannelState, bool),
    /// Whether something is to be handed in.
    pub(super) due: bool,
    /// Budgets that settlement is asked for and has not answered.
    pub(super) asked: BTreeSet<Usdc>,
    /// What a cheat has said before.
    pub(super) said: Vec<AgentFrame>,
    pub(super) vouchers: u32,
    /// The account that a cheating provider keeps of the receipts which it makes up.
    pub(super) forged: Account,
}

impl Slot {
    pub(super) fn new(agent: usize, provider: usize, machine: AgentSession) -> Self {
        Self {
            agent,
            provider,
            agent_machine: Some(machine),
            agent_log: Vec::new(),
            provider_machine: None,
            provider_log: Vec::new(),
            link: Link::default(),
            tools: BTreeMap::new(),
            executions: Vec::new(),
            handed: (ChannelState::default(), false),
            due: false,
            asked: BTreeSet::new(),
            said: Vec::new(),
            vouchers: 0,
            forged: Account::default(),
        }
    }
}

fn seed(kind: u8, index: usize) -> [u8; 32] {
    let mut seed = [kind; 32];
    seed[0] = u8::try_from(index % 200).unwrap_or(0);
    seed
}

fn peer_key(kind: u8, index: usize) -> Arc<PeerKey> {
    Arc::new(PeerKey::from_seed(&seed(kind, index)))
}

/// A money key of the world; the seeds are valid scalars, so there always is one.
pub(super) fn money_key(kind: u8, index: usize) -> Option<Arc<MoneyKey>> {
    money_key_of(kind, index).map(Arc::new)
}

pub(super) fn money_key_of(kind: u8, index: usize) -> Option<MoneyKey> {
    MoneyKey::from_bytes(&seed(kind, index)).ok()
}

impl AgentSeat {
    pub(super) fn new(index: usize, account: usize, clock: Clock, cheats: bool) -> Option<Self> {
        let keys = AgentKeys { peer: peer_key(1, index), spending: money_key(2, index)? };
        Some(Self { keys, account: money_key(3, account)?.address(), clock, up: true, cheats })
    }
}

impl ProviderSeat {
    pub(super) fn new(index: usize, clock: Clock, book: CreditBook, cheats: bool, groups: bool) -> Option<Self> {
        let keys = ProviderKeys { peer: peer_key(4, index), claim: money_key(5, index)? };
        Some(Self { keys, payout: money_key(6, index)?.address(), clock, up: true, cheats, book, groups })
    }
}

/// What the terms of a session are made of.
pub(super) struct Drawing<'a> {
    pub(super) network: &'a NetworkId,
    pub(super) domain: &'a MoneyDomain,
    pub(super) signer: Address,
    pub(super) price: Price,
    pub(super) interval_ms: u64,
    pub(super) runs_at_once: u16,
    pub(super) issued_at: Timestamp,
    pub(super) work_s: u64,
}

impl Drawing<'_> {
    pub(super) fn terms(&self, session: SessionId, agent: &AgentSeat, provider: &ProviderSeat) -> Terms {
        let call = Price { call_fee: Usdc::from_micros(CALL_FEE), ..self.price };
        let work_until = self.issued_at.seconds().0 + self.work_s;
        Terms {
            session,
            agent: SignedBinding::make(&agent.keys.peer, &agent.keys.spending, agent.account, self.network, self.domain),
            provider: SignedBinding::make(&provider.keys.peer, &provider.keys.claim, provider.payout, self.network, self.domain),
            domain: *self.domain,
            settlement_signer: self.signer,
            offer: Hash::of(b"offer"),
            prices: vec![ToolPrice { tool: "work".to_owned(), price: self.price }, ToolPrice { tool: "call".to_owned(), price: call }],
            minimum_charge: self.price.of(self.interval_ms).unwrap_or_default(),
            metering_interval: Millis(self.interval_ms),
            time_tolerance: crate::terms::TIME_TOLERANCE,
            runs_at_once: self.runs_at_once,
            confinement: Confinement::S0,
            issued_at: self.issued_at,
            work_until: UnixSeconds(work_until),
            redeem_until: UnixSeconds(work_until + super::REDEMPTION_S),
        }
    }
}

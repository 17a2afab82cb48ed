//! The parties of one network with their keys, and sessions that are about to open. All of it is made once: a fuzzer's time is not for making keys.

use std::sync::{Arc, LazyLock};

use orien_protocol::binding::SignedBinding;
use orien_protocol::hash::Hash;
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::money::{Price, Usdc};
use orien_protocol::network::NetworkId;
use orien_protocol::offer::Confinement;
use orien_protocol::session::agent::AgentKeys;
use orien_protocol::session::provider::ProviderKeys;
use orien_protocol::signing::{MoneyDomain, MoneyKey, PeerKey};
use orien_protocol::terms::{ProposedTerms, SignedTerms, Terms, ToolPrice, VerifiedTerms};
use orien_protocol::time::{Millis, Now, Timestamp, UnixSeconds};
use orien_protocol::voucher::{Allowance, MoneyVerified, SignedAllowance};
use orien_settlement::house::NetworkFacts;

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(World::new);
/// The wall clock at which every story starts.
pub(crate) const START: Timestamp = Timestamp(1_800_000_000_000);
/// Seconds from then until work dies.
pub(crate) const WORK_SECONDS: u64 = 3_600;
/// The tools of every session.
pub(crate) const TOOLS: [&str; 3] = ["work", "call", "dear"];
/// Kinds of terms.
pub(crate) const KINDS: u8 = 4;

pub(crate) const fn usdc(micros: u64) -> Usdc {
    Usdc::from_micros(micros)
}

pub(crate) const fn start() -> Now {
    Now { wall: START, mono: Millis(1_000_000) }
}

pub(crate) fn execution(number: u8) -> ExecutionId {
    ExecutionId::from_parts(START.0, u128::from(number))
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) network: NetworkId,
    pub(crate) domain: MoneyDomain,
    pub(crate) agent: AgentKeys,
    pub(crate) provider: ProviderKeys,
    pub(crate) settlement: MoneyKey,
    /// Somebody who has nothing to say here.
    pub(crate) stranger: PeerKey,
    pub(crate) stranger_money: MoneyKey,
    pub(crate) facts: NetworkFacts,
    /// One of each kind, signed by both.
    pub(crate) agreed: Vec<VerifiedTerms>,
}

impl World {
    fn new() -> Self {
        let peer = |seed| Arc::new(PeerKey::from_seed(&[seed; 32]));
        let money = |seed| MoneyKey::from_bytes(&[seed; 32]).unwrap();
        let settlement = money(9);
        let network: NetworkId = "test-0011223344556677".parse().unwrap();
        let domain = MoneyDomain::ledger(network.as_str(), &settlement.address());
        let facts = NetworkFacts { network: network.clone(), domain, signer: settlement.address(), peer: peer(8).id() };
        let mut world = Self {
            network,
            domain,
            agent: AgentKeys { peer: peer(1), spending: Arc::new(money(2)) },
            provider: ProviderKeys { peer: peer(3), claim: Arc::new(money(4)) },
            settlement,
            stranger: PeerKey::from_seed(&[6; 32]),
            stranger_money: money(7),
            facts,
            agreed: Vec::new(),
        };
        world.agreed = (0..KINDS)
            .map(|kind| {
                let proposal = ProposedTerms::make(world.terms(kind), &world.network, &world.agent.peer).unwrap();
                proposal.countersign(&world.network, &world.provider.peer).unwrap()
            })
            .collect();
        world
    }

    /// 0: one micro-USDC per millisecond, with a minimum; 1: prices at the end of the range; 2: free; 3: prices that never divide.
    pub(crate) fn terms(&self, kind: u8) -> Terms {
        let payout = MoneyKey::from_bytes(&[5; 32]).unwrap().address();
        let (per_minute, fee, minimum, interval, runs) = match kind {
            0 => (60_000, 500, 5_000, 5_000, 2),
            1 => (u64::MAX / 2, u64::MAX / 4, 1, 1_000, 3),
            2 => (0, 0, 0, 1, 1),
            _ => (7_777_777, 1, 100_000, 1_000, u16::MAX),
        };
        let price = |tool: &str, per_minute, fee| ToolPrice {
            tool: tool.to_owned(),
            price: Price { per_minute: usdc(per_minute), call_fee: usdc(fee) },
        };
        Terms {
            session: SessionId::from_parts(START.0, 77),
            agent: SignedBinding::make(&self.agent.peer, &self.agent.spending, self.agent.spending.address(), &self.network, &self.domain),
            provider: SignedBinding::make(&self.provider.peer, &self.provider.claim, payout, &self.network, &self.domain),
            domain: self.domain,
            settlement_signer: self.settlement.address(),
            offer: Hash::of(b"offer"),
            prices: vec![price("work", per_minute, 0), price("call", per_minute, fee), price("dear", per_minute.saturating_mul(3), fee)],
            minimum_charge: usdc(minimum),
            metering_interval: Millis(interval),
            time_tolerance: Millis(100),
            runs_at_once: runs,
            confinement: Confinement::S1,
            issued_at: START,
            work_until: UnixSeconds(START.0 / 1000 + WORK_SECONDS),
            redeem_until: UnixSeconds(START.0 / 1000 + 2 * WORK_SECONDS),
        }
    }

    pub(crate) fn agreed(&self, kind: u8) -> &VerifiedTerms {
        &self.agreed[usize::from(kind % KINDS)]
    }

    /// What settlement says when it is asked to reserve for these terms.
    pub(crate) fn allowance(&self, terms: &SignedTerms, ceiling: Usdc) -> SignedAllowance {
        let terms = terms.clone().verify(&self.network).unwrap();
        self.sign_allowance(Self::allowance_of(&terms, ceiling))
    }

    pub(crate) fn allowance_of(terms: &VerifiedTerms, ceiling: Usdc) -> Allowance {
        Allowance {
            channel: terms.channel(),
            ceiling,
            work_until: terms.work_until,
            redeem_until: terms.redeem_until,
            terms: terms.hash(),
            claim_key: terms.claim_key(),
        }
    }

    pub(crate) fn sign_allowance(&self, allowance: Allowance) -> SignedAllowance {
        *MoneyVerified::sign(allowance, &self.domain, &self.settlement).signed()
    }

    /// An allowance that is right, or wrong in one way.
    pub(crate) fn some_allowance(&self, terms: &VerifiedTerms, ceiling: Usdc, wrong: u8) -> SignedAllowance {
        let mut allowance = Self::allowance_of(terms, ceiling);
        match wrong {
            1 => allowance.channel = orien_protocol::channel::ChannelId::from_hash(Hash::ZERO),
            2 => allowance.terms = Hash::ZERO,
            3 => allowance.claim_key = self.stranger_money.address(),
            4 => allowance.work_until = UnixSeconds(allowance.work_until.0 + 1),
            5 => allowance.redeem_until = UnixSeconds(u64::MAX),
            6 => return *MoneyVerified::sign(allowance, &self.domain, &self.stranger_money).signed(),
            _ => {}
        }
        self.sign_allowance(allowance)
    }
}

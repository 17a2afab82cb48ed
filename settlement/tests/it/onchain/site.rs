//! A network whose money is on a real local chain: anvil with a token and the escrow, a settlement's data directory, agents with money and providers with payout addresses.

use std::path::PathBuf;
use std::time::Duration;

use orien_bootstrap::{DataDir, Keys, Network, NetworkChain, RoleName, Settlement, clock};
use orien_chain::anvil::{Anvil, AnvilSettings, LocalChain, LocalSettings, chain_for_test};
use orien_chain::{Chain, ChainLimits, RpcUrl};
use orien_protocol::binding::SignedBinding;
use orien_protocol::frame::Claim;
use orien_protocol::hash::Hash;
use orien_protocol::id::{RequestId, SessionId};
use orien_protocol::money::{Price, Usdc};
use orien_protocol::offer::Confinement;
use orien_protocol::receipt::Receipt;
use orien_protocol::signing::Verified;
use orien_protocol::terms::{ProposedTerms, Terms, ToolPrice, VerifiedTerms};
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::{Close, MoneyVerified, SignedAllowance, Voucher};
use orien_settlement::books::Sight;
use orien_settlement::desk::Desk;
use orien_settlement::onchain::{Follower, Works};
use orien_settlement::paying::{Policy, Rules};

use crate::kit::{Party, usdc};

/// The chain and everybody on it.
pub(crate) struct Site {
    pub(crate) chain: LocalChain,
    pub(crate) network: Network,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) keys: Keys,
    pub(crate) agents: Vec<Party>,
    pub(crate) providers: Vec<Party>,
}

/// One session of a test: what was reserved and what is promised by now.
pub(crate) struct Session {
    pub(crate) terms: VerifiedTerms,
    pub(crate) agent: usize,
    pub(crate) provider: usize,
    pub(crate) allowance: SignedAllowance,
    pub(crate) total: Usdc,
    pub(crate) number: u64,
}

impl Site {
    /// None when anvil is not installed.
    pub(crate) async fn start(agents: u8, providers: u8) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("settlement"), RoleName::Settlement).unwrap();
        let keys = Keys::load_or_create(&data).unwrap();
        let settings = LocalSettings {
            anvil: AnvilSettings { slots_in_epoch: 2, ..AnvilSettings::default() },
            ..LocalSettings::new(keys.money().address())
        };
        let chain = chain_for_test(&settings).await?;
        let named = Settlement { peer: keys.peer().id(), signer: keys.money().address(), addresses: Vec::new() };
        let facts = NetworkChain { facts: *chain.facts(), preset: None, rpc: vec![chain.anvil.rpc().clone()] };
        let network = Network::new_evm("storm", named, facts, Millis::from_secs(86_400), Millis::from_secs(900), Vec::new()).unwrap();
        network.save(&data.network_file()).unwrap();
        drop(data);
        chain.anvil.give_gas(&keys.money().address()).await.unwrap();
        let party = |n: u8| {
            let mut party = Party::new(n);
            if n < 100 {
                // An agent's account is its own key here.
                party.principal = party.money.address();
            }
            party
        };
        let agents: Vec<Party> = (1..=agents).map(party).collect();
        let providers: Vec<Party> = (101..=100 + providers).map(party).collect();
        let site = Self { chain, network, folder, keys, agents, providers };
        for agent in &site.agents {
            site.chain.fund(&agent.principal, usdc("1000")).await.unwrap();
            site.chain.deposit(&agent.money, usdc("100"), &agent.money.address()).await.unwrap();
        }
        site.chain.settle().await.unwrap();
        Some(site)
    }

    pub(crate) fn anvil(&self) -> &Anvil {
        &self.chain.anvil
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("settlement")
    }

    /// The desk, while no process has it.
    pub(crate) fn desk(&self) -> Desk {
        open_desk(&self.data_dir())
    }

    /// A driver for a desk of this process.
    pub(crate) fn follower<D: orien_settlement::onchain::Counter>(&self, desk: D, chain: Chain) -> Follower<Chain, D> {
        Follower::new(chain, desk, *self.chain.facts(), self.keys.money().clone(), works())
    }

    /// Terms, reserved at a desk that has followed the chain.
    pub(crate) fn open(&self, desk: &Desk, agent: usize, provider: usize, ceiling: Usdc, now: Timestamp) -> Session {
        let terms = self.terms(agent, provider, now);
        desk.see(Sight { at: now, behind: Millis(0) }).unwrap();
        desk.compared().unwrap();
        let request = clock::random_id(RequestId::from_parts).unwrap();
        let allowance = desk.reserve(self.agents[agent].peer.id(), request, terms.to_signed(), ceiling, now).unwrap();
        Session { terms, agent, provider, allowance, total: Usdc::ZERO, number: 0 }
    }

    pub(crate) fn terms(&self, agent: usize, provider: usize, now: Timestamp) -> VerifiedTerms {
        let (network, domain) = (self.network.id(), self.network.domain());
        let bind = |party: &Party| SignedBinding::make(&party.peer, &party.money, party.principal, network, &domain);
        let (agent, provider) = (&self.agents[agent], &self.providers[provider]);
        let terms = Terms {
            session: clock::random_id(SessionId::from_parts).unwrap(),
            agent: bind(agent),
            provider: bind(provider),
            domain,
            settlement_signer: self.network.settlement().signer,
            offer: Hash::of(b"offer"),
            prices: vec![ToolPrice { tool: "run_build".to_owned(), price: Price { per_minute: usdc("0.6"), call_fee: Usdc::ZERO } }],
            minimum_charge: usdc("0.05"),
            metering_interval: Millis::from_secs(5),
            time_tolerance: Millis(2_000),
            runs_at_once: 1,
            confinement: Confinement::S0,
            issued_at: now,
            work_until: now.plus(Millis::from_secs(7_200)).seconds(),
            redeem_until: now.plus(Millis::from_secs(14_400)).seconds(),
        };
        ProposedTerms::make(terms, network, &agent.peer).unwrap().countersign(network, &provider.peer).unwrap()
    }

    /// The next claim of a session, `more` higher than the last.
    pub(crate) fn claim(&self, session: &mut Session, more: Usdc, closes: bool) -> Claim {
        (session.number, session.total) = (session.number + 1, session.total.plus(more).unwrap());
        let (agent, provider) = (&self.agents[session.agent], &self.providers[session.provider]);
        let (terms, domain) = (&session.terms, self.network.domain());
        let receipt = Receipt {
            session: terms.session,
            terms: terms.hash(),
            number: session.number,
            previous: Hash::ZERO,
            at: clock::wall(),
            confinement: Confinement::S0,
            work: None,
            charged: session.total,
        };
        let receipt = Verified::sign(receipt, self.network.id(), &provider.peer);
        let voucher =
            Voucher { channel: terms.channel(), total: session.total, receipt_number: session.number, receipt_hash: receipt.hash() };
        let close = Close { channel: terms.channel(), total: session.total };
        Claim {
            terms: terms.to_signed(),
            allowance: session.allowance,
            voucher: *MoneyVerified::sign(voucher, &domain, &agent.money).signed(),
            receipt: receipt.into_signed(),
            close: closes.then(|| *MoneyVerified::sign(close, &domain, &provider.money).signed()),
        }
    }

    pub(crate) fn chain_of(&self, rpc: &[RpcUrl]) -> Chain {
        self.chain.through(rpc, limits()).unwrap()
    }
}

/// What an impatient settlement asks of nodes.
pub(crate) fn limits() -> ChainLimits {
    ChainLimits {
        answer_within: Duration::from_secs(5),
        attempts: 2,
        pause: Duration::from_millis(20),
        pause_max: Duration::from_millis(200),
        ..ChainLimits::default()
    }
}

/// Everything is worth a transaction at once, and nothing waits for long.
pub(crate) fn works() -> Works {
    let policy = Policy { amount: Usdc::from_micros(1), age: Millis(1), ..Policy::default() };
    let rules = Rules { resend: Millis(500), stall: Millis(1_500), patience: Millis(8_000), ..Rules::default() };
    Works { policy, rules, ..Works::default() }
}

/// The desk of a data directory's network and keys.
pub(crate) fn open_desk(data_dir: &std::path::Path) -> Desk {
    use std::sync::Arc;
    let data = DataDir::open(data_dir, RoleName::Settlement).unwrap();
    let (network, keys) = (Network::load(&data.network_file()).unwrap(), Keys::load_or_create(&data).unwrap());
    let house = orien_settlement::offline::house(&network, keys.peer(), keys.money()).unwrap();
    Desk::open(&data.store("settlement"), Arc::new(house), Arc::new(orien_settlement::rail::EvmRail)).unwrap()
}

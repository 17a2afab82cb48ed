//! A local chain, an agent with money, and documents that peers would sign for each other.

use std::time::Duration;

use orien_chain::anvil::{FaultyRpc, LocalChain, LocalSettings, chain_for_test, local_key};
use orien_chain::{Chain, ChainLimits, Finality, OnChainClaim, Receipt, TxHash};
use orien_protocol::channel::Channel;
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Address, MoneyKey};
use orien_protocol::time::UnixSeconds;
use orien_protocol::voucher::{Allowance, Close, MoneyVerified, Voucher};

/// Long after anything that happens in a test.
pub(crate) const LATE: UnixSeconds = UnixSeconds(4_000_000_000);

pub(crate) fn usdc(text: &str) -> Usdc {
    text.parse().unwrap()
}

pub(crate) struct World {
    pub(crate) local: LocalChain,
    pub(crate) signer: MoneyKey,
    pub(crate) agent: MoneyKey,
    pub(crate) spender: MoneyKey,
    pub(crate) claimer: MoneyKey,
}

impl World {
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(|_| {}).await
    }

    /// A chain with a funded agent; nothing is deposited yet.
    pub(crate) async fn start_with(change: impl FnOnce(&mut LocalSettings)) -> Option<Self> {
        let signer = local_key("signer");
        let mut settings = LocalSettings::new(signer.address());
        change(&mut settings);
        let local = chain_for_test(&settings).await?;
        let world = Self { local, signer, agent: local_key("agent"), spender: local_key("spender"), claimer: local_key("claimer") };
        world.local.fund(&world.agent.address(), usdc("100")).await.unwrap();
        Some(world)
    }

    /// The same on a chain on which every block is final.
    pub(crate) async fn start_final_at_once() -> Option<Self> {
        Self::start_with(|settings| settings.finality = Finality::Latest).await
    }

    pub(crate) fn chain(&self) -> &Chain {
        self.local.chain()
    }

    pub(crate) async fn proxies(&self, count: usize) -> Vec<FaultyRpc> {
        let mut proxies = Vec::new();
        for _ in 0..count {
            proxies.push(FaultyRpc::start(self.local.anvil.rpc()).await.unwrap());
        }
        proxies
    }

    /// The chain through proxies, with little patience.
    pub(crate) fn through(&self, proxies: &[FaultyRpc]) -> Chain {
        self.through_with(proxies, impatient())
    }

    pub(crate) fn through_with(&self, proxies: &[FaultyRpc], limits: ChainLimits) -> Chain {
        let urls: Vec<_> = proxies.iter().map(|proxy| proxy.rpc().clone()).collect();
        self.local.through(&urls, limits).unwrap()
    }

    pub(crate) async fn deposit(&self, amount: &str) {
        self.local.deposit(&self.agent, usdc(amount), &self.spender.address()).await.unwrap();
    }

    pub(crate) fn channel(&self, lane: u128, payout: Address) -> Channel {
        Channel {
            domain: self.local.facts().domain(),
            account: self.agent.address(),
            spending_key: self.spender.address(),
            payout,
            provider: PeerId::from_bytes([7; 32]),
            settlement_signer: self.signer.address(),
            lane: SessionId::from_bytes(lane.to_be_bytes()),
        }
    }

    /// A claim of `total` under `ceiling`, and closed at `total` if that is wanted.
    pub(crate) fn claim(&self, channel: Channel, total: &str, ceiling: &str, closed: bool) -> OnChainClaim {
        let domain = channel.domain;
        let id = channel.id();
        let voucher = Voucher { channel: id, total: usdc(total), receipt_number: 3, receipt_hash: Hash::of(b"receipt") };
        let allowance = Allowance {
            channel: id,
            ceiling: usdc(ceiling),
            work_until: LATE,
            redeem_until: LATE,
            terms: Hash::of(b"terms"),
            claim_key: self.claimer.address(),
        };
        let close = closed.then(|| *MoneyVerified::sign(Close { channel: id, total: usdc(total) }, &domain, &self.claimer).signed());
        let voucher = *MoneyVerified::sign(voucher, &domain, &self.spender).signed();
        let allowance = *MoneyVerified::sign(allowance, &domain, &self.signer).signed();
        OnChainClaim::new(channel, voucher, Some(allowance), close).unwrap()
    }
}

/// The receipt of a transaction that a node has taken. A block is made soon after the answer, not before it.
pub(crate) async fn included(chain: &Chain, transaction: &TxHash) -> Receipt {
    for _ in 0..500 {
        if let Some(receipt) = chain.receipt(transaction).await.unwrap() {
            return receipt;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no block took {transaction}");
}

/// Waits that a test can afford.
pub(crate) fn impatient() -> ChainLimits {
    ChainLimits {
        answer_within: Duration::from_secs(5),
        pause: Duration::from_millis(20),
        pause_max: Duration::from_millis(500),
        attempts: 3,
        ..ChainLimits::default()
    }
}

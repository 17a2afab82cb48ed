//! A provider in a temporary directory, and the parties that it deals with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orien_bootstrap::{FaultyDisk, clock, random_id};
use orien_chain::Chain;
use orien_chain::anvil::LocalChain;
use orien_node::chain::CollectPolicy;
use orien_node::collector::{ClaimError, Settlement};
use orien_node::config::{self, HostPaths, HostPrograms, ProviderConfig};
use orien_node::listing::{Listing, Today, hardware};
use orien_node::shop::{OpenShopError, Shop, ShopConfig};
use orien_node::store::Store;
use orien_protocol::binding::SignedBinding;
use orien_protocol::credit::CreditPolicy;
use orien_protocol::frame::{ChannelState, Claim};
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::network::NetworkId;
use orien_protocol::offer::{Confinement, Offer};
use orien_protocol::session::agent::AgentKeys;
use orien_protocol::session::provider::ProviderKeys;
use orien_protocol::signing::{Address, MoneyDomain, MoneyKey, PeerKey, Verified};
use orien_protocol::terms::{SignedTerms, TIME_TOLERANCE, Terms, ToolPrice};
use orien_protocol::time::{Millis, UnixSeconds};
use orien_protocol::voucher::{Allowance, MoneyVerified, SignedAllowance};
use tempfile::TempDir;

/// After this a test counts as hung. Nothing is measured by it.
pub(crate) const HUNG: Duration = Duration::from_secs(90);
/// The helper that the sandbox starts.
pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_orien-node-helper");
/// 6 USDC per minute: 100 micro-USDC per millisecond. The minimum charge is 0.01 USDC.
pub(crate) const PER_MS: u64 = 100;
pub(crate) const MINIMUM: u64 = 10_000;

pub(crate) const TOOLS: &str = r#"{
  "providerId": "test", "pricePerMinute": "6", "minimumCharge": "0.01", "meteringIntervalSeconds": 1,
  "capacity": {"sessions": 4, "runsPerSession": 2}, "workspace": {"maxBytes": "16MB", "storage": "disk"},
  "tools": [
    {"id": "echo", "command": "/bin/echo {text}", "args": ["text"]},
    {"id": "sleep", "command": "/bin/sleep {seconds}", "args": ["seconds"]},
    {"id": "compile", "command": "/usr/bin/cc -o {output} {source}", "args": [{"name": "source", "type": "file"}, {"name": "output", "type": "file"}]},
    {"id": "count", "command": "/usr/bin/seq {last}", "args": [{"name": "last", "type": "integer"}]},
    {"id": "cat", "command": "/bin/cat", "args": []},
    {"id": "first", "command": "/usr/bin/head -c 3", "args": []},
    {"id": "absent", "command": "/no/such/program", "args": []},
    {"id": "call", "command": "/bin/true", "callFee": "0.5", "args": []}
  ]
}"#;

pub(crate) const fn usdc(micros: u64) -> Usdc {
    Usdc::from_micros(micros)
}

/// A settlement that redeems at once what it is shown, or does not answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Till {
    pub(crate) claims: Arc<Mutex<BTreeMap<SessionId, Claim>>>,
    pub(crate) silent: Arc<AtomicBool>,
}

impl Settlement for Till {
    async fn claim(&self, claim: Claim) -> Result<ChannelState, ClaimError> {
        if self.silent.load(Ordering::SeqCst) {
            return Err(ClaimError::Unanswered("silent".to_owned()));
        }
        let redeemed = claim.voucher.unverified().total;
        let state = ChannelState { ceiling: claim.allowance.unverified().ceiling, redeemed, closed: claim.close.is_some() };
        self.claims.lock().unwrap().insert(claim.terms.by_agent.unverified().session, claim);
        Ok(state)
    }
}

impl Till {
    /// What was redeemed of a session, and whether it was closed.
    pub(crate) fn redeemed(&self, session: SessionId) -> Option<(u64, bool)> {
        let claims = self.claims.lock().unwrap();
        claims.get(&session).map(|claim| (claim.voucher.unverified().total.micros(), claim.close.is_some()))
    }
}

/// Keys of all parties and the directory of one provider.
pub(crate) struct Kit {
    pub(crate) network: NetworkId,
    pub(crate) domain: MoneyDomain,
    pub(crate) provider: ProviderKeys,
    pub(crate) settlement: MoneyKey,
    pub(crate) payout: Address,
    pub(crate) till: Till,
    pub(crate) credit: CreditPolicy,
    /// The chain, if it is not a ledger.
    pub(crate) chain: Option<Chain>,
    pub(crate) collect: CollectPolicy,
    pub(crate) directory: TempDir,
}

pub(crate) fn agent_keys(seed: u8) -> AgentKeys {
    AgentKeys { peer: Arc::new(PeerKey::from_seed(&[seed; 32])), spending: Arc::new(MoneyKey::from_bytes(&[seed; 32]).unwrap()) }
}

impl Kit {
    pub(crate) fn new() -> Self {
        let settlement = MoneyKey::from_bytes(&[9; 32]).unwrap();
        let network: NetworkId = "test-0011223344556677".parse().unwrap();
        Self {
            domain: MoneyDomain::ledger(network.as_str(), &settlement.address()),
            network,
            provider: ProviderKeys {
                peer: Arc::new(PeerKey::from_seed(&[3; 32])),
                claim: Arc::new(MoneyKey::from_bytes(&[4; 32]).unwrap()),
            },
            settlement,
            payout: Address::from_bytes([5; 20]),
            till: Till::default(),
            credit: CreditPolicy { cap: usdc(10_000_000), unredeemed_cap: usdc(100_000_000) },
            chain: None,
            collect: CollectPolicy::default(),
            directory: TempDir::new().unwrap(),
        }
    }

    /// A provider on a chain, with keys of its own for each seed; its till is told nothing by the chain.
    pub(crate) fn on_chain(local: &LocalChain, seed: u8) -> Self {
        let mut kit = Self::new();
        kit.domain = local.facts().domain();
        kit.provider =
            ProviderKeys { peer: Arc::new(PeerKey::from_seed(&[seed; 32])), claim: Arc::new(MoneyKey::from_bytes(&[seed; 32]).unwrap()) };
        kit.payout = Address::from_bytes([seed; 20]);
        kit.chain = Some(local.chain().clone());
        kit.collect.look_every = Duration::from_millis(200);
        kit
    }

    pub(crate) fn config(&self) -> ProviderConfig {
        config::load(TOOLS, &HostPrograms, &HostPaths::default()).unwrap()
    }

    pub(crate) fn workspaces(&self) -> PathBuf {
        self.directory.path().join("workspaces")
    }

    /// Names of the workspaces that are there; the sandbox's own begin with a dot.
    pub(crate) fn workspace_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.workspaces()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| !name.starts_with('.')).collect()
    }

    /// Opens the shop, with an offer that it honours.
    pub(crate) async fn open(&self) -> (Shop, Arc<Verified<Offer>>) {
        let shop = Shop::open(self.shop_config(), self.till.clone()).await.unwrap();
        let offer = self.honoured(&shop);
        (shop, offer)
    }

    /// The same on another disk.
    pub(crate) async fn open_over(&self, disk: &FaultyDisk) -> Result<(Shop, Arc<Verified<Offer>>), OpenShopError> {
        let shop = Shop::over(Store::over(disk.clone())?, self.shop_config(), self.till.clone()).await?;
        let offer = self.honoured(&shop);
        Ok((shop, offer))
    }

    fn honoured(&self, shop: &Shop) -> Arc<Verified<Offer>> {
        let offer = Arc::new(Verified::sign(self.offer(shop), &self.network, &self.provider.peer));
        shop.honour(offer.hash(), (**offer).clone());
        offer
    }

    fn shop_config(&self) -> ShopConfig {
        ShopConfig {
            store: self.directory.path().join("sessions.redb"),
            workspaces: self.workspaces(),
            helper: Some(HELPER.into()),
            provider: self.config(),
            keys: self.provider.clone(),
            payout: self.payout,
            network: self.network.clone(),
            domain: self.domain,
            settlement_signer: self.settlement.address(),
            finality_lag: Millis(0),
            exit_delay: Millis::from_secs(86_400),
            credit: self.credit,
            chain: self.chain.clone(),
            collect: self.collect,
        }
    }

    pub(crate) fn listing(&self) -> Listing {
        Listing {
            config: self.config(),
            provider: self.provider.peer.id(),
            binding: SignedBinding::make(&self.provider.peer, &self.provider.claim, self.payout, &self.network, &self.domain),
            confinement: Confinement::S0,
            hardware: hardware(),
            up_since: clock::wall(),
        }
    }

    fn offer(&self, shop: &Shop) -> Offer {
        let listing = Listing { confinement: shop.confinement(), ..self.listing() };
        let today = Today { free: *shop.free().borrow(), ..Today::default() };
        let offer = listing.offer(1, clock::wall(), &today);
        offer.check().unwrap();
        offer
    }

    /// Terms as an honest agent copies them from an offer.
    pub(crate) fn terms(&self, offer: &Offer, hash: Hash, agent: &AgentKeys) -> Terms {
        let now = clock::wall();
        Terms {
            session: random_id(SessionId::from_parts).unwrap(),
            agent: SignedBinding::make(&agent.peer, &agent.spending, agent.spending.address(), &self.network, &self.domain),
            provider: SignedBinding::make(&self.provider.peer, &self.provider.claim, self.payout, &self.network, &self.domain),
            domain: self.domain,
            settlement_signer: self.settlement.address(),
            offer: hash,
            prices: offer.tools.iter().map(|tool| ToolPrice { tool: tool.id.clone(), price: tool.price }).collect(),
            minimum_charge: offer.minimum_charge,
            metering_interval: offer.metering_interval,
            time_tolerance: TIME_TOLERANCE,
            runs_at_once: offer.capacity.runs_per_session,
            confinement: offer.confinement,
            issued_at: now,
            work_until: UnixSeconds(now.0 / 1000 + 3600),
            redeem_until: UnixSeconds(now.0 / 1000 + 7 * 3600),
        }
    }

    pub(crate) fn allowance(&self, terms: &SignedTerms, ceiling: Usdc) -> SignedAllowance {
        let body = terms.by_agent.unverified();
        let verified = terms.clone().verify(&self.network).unwrap();
        let allowance = Allowance {
            channel: verified.channel(),
            ceiling,
            work_until: body.work_until,
            redeem_until: body.redeem_until,
            terms: verified.hash(),
            claim_key: verified.claim_key(),
        };
        *MoneyVerified::sign(allowance, &self.domain, &self.settlement).signed()
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(HUNG, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

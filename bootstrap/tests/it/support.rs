//! Peers, a shop that sells one tool, and a helper that waits until something is true.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::{Network, OfferSource, OfferStamp, Peer, PeerConfig, RoleName, Settlement};
use orien_protocol::money::{Price, Usdc};
use orien_protocol::offer::{Capacity, Confinement, Hardware, Offer, Record, Tool};
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Address, PeerKey};
use orien_protocol::time::Millis;
use tokio_util::sync::CancellationToken;

/// Far longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A throw-away place for the data directories of one test's network.
pub(crate) struct World {
    root: tempfile::TempDir,
    pub(crate) network: Network,
}

impl World {
    pub(crate) fn new() -> Self {
        let settlement =
            Settlement { peer: PeerKey::from_seed(&[77; 32]).id(), signer: Address::from_bytes([7; 20]), addresses: Vec::new() };
        let network = Network::new_ledger("test", settlement, Vec::new()).unwrap();
        Self { root: tempfile::tempdir().unwrap(), network }
    }

    pub(crate) fn data_dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn config(&self, name: &str, role: RoleName, bootstrap: &[String]) -> PeerConfig {
        let mut config = PeerConfig::loopback(role, self.data_dir(name), self.network.clone());
        config.bootstrap = bootstrap.to_vec();
        config
    }

    pub(crate) async fn start(&self, name: &str, role: RoleName, bootstrap: &[String]) -> Peer {
        Peer::start(self.config(name, role, bootstrap), CancellationToken::new()).await.unwrap()
    }
}

pub(crate) async fn addresses(peer: &Peer) -> Vec<String> {
    peer.net().listen_addresses().await.unwrap()
}

/// Waits until `check` gives something.
pub(crate) async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = check() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// Waits until `peer` lists an offer of `provider` with at least this version.
pub(crate) async fn knows(peer: &Peer, provider: PeerId, version: u64) {
    until("an offer is known", || peer.catalogue().provider(&provider).filter(|listed| listed.offer.version >= version)).await;
}

/// Sells one tool.
pub(crate) struct Shop {
    pub(crate) tool: &'static str,
}

pub(crate) fn shop(tool: &'static str) -> Arc<Shop> {
    Arc::new(Shop { tool })
}

impl OfferSource for Shop {
    fn offer(&self, stamp: OfferStamp) -> Offer {
        sample_offer(self.tool, stamp)
    }
}

pub(crate) fn sample_offer(tool: &str, stamp: OfferStamp) -> Offer {
    let price = Price { per_minute: Usdc::from_micros(1000), call_fee: Usdc::ZERO };
    let tool = Tool {
        id: tool.to_owned(),
        name: tool.to_owned(),
        description: String::new(),
        command: tool.to_owned(),
        parameters: Vec::new(),
        max_duration: Millis::from_secs(60),
        cpu_millis: 1000,
        memory_bytes: 1 << 30,
        price,
        workspace_required: true,
        capabilities: Vec::new(),
    };
    Offer {
        provider: stamp.provider,
        version: stamp.version,
        issued_at: stamp.issued_at,
        expires_at: stamp.expires_at,
        label: "provider_xyz".to_owned(),
        name: "Sample".to_owned(),
        description: String::new(),
        ens_name: None,
        region: None,
        binding: orien_protocol::binding::SignedBinding {
            by_peer: orien_protocol::signing::Signed::join(
                orien_protocol::binding::Binding {
                    peer: stamp.provider,
                    money_key: Address::from_bytes([6; 20]),
                    principal: Address::from_bytes([5; 20]),
                    network: "test".parse().unwrap(),
                },
                orien_protocol::signing::PeerSignature::from_bytes([0; 64]),
            ),
            by_money_key: orien_protocol::signing::MoneySignature::from_bytes(&[0; 65]),
        },
        price,
        minimum_charge: Usdc::from_micros(100),
        metering_interval: Millis::from_secs(5),
        tools: vec![tool],
        confinement: Confinement::S0,
        hardware: Hardware::default(),
        capacity: Capacity { sessions: 4, free: 4, runs_per_session: 1 },
        record: Record::default(),
        addresses: stamp.addresses,
    }
}

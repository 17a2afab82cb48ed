//! What every part of the gateway works with: our keys and network, the store, the logs.

use std::sync::Arc;

use orien_bootstrap::{AskError, Network, SharedCatalogue, ask};
use orien_net::Net;
use orien_protocol::binding::SignedBinding;
use orien_protocol::frame::{Answer, Question};
use orien_protocol::peer::PeerId;
use orien_protocol::session::agent::AgentKeys;

use crate::logs::Logs;
use crate::names::Names;
use crate::store::Store;
use crate::wallet::Wallet;

/// Shared by all parts; cheap to clone as an `Arc`.
#[derive(Debug)]
pub(crate) struct Context {
    /// Who we are.
    pub(crate) own: PeerId,
    /// Reaches other peers.
    pub(crate) net: Net,
    /// Which network this is.
    pub(crate) network: Network,
    /// What is for sale.
    pub(crate) catalogue: SharedCatalogue,
    /// What we sign with.
    pub(crate) keys: AgentKeys,
    /// Our identity, spending key and account.
    pub(crate) binding: SignedBinding,
    /// Our memory.
    pub(crate) store: Store,
    /// The account on the chain, where the network has one.
    pub(crate) wallet: Option<Arc<Wallet>>,
    /// What is known of the names in offers.
    pub(crate) names: Arc<Names>,
    /// Logs in memory.
    pub(crate) logs: Arc<Logs>,
}

impl Context {
    /// Asks settlement, connecting first if need be.
    pub(crate) async fn ask_settlement(&self, question: &Question) -> Result<Answer, AskError> {
        let settlement = self.network.settlement();
        self.net.connect(settlement.peer, &settlement.addresses).await?;
        ask(&self.net, settlement.peer, question).await
    }

    /// Where a provider may be: one that came back may listen elsewhere, and its newest offer says where.
    pub(crate) fn addresses_of(&self, provider: &PeerId, known: &[String]) -> Vec<String> {
        let listed = self.catalogue.provider(provider).map(|listed| listed.offer.addresses.clone());
        let mut addresses = listed.unwrap_or_default();
        addresses.extend(known.iter().filter(|known| !addresses.contains(known)).cloned().collect::<Vec<_>>());
        addresses
    }

    /// Asks a provider at these addresses.
    pub(crate) async fn ask_provider(&self, provider: PeerId, addresses: &[String], question: &Question) -> Result<Answer, AskError> {
        self.net.connect(provider, addresses).await?;
        ask(&self.net, provider, question).await
    }
}

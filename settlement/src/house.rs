//! Which network a settlement serves, with which keys and which times.
//!
//! [`NetworkFacts`] is what everybody knows of it and what an auditor needs; [`House`] adds the secret keys.

use std::sync::Arc;

use orien_protocol::network::NetworkId;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Address, MoneyDomain, MoneyKey, PeerKey};
use orien_protocol::time::Millis;
use serde::{Deserialize, Serialize};

/// What everybody knows of a network's settlement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// The network.
    pub network: NetworkId,
    /// Chain and escrow.
    pub domain: MoneyDomain,
    /// Whose allowances count.
    pub signer: Address,
    /// Settlement's peer; it signs batches.
    pub peer: PeerId,
}

/// A settlement's own view of its network.
#[derive(Clone, Debug)]
pub struct House {
    facts: NetworkFacts,
    signer: Arc<MoneyKey>,
    peer: Arc<PeerKey>,
    /// How long the rail takes until a redemption is final.
    pub finality_lag: Millis,
    /// How long an account's exit takes (M12).
    pub exit_delay: Millis,
}

impl House {
    /// Joins a network and the keys that its facts must name: the facts are built out of the keys, so they always agree.
    pub fn new(
        network: NetworkId,
        domain: MoneyDomain,
        signer: Arc<MoneyKey>,
        peer: Arc<PeerKey>,
        finality_lag: Millis,
        exit_delay: Millis,
    ) -> Self {
        let facts = NetworkFacts { network, domain, signer: signer.address(), peer: peer.id() };
        Self { facts, signer, peer, finality_lag, exit_delay }
    }

    /// What everybody knows.
    pub const fn facts(&self) -> &NetworkFacts {
        &self.facts
    }

    /// Signs allowances.
    pub fn signer(&self) -> &MoneyKey {
        &self.signer
    }

    /// Signs batches.
    pub fn peer(&self) -> &PeerKey {
        &self.peer
    }
}

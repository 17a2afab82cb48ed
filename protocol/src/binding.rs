//! Ties a peer's network identity to its money key: a statement that both keys sign.
//!
//! The agent's binding names its spending key and the account that funds it; the provider's names its claim key and payout address. Without it a peer could name
//! somebody else's key, and a contract could not connect a receipt's signer to a payee.

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::network::NetworkId;
use crate::peer::PeerId;
use crate::signing::money_key::{account, digest_of, typed, word};
use crate::signing::{
    Address, Layout, MoneyDomain, MoneyKey, MoneySignature, MoneyStatement, PeerKey, SignatureError, Signed, Statement, Verified,
};

/// Who acts for which money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The network identity.
    pub peer: PeerId,
    /// The agent's spending key, or the provider's claim key.
    pub money_key: Address,
    /// The account that funds the spending key, or the provider's payout address.
    pub principal: Address,
    /// The network it holds in.
    pub network: NetworkId,
}

impl Statement for Binding {
    const DOMAIN: &'static str = "orien/binding/v1";

    fn write(&self, out: &mut Layout) {
        out.fixed(self.peer.as_bytes());
        out.fixed(self.money_key.as_bytes());
        out.fixed(self.principal.as_bytes());
    }
}

impl MoneyStatement for Binding {
    const NAME: &'static str = "binding";

    fn digest(&self, domain: &MoneyDomain) -> Hash {
        let data = typed::Binding {
            peer: word(&Hash::from_bytes(*self.peer.as_bytes())),
            moneyKey: account(&self.money_key),
            principal: account(&self.principal),
            network: self.network.as_str().to_owned(),
        };
        digest_of(&data, domain)
    }
}

/// A binding with both signatures, unchecked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBinding {
    /// The statement and the peer's signature.
    pub by_peer: Signed<Binding>,
    /// The money key's signature.
    pub by_money_key: MoneySignature,
}

impl SignedBinding {
    /// Binds our own keys.
    pub fn make(peer: &PeerKey, money: &MoneyKey, principal: Address, network: &NetworkId, domain: &MoneyDomain) -> Self {
        let binding = Binding { peer: peer.id(), money_key: money.address(), principal, network: network.clone() };
        let by_money_key = money.sign(&binding, domain);
        Self { by_peer: Verified::sign(binding, network, peer).into_signed(), by_money_key }
    }

    /// What is claimed, before any check.
    pub const fn unverified(&self) -> &Binding {
        self.by_peer.unverified()
    }

    /// Checks both signatures and the network.
    pub fn verify(&self, network: &NetworkId, domain: &MoneyDomain) -> Result<Binding, SignatureError> {
        let claimed = self.unverified();
        if claimed.network != *network {
            return Err(SignatureError { statement: Binding::NAME });
        }
        claimed.check(domain, &self.by_money_key, &claimed.money_key)?;
        self.by_peer.clone().verify(network, &claimed.peer).map(|binding| (*binding).clone())
    }
}

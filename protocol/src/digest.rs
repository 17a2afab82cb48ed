//! The announcement of an offer: under a kilobyte, signed by the provider, and enough to decide whether to fetch the offer itself.

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::money::Usdc;
use crate::offer::{NAME_LIMIT, Offer, OfferError, freshness, life, within};
use crate::peer::PeerId;
use crate::signing::{Layout, Statement};
use crate::time::Timestamp;

/// Largest digest on the wire; gossip carries nothing larger.
pub const DIGEST_LIMIT_BYTES: usize = 1024;
/// Most capability names in a digest; the rest are in the offer.
pub const DIGEST_CAPABILITIES_LIMIT: usize = 10;

/// The announcement of an offer: enough to decide whether to fetch it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Whose offer; also who signs this.
    pub provider: PeerId,
    /// The offer's version.
    pub version: u64,
    /// The offer's content id.
    pub offer: Hash,
    /// When the offer was made.
    pub issued_at: Timestamp,
    /// When the offer ends.
    pub expires_at: Timestamp,
    /// The lowest price per minute among its tools.
    pub floor_per_minute: Usdc,
    /// How many capabilities the offer has.
    pub capabilities_total: u16,
    /// The first of them.
    pub capabilities: Vec<String>,
}

impl Digest {
    /// Refuses what is oversized or contradicts itself.
    pub fn check(&self) -> Result<(), OfferError> {
        within("list of capabilities", self.capabilities.len(), DIGEST_CAPABILITIES_LIMIT)?;
        self.capabilities.iter().try_for_each(|c| within("capability", c.len(), NAME_LIMIT))?;
        life(self.issued_at, self.expires_at)
    }

    /// Whether it counts now.
    pub fn freshness(&self, now: Timestamp) -> Result<(), OfferError> {
        freshness(self.issued_at, self.expires_at, now)
    }
}

impl Statement for Digest {
    const DOMAIN: &'static str = "orien/digest/v1";

    fn write(&self, out: &mut Layout) {
        out.fixed(self.provider.as_bytes());
        out.u64(self.version);
        out.fixed(self.offer.as_bytes());
        out.u64(self.issued_at.0);
        out.u64(self.expires_at.0);
        out.u64(self.floor_per_minute.micros());
        out.u16(self.capabilities_total);
        out.list(&self.capabilities, |out, c| out.text(c));
    }
}

impl Offer {
    /// The short form that gossip carries.
    pub fn digest(&self, offer_hash: Hash) -> Digest {
        let capabilities = self.capabilities();
        let floor = self.tools.iter().map(|t| t.price.per_minute).min().unwrap_or(self.price.per_minute);
        Digest {
            provider: self.provider,
            version: self.version,
            offer: offer_hash,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            floor_per_minute: floor,
            capabilities_total: u16::try_from(capabilities.len()).unwrap_or(u16::MAX),
            capabilities: capabilities.iter().take(DIGEST_CAPABILITIES_LIMIT).map(|&c| c.to_owned()).collect(),
        }
    }
}

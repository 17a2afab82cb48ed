//! Whether the ENS names in offers lead to the payout addresses of those who use them.
//!
//! Always true: a name is shown as verified only if the chain led from it to the payout address of the same offer, within the hour; what was not or cannot be looked up is neither verified nor refuted.
//!
//! It decides nothing: a name is not a reason to choose a provider or not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use orien_bootstrap::SharedCatalogue;
use orien_chain::{Chain, ChainError, ens};
use orien_protocol::offer::Offer;
use orien_protocol::signing::Address;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A name is looked up again after so long.
const LASTS: Duration = Duration::from_secs(3600);
/// Between two looks into the catalogue.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Names looked up in one look: two requests each, to nodes that may count them.
const AT_ONCE: usize = 16;
/// Names remembered; the catalogue holds hardly more with a name.
const KNOWN_LIMIT: usize = 4096;

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// It leads to the payout address.
    Verified,
    /// It leads somewhere else, or nowhere.
    Refuted(String),
    /// It is not known whether it does.
    Unchecked(String),
}

impl Named {
    /// Whether it was found to lead there.
    pub(crate) fn is_verified(&self) -> bool {
        *self == Self::Verified
    }

    /// Why it is not verified.
    pub(crate) fn detail(&self) -> Option<&str> {
        match self {
            Self::Verified => None,
            Self::Refuted(why) | Self::Unchecked(why) => Some(why),
        }
    }
}

type Claimed = (String, Address);

/// What is known of the names in offers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    chain: Option<Chain>,
    known: Mutex<BTreeMap<Claimed, (Instant, Named)>>,
}

impl Names {
    /// Names that are looked up on a chain, if there is one.
    pub(crate) fn new(chain: Option<Chain>) -> Self {
        Self { chain, known: Mutex::default() }
    }

    /// What is known of an offer's name; none if it has none.
    pub(crate) fn of(&self, offer: &Offer) -> Option<Named> {
        let claimed = claimed(offer)?;
        if self.chain.is_none() {
            return Some(Named::Unchecked("this network is not on a chain, and names are registered on Ethereum".to_owned()));
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&claimed).map(|(_, named)| named.clone());
        Some(known.unwrap_or_else(|| Named::Unchecked("it has not been looked up yet".to_owned())))
    }

    /// Looks names up as offers bring them, until `stop`.
    pub(crate) async fn work(self: Arc<Self>, catalogue: SharedCatalogue, stop: CancellationToken) {
        let Some(chain) = self.chain.clone() else { return };
        let look = async {
            loop {
                for claimed in self.due(&catalogue) {
                    let named = match resolve(&chain, &claimed).await {
                        Ok(named) => named,
                        Err(error) => Named::Unchecked(format!("the chain cannot be read now: {error}")),
                    };
                    self.note(claimed, named);
                }
                sleep(LOOK_EVERY).await;
            }
        };
        stop.run_until_cancelled(look).await;
    }

    /// Names that were not looked up of late.
    fn due(&self, catalogue: &SharedCatalogue) -> Vec<Claimed> {
        let listed = catalogue.all();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < LASTS);
        let claims = listed.iter().filter_map(|listed| claimed(&listed.offer));
        claims.filter(|claimed| !known.contains_key(claimed)).take(AT_ONCE).collect()
    }

    fn note(&self, claimed: Claimed, named: Named) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < KNOWN_LIMIT {
            known.insert(claimed, (Instant::now(), named));
        }
    }
}

fn claimed(offer: &Offer) -> Option<Claimed> {
    offer.ens_name.clone().map(|name| (name, offer.binding.unverified().principal))
}

async fn resolve(chain: &Chain, (name, payout): &Claimed) -> Result<Named, ChainError> {
    let at = chain.final_block().await?;
    Ok(match ens::resolve(chain, &ens::REGISTRY, name, &at).await? {
        ens::Resolved::To(address) if address == *payout => Named::Verified,
        ens::Resolved::To(address) => Named::Refuted(format!("the name leads to {address}, and earnings go to {payout}")),
        ens::Resolved::Nowhere => Named::Refuted("the name leads nowhere".to_owned()),
        ens::Resolved::Unchecked(why) => Named::Unchecked(why.to_owned()),
    })
}

//! The catalogue as every part of a running peer shares it: reads from anywhere, one way in.
//!
//! Always true: the lock is held for one look or one change, never across an await; whatever changes is announced to those who watch and handed to the
//! store, which reads the newest state itself, so the order of writes does not matter.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use orien_protocol::digest::{DIGEST_LIMIT_BYTES, Digest};
use orien_protocol::frame::CATALOGUE_PAGE_BYTES;
use orien_protocol::network::NetworkId;
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Signed, Verified};
use tokio::sync::{Notify, broadcast};

use crate::catalogue::{Catalogue, Listed, Verdict};
use crate::clock;
use crate::keeper::Keeper;

/// News that a slow watcher may lag behind before it loses the oldest; it then reads the catalogue instead.
const SEEN_QUEUE: usize = 256;

/// Digests in one answer, so that their bytes stay below those of a page of offers.
const DIGESTS_PAGE: usize = CATALOGUE_PAGE_BYTES / DIGEST_LIMIT_BYTES;

/// A new offer came into the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferSeen {
    /// Whose.
    pub provider: PeerId,
    /// Its version.
    pub version: u64,
}

/// A cheap handle on the catalogue of this peer. What has expired is never shown.
#[derive(Clone, Debug)]
pub struct SharedCatalogue {
    catalogue: Arc<RwLock<Catalogue>>,
    seen: broadcast::Sender<OfferSeen>,
}

impl SharedCatalogue {
    pub(crate) fn new(catalogue: Catalogue) -> Self {
        Self { catalogue: Arc::new(RwLock::new(catalogue)), seen: broadcast::Sender::new(SEEN_QUEUE) }
    }

    /// All offers, by provider id.
    pub fn all(&self) -> Vec<Listed> {
        self.read().all(clock::wall()).cloned().collect()
    }

    /// The offer of one provider.
    pub fn provider(&self, provider: &PeerId) -> Option<Listed> {
        self.read().provider(provider, clock::wall()).cloned()
    }

    /// Offers with a tool of this id, or a tool that names this capability.
    pub fn by_capability(&self, capability: &str) -> Vec<Listed> {
        self.read().by_capability(capability, clock::wall()).cloned().collect()
    }

    /// How many offers there are.
    pub fn len(&self) -> usize {
        self.read().all(clock::wall()).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// News of new offers from now on. A watcher that lags is told how many it missed and should read the catalogue.
    pub fn watch(&self) -> broadcast::Receiver<OfferSeen> {
        self.seen.subscribe()
    }

    /// Offers after `after` that fit into one answer, and whether there are more.
    pub(crate) fn page(&self, after: Option<PeerId>) -> (Vec<Signed<Offer>>, bool) {
        let (page, more) = self.read().page(after, CATALOGUE_PAGE_BYTES, clock::wall());
        (page.iter().map(|offer| offer.signed().clone()).collect(), more)
    }

    /// Digests after `after` that fit into one answer, and whether there are more.
    pub(crate) fn digests(&self, after: Option<PeerId>) -> (Vec<Signed<Digest>>, bool) {
        self.read().digests(after, DIGESTS_PAGE, clock::wall())
    }

    /// Whether this very offer, signature included, is what we hold.
    pub(crate) fn holds(&self, offer: &Signed<Offer>) -> bool {
        self.provider(&offer.unverified().provider).is_some_and(|listed| listed.offer.signed() == offer)
    }

    pub(crate) fn consider(&self, digest: &Verified<Digest>) -> Verdict {
        self.write().consider(digest, clock::now())
    }

    pub(crate) fn keep_digest(&self, digest: &Verified<Digest>) {
        self.write().keep_digest(digest);
    }

    // A poisoned lock means that a reader or writer panicked; every change of the catalogue is complete before anything in it can.
    fn read(&self) -> RwLockReadGuard<'_, Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Catalogue> {
        self.catalogue.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way into the catalogue for everything that was verified.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    pub(crate) network: NetworkId,
    pub(crate) own: PeerId,
    /// Who is asked for offers of providers that we cannot reach.
    pub(crate) introducers: Arc<[PeerId]>,
    pub(crate) catalogue: SharedCatalogue,
    pub(crate) keeper: Keeper,
    /// Wakes the publisher: our own offer should be published anew.
    pub(crate) refresh: Arc<Notify>,
}

impl Intake {
    /// Takes an offer that came from elsewhere.
    pub(crate) async fn take(&self, offer: Verified<Offer>) -> Verdict {
        let provider = offer.provider;
        let verdict = self.insert(Arc::new(offer)).await;
        if provider == self.own && verdict == Verdict::New {
            // Others know a version of our offer that we do not: the store came from a backup. Ours must get above it.
            self.refresh.notify_one();
        }
        verdict
    }

    /// Takes an offer of any origin, our own included.
    pub(crate) async fn insert(&self, offer: Arc<Verified<Offer>>) -> Verdict {
        let news = OfferSeen { provider: offer.provider, version: offer.version };
        let inserted = self.catalogue.write().insert(offer, clock::now());
        if inserted.verdict == Verdict::New {
            // Nobody watching is fine.
            let _ = self.catalogue.seen.send(news);
            self.keeper.touch(news.provider).await;
        }
        for provider in inserted.evicted {
            self.keeper.touch(provider).await;
        }
        inserted.verdict
    }

    /// Removes what has expired.
    pub(crate) async fn expire(&self) {
        let gone = self.catalogue.write().expire(clock::wall());
        for provider in gone {
            self.keeper.touch(provider).await;
        }
    }
}

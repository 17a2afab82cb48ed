//! Publishes our own offer, again and again for as long as it stands.
//!
//! Always true: every version is higher than any before it, also after a crash, a restored backup or a clock that was set back, and is on disk before
//! anybody sees it; the role knows an offer before the network does, so that terms naming it are never a surprise. We publish no faster than others listen.
//!
//! It does not know what is in an offer beyond whose it is.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use orien_net::{Net, NetError};
use orien_protocol::codec::{self, CodecError};
use orien_protocol::offer::{OFFER_LIFE, Offer, OfferError, capability_key};
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{PeerKey, Verified};
use orien_protocol::time::{Millis, Timestamp};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::catalogue::Verdict;
use crate::clock;
use crate::discovery::jittered;
use crate::keeper::KeeperGone;
use crate::pace::Buckets;
use crate::shared::Intake;

/// How often an offer is published without a change, give or take a fifth: six announcements in its life.
const PERIOD: Duration = Duration::from_secs(600);

/// Wait after a failure to publish.
const RETRY: Duration = Duration::from_secs(5);

/// Our own pace, slower than the one others measure us by, so that delays on the way never make us too fast.
const OWN_REFILL: Millis = Millis::from_secs(6);

/// Offers at once after a quiet time, fewer than others let pass.
const OWN_BURST: u64 = 4;

/// What the publisher fixes about an offer; the rest is the role's.
#[derive(Clone, Debug)]
pub struct OfferStamp {
    /// Who sells: this peer.
    pub provider: PeerId,
    /// To be taken over as it is.
    pub version: u64,
    /// To be taken over as it is.
    pub issued_at: Timestamp,
    /// The latest end; an earlier one is fine.
    pub expires_at: Timestamp,
    /// Where this peer can be dialled.
    pub addresses: Vec<String>,
}

/// A role that sells something.
pub trait OfferSource: Send + Sync + 'static {
    /// What is for sale now. Called for each version; must not wait.
    fn offer(&self, stamp: OfferStamp) -> Offer;

    /// This version is about to be seen by others. Called before any other peer can name it; must not wait.
    fn published(&self, _offer: &Arc<Verified<Offer>>) {}
}

/// Why our offer was not published.
#[derive(Debug, Error)]
pub enum PublishError {
    /// There already is an offer source; a peer has one offer.
    #[error("this peer publishes an offer already")]
    Already,
    /// The source did not take over the stamp.
    #[error("the offer does not carry the provider, version and time it was given")]
    StampChanged,
    /// The offer breaks a rule, so others would refuse it.
    #[error("the offer cannot be published: {0}")]
    Offer(#[from] OfferError),
    /// The catalogue did not take it.
    #[error("the offer was not taken into our own catalogue: {0:?}")]
    NotTaken(Verdict),
    /// The announcement cannot be encoded.
    #[error("the announcement cannot be encoded: {0}")]
    Digest(#[from] CodecError),
    /// The version could not be kept.
    #[error(transparent)]
    NotKept(#[from] KeeperGone),
    /// The network refused.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// Our own offer, as last published.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnOffer(Arc<RwLock<Option<Arc<Verified<Offer>>>>>);

impl OwnOffer {
    pub(crate) fn get(&self) -> Option<Arc<Verified<Offer>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, offer: Arc<Verified<Offer>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(offer);
    }
}

/// Makes and announces versions of our offer.
pub(crate) struct Publisher {
    net: Net,
    intake: Intake,
    key: Arc<PeerKey>,
    source: Arc<dyn OfferSource>,
    own: OwnOffer,
    /// The highest version ever used.
    version: u64,
    /// Capabilities that are advertised now.
    advertised: BTreeSet<String>,
    pace: Buckets,
}

impl Publisher {
    pub(crate) fn new(net: Net, intake: Intake, key: Arc<PeerKey>, source: Arc<dyn OfferSource>, own: OwnOffer, version: u64) -> Self {
        Self { net, intake, key, source, own, version, advertised: BTreeSet::new(), pace: Buckets::new(1, OWN_REFILL, OWN_BURST) }
    }

    /// Publishes at each refresh and each period, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut wait = jittered(PERIOD);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.intake.refresh.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            while !self.pace.take(self.intake.own, clock::now().mono) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(OWN_REFILL.0 / 4)) => {}
                }
            }
            wait = match self.publish().await {
                Ok(_) => jittered(PERIOD),
                Err(error) => {
                    tracing::warn!(%error, "our offer was not published; trying again");
                    RETRY
                }
            };
        }
    }

    /// Makes the next version and announces it.
    pub(crate) async fn publish(&mut self) -> Result<Arc<Verified<Offer>>, PublishError> {
        let stamp = self.stamp().await?;
        self.intake.keeper.own_version(stamp.version).await?;
        self.version = stamp.version;
        let offer = self.source.offer(stamp.clone());
        if (offer.provider, offer.version, offer.issued_at) != (stamp.provider, stamp.version, stamp.issued_at) {
            return Err(PublishError::StampChanged);
        }
        offer.check()?;
        let offer = Arc::new(Verified::sign(offer, &self.intake.network, &self.key));
        let digest = Verified::sign(offer.digest(offer.hash()), &self.intake.network, &self.key);
        let announcement = codec::encode(digest.signed())?;
        self.source.published(&offer);
        match self.intake.insert(Arc::clone(&offer)).await {
            Verdict::New => {}
            Verdict::Invalid(error) => return Err(error.into()),
            other => return Err(PublishError::NotTaken(other)),
        }
        self.intake.catalogue.keep_digest(&digest);
        self.own.set(Arc::clone(&offer));
        self.net.publish(announcement).await?;
        self.advertise(&offer).await;
        tracing::debug!(version = offer.version, "published our offer");
        Ok(offer)
    }

    async fn stamp(&self) -> Result<OfferStamp, PublishError> {
        let mut addresses = worth_telling(self.net.listen_addresses().await?);
        addresses.truncate(orien_protocol::offer::LIST_LIMIT);
        let issued_at = clock::wall();
        // A restored backup may know less of our past than the network, which told the catalogue.
        let listed = self.intake.catalogue.provider(&self.intake.own).map_or(0, |listed| listed.offer.version);
        let version = issued_at.0.max(self.version.max(listed).saturating_add(1));
        Ok(OfferStamp { provider: self.intake.own, version, issued_at, expires_at: issued_at.plus(OFFER_LIFE), addresses })
    }

    /// Advertises exactly the capabilities of `offer`. Advertisements are a second way to find us, so a failure is only told.
    async fn advertise(&mut self, offer: &Offer) {
        let wanted: BTreeSet<String> = offer.capabilities().into_iter().map(str::to_owned).collect();
        let key = |capability: &str| *capability_key(&self.intake.network, capability).as_bytes();
        for capability in self.advertised.difference(&wanted) {
            if let Err(error) = self.net.withdraw(key(capability)).await {
                tracing::debug!(capability, %error, "an advertisement was not withdrawn");
            }
        }
        let mut advertised = BTreeSet::new();
        for capability in wanted {
            let known = self.advertised.contains(&capability);
            match if known { Ok(()) } else { self.net.advertise(key(&capability)).await } {
                Ok(()) => drop(advertised.insert(capability)),
                Err(error) => tracing::debug!(capability, %error, "a capability is not advertised"),
            }
        }
        self.advertised = advertised;
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("own", &self.intake.own).field("version", &self.version).finish_non_exhaustive()
    }
}

/// The addresses that mean something on another machine; if there are none, all: everybody is on this one.
fn worth_telling(addresses: Vec<String>) -> Vec<String> {
    let local = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
    if addresses.iter().all(local) { addresses } else { addresses.into_iter().filter(|address| !local(address)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_told_only_when_there_are_no_others() {
        let all = |list: &[&str]| worth_telling(list.iter().map(|&address| address.to_owned()).collect());
        assert_eq!(all(&["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"]).len(), 2);
        assert_eq!(all(&["/ip4/127.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip6/::1/tcp/1"]), ["/ip4/192.0.2.1/tcp/1"]);
    }
}

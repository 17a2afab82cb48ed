//! What is for sale: the newest offer of each provider that this peer knows of. Pure: the time comes in, nothing is read or written.
//!
//! Always true: at most one offer per provider, and the newest; every one was signed by its provider, passed [`Offer::check`], and counts now; the table
//! is bounded in offers and in bytes. A provider that signed two different offers under one version keeps the first and is marked.
//!
//! It does not know where offers come from, nor which of them anybody should choose.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use orien_protocol::codec;
use orien_protocol::digest::Digest;
use orien_protocol::offer::{OFFER_LIFE, OFFER_LIMIT_BYTES, Offer, OfferError};
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Signed, Verified};
use orien_protocol::time::{Now, Timestamp};

use crate::pace::{BURST, Buckets, REFILL};

/// Most offers kept: five times the providers this network was sized for; flooding it costs a signature each.
pub(crate) const OFFERS_LIMIT: usize = 50_000;

/// Most bytes of encoded offers kept. A usual offer has 2 KiB; without this bound the largest ones would fill 3 GiB.
pub(crate) const BYTES_LIMIT: usize = 256 * 1024 * 1024;

/// What became of an offer, or would become of the offer behind a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Newer than what was known: taken.
    New,
    /// Exactly what is known.
    Known,
    /// A newer one is known.
    Older,
    /// Another offer of the same version is known: the provider contradicts itself and is marked.
    Equivocation,
    /// The provider changes its offer too often; the same may pass later.
    RateLimited,
    /// The table is full of offers that last longer.
    Full,
    /// Not an offer that counts now.
    Invalid(OfferError),
}

/// What an insertion did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// What became of the offer.
    pub(crate) verdict: Verdict,
    /// Providers whose offers had to go for it.
    pub(crate) evicted: Vec<PeerId>,
}

impl From<Verdict> for Inserted {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, evicted: Vec::new() }
    }
}

/// One offer of the catalogue.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The offer.
    pub offer: Arc<Verified<Offer>>,
    /// When it stops counting here: never more than an hour after it came.
    pub expires_at: Timestamp,
    /// Whether the provider has contradicted itself; such an offer should not be chosen.
    pub equivocated: bool,
}

#[derive(Debug)]
struct Entry {
    listed: Listed,
    bytes: usize,
    /// The announcement of this very offer, if one was seen.
    digest: Option<Signed<Digest>>,
}

/// The newest offer of each provider.
#[derive(Debug)]
pub(crate) struct Catalogue {
    own: PeerId,
    entries: BTreeMap<PeerId, Entry>,
    by_expiry: BTreeSet<(Timestamp, PeerId)>,
    bytes: usize,
    announced: Buckets,
    taken: Buckets,
    offers_limit: usize,
    bytes_limit: usize,
}

impl Catalogue {
    /// An empty catalogue. The offer of `own`, this peer itself, is never evicted or slowed down.
    pub(crate) fn new(own: PeerId) -> Self {
        Self::with_limits(own, OFFERS_LIMIT, BYTES_LIMIT)
    }

    pub(crate) fn with_limits(own: PeerId, offers_limit: usize, bytes_limit: usize) -> Self {
        // Twice, because a provider keeps its bucket for a while after its offer was evicted, and has one before its first offer came.
        let buckets = || Buckets::new(offers_limit.saturating_mul(2), REFILL, BURST);
        Self {
            own,
            entries: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            bytes: 0,
            announced: buckets(),
            taken: buckets(),
            offers_limit,
            bytes_limit,
        }
    }

    /// Takes an offer if it is new and counts.
    pub(crate) fn insert(&mut self, offer: Arc<Verified<Offer>>, now: Now) -> Inserted {
        let provider = offer.provider;
        let bytes = match acceptable(&offer, now.wall) {
            Ok(bytes) => bytes,
            Err(error) => return Verdict::Invalid(error).into(),
        };
        match self.compare(provider, offer.version, |known| known.hash() == offer.hash()) {
            Verdict::New => {}
            other => return other.into(),
        }
        let expires_at = offer.expires_at.min(now.wall.plus(OFFER_LIFE));
        let Some(evicted) = self.room_for(provider, bytes, expires_at) else { return Verdict::Full.into() };
        if provider != self.own && !self.taken.take(provider, now.mono) {
            return Verdict::RateLimited.into();
        }
        for other in &evicted {
            self.remove(other);
        }
        let equivocated = self.remove(&provider).is_some_and(|entry| entry.listed.equivocated);
        self.by_expiry.insert((expires_at, provider));
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.insert(provider, Entry { listed: Listed { offer, expires_at, equivocated }, bytes, digest: None });
        Inserted { verdict: Verdict::New, evicted }
    }

    /// Judges an announcement: `New` means that the offer behind it is worth fetching.
    pub(crate) fn consider(&mut self, digest: &Verified<Digest>, now: Now) -> Verdict {
        if digest.signer() != digest.provider {
            return Verdict::Invalid(NOT_ITS_OWN);
        }
        if let Err(error) = digest.check().and_then(|()| digest.freshness(now.wall)) {
            return Verdict::Invalid(error);
        }
        let provider = digest.provider;
        match self.compare(provider, digest.version, |known| known.hash() == digest.offer) {
            Verdict::New => {}
            Verdict::Known => {
                self.keep_digest(digest);
                return Verdict::Known;
            }
            other => return other,
        }
        let expires_at = digest.expires_at.min(now.wall.plus(OFFER_LIFE));
        if self.room_for(provider, 0, expires_at).is_none() {
            return Verdict::Full;
        }
        if provider != self.own && !self.announced.take(provider, now.mono) {
            return Verdict::RateLimited;
        }
        Verdict::New
    }

    /// Keeps an announcement beside the offer that it announces, so that it can be handed on.
    pub(crate) fn keep_digest(&mut self, digest: &Verified<Digest>) {
        if let Some(entry) = self.entries.get_mut(&digest.provider)
            && entry.listed.offer.hash() == digest.offer
            && digest.signer() == digest.provider
        {
            entry.digest = Some(digest.signed().clone());
        }
    }

    /// Removes what does not count any more and says whose offers those were.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<PeerId> {
        let gone: Vec<PeerId> = self.by_expiry.iter().take_while(|(expires_at, _)| *expires_at <= now).map(|(_, id)| *id).collect();
        for provider in &gone {
            self.remove(provider);
        }
        gone
    }

    /// All offers, by provider id.
    pub(crate) fn all(&self, now: Timestamp) -> impl Iterator<Item = &Listed> {
        self.entries.values().map(|entry| &entry.listed).filter(move |listed| listed.expires_at > now)
    }

    /// The offer of one provider.
    pub(crate) fn provider(&self, provider: &PeerId, now: Timestamp) -> Option<&Listed> {
        self.entries.get(provider).map(|entry| &entry.listed).filter(|listed| listed.expires_at > now)
    }

    /// Offers with a tool of this id, or a tool that names this capability.
    pub(crate) fn by_capability<'a>(&'a self, capability: &'a str, now: Timestamp) -> impl Iterator<Item = &'a Listed> {
        self.all(now).filter(move |listed| {
            listed.offer.tools.iter().any(|tool| tool.id == capability || tool.capabilities.iter().any(|name| name == capability))
        })
    }

    /// Offers of the providers after `after`, as many as fit in `bytes` when encoded, and whether there are more.
    pub(crate) fn page(&self, after: Option<PeerId>, bytes: usize, now: Timestamp) -> (Vec<Arc<Verified<Offer>>>, bool) {
        let mut rest = bytes;
        let mut page = Vec::new();
        for entry in self.after(after).filter(|entry| entry.listed.expires_at > now) {
            match rest.checked_sub(entry.bytes) {
                Some(left) => rest = left,
                None => return (page, true),
            }
            page.push(Arc::clone(&entry.listed.offer));
        }
        (page, false)
    }

    /// Announcements of the providers after `after`, at most `count`, and whether there are more.
    pub(crate) fn digests(&self, after: Option<PeerId>, count: usize, now: Timestamp) -> (Vec<Signed<Digest>>, bool) {
        let mut page = Vec::new();
        let live = self.after(after).filter(|entry| entry.listed.expires_at > now);
        for digest in live.filter_map(|entry| entry.digest.as_ref()) {
            if page.len() == count {
                return (page, true);
            }
            page.push(digest.clone());
        }
        (page, false)
    }

    fn after(&self, after: Option<PeerId>) -> impl Iterator<Item = &Entry> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((from, Bound::Unbounded)).map(|(_, entry)| entry)
    }

    /// How a version of a provider's offer relates to the known one; marks a provider that contradicts itself.
    fn compare(&mut self, provider: PeerId, version: u64, is_same: impl FnOnce(&Verified<Offer>) -> bool) -> Verdict {
        let Some(entry) = self.entries.get_mut(&provider) else { return Verdict::New };
        match version.cmp(&entry.listed.offer.version) {
            std::cmp::Ordering::Greater => Verdict::New,
            std::cmp::Ordering::Less => Verdict::Older,
            std::cmp::Ordering::Equal if is_same(&entry.listed.offer) => Verdict::Known,
            std::cmp::Ordering::Equal => {
                entry.listed.equivocated = true;
                Verdict::Equivocation
            }
        }
    }

    /// Whose offers must go so that one of `bytes` fits: those that expire first. Nothing if they all last longer than it would.
    fn room_for(&self, provider: PeerId, bytes: usize, expires_at: Timestamp) -> Option<Vec<PeerId>> {
        let replaced = self.entries.get(&provider);
        let mut count = self.entries.len() + usize::from(replaced.is_none());
        let mut size = self.bytes.saturating_sub(replaced.map_or(0, |entry| entry.bytes)).saturating_add(bytes);
        let mut evicted = Vec::new();
        let mut candidates = self.by_expiry.iter().filter(|(_, id)| *id != provider && *id != self.own);
        while count > self.offers_limit || size > self.bytes_limit {
            let (first, other) = candidates.next()?;
            if *first >= expires_at && provider != self.own {
                return None;
            }
            count -= 1;
            size = size.saturating_sub(self.entries.get(other).map_or(0, |entry| entry.bytes));
            evicted.push(*other);
        }
        Some(evicted)
    }

    fn remove(&mut self, provider: &PeerId) -> Option<Entry> {
        let entry = self.entries.remove(provider)?;
        self.by_expiry.remove(&(entry.listed.expires_at, *provider));
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry)
    }
}

const NOT_ITS_OWN: OfferError = OfferError::Senseless("signed by another peer than the provider it names");

/// Whether an offer may be listed at `now`, and how large it is.
fn acceptable(offer: &Verified<Offer>, now: Timestamp) -> Result<usize, OfferError> {
    if offer.signer() != offer.provider {
        return Err(NOT_ITS_OWN);
    }
    offer.check()?;
    offer.freshness(now)?;
    match codec::encode(offer.signed()) {
        Ok(bytes) if bytes.len() <= OFFER_LIMIT_BYTES => Ok(bytes.len()),
        _ => Err(OfferError::TooLong { field: "encoded offer", limit: OFFER_LIMIT_BYTES }),
    }
}

#[cfg(test)]
mod tests;

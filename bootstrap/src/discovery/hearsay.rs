//! What others say is for sale, judged without a network or a clock: a door for tests that throw anything at it.
//!
//! Always true: bytes go through the very checks of gossip, fetches and pulls, into a catalogue like the one of a running peer; nothing here decides anything of its own.

use std::sync::Arc;

use orien_protocol::codec;
use orien_protocol::digest::Digest;
use orien_protocol::frame::{ANSWER_LIMIT, Answer};
use orien_protocol::network::NetworkId;
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Signed, Verified};
use orien_protocol::time::Now;

use super::{fetch, gossip, pull};
use crate::catalogue::{Catalogue, Verdict};

/// A catalogue and the rules by which it learns.
#[derive(Debug)]
pub struct Hearsay {
    network: NetworkId,
    own: PeerId,
    catalogue: Catalogue,
}

impl Hearsay {
    /// Of a peer that knows nothing yet; its catalogue holds at most so many offers and so many bytes of them.
    pub fn new(network: NetworkId, own: PeerId, offers_limit: usize, bytes_limit: usize) -> Self {
        Self { network, own, catalogue: Catalogue::with_limits(own, offers_limit, bytes_limit) }
    }

    /// A gossip message: the announcement in it, if it is sound, and what it is worth.
    pub fn gossip(&mut self, bytes: &[u8], now: Now) -> Option<(Verified<Digest>, Verdict)> {
        let digest = gossip::read(bytes, &self.network, self.own, now.wall).ok()?;
        let verdict = self.catalogue.consider(&digest, now);
        Some((digest, verdict))
    }

    /// The answer to a question for the offer behind an announcement: what became of that offer, if there is one.
    pub fn fetched(&mut self, answer: &[u8], digest: &Verified<Digest>, now: Now) -> Option<Verdict> {
        let answer = codec::decode(answer, ANSWER_LIMIT).ok()?;
        let offer = fetch::announced(answer, digest, &self.network).ok()?;
        let verdict = self.catalogue.insert(Arc::new(offer), now).verdict;
        self.catalogue.keep_digest(digest);
        Some(verdict)
    }

    /// A page of somebody's catalogue after `after`: its last provider, and what became of each offer on it.
    pub fn page(&mut self, answer: &[u8], after: Option<PeerId>, now: Now) -> Option<(PeerId, Vec<Verdict>)> {
        let Ok(Answer::Offers { offers, .. }) = codec::decode(answer, ANSWER_LIMIT) else { return None };
        let last = pull::end_of(&offers, after).ok()??;
        let held = |offer: &Signed<Offer>| {
            let known = self.catalogue.provider(&offer.unverified().provider, now.wall);
            known.is_some_and(|listed| listed.offer.signed() == offer)
        };
        let new = pull::check(offers, held, &self.network).ok()?;
        Some((last, new.into_iter().map(|offer| self.catalogue.insert(Arc::new(offer), now).verdict).collect()))
    }

    /// Forgets what has expired.
    pub fn expire(&mut self, now: Now) {
        self.catalogue.expire(now.wall);
    }

    /// How many offers count now.
    pub fn len(&self, now: Now) -> usize {
        self.catalogue.all(now.wall).count()
    }

    /// Whether no offer counts now.
    pub fn is_empty(&self, now: Now) -> bool {
        self.len(now) == 0
    }

    /// What this peer answers to a question for a page of offers of at most so many bytes.
    pub fn offers(&self, after: Option<PeerId>, bytes: usize, now: Now) -> Answer {
        let (offers, more) = self.catalogue.page(after, bytes, now.wall);
        Answer::Offers { offers: offers.iter().map(|offer| offer.signed().clone()).collect(), more }
    }

    /// What this peer answers to a question for a page of so many announcements.
    pub fn digests(&self, after: Option<PeerId>, count: usize, now: Now) -> Answer {
        let (digests, more) = self.catalogue.digests(after, count, now.wall);
        Answer::Digests { digests, more }
    }
}

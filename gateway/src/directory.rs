//! What we know of providers: their offers as fresh as we can get them, and what we saw of them ourselves; and whose turn it is to ask one for a session.
//!
//! Always true: an offer that leaves here is signed by the provider it is about.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orien_bootstrap::{Listed, clock};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{Answer, Question};
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::Verified;
use orien_protocol::time::Millis;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::context::Context;
use crate::desk::{Blame, By};
use crate::experience::{Experience, Measures, Way};
use crate::rows::Closing;

/// Most providers whose behaviour is remembered; the catalogue holds ten times as many.
const SEEN_LIMIT: usize = 4096;
/// How long a provider may take to say what it offers now, before the catalogue has to do.
const OFFER_LIMIT: Duration = Duration::from_secs(5);

/// What we know of providers.
#[derive(Debug)]
pub(crate) struct Directory {
    seen: Mutex<BTreeMap<PeerId, Experience>>,
    /// Openings under way, by provider.
    openings: Mutex<BTreeMap<PeerId, Arc<Semaphore>>>,
}

impl Directory {
    /// Knows nobody yet.
    pub(crate) fn new() -> Self {
        Self { seen: Mutex::new(BTreeMap::new()), openings: Mutex::new(BTreeMap::new()) }
    }

    /// Waits for our turn to open a session at a provider, until the answer is dropped. A provider holds few places for an account that has not paid yet, so sessions
    /// are opened one after the other there.
    pub(crate) async fn turn(&self, provider: PeerId) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
            openings.retain(|_, turns| Arc::strong_count(turns) > 1);
            Arc::clone(openings.entry(provider).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        // Never closed.
        turns.acquire_owned().await.ok()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<PeerId, Experience>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was lived through with a provider, but for sessions that are not over.
    pub(crate) fn seen(&self, provider: &PeerId) -> Experience {
        self.all().get(provider).cloned().unwrap_or_default()
    }

    /// Notes that a session is over, once per session and the oldest first.
    pub(crate) fn note_closed(&self, provider: PeerId, closing: &Closing, measures: &Measures) {
        self.note(provider, |seen| seen.note_closed(closing, measures));
    }

    /// Notes how fast bytes went to or from a provider.
    pub(crate) fn note_transfer(&self, provider: PeerId, way: Way, bytes: u64, took: Duration) {
        self.note(provider, |seen| seen.note_transfer(way, bytes, took));
    }

    fn note(&self, provider: PeerId, how: impl FnOnce(&mut Experience)) {
        let mut all = self.all();
        if all.len() >= SEEN_LIMIT && !all.contains_key(&provider) {
            // The one that was used longest ago, or never; it is measured again when it is asked again.
            let oldest = all.iter().min_by_key(|(_, seen)| seen.last_used).map(|(id, _)| *id);
            oldest.and_then(|oldest| all.remove(&oldest));
        }
        how(all.entry(provider).or_default());
    }

    /// What a provider offers now; from the catalogue if it does not say in time.
    pub(crate) async fn fresh_offer(&self, context: &Context, provider: PeerId) -> Result<Arc<Verified<Offer>>, Blame> {
        let listed = context.catalogue.provider(&provider);
        let addresses = listed.as_ref().map(|listed| listed.offer.addresses.clone()).unwrap_or_default();
        let began = clock::now().mono;
        let asked = tokio::time::timeout(OFFER_LIMIT, context.ask_provider(provider, &addresses, &Question::Offer)).await;
        let failure = match asked {
            Ok(Ok(Answer::Offer(Some(signed)))) => {
                let took = Millis(clock::now().mono.0.saturating_sub(began.0));
                self.note(provider, |seen| seen.note_response(took));
                match checked(context, provider, *signed) {
                    Ok(offer) => return Ok(Arc::new(offer)),
                    Err(fault) => return Err(Blame { fault, by: By::Provider }),
                }
            }
            Ok(Ok(Answer::Offer(None))) => return Err(refused(FaultCode::NOT_FOUND, "the peer sells nothing")),
            Ok(Ok(_)) => return Err(refused(FaultCode::MALFORMED, "the provider answered something else than was asked")),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        match listed {
            Some(Listed { offer, .. }) => Ok(offer),
            None => Err(Blame { fault: Fault::new(FaultCode::INTERNAL, failure), by: By::ProviderGone }),
        }
    }
}

fn refused(code: FaultCode, text: &str) -> Blame {
    Blame { fault: Fault::new(code, text), by: By::Provider }
}

fn checked(context: &Context, provider: PeerId, signed: orien_protocol::signing::Signed<Offer>) -> Result<Verified<Offer>, Fault> {
    let offer = signed.verify(context.network.id(), &provider).map_err(|error| Fault::new(FaultCode::BAD_SIGNATURE, error))?;
    if offer.provider != provider {
        return Err(Fault::new(FaultCode::NOT_YOURS, "the provider answered with somebody else's offer"));
    }
    offer.check().and_then(|()| offer.freshness(clock::wall())).map_err(|error| Fault::new(FaultCode::MALFORMED, error))?;
    Ok(offer)
}

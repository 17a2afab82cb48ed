//! Fetches announced offers: from their providers, or from an introducer when a provider cannot be reached, as when it came back at another address that only
//! the new offer names.
//!
//! Always true: one fetch per provider at a time, for the newest announcement; an offer that nobody gives is asked for a few times and then left to the next pull.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orien_net::Net;
use orien_protocol::digest::Digest;
use orien_protocol::frame::{Answer, Question};
use orien_protocol::network::NetworkId;
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::Verified;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::{Done, jittered};
use crate::ask::{AskError, ask};
use crate::catalogue::Verdict;
use crate::shared::Intake;

/// Providers whose offers are being fetched, waiting included; beyond it an announcement is passed on but not followed.
const WANTED_LIMIT: usize = 512;

/// Fetches that talk to a provider at the same time.
const ACTIVE_LIMIT: usize = 32;

/// Waits before each attempt. The second is for a provider that is still shaking hands with us, the last for one that restarts.
const WAITS: [Duration; 5] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// The newest announcement of a provider, and the task that follows it.
#[derive(Debug)]
struct Wanted {
    digest: Verified<Digest>,
    attempt: usize,
    task: AbortHandle,
}

/// The fetches under way.
#[derive(Debug)]
pub(super) struct Fetches {
    wanted: HashMap<PeerId, Wanted>,
    active: Arc<Semaphore>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self { wanted: HashMap::new(), active: Arc::new(Semaphore::new(ACTIVE_LIMIT)) }
    }
}

/// The end of one attempt.
#[derive(Debug)]
pub(super) struct Fetched {
    provider: PeerId,
    /// The announced version that was followed.
    version: u64,
    outcome: Result<(), FetchError>,
}

#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the provider sells nothing")]
    Nothing,
    #[error("the offer is not the announced one")]
    NotAnnounced,
    #[error("the offer is not signed by its provider")]
    Forged,
    #[error("the catalogue did not take it: {0:?}")]
    NotTaken(Verdict),
}

impl FetchError {
    fn is_passing(&self) -> bool {
        matches!(self, Self::Ask(error) if error.is_passing())
    }
}

impl Fetches {
    /// Sees to it that the offer behind `digest` is fetched.
    pub(super) fn want(&mut self, digest: Verified<Digest>, net: &Net, intake: &Intake, tasks: &mut JoinSet<Done>) {
        let provider = digest.provider;
        match self.wanted.get(&provider) {
            Some(wanted) if digest.version <= wanted.digest.version => return,
            // The older one may be waiting for long; the provider is there now.
            Some(wanted) => wanted.task.abort(),
            None if self.wanted.len() >= WANTED_LIMIT => {
                tracing::debug!(%provider, "too many offers are being fetched; this one is left to the next pull");
                return;
            }
            None => {}
        }
        self.spawn(digest, 0, net, intake, tasks);
    }

    /// Goes on after an attempt: done, again, or given up.
    pub(super) fn on_fetched(&mut self, fetched: Fetched, net: &Net, intake: &Intake, tasks: &mut JoinSet<Done>) {
        let Fetched { provider, version, outcome } = fetched;
        // A newer announcement came meanwhile and is followed by a task of its own.
        if self.wanted.get(&provider).is_none_or(|wanted| wanted.digest.version != version) {
            return;
        }
        let Some(wanted) = self.wanted.remove(&provider) else { return };
        if let Err(error) = outcome {
            tracing::debug!(%provider, version, attempt = wanted.attempt, %error, "an announced offer was not fetched");
            let next = wanted.attempt.saturating_add(1);
            if error.is_passing() && next < WAITS.len() {
                self.spawn(wanted.digest, next, net, intake, tasks);
            }
        }
    }

    fn spawn(&mut self, digest: Verified<Digest>, attempt: usize, net: &Net, intake: &Intake, tasks: &mut JoinSet<Done>) {
        let wait = WAITS.get(attempt).copied().unwrap_or_default();
        let (followed, net, intake, active) = (digest.clone(), net.clone(), intake.clone(), Arc::clone(&self.active));
        let task = tasks.spawn(async move {
            tokio::time::sleep(jittered(wait)).await;
            // Never closed, and if it were, one more at a time would do no harm.
            let _place = active.acquire().await;
            let outcome = fetch(&followed, &net, &intake).await;
            Done::Fetched(Box::new(Fetched { provider: followed.provider, version: followed.version, outcome }))
        });
        self.wanted.insert(digest.provider, Wanted { digest, attempt, task });
    }
}

async fn fetch(digest: &Verified<Digest>, net: &Net, intake: &Intake) -> Result<(), FetchError> {
    let offer = match ask(net, digest.provider, &Question::Offer).await {
        Ok(answer) => announced(answer, digest, &intake.network)?,
        Err(error) if error.is_passing() => from_introducers(digest, net, intake).await.ok_or(error)?,
        Err(error) => return Err(error.into()),
    };
    match intake.take(offer).await {
        Verdict::New | Verdict::Known | Verdict::Older => {
            intake.catalogue.keep_digest(digest);
            Ok(())
        }
        other => Err(FetchError::NotTaken(other)),
    }
}

/// The announced offer as an introducer holds it. Its signature is the provider's, so it does not matter who hands it over.
async fn from_introducers(digest: &Verified<Digest>, net: &Net, intake: &Intake) -> Option<Verified<Offer>> {
    for introducer in intake.introducers.iter().filter(|introducer| **introducer != intake.own) {
        if let Ok(answer) = ask(net, *introducer, &Question::OfferOf(digest.provider)).await
            && let Ok(offer) = announced(answer, digest, &intake.network)
        {
            return Some(offer);
        }
    }
    None
}

/// The offer in an answer, if it is the announced one or a later one of the same provider.
pub(super) fn announced(answer: Answer, digest: &Digest, network: &NetworkId) -> Result<Verified<Offer>, FetchError> {
    let signed = match answer {
        Answer::Offer(Some(signed)) => *signed,
        Answer::Offer(None) => return Err(FetchError::Nothing),
        _ => return Err(AskError::Unexpected { peer: digest.provider }.into()),
    };
    let offer = signed.verify(network, &digest.provider).map_err(|_| FetchError::Forged)?;
    let later = offer.version > digest.version;
    if offer.provider == digest.provider && (later || offer.hash() == digest.offer) { Ok(offer) } else { Err(FetchError::NotAnnounced) }
}

#[cfg(test)]
mod tests {
    use orien_protocol::signing::PeerKey;
    use orien_protocol::time::Timestamp;

    use super::*;
    use crate::sample::{network, offer};

    fn signed(seed: u8, version: u64, label: &str) -> Verified<Offer> {
        let key = PeerKey::from_seed(&[seed; 32]);
        let mut body = offer(key.id(), version, Timestamp(1), Timestamp(2));
        body.label = label.to_owned();
        Verified::sign(body, network().id(), &key)
    }

    fn answer(offer: &Verified<Offer>) -> Answer {
        Answer::Offer(Some(Box::new(offer.signed().clone())))
    }

    #[test]
    fn only_the_announced_offer_or_a_later_one_of_the_same_provider_is_taken() {
        let wanted = signed(1, 5, "a");
        let digest = wanted.digest(wanted.hash());
        let fetched = |answer| announced(answer, &digest, network().id());
        assert!(fetched(answer(&wanted)).is_ok());
        assert!(fetched(answer(&signed(1, 6, "b"))).is_ok());
        assert!(matches!(fetched(answer(&signed(1, 5, "b"))), Err(FetchError::NotAnnounced)));
        assert!(matches!(fetched(answer(&signed(1, 4, "a"))), Err(FetchError::NotAnnounced)));
        assert!(matches!(fetched(answer(&signed(2, 6, "a"))), Err(FetchError::Forged)));
        assert!(matches!(fetched(Answer::Offer(None)), Err(FetchError::Nothing)));
        assert!(matches!(fetched(Answer::Offers { offers: vec![], more: false }), Err(FetchError::Ask(AskError::Unexpected { .. }))));
    }
}

//! Pulls the whole catalogue of another peer, page by page.
//!
//! Always true: a peer is pulled from at most once a minute, a few at a time, introducers first; pages must move forward, so no peer can keep us
//! reading in circles. A lying peer can withhold offers but not invent them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use orien_net::{Net, NetError};
use orien_protocol::frame::{Answer, Question};
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Signed, Verified};
use orien_protocol::time::Millis;
use thiserror::Error;
use tokio::task::JoinSet;

use super::{Done, jittered};
use crate::ask::{AskError, ask};
use crate::catalogue::Verdict;
use crate::shared::Intake;

/// Peers pulled from at the same time.
const ACTIVE_LIMIT: usize = 4;

/// Peers waiting to be pulled from; all of them have about the same, so dropping some costs little.
const WAITING_LIMIT: usize = 64;

/// How long a peer is not pulled from again.
const REST: Millis = Millis::from_secs(60);

/// Peers remembered as just pulled from.
const RECENT_LIMIT: usize = 4096;

/// Pages read of one peer: 512 MiB, twice what the catalogue can hold.
const PAGES_LIMIT: usize = 1024;

/// Longest pull altogether; a full catalogue takes seconds, a stalling peer must not hold a place for long.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Waits before a page is asked for again of a peer that is busy or slow.
const WAITS: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// Who is being pulled from, and who will be.
#[derive(Debug)]
pub(super) struct Pulls {
    introducers: Vec<PeerId>,
    waiting: VecDeque<PeerId>,
    /// When each peer was last wished for, on the monotonic clock.
    recent: HashMap<PeerId, Millis>,
    active: usize,
}

/// The end of one pull.
#[derive(Debug)]
pub(super) struct Pulled {
    peer: PeerId,
    outcome: Result<usize, PullError>,
}

#[derive(Debug, Error)]
pub(super) enum PullError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("it did not come to an end in time")]
    TooSlow,
    #[error("its pages are not in order")]
    Disordered,
    #[error("it holds an offer that is not signed by its provider")]
    Forged,
    #[error("checking a page was interrupted")]
    Interrupted,
}

impl Pulls {
    pub(super) fn new(introducers: Vec<PeerId>) -> Self {
        Self { introducers, waiting: VecDeque::new(), recent: HashMap::new(), active: 0 }
    }

    /// Puts a peer in the queue, unless it was pulled from just now or the queue is full.
    pub(super) fn wish(&mut self, peer: PeerId, mono: Millis) {
        let rested = |since: Millis| mono.0.saturating_sub(since.0) >= REST.0;
        if self.recent.get(&peer).is_some_and(|since| !rested(*since)) {
            return;
        }
        if self.recent.len() >= RECENT_LIMIT {
            self.recent.retain(|_, since| !rested(*since));
        }
        if self.recent.len() >= RECENT_LIMIT || self.waiting.len() >= WAITING_LIMIT {
            return;
        }
        self.recent.insert(peer, mono);
        if self.introducers.contains(&peer) {
            self.waiting.push_front(peer);
        } else {
            self.waiting.push_back(peer);
        }
    }

    /// Starts as many waiting pulls as may run.
    pub(super) fn start(&mut self, net: &Net, intake: &Intake, tasks: &mut JoinSet<Done>) {
        while self.active < ACTIVE_LIMIT
            && let Some(peer) = self.waiting.pop_front()
        {
            self.active += 1;
            let (net, intake) = (net.clone(), intake.clone());
            tasks.spawn(async move {
                let outcome = tokio::time::timeout(TIME_LIMIT, pull(peer, &net, &intake)).await;
                Done::Pulled(Pulled { peer, outcome: outcome.unwrap_or(Err(PullError::TooSlow)) })
            });
        }
    }

    pub(super) fn on_pulled(&mut self, pulled: &Pulled) {
        self.active = self.active.saturating_sub(1);
        match &pulled.outcome {
            Ok(new) => tracing::debug!(peer = %pulled.peer, new, "pulled a catalogue"),
            Err(error) => {
                tracing::debug!(peer = %pulled.peer, %error, "a catalogue was not pulled to its end");
                if matches!(error, PullError::Ask(error) if error.is_passing()) {
                    // The next time it connects it may be asked at once.
                    self.recent.remove(&pulled.peer);
                }
            }
        }
    }
}

/// Takes over what `peer` knows and we do not; the number of new offers.
async fn pull(peer: PeerId, net: &Net, intake: &Intake) -> Result<usize, PullError> {
    let (mut after, mut new) = (None, 0);
    for _ in 0..PAGES_LIMIT {
        let Answer::Offers { offers, more } = page_of(peer, after, net).await? else {
            return Err(AskError::Unexpected { peer }.into());
        };
        let Some(last) = end_of(&offers, after)? else { break };
        let (network, catalogue) = (intake.network.clone(), intake.catalogue.clone());
        let checked = tokio::task::spawn_blocking(move || check(offers, |offer| catalogue.holds(offer), &network)).await;
        for offer in checked.map_err(|_| PullError::Interrupted)?? {
            new += usize::from(intake.take(offer).await == Verdict::New);
        }
        if !more {
            break;
        }
        after = Some(last);
    }
    Ok(new)
}

async fn page_of(peer: PeerId, after: Option<PeerId>, net: &Net) -> Result<Answer, AskError> {
    let question = Question::Catalogue { after };
    for wait in WAITS {
        match ask(net, peer, &question).await {
            Err(AskError::Net(NetError::Busy | NetError::RemoteBusy { .. } | NetError::TimedOut)) => {}
            other => return other,
        }
        tokio::time::sleep(jittered(wait)).await;
    }
    ask(net, peer, &question).await
}

/// The last provider of a page whose providers all come after `after` and after each other; none if it is empty.
pub(super) fn end_of(page: &[Signed<Offer>], after: Option<PeerId>) -> Result<Option<PeerId>, PullError> {
    let mut last = after;
    for offer in page {
        let provider = offer.unverified().provider;
        if last.is_some_and(|last| provider <= last) {
            return Err(PullError::Disordered);
        }
        last = Some(provider);
    }
    Ok(if page.is_empty() { None } else { last })
}

/// Verifies what we do not hold already. An honest peer verified before it listed, so one forgery ends the pull.
pub(super) fn check(
    page: Vec<Signed<Offer>>,
    holds: impl Fn(&Signed<Offer>) -> bool,
    network: &orien_protocol::network::NetworkId,
) -> Result<Vec<Verified<Offer>>, PullError> {
    page.into_iter()
        .filter(|offer| !holds(offer))
        .map(|offer| {
            let provider = offer.unverified().provider;
            offer.verify(network, &provider).map_err(|_| PullError::Forged)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use orien_protocol::signing::PeerKey;
    use orien_protocol::time::Timestamp;

    use super::*;
    use crate::sample::{network, offer};

    const fn peer(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    fn page(count: u8) -> Vec<Signed<Offer>> {
        let mut page: Vec<_> = (1..=count)
            .map(|seed| {
                let key = PeerKey::from_seed(&[seed; 32]);
                Verified::sign(offer(key.id(), 1, Timestamp(1), Timestamp(2)), network().id(), &key).into_signed()
            })
            .collect();
        page.sort_by_key(|offer| offer.unverified().provider);
        page
    }

    #[test]
    fn a_peer_is_asked_once_a_minute_and_introducers_come_first() {
        let mut pulls = Pulls::new(vec![peer(9)]);
        for (who, mono) in [(1, 0), (2, 0), (9, 0), (1, 1000), (2, REST.0)] {
            pulls.wish(peer(who), Millis(mono));
        }
        assert_eq!(pulls.waiting, [peer(9), peer(1), peer(2), peer(2)]);
    }

    #[test]
    fn a_crowd_that_connects_at_once_does_not_grow_the_queue() {
        let mut pulls = Pulls::new(Vec::new());
        for number in 0..10_000_u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            pulls.wish(PeerId::from_bytes(id), Millis(0));
        }
        assert_eq!(pulls.waiting.len(), WAITING_LIMIT);
        assert!(pulls.recent.len() <= RECENT_LIMIT);
    }

    #[test]
    fn pages_that_do_not_move_forward_are_refused() {
        let page = page(3);
        let last = page.last().unwrap().unverified().provider;
        assert_eq!(end_of(&page, None).unwrap(), Some(last));
        assert_eq!(end_of(&[], Some(last)).unwrap(), None);
        assert!(matches!(end_of(&page, Some(last)), Err(PullError::Disordered)));
        let twice = [page.clone(), page].concat();
        assert!(matches!(end_of(&twice, None), Err(PullError::Disordered)));
    }

    #[test]
    fn one_forged_offer_ends_the_pull() {
        assert_eq!(check(page(3), |_| false, network().id()).unwrap().len(), 3);
        let mut page = page(3);
        let mut altered = page[1].unverified().clone();
        altered.label = "other".to_owned();
        page[1] = Signed::join(altered, *page[1].signature());
        assert!(matches!(check(page, |_| false, network().id()), Err(PullError::Forged)));
    }
}

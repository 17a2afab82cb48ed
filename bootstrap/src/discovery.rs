//! How a peer learns what is for sale: announcements by gossip, offers from their providers, whole catalogues from other peers.
//!
//! Always true: nothing enters the catalogue unverified; every queue, task and retry is bounded, and what finds no room is learned at the next pull;
//! gossip is passed on only if it is signed, sound, timely and new. No task outlives [`Discovery::run`].
//!
//! It does not know what offers are for. Our own offer is the business of [`crate::publish`].

mod fetch;
mod gossip;
mod hearsay;
mod pull;

use std::time::Duration;

use orien_net::Net;
use orien_protocol::peer::PeerId;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::shared::Intake;

use fetch::{Fetched, Fetches};
pub use hearsay::Hearsay;
use pull::{Pulled, Pulls};

/// What waits for discovery; beyond it gossip counts as ignored and a new connection is not pulled from.
pub(crate) const HEARD_QUEUE: usize = 512;

/// How often expired offers are cleaned away; they are never shown in between.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// How often a peer's whole catalogue is pulled without a reason, give or take a fifth.
const PULL_PERIOD: Duration = Duration::from_secs(300);

/// Something the network brought.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A gossip message.
    Gossip {
        /// As it came.
        bytes: Vec<u8>,
        /// Whether it travels on.
        verdict: orien_net::Verdict,
    },
    /// A peer is connected now.
    Connected(PeerId),
}

/// A background task of discovery panicked. That is a bug, and the peer should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a task of discovery has panicked")]
pub struct DiscoveryPanicked;

/// What a background task brought home.
#[derive(Debug)]
enum Done {
    Fetched(Box<Fetched>),
    Pulled(Pulled),
    /// Connected peers, of which one is to be pulled from.
    Peers(Vec<PeerId>),
}

/// The state of the discovery task.
#[derive(Debug)]
pub(crate) struct Discovery {
    net: Net,
    intake: Intake,
    heard: mpsc::Receiver<Heard>,
    fetches: Fetches,
    pulls: Pulls,
    tasks: JoinSet<Done>,
}

impl Discovery {
    pub(crate) fn new(net: Net, intake: Intake, introducers: Vec<PeerId>, heard: mpsc::Receiver<Heard>) -> Self {
        Self { net, intake, heard, fetches: Fetches::default(), pulls: Pulls::new(introducers), tasks: JoinSet::new() }
    }

    /// Runs until `stop`, or until nothing more can be heard.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), DiscoveryPanicked> {
        let mut clean_up = interval(CLEAN_UP);
        clean_up.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_pull = Instant::now() + jittered(PULL_PERIOD);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                heard = self.heard.recv() => match heard {
                    None => break,
                    Some(Heard::Gossip { bytes, verdict }) => self.on_gossip(&bytes, verdict),
                    Some(Heard::Connected(peer)) => self.pulls.wish(peer, clock::now().mono),
                },
                Some(done) = self.tasks.join_next() => match done {
                    Ok(done) => self.on_done(done),
                    // A fetch that a newer announcement made needless.
                    Err(error) if error.is_cancelled() => {}
                    Err(_) => return Err(DiscoveryPanicked),
                },
                _ = clean_up.tick() => self.intake.expire().await,
                () = sleep_until(next_pull) => {
                    next_pull = Instant::now() + jittered(PULL_PERIOD);
                    self.look_around();
                }
            }
            self.pulls.start(&self.net, &self.intake, &mut self.tasks);
        }
        self.tasks.shutdown().await;
        Ok(())
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Fetched(fetched) => self.fetches.on_fetched(*fetched, &self.net, &self.intake, &mut self.tasks),
            Done::Pulled(pulled) => self.pulls.on_pulled(&pulled),
            Done::Peers(peers) => {
                let choice = usize::try_from(clock::below(u64::try_from(peers.len()).unwrap_or(0))).unwrap_or(0);
                if let Some(peer) = peers.get(choice) {
                    self.pulls.wish(*peer, clock::now().mono);
                }
            }
        }
    }

    /// Finds out who is connected, to pull from one of them.
    fn look_around(&mut self) {
        let net = self.net.clone();
        self.tasks.spawn(async move {
            let peers = net.peers().await.unwrap_or_default();
            Done::Peers(peers.into_iter().map(|info| info.peer).collect())
        });
    }
}

/// A period give or take a fifth, so that peers that started together do not act together.
pub(crate) fn jittered(period: Duration) -> Duration {
    let spread = period.as_millis() / 5 * 2;
    let more = clock::below(u64::try_from(spread).unwrap_or(u64::MAX).saturating_add(1));
    (period / 5 * 4).saturating_add(Duration::from_millis(more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jittered_period_stays_within_a_fifth() {
        for _ in 0..1000 {
            let period = jittered(Duration::from_secs(600));
            assert!(period >= Duration::from_secs(480) && period <= Duration::from_secs(720), "{period:?}");
        }
    }
}

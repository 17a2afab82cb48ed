//! What this gateway has lived through with each provider: how fast it answered, started and moved bytes, and how its sessions went.
//!
//! Always true: the sums about sessions are folded from rows of sessions that are over, each once, and come out the same after a restart; everything kept is of a fixed size per provider.
//! Answer times and transfer rates are of this process only.
//!
//! It does not know offers, the clock, or how a provider is chosen.

use std::collections::VecDeque;
use std::time::Duration;

use orien_protocol::frame::CloseReason;
use orien_protocol::money::Usdc;
use orien_protocol::receipt::{Outcome, Party};
use orien_protocol::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};

use crate::rows::Closing;

/// Starts that are remembered per provider: enough for a 95th percentile, little enough to follow a change.
const STARTS_KEPT: usize = 128;
/// Starts that a session leaves behind.
const STARTS_PER_SESSION: usize = 32;
/// Smallest transfer that says something about a rate; below it the round trip is what is measured.
const RATED_BYTES: u64 = 64 * 1024;
/// For how long a provider whose newest session here failed is asked after the others: a node that was restarted is back long before.
const FAILED_LATELY: Millis = Millis::from_secs(15 * 60);
/// The same for one that broke the rules.
const DISPUTED_LATELY: Millis = Millis::from_secs(24 * 3600);

/// What one session shows about its provider; written with its closing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Measures {
    /// Runs with a final receipt.
    pub(crate) runs: u64,
    /// Those of them that the provider brought to a bad end.
    pub(crate) failed_runs: u64,
    /// Milliseconds from our request to the news of the start, on our clock; the newest last.
    pub(crate) starts: VecDeque<u32>,
    /// Whether the session had to go on elsewhere; told by its handover.
    #[serde(skip)]
    pub(crate) lost: bool,
}

impl Measures {
    /// A tool was started so long after it was asked for.
    pub(crate) fn note_start(&mut self, took: Millis) {
        push(&mut self.starts, u32::try_from(took.0).unwrap_or(u32::MAX), STARTS_PER_SESSION);
    }

    /// A run has its final receipt.
    pub(crate) fn note_end(&mut self, outcome: &Outcome) {
        self.runs = self.runs.saturating_add(1);
        if outcome.party == Party::Provider {
            self.failed_runs = self.failed_runs.saturating_add(1);
        }
    }
}

fn push(kept: &mut VecDeque<u32>, value: u32, limit: usize) {
    if kept.len() >= limit {
        kept.pop_front();
    }
    kept.push_back(value);
}

/// How a session went, as far as the provider answers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Completed,
    Failed,
    Disputed,
}

/// None for a session without a receipt: what hinders an opening may be anybody's.
fn verdict(closing: &Closing, lost: bool) -> Option<Verdict> {
    match closing.reason {
        CloseReason::NotOpened => None,
        _ if closing.is_disputed() => Some(Verdict::Disputed),
        _ if lost => Some(Verdict::Failed),
        CloseReason::ProviderStopped | CloseReason::Dispute => Some(Verdict::Failed),
        CloseReason::Ended | CloseReason::Expired | CloseReason::AgentGone | CloseReason::NotSigned | CloseReason::Unredeemed => {
            Some(Verdict::Completed)
        }
    }
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the provider.
    Up,
    /// From it.
    Down,
}

/// Why a provider is asked after the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Its newest session here failed.
    Failed,
    /// It broke the rules of a session.
    Disputed,
}

/// What matters of it when providers are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// How long it took to answer, milliseconds.
    pub(crate) response_ms: Option<u64>,
    /// Half of its starts were as fast as this, milliseconds.
    pub(crate) start_ms: Option<u64>,
    /// Sessions that went well.
    pub(crate) completed: u64,
    /// Sessions that did not, by its fault.
    pub(crate) failed: u64,
    /// What speaks against it at this moment.
    pub(crate) trouble: Option<Trouble>,
}

/// What was lived through with one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Experience {
    /// How long it takes to answer, milliseconds: a running mean.
    pub(crate) response_ms: Option<u64>,
    /// Bytes per second up and down: running means.
    pub(crate) upload_rate: Option<u64>,
    pub(crate) download_rate: Option<u64>,
    /// Sessions that ended as they should.
    pub(crate) completed: u64,
    /// Sessions that the provider left.
    pub(crate) failed: u64,
    /// Sessions in which it broke the rules.
    pub(crate) disputed: u64,
    /// Receipted runs, and those that it brought to a bad end.
    pub(crate) runs: u64,
    pub(crate) failed_runs: u64,
    /// What all of them charged.
    pub(crate) charged: Usdc,
    /// When the newest of them was opened or ended.
    pub(crate) last_used: Option<Timestamp>,
    newest_verdict: Option<(Timestamp, Trouble)>,
    last_dispute: Option<Timestamp>,
    starts: VecDeque<u32>,
}

impl Experience {
    /// It took so long to answer.
    pub(crate) fn note_response(&mut self, took: Millis) {
        self.response_ms = Some(mean(self.response_ms, took.0));
    }

    /// So many bytes took so long.
    pub(crate) fn note_transfer(&mut self, way: Way, bytes: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        if bytes < RATED_BYTES {
            return;
        }
        let rate = u64::try_from(u128::from(bytes).saturating_mul(1_000_000) / u128::from(micros)).unwrap_or(u64::MAX);
        let known = match way {
            Way::Up => &mut self.upload_rate,
            Way::Down => &mut self.download_rate,
        };
        *known = Some(mean(*known, rate));
    }

    /// A session with it is over. Called once per session, the oldest first.
    pub(crate) fn note_closed(&mut self, closing: &Closing, measures: &Measures) {
        let Some(verdict) = verdict(closing, measures.lost) else { return };
        let (count, trouble) = match verdict {
            Verdict::Completed => (&mut self.completed, None),
            Verdict::Failed => (&mut self.failed, Some(Trouble::Failed)),
            Verdict::Disputed => (&mut self.disputed, Some(Trouble::Disputed)),
        };
        *count = count.saturating_add(1);
        if verdict == Verdict::Disputed {
            self.last_dispute = self.last_dispute.max(Some(closing.at));
        }
        if self.last_used <= Some(closing.at) {
            self.newest_verdict = trouble.map(|trouble| (closing.at, trouble));
        }
        self.charged = self.charged.plus(closing.promised).unwrap_or(Usdc::from_micros(u64::MAX));
        self.note_use(closing.at);
        self.add(measures);
    }

    /// A session with it is going on.
    pub(crate) fn add_live(&mut self, opened_at: Timestamp, measures: &Measures) {
        self.note_use(opened_at);
        self.add(measures);
    }

    /// It was lost in a session that is not over.
    pub(crate) fn note_lost(&mut self, at: Timestamp) {
        self.newest_verdict = Some((at, Trouble::Failed));
    }

    fn note_use(&mut self, at: Timestamp) {
        self.last_used = self.last_used.max(Some(at));
    }

    fn add(&mut self, measures: &Measures) {
        self.runs = self.runs.saturating_add(measures.runs);
        self.failed_runs = self.failed_runs.saturating_add(measures.failed_runs);
        measures.starts.iter().for_each(|&took| push(&mut self.starts, took, STARTS_KEPT));
    }

    /// How many starts were measured.
    pub(crate) fn samples(&self) -> usize {
        self.starts.len()
    }

    /// So many percent of the starts were as fast as this, milliseconds.
    pub(crate) fn start_ms(&self, percent: usize) -> Option<u64> {
        let mut sorted: Vec<u32> = self.starts.iter().copied().collect();
        sorted.sort_unstable();
        // The smallest value that is not below the wanted share of all.
        let rank = sorted.len().saturating_mul(percent).div_ceil(100).max(1);
        sorted.get(rank.saturating_sub(1)).copied().map(u64::from)
    }

    /// What matters of it now.
    pub(crate) fn known(&self, now: Timestamp) -> Known {
        let disputed = self.last_dispute.is_some_and(|at| now.since(at) < DISPUTED_LATELY).then_some(Trouble::Disputed);
        let failed = self.newest_verdict.filter(|(at, _)| now.since(*at) < FAILED_LATELY).map(|(_, trouble)| trouble);
        Known {
            response_ms: self.response_ms,
            start_ms: self.start_ms(50),
            completed: self.completed,
            failed: self.failed.saturating_add(self.disputed),
            trouble: disputed.or(failed),
        }
    }
}

fn mean(known: Option<u64>, new: u64) -> u64 {
    known.map_or(new, |mean| mean.saturating_mul(3).saturating_add(new) / 4)
}

#[cfg(test)]
mod tests {
    use orien_protocol::receipt::EndReason;

    use super::*;

    fn closing(at: u64, reason: CloseReason, micros: u64) -> Closing {
        Closing {
            at: Timestamp(at),
            reason,
            fault: None,
            budget: Usdc::from_micros(1_000_000),
            charged: Usdc::from_micros(micros),
            promised: Usdc::from_micros(micros),
            effective_ms: 0,
        }
    }

    fn measures(starts: impl IntoIterator<Item = u64>) -> Measures {
        let mut measures = Measures::default();
        starts.into_iter().for_each(|ms| measures.note_start(Millis(ms)));
        measures
    }

    #[test]
    fn sessions_are_counted_by_how_they_ended_and_those_that_never_opened_not_at_all() {
        let mut all = Experience::default();
        let mut runs = measures([]);
        runs.note_end(&Outcome::of(EndReason::Exited, Some(0)));
        runs.note_end(&Outcome::of(EndReason::ProviderStopped, None));
        for (at, reason, micros) in [
            (1, CloseReason::Ended, 10),
            (2, CloseReason::ProviderStopped, 20),
            (3, CloseReason::Dispute, 30),
            (4, CloseReason::NotOpened, 0),
        ] {
            all.note_closed(&closing(at, reason, micros), &runs);
        }
        assert_eq!((all.completed, all.failed, all.disputed), (1, 1, 1));
        assert_eq!((all.runs, all.failed_runs, all.charged), (6, 3, Usdc::from_micros(60)));
        assert_eq!(all.last_used, Some(Timestamp(3)));
    }

    #[test]
    fn a_provider_is_in_trouble_for_a_while_after_its_newest_session_failed_and_longer_after_it_cheated() {
        let mut all = Experience::default();
        let trouble = |all: &Experience, now| all.known(Timestamp(now)).trouble;
        all.note_closed(&closing(1_000, CloseReason::ProviderStopped, 1), &Measures::default());
        assert_eq!(trouble(&all, 2_000), Some(Trouble::Failed));
        assert_eq!(trouble(&all, 1_000 + FAILED_LATELY.0), None);
        all.note_closed(&closing(3_000, CloseReason::Ended, 1), &Measures::default());
        assert_eq!(trouble(&all, 4_000), None, "it has made up for it");
        all.note_closed(&closing(5_000, CloseReason::Dispute, 1), &Measures::default());
        all.note_closed(&closing(6_000, CloseReason::Ended, 1), &Measures::default());
        assert_eq!(trouble(&all, 7_000 + FAILED_LATELY.0), Some(Trouble::Disputed));
        assert_eq!(trouble(&all, 5_000 + DISPUTED_LATELY.0), None);
    }

    #[test]
    fn percentiles_are_of_the_newest_starts_and_memory_is_bounded() {
        let mut all = Experience::default();
        assert_eq!((all.start_ms(50), all.samples()), (None, 0));
        all.add_live(Timestamp(1), &measures([7]));
        assert_eq!((all.start_ms(50), all.start_ms(95)), (Some(7), Some(7)));
        for first in [1, 21, 41, 61, 81] {
            all.add_live(Timestamp(1), &measures(first..first + 20));
        }
        assert_eq!((all.start_ms(50), all.start_ms(95), all.samples()), (Some(50), Some(95), 101));
        (0..10).for_each(|_| all.add_live(Timestamp(1), &measures(1_000..1_100)));
        assert_eq!((all.start_ms(1), all.samples()), (Some(1_068), STARTS_KEPT));
    }

    #[test]
    fn rates_follow_what_was_moved_and_small_files_say_nothing() {
        let mut all = Experience::default();
        all.note_transfer(Way::Up, 10, Duration::from_secs(1));
        assert_eq!(all.upload_rate, None);
        all.note_transfer(Way::Up, 1_000_000, Duration::from_millis(500));
        all.note_transfer(Way::Up, 1_000_000, Duration::from_secs(1));
        all.note_transfer(Way::Down, 100_000, Duration::from_secs(1));
        assert_eq!((all.upload_rate, all.download_rate), (Some(1_750_000), Some(100_000)));
    }
}

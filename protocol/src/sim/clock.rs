//! Virtual time, and what the clocks of one party make of it.

use crate::time::{Millis, Now, Timestamp};

/// The wall-clock time at which every world begins.
pub const BEGINNING: Timestamp = Timestamp(1_800_000_000_000);
/// Furthest that a wall clock is wrong: two of them are never as far apart as an opening tolerates.
pub const SKEW_MAX_MS: u64 = 25_000;

/// The clocks of one process: a wall that is off and may be stepped, and a monotonic count that drifts and begins anew with every start.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// By how much the wall is ahead, with [`SKEW_MAX_MS`] as zero.
    offset_ms: u64,
    /// Parts in a million that the monotonic clock is fast, with a hundred as none.
    drift_ppm: u64,
    /// True time of the process's start.
    started: u64,
}

impl Clock {
    pub(super) fn new(offset_ms: u64, drift_ppm: u64) -> Self {
        Self { offset_ms: offset_ms.min(SKEW_MAX_MS * 2), drift_ppm: drift_ppm.min(200), started: 0 }
    }

    /// The operator sets the wall clock.
    pub(super) fn step_to(&mut self, offset_ms: u64) {
        self.offset_ms = offset_ms.min(SKEW_MAX_MS * 2);
    }

    /// The process starts.
    pub(super) const fn restart(&mut self, t: u64) {
        self.started = t;
    }

    /// What the clocks say at true time `t`.
    pub(super) const fn now(&self, t: u64) -> Now {
        Now { wall: self.wall(t), mono: Millis(1_000 + self.span(t.saturating_sub(self.started))) }
    }

    pub(super) const fn wall(&self, t: u64) -> Timestamp {
        Timestamp(BEGINNING.0 + t + self.offset_ms - SKEW_MAX_MS)
    }

    /// What a stopwatch of this party shows for a true span.
    pub(super) const fn span(&self, ms: u64) -> u64 {
        ms + ms * self.drift_ppm / 1_000_000 - ms * 100 / 1_000_000
    }
}

//! Time of one run: how long it has lasted, and how long of that it was paused.
//!
//! Always true: effective time never runs while paused and never goes back. The clock is told the time, it does not read it.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    paused: Duration,
    paused_since: Option<Instant>,
}

impl Clock {
    pub(super) fn start(now: Instant) -> Self {
        Self { started: now, paused: Duration::ZERO, paused_since: None }
    }

    pub(super) fn pause(&mut self, now: Instant) {
        self.paused_since.get_or_insert(now);
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.paused = self.paused(now);
        self.paused_since = None;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused_since.is_some()
    }

    pub(super) fn wall(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    pub(super) fn paused(&self, now: Instant) -> Duration {
        let current = self.paused_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.paused.saturating_add(current)
    }

    pub(super) fn effective(&self, now: Instant) -> Duration {
        self.wall(now).saturating_sub(self.paused(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paused_time_is_not_effective_time() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut clock = Clock::start(zero);
        clock.pause(at(100));
        clock.pause(at(150));
        assert_eq!(clock.effective(at(5_000)), Duration::from_millis(100));
        clock.resume(at(1_100));
        clock.resume(at(1_200));
        assert!(!clock.is_paused());
        assert_eq!(clock.effective(at(1_300)), Duration::from_millis(300));
        assert_eq!(clock.paused(at(1_300)), Duration::from_secs(1));
        assert_eq!(clock.wall(at(1_300)), Duration::from_millis(1_300));
    }
}

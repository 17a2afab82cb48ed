//! Tools that run: how long they have really worked, and how long they would.

use crate::receipt::{EndReason, Usage};

/// A tool at work.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    /// Milliseconds worked, on the provider's monotonic clock, without pauses.
    pub(super) ms: u64,
    pub(super) paused: bool,
    /// It is killed then.
    limit: u64,
    /// It would exit by itself then.
    length: u64,
    /// The provider's monotonic clock when it was last looked at.
    at: u64,
}

impl Tool {
    pub(super) const fn new(limit: u64, length: u64, at: u64) -> Self {
        Self { ms: 0, paused: false, limit, length, at }
    }

    /// Lets it work until the provider's monotonic clock says `now`; how it ended, if it did.
    pub(super) fn work(&mut self, now: u64) -> Option<(EndReason, Option<i32>)> {
        let ms = now.saturating_sub(self.at);
        self.at = now;
        if self.paused {
            return None;
        }
        let least = self.limit.min(self.length);
        self.ms = self.ms.saturating_add(ms).min(least);
        if self.ms < least {
            None
        } else if self.length <= self.limit {
            Some((EndReason::Exited, Some(0)))
        } else {
            Some((EndReason::TimedOut, Some(137)))
        }
    }

    /// What an honest executor reports of it.
    pub(super) fn usage(&self) -> Usage {
        Usage { effective_ms: self.ms, ..Usage::default() }
    }
}

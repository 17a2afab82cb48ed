//! What a session's tools have sent and received, and how much of it they may.
//!
//! Always true: the bytes of both directions together never exceed the limit, because bytes are taken from it before they are passed on.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a session may transfer when the provider does not say: a large data set or a few container images.
pub const EGRESS_BYTES_DEFAULT: u64 = 10 << 30;

/// Shared by all tunnels of a session.
#[derive(Debug)]
pub struct EgressCounters {
    limit_bytes: u64,
    connections: AtomicU64,
    refused: AtomicU64,
    taken: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EgressUsage {
    /// Tunnels that were opened.
    pub connections: u64,
    /// Requests that the grant, or the form of a request, did not permit.
    pub refused: u64,
    /// Bytes from tools to hosts.
    pub up_bytes: u64,
    /// Bytes from hosts to tools.
    pub down_bytes: u64,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

impl Default for EgressCounters {
    fn default() -> Self {
        Self::new(EGRESS_BYTES_DEFAULT)
    }
}

impl EgressCounters {
    /// Counters that end at so many bytes of both directions together.
    pub const fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        }
    }

    /// What was used until now.
    pub fn usage(&self) -> EgressUsage {
        EgressUsage {
            connections: self.connections.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            up_bytes: self.up.load(Ordering::Relaxed),
            down_bytes: self.down.load(Ordering::Relaxed),
        }
    }

    pub(super) fn opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.limit_bytes
    }

    /// Takes these bytes from the limit, all or none of them.
    pub(super) fn take(&self, way: Way, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let rest = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.limit_bytes);
        if self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).is_err() {
            // So that the next request is told, instead of being cut off in its first packet.
            self.taken.store(self.limit_bytes, Ordering::Relaxed);
            return false;
        }
        let counter = if way == Way::Up { &self.up } else { &self.down };
        counter.fetch_add(bytes, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_whole_or_not_at_all_and_never_beyond_the_limit() {
        let counters = EgressCounters::new(10);
        assert!(counters.take(Way::Up, 6) && counters.take(Way::Down, 3));
        assert!(!counters.is_used_up());
        assert!(!counters.take(Way::Up, 2));
        assert!(counters.is_used_up(), "a limit that cut a transfer off is used up");
        assert!(!counters.take(Way::Up, 1));
        assert_eq!(counters.usage(), EgressUsage { up_bytes: 6, down_bytes: 3, ..EgressUsage::default() });
    }
}

//! Token buckets: how often each provider may change what it says. Pure: the time comes in.
//!
//! Always true: the table of buckets is bounded. A bucket that is full again says nothing and is forgotten; when none can be forgotten, a stranger is
//! refused rather than let in unmeasured.

use std::collections::BTreeMap;

use orien_protocol::peer::PeerId;
use orien_protocol::time::Millis;

/// One update per so much time in the long run.
pub(crate) const REFILL: Millis = Millis::from_secs(5);

/// Updates at once after a quiet time: a start, a change of tools, a few changes of capacity.
pub(crate) const BURST: u64 = 5;

/// Buckets of so many providers.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// When each provider's bucket will be full again, on the monotonic clock.
    full_at: BTreeMap<PeerId, Millis>,
    refill: Millis,
    burst: u64,
    limit: usize,
    /// When the table was last searched for what can be forgotten; the search reads all of it.
    swept: Option<Millis>,
}

impl Buckets {
    /// At most `limit` buckets of `burst` tokens, each of which comes back after `refill`.
    pub(crate) fn new(limit: usize, refill: Millis, burst: u64) -> Self {
        Self { full_at: BTreeMap::new(), refill, burst, limit, swept: None }
    }

    /// Takes a token of `provider`, if there is one at `mono`.
    pub(crate) fn take(&mut self, provider: PeerId, mono: Millis) -> bool {
        if !self.full_at.contains_key(&provider) && !self.make_room(mono) {
            return false;
        }
        let full_at = self.full_at.entry(provider).or_insert(mono);
        let next = (*full_at).max(mono).0.saturating_add(self.refill.0);
        let fits = next <= mono.0.saturating_add(self.refill.0.saturating_mul(self.burst));
        if fits {
            *full_at = Millis(next);
        }
        fits
    }

    fn make_room(&mut self, mono: Millis) -> bool {
        if self.full_at.len() < self.limit {
            return true;
        }
        if self.swept.is_none_or(|swept| mono.0.saturating_sub(swept.0) >= self.refill.0) {
            self.swept = Some(mono);
            self.full_at.retain(|_, full_at| *full_at > mono);
        }
        self.full_at.len() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn peer(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    #[test]
    fn a_burst_passes_then_one_per_refill() {
        let mut buckets = Buckets::new(10, REFILL, BURST);
        for _ in 0..BURST {
            assert!(buckets.take(peer(1), Millis(1000)));
        }
        assert!(!buckets.take(peer(1), Millis(1000)));
        assert!(buckets.take(peer(2), Millis(1000)), "another provider has a bucket of its own");
        assert!(!buckets.take(peer(1), Millis(1000 + REFILL.0 - 1)));
        assert!(buckets.take(peer(1), Millis(1000 + REFILL.0)));
        assert!(!buckets.take(peer(1), Millis(1000 + REFILL.0)));
    }

    #[test]
    fn a_full_table_refuses_strangers_until_a_bucket_can_be_forgotten() {
        let mut buckets = Buckets::new(2, REFILL, BURST);
        assert!(buckets.take(peer(1), Millis(0)) && buckets.take(peer(2), Millis(0)));
        assert!(!buckets.take(peer(3), Millis(1)));
        assert!(buckets.take(peer(3), Millis(2 * REFILL.0)));
        assert_eq!(buckets.full_at.len(), 1);
    }
}

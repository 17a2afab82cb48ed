//! How often somebody may ask.
//!
//! Always true: whoever keeps within the rate is never refused, whatever others do: each token has a rate of its own, and failed attempts have one together.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::StatusCode;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};

use crate::problem::Problem;

/// How many seconds' worth may come at once after a pause.
const BURST_SECONDS: u32 = 2;

/// A rate and how much of it is used up.
#[derive(Debug)]
pub(crate) struct Rate {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Rate {
    /// So many per second, and twice as many after a pause; at least one.
    pub(crate) fn per_second(count: u32) -> Self {
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let burst = count.saturating_mul(NonZeroU32::new(BURST_SECONDS).unwrap_or(NonZeroU32::MIN));
        Self { limiter: DefaultDirectRateLimiter::direct(Quota::per_second(count).allow_burst(burst)), clock: DefaultClock::default() }
    }

    /// Counts one more, or says (429) when to come back.
    pub(crate) fn take(&self, what: &str) -> Result<(), Problem> {
        let Err(too_early) = self.limiter.check() else { return Ok(()) };
        let wait = too_early.wait_time_from(self.clock.now());
        Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests")
            .detail(format!("{what} Wait as long as Retry-After says."))
            .retry_after_seconds(whole_seconds(wait)))
    }
}

/// Rounded up, and never zero: a client that waits so long is let in.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

//! The clocks and the random source of this crate: the only file that reads them.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use orien_protocol::time::{Millis, Now, Timestamp};
use thiserror::Error;

/// When the process first looked at the clock.
static START: OnceLock<Instant> = OnceLock::new();

/// What both clocks say now.
pub fn now() -> Now {
    let mono = START.get_or_init(Instant::now).elapsed();
    Now { wall: wall(), mono: Millis(u64::try_from(mono.as_millis()).unwrap_or(u64::MAX)) }
}

/// Wall-clock time; 1970 if the machine's clock stands before that.
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The operating system gave no random bytes. Nothing secret or unique can be made; the process should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

/// Makes a new id out of the clock and random bits: `random_id(SessionId::from_parts)`.
pub fn random_id<T>(make: impl FnOnce(u64, u128) -> T) -> Result<T, NoRandomness> {
    let mut bits = [0; 16];
    fill(&mut bits)?;
    Ok(make(wall().0, u128::from_be_bytes(bits)))
}

/// Fills `bytes` with random bytes fit for keys.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    getrandom::fill(bytes).map_err(|_| NoRandomness)
}

/// A number below `bound`, for jitter and choices that need not be perfectly even; zero when there is no randomness or nothing to choose from.
pub(crate) fn below(bound: u64) -> u64 {
    let mut bits = [0; 8];
    match fill(&mut bits) {
        Ok(()) => u64::from_be_bytes(bits).checked_rem(bound).unwrap_or(0),
        Err(NoRandomness) => 0,
    }
}

#[cfg(test)]
mod tests {
    use orien_protocol::id::{RequestId, SessionId};

    use super::*;

    #[test]
    fn two_ids_made_at_once_differ_and_carry_their_kind() {
        let (one, two) = (random_id(SessionId::from_parts).unwrap(), random_id(SessionId::from_parts).unwrap());
        assert_ne!(one, two);
        assert!(random_id(RequestId::from_parts).unwrap().to_string().starts_with("req_"));
    }

    #[test]
    fn the_monotonic_clock_never_goes_back() {
        let early = now();
        assert!(now().mono >= early.mono);
    }
}

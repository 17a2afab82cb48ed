//! Times and spans, in units that the types name. There is no "now" here: whoever owns a clock passes it in.

use serde::{Deserialize, Serialize};

/// Wall-clock time in milliseconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Millis(pub u64);

/// Wall-clock time in whole seconds since 1970 (UTC), as a block's timestamp counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct UnixSeconds(pub u64);

impl Timestamp {
    /// This time plus a span, or the last representable time.
    pub const fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// How far apart two clocks are, whichever is ahead.
    pub const fn distance(self, other: Self) -> Millis {
        Millis(self.0.abs_diff(other.0))
    }

    /// The whole second this time lies in.
    pub const fn seconds(self) -> UnixSeconds {
        UnixSeconds(self.0 / 1000)
    }
}

impl UnixSeconds {
    /// The first millisecond of this second.
    pub const fn timestamp(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(1000))
    }
}

impl Millis {
    /// A span given in whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
}

/// What a driver's clocks say at one turn of its loop: the wall, and a monotonic count since the process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Wall-clock time; may be stepped by an operator.
    pub wall: Timestamp,
    /// Monotonic milliseconds since the process started; means nothing across restarts.
    pub mono: Millis,
}

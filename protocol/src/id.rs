//! Names of things that somebody makes: sessions, executions, requests, batches, payouts.
//!
//! Each is a ULID (48 bits of milliseconds, 80 random bits, both given by the caller) with a prefix that says what it names, so ids sort by
//! the time they were made and one kind is never taken for another. The one who asks makes the id, before asking.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use ulid::Ulid;

/// A text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected an id such as {prefix}_01J9ZZ4Q3T8R9W0X2Y3Z4A5B6C, found `{found}`")]
pub struct ParseIdError {
    prefix: &'static str,
    found: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The prefix of the text form.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id out of Unix milliseconds and random bits (the low 80 count).
            pub const fn from_parts(unix_ms: u64, random: u128) -> Self {
                Self(Ulid::from_parts(unix_ms, random).to_bytes())
            }

            /// Takes the 16 bytes as they are stored and signed.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes, big-endian: time first.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), Ulid::from_bytes(self.0).to_string())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let refused = || ParseIdError { prefix: $prefix, found: text.chars().take(40).collect() };
                let ulid = text.strip_prefix(concat!($prefix, "_")).ok_or_else(refused)?;
                let ulid = Ulid::from_string(ulid).map_err(|_| refused())?;
                let id = Self(ulid.to_bytes());
                // One id has one text: lower case and look-alike letters are refused.
                if id.to_string() == text { Ok(id) } else { Err(refused()) }
            }
        }
    )*};
}

ids! {
    /// One agent, one provider, one set of terms, one running account.
    SessionId = "session";
    /// One run of one tool; made by the agent before it asks.
    ExecutionId = "exec";
    /// One request to settlement, so that asking twice does it once.
    RequestId = "req";
    /// A set of redemptions settled together.
    BatchId = "batch";
    /// Money owed to one payout address out of one batch.
    PayoutId = "payout";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_from_their_text_and_sort_by_time() {
        let early = SessionId::from_parts(1_000, u128::MAX);
        let late = SessionId::from_parts(1_001, 0);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse::<SessionId>().unwrap(), early);
    }

    #[test]
    fn an_id_of_another_kind_or_shape_is_refused() {
        let id = SessionId::from_parts(1_800_000_000_000, u128::MAX).to_string();
        assert!(id.parse::<ExecutionId>().is_err());
        assert!(id.to_lowercase().parse::<SessionId>().is_err());
        for text in ["", "session_", "session_xyz", "exec", "session_ZZZZZZZZZZZZZZZZZZZZZZZZZZZ"] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }
}

//! Which network a peer belongs to.
//!
//! The network id is part of every protocol name and of every ed25519-signed layout, so that peers of two networks never get as far as
//! parsing each other and no signature of one network means anything in another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest network id in bytes; it is repeated in every protocol name.
pub const NETWORK_ID_LIMIT: usize = 48;

/// A short name such as `dev-3f9c21d07a55e1b2`: lower-case ASCII letters, digits and dashes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkId(String);

/// A text cannot name a network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a network id has 1 to {NETWORK_ID_LIMIT} characters out of a-z, 0-9 and '-', and starts with a letter")]
pub struct ParseNetworkIdError;

impl NetworkId {
    /// Makes an id out of a name and the hash of what defines the network (settlement key, chain, escrow).
    pub fn derive(name: &str, parameters: &[u8]) -> Result<Self, ParseNetworkIdError> {
        let hash = blake3::hash(parameters);
        format!("{name}-{}", hex::encode(&hash.as_bytes()[..8])).parse()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetworkId {
    type Err = ParseNetworkIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = text.len() <= NETWORK_ID_LIMIT
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(text.to_owned())) } else { Err(ParseNetworkIdError) }
    }
}

impl TryFrom<String> for NetworkId {
    type Error = ParseNetworkIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NetworkId> for String {
    fn from(id: NetworkId) -> Self {
        id.0
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

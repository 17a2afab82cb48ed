//! Who somebody is on the network: one ed25519 public key.
//!
//! A [`PeerId`] is that key and nothing else, so a signature can be checked with it directly. Its text form is the one libp2p prints
//! (base58 of the inline identity multihash), because that is what operators copy between programs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Multihash header of an inline ed25519 public key: identity code, 36 bytes, protobuf key type 1, 32 bytes of data
/// (libp2p peer id specification).
const INLINE_ED25519: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Longest text accepted as a peer id; a valid one has 52 characters.
const TEXT_LIMIT: usize = 64;

/// An ed25519 public key, as the identity of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Takes the 32 bytes of the public key; whether they are a usable key shows at the first signature check.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0_u8; 38];
        bytes[..6].copy_from_slice(&INLINE_ED25519);
        bytes[6..].copy_from_slice(&self.0);
        f.write_str(&bs58::encode(bytes).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not the id of an ed25519 peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a peer id: expected the base58 form of an ed25519 peer, 52 characters starting with 12D3KooW")]
pub struct ParsePeerIdError(String);

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParsePeerIdError(text.chars().take(TEXT_LIMIT).collect());
        if text.len() > TEXT_LIMIT {
            return Err(refused());
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| refused())?;
        let key = bytes.strip_prefix(&INLINE_ED25519).ok_or_else(refused)?;
        Ok(Self(key.try_into().map_err(|_| refused())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_the_one_libp2p_prints_and_comes_back() {
        let peer = PeerId::from_bytes([7; 32]);
        let text = peer.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<PeerId>().unwrap(), peer);
    }

    #[test]
    fn other_texts_are_refused_without_panic() {
        for text in ["", "12D3KooW", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "0OIl", &"1".repeat(4000)] {
            assert!(text.parse::<PeerId>().is_err(), "{text}");
        }
    }
}

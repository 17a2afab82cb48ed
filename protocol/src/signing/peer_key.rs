//! The ed25519 identity of a peer: signs offers, terms, jobs and receipts.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::peer::PeerId;

/// A peer's secret key. The key is wiped from memory when dropped.
pub struct PeerKey(SigningKey);

impl PeerKey {
    /// Makes the key out of its 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The identity that this key proves.
    pub fn id(&self) -> PeerId {
        PeerId::from_bytes(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> PeerSignature {
        PeerSignature::from_bytes(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({})", self.id())
    }
}

/// An ed25519 signature: R, then S.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSignature([u8; 32], [u8; 32]);

impl PeerSignature {
    /// Takes the 64 bytes.
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&bytes[..32]);
        s.copy_from_slice(&bytes[32..]);
        Self(r, s)
    }

    /// The 64 bytes.
    pub fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }

    pub(super) fn matches(&self, message: &[u8], signer: &PeerId) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(signer.as_bytes()) else { return false };
        key.verify_strict(message, &Signature::from_components(self.0, self.1)).is_ok()
    }
}

impl fmt::Debug for PeerSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

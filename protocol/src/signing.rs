//! Signatures: who said what, in which network, and whether that was checked.
//!
//! A statement signed with ed25519 has a byte layout written by hand, opened by a domain string of its own and the network id; money statements are EIP-712
//! and signed with secp256k1, so that a contract can check them. No signed byte depends on the wire codec. [`Signed`] came from somewhere, [`Verified`] was
//! checked or made here; only the latter may be acted on. Two statements are the same if their hashes are, whatever their signatures look like.

mod address;
mod layout;
pub mod money_key;
mod peer_key;

pub use address::{Address, ParseAddressError};
pub use layout::Layout;
pub use money_key::{MoneyDomain, MoneyKey, MoneySignature, MoneyStatement, keccak};
pub use peer_key::{PeerKey, PeerSignature};

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::hash::Hash;
use crate::network::NetworkId;
use crate::peer::PeerId;

/// Something a peer can sign with its ed25519 identity.
pub trait Statement {
    /// Unique to this kind of statement and its layout version; frozen by golden vectors.
    const DOMAIN: &'static str;

    /// Writes every field, in the order that `docs/PROTOCOL.md` gives.
    fn write(&self, out: &mut Layout);

    /// The exact bytes that are signed in `network`.
    fn message(&self, network: &NetworkId) -> Vec<u8> {
        let mut out = Layout::open(Self::DOMAIN, network);
        self.write(&mut out);
        out.finish()
    }

    /// The content id: BLAKE3 of the signed bytes.
    fn hash(&self, network: &NetworkId) -> Hash {
        Hash::of(&self.message(network))
    }
}

/// A signature does not belong to the statement and the signer that it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signature of this {statement} does not match its content and signer")]
pub struct SignatureError {
    /// Which kind of statement was checked.
    pub statement: &'static str,
}

/// A statement with an ed25519 signature that nobody has checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    body: T,
    signature: PeerSignature,
}

impl<T: Statement> Signed<T> {
    /// What is claimed. Good for choosing a key to check with and for reports, never for a decision.
    pub const fn unverified(&self) -> &T {
        &self.body
    }

    /// Puts a statement and a signature that travelled apart together again.
    pub const fn join(body: T, signature: PeerSignature) -> Self {
        Self { body, signature }
    }

    /// The signature, as it came.
    pub const fn signature(&self) -> &PeerSignature {
        &self.signature
    }

    /// Checks the signature (strictly: no small-order keys, no second encoding) against `signer` in `network`.
    pub fn verify(self, network: &NetworkId, signer: &PeerId) -> Result<Verified<T>, SignatureError> {
        let message = self.body.message(network);
        if !self.signature.matches(&message, signer) {
            return Err(SignatureError { statement: T::DOMAIN });
        }
        Ok(Verified { hash: Hash::of(&message), signer: *signer, signed: self })
    }
}

/// A statement whose signature was checked here, or made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    signed: Signed<T>,
    hash: Hash,
    signer: PeerId,
}

impl<T: Statement> Verified<T> {
    /// Signs a statement of our own.
    pub fn sign(body: T, network: &NetworkId, key: &PeerKey) -> Self {
        let message = body.message(network);
        let signature = key.sign(&message);
        Self { hash: Hash::of(&message), signer: key.id(), signed: Signed { body, signature } }
    }

    /// The content id.
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    /// Who signed.
    pub const fn signer(&self) -> PeerId {
        self.signer
    }

    /// The form that travels and is stored.
    pub const fn signed(&self) -> &Signed<T> {
        &self.signed
    }

    /// Gives up the proof and keeps the travelling form.
    pub fn into_signed(self) -> Signed<T> {
        self.signed
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.signed.body
    }
}

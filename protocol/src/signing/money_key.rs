//! The secp256k1 key that moves money: vouchers, allowances, closes and one half of a binding, all as EIP-712 typed data.
//!
//! A signature is accepted only in its low-S form, because the contract refuses the other one. The typed data is hashed by `alloy-sol-types`; its Solidity
//! names are what the contract declares.

use std::fmt;

use alloy_primitives::{B256, keccak256};
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Address, SignatureError};
use crate::hash::Hash;

alloy_sol_types::sol! {
    struct Voucher { bytes32 channelId; uint64 total; uint64 receiptNumber; bytes32 receiptHash; }
    struct Allowance { bytes32 channelId; uint64 ceiling; uint64 workUntil; uint64 redeemUntil; bytes32 termsHash; address claimKey; }
    struct Close { bytes32 channelId; uint64 total; }
    struct Binding { bytes32 peer; address moneyKey; address principal; string network; }
}

/// Typed data in the words of the contract; made by each money statement.
pub(crate) mod typed {
    pub(crate) use super::{Allowance, Binding, Close, Voucher};
}

/// Which chain and which escrow contract a money statement is for (the EIP-712 domain, with name `ORIEN` and version `1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MoneyDomain {
    /// EIP-155 chain id, or [`LEDGER_CHAIN_ID`].
    pub chain_id: u64,
    /// The escrow contract; on the ledger rail an address that no key can have.
    pub escrow: Address,
}

/// Reserved chain id of the ledger rail: the ASCII bytes of `ORIEN`. No registered chain has it.
pub const LEDGER_CHAIN_ID: u64 = 0x4f_5249_454e;

impl MoneyDomain {
    /// The domain of a network on the ledger rail, derived from network id and settlement signer.
    pub fn ledger(network: &str, settlement_signer: &Address) -> Self {
        let mut bytes = b"orien/ledger-escrow/v1\0".to_vec();
        bytes.extend_from_slice(settlement_signer.as_bytes());
        bytes.extend_from_slice(network.as_bytes());
        let mut escrow = [0; 20];
        escrow.copy_from_slice(&keccak256(&bytes)[12..]);
        Self { chain_id: LEDGER_CHAIN_ID, escrow: Address::from_bytes(escrow) }
    }

    /// Whether money here is credit that an operator granted, and not a token.
    pub const fn is_ledger(&self) -> bool {
        self.chain_id == LEDGER_CHAIN_ID
    }

    fn eip712(&self) -> Eip712Domain {
        eip712_domain! { name: "ORIEN", version: "1", chain_id: self.chain_id, verifying_contract: self.escrow.alloy(), }
    }
}

/// Keccak-256, the chain's hash.
pub fn keccak(bytes: &[u8]) -> Hash {
    Hash::from_bytes(keccak256(bytes).0)
}

/// Converts for typed data.
pub(crate) fn word(hash: &Hash) -> B256 {
    B256::new(*hash.as_bytes())
}

/// Converts for typed data.
pub(crate) const fn account(address: &Address) -> alloy_primitives::Address {
    address.alloy()
}

/// Something signed with a money key.
pub trait MoneyStatement {
    /// What it is called in errors.
    const NAME: &'static str;

    /// The EIP-712 digest in `domain`.
    fn digest(&self, domain: &MoneyDomain) -> Hash;

    /// Checks that `signature` over this statement was made by `signer`.
    fn check(&self, domain: &MoneyDomain, signature: &MoneySignature, signer: &Address) -> Result<(), SignatureError> {
        let recovered = signature.recover(&self.digest(domain));
        if recovered == Some(*signer) { Ok(()) } else { Err(SignatureError { statement: Self::NAME }) }
    }
}

/// The EIP-712 digest of a typed struct.
pub(crate) fn digest_of(data: &impl SolStruct, domain: &MoneyDomain) -> Hash {
    Hash::from_bytes(data.eip712_signing_hash(&domain.eip712()).0)
}

/// Bytes are not a secp256k1 secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a money key is 32 bytes, not zero and below the order of secp256k1")]
pub struct MoneyKeyError;

/// A secp256k1 secret key: the agent's spending key, the provider's claim key, or settlement's signer.
pub struct MoneyKey {
    secret: SecretKey,
    address: Address,
}

impl MoneyKey {
    /// Makes the key out of its 32 secret bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, MoneyKeyError> {
        let secret = SecretKey::from_secret_bytes(*bytes).map_err(|_| MoneyKeyError)?;
        let address = address_of(&PublicKey::from_secret_key(&secret));
        Ok(Self { secret, address })
    }

    /// The address that this key proves.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Signs a money statement (RFC 6979, low S).
    pub fn sign(&self, statement: &impl MoneyStatement, domain: &MoneyDomain) -> MoneySignature {
        self.sign_digest(&statement.digest(domain))
    }

    /// Signs the digest of something that is no statement of ours: a transaction, or what a token wants signed. Whoever calls this has made the digest
    /// itself; one that came from outside may be the digest of anything.
    pub fn sign_digest(&self, digest: &Hash) -> MoneySignature {
        let message = Message::from_digest(*digest.as_bytes());
        let (id, compact) = RecoverableSignature::sign_ecdsa_recoverable(message, &self.secret).serialize_compact();
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&compact[..32]);
        s.copy_from_slice(&compact[32..]);
        MoneySignature { r, s, v: 27 + id.to_u8() }
    }
}

impl fmt::Debug for MoneyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MoneyKey({})", self.address)
    }
}

/// A recoverable ECDSA signature: r, s and v (27 or 28).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneySignature {
    r: [u8; 32],
    s: [u8; 32],
    v: u8,
}

impl MoneySignature {
    /// Takes r, s, v as 65 bytes.
    pub fn from_bytes(bytes: &[u8; 65]) -> Self {
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&bytes[..32]);
        s.copy_from_slice(&bytes[32..64]);
        Self { r, s, v: bytes[64] }
    }

    /// r, s, v as 65 bytes.
    pub fn to_bytes(self) -> [u8; 65] {
        let mut bytes = [0; 65];
        bytes[..32].copy_from_slice(&self.r);
        bytes[32..64].copy_from_slice(&self.s);
        bytes[64] = self.v;
        bytes
    }

    /// Who signed `digest`; nobody when the signature is malformed or in the high-S form.
    fn recover(&self, digest: &Hash) -> Option<Address> {
        let id = RecoveryId::from_u8_masked(self.v.checked_sub(27).filter(|v| *v < 2)?);
        let mut compact = [0; 64];
        compact[..32].copy_from_slice(&self.r);
        compact[32..].copy_from_slice(&self.s);
        let signature = RecoverableSignature::from_compact(&compact, id).ok()?;
        let mut low = signature.to_standard();
        low.normalize_s();
        if low != signature.to_standard() {
            return None;
        }
        let key = signature.recover_ecdsa(Message::from_digest(*digest.as_bytes())).ok()?;
        Some(address_of(&key))
    }
}

impl fmt::Debug for MoneySignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

fn address_of(key: &PublicKey) -> Address {
    let point = key.serialize_uncompressed();
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&keccak256(&point[1..])[12..]);
    Address::from_bytes(bytes)
}

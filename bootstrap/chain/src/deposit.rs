//! Deposits that somebody else may carry to the chain: what the account signs for them.
//!
//! Always true: what is signed names the spending key, so whoever relays a deposit can change neither account nor key.

use alloy_primitives::{U256, keccak256};
use alloy_sol_types::{Eip712Domain, SolStruct, SolValue};
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, MoneyDomain, MoneyKey, MoneySignature};
use orien_protocol::time::UnixSeconds;

use crate::abi;
use crate::rpc::wire::{hash, theirs, word};

/// The EIP-712 domain of a token; its name differs between chains, so it is read and compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenDomain {
    /// Such as `USD Coin`.
    pub name: String,
    /// Such as `2`.
    pub version: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The token.
    pub token: Address,
}

impl TokenDomain {
    fn typed(&self) -> Eip712Domain {
        Eip712Domain::new(
            Some(self.name.clone().into()),
            Some(self.version.clone().into()),
            Some(U256::from(self.chain_id)),
            Some(theirs(&self.token)),
            None,
        )
    }

    /// The separator, for comparing with what the token says.
    pub fn separator(&self) -> Hash {
        hash(self.typed().separator())
    }
}

/// The nonce that an authorisation for a deposit must carry: it names account and key.
pub fn nonce(account: &Address, spending_key: &Address, salt: &Hash) -> Hash {
    hash(keccak256((theirs(account), theirs(spending_key), word(salt)).abi_encode()))
}

/// A deposit by authorisation (EIP-3009).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Whose money; also who signs.
    pub account: Address,
    /// The escrow, which receives it.
    pub escrow: Address,
    /// How much.
    pub amount: Usdc,
    /// The key that may promise it.
    pub spending_key: Address,
    /// Makes two deposits that are otherwise alike differ.
    pub salt: Hash,
    /// It counts after this time,
    pub valid_after: UnixSeconds,
    /// and before this one.
    pub valid_before: UnixSeconds,
}

impl Authorization {
    /// What is signed.
    pub fn digest(&self, token: &TokenDomain) -> Hash {
        let data = abi::ReceiveWithAuthorization {
            from: theirs(&self.account),
            to: theirs(&self.escrow),
            value: U256::from(self.amount.micros()),
            validAfter: U256::from(self.valid_after.0),
            validBefore: U256::from(self.valid_before.0),
            nonce: word(&nonce(&self.account, &self.spending_key, &self.salt)),
        };
        hash(data.eip712_signing_hash(&token.typed()))
    }

    /// Signs it with the account's key.
    pub fn sign(&self, token: &TokenDomain, key: &MoneyKey) -> MoneySignature {
        key.sign_digest(&self.digest(token))
    }
}

/// A deposit by permit (EIP-2612), for tokens without authorisations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermittedDeposit {
    /// Whose money; also who signs, twice.
    pub account: Address,
    /// How much.
    pub amount: Usdc,
    /// The key that may promise it.
    pub spending_key: Address,
    /// Makes two deposits that are otherwise alike differ.
    pub salt: Hash,
    /// Both signatures count until then.
    pub deadline: UnixSeconds,
}

impl PermittedDeposit {
    /// What is signed in the escrow's domain.
    pub fn digest(&self, escrow: &MoneyDomain) -> Hash {
        let data = abi::Deposit {
            account: theirs(&self.account),
            spendingKey: theirs(&self.spending_key),
            amount: self.amount.micros(),
            salt: word(&self.salt),
            deadline: self.deadline.0,
        };
        hash(data.eip712_signing_hash(&escrow_domain(escrow)))
    }

    /// What is signed in the token's domain; `nonce` is the token's next one for the account.
    pub fn permit_digest(&self, escrow: &Address, nonce: u64, token: &TokenDomain) -> Hash {
        let data = abi::Permit {
            owner: theirs(&self.account),
            spender: theirs(escrow),
            value: U256::from(self.amount.micros()),
            nonce: U256::from(nonce),
            deadline: U256::from(self.deadline.0),
        };
        hash(data.eip712_signing_hash(&token.typed()))
    }

    /// Both signatures: of the deposit, and of the permit.
    pub fn sign(&self, escrow: &MoneyDomain, nonce: u64, token: &TokenDomain, key: &MoneyKey) -> (MoneySignature, MoneySignature) {
        (key.sign_digest(&self.digest(escrow)), key.sign_digest(&self.permit_digest(&escrow.escrow, nonce, token)))
    }
}

/// The domain of money statements, as the escrow computes it.
pub(crate) fn escrow_domain(domain: &MoneyDomain) -> Eip712Domain {
    Eip712Domain::new(Some("ORIEN".into()), Some("1".into()), Some(U256::from(domain.chain_id)), Some(theirs(&domain.escrow)), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signed by another implementation (eth-account of Python) from the same fields.
    #[test]
    fn an_authorisation_is_signed_as_others_sign_it() {
        let mut bytes = [0; 32];
        hex::decode_to_slice("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318", &mut bytes).unwrap();
        let key = MoneyKey::from_bytes(&bytes).unwrap();
        let token = TokenDomain {
            name: "USDC".to_owned(),
            version: "2".to_owned(),
            chain_id: 84_532,
            token: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".parse().unwrap(),
        };
        let authorization = Authorization {
            account: key.address(),
            escrow: Address::from_bytes([0x11; 20]),
            amount: Usdc::from_micros(2_500_000),
            spending_key: Address::from_bytes([0x22; 20]),
            salt: Hash::from_bytes([0x33; 32]),
            valid_after: UnixSeconds(0),
            valid_before: UnixSeconds(1_900_000_000),
        };
        let nonce = nonce(&authorization.account, &authorization.spending_key, &authorization.salt);
        assert_eq!(nonce.to_string(), "9c7d1152ff61bd01bf5ff7af6637ab39a09ea0b88901f4639c26f86dc297fe73");
        assert_eq!(authorization.digest(&token).to_string(), "be10be68644ac0f54c8b0d6a18bccd404d2743ed3d896cb0e0a2113283f9102e");
        let expected = concat!(
            "d41d3e711595f77a3be396175c80f6147ed840e870445fecb7fe9a40f9753b4f",
            "1cc86959cb4feceb7eebe44feb788317a33af6c69a70ba28ea7bc27efdce2a821c"
        );
        assert_eq!(hex::encode(authorization.sign(&token, &key).to_bytes()), expected);
    }
}

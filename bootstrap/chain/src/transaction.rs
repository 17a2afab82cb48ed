//! A transaction of ours (EIP-1559): every field is given, nothing is looked up or guessed.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::Encodable2718;
use alloy_primitives::{B256, Bytes, Signature, TxKind, U256};
use orien_protocol::signing::{Address, MoneyKey};

use crate::rpc::wire::{hash, theirs};
use crate::types::{TxHash, Wei};

/// A transaction before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Its place among the sender's transactions.
    pub nonce: u64,
    /// The contract that is called; nothing to make one out of `data`.
    pub to: Option<Address>,
    /// The most gas that it may use.
    pub gas_limit: u64,
    /// The most that is paid for each gas.
    pub max_fee: Wei,
    /// Of it, the most that goes to whoever makes the block.
    pub max_priority_fee: Wei,
    /// Coins that go along. Never with USDC on Arc: there they are the same money seen twice.
    pub value: Wei,
    /// The call.
    pub data: Vec<u8>,
}

/// A transaction as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTransaction {
    /// The bytes.
    pub raw: Vec<u8>,
    /// Their hash: the transaction's name.
    pub hash: TxHash,
}

impl Transaction {
    /// Signs it.
    pub fn sign(&self, key: &MoneyKey) -> RawTransaction {
        let unsigned = TxEip1559 {
            chain_id: self.chain_id,
            nonce: self.nonce,
            gas_limit: self.gas_limit,
            max_fee_per_gas: self.max_fee.0,
            max_priority_fee_per_gas: self.max_priority_fee.0,
            to: self.to.map_or(TxKind::Create, |to| TxKind::Call(theirs(&to))),
            value: U256::from(self.value.0),
            access_list: Default::default(),
            input: Bytes::copy_from_slice(&self.data),
        };
        let bytes = key.sign_digest(&hash(unsigned.signature_hash())).to_bytes();
        let (r, s) = (B256::from_slice(&bytes[..32]), B256::from_slice(&bytes[32..64]));
        let signature = Signature::from_scalars_and_parity(r, s, bytes[64] == 28);
        let signed = TxEnvelope::Eip1559(unsigned.into_signed(signature));
        RawTransaction { raw: signed.encoded_2718(), hash: TxHash::from_hash(hash(*signed.tx_hash())) }
    }

    /// The most that it can cost in coins: all of its gas at its highest price, and what goes along.
    pub const fn cost_max(&self) -> Wei {
        Wei(self.max_fee.times(self.gas_limit).0.saturating_add(self.value.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MoneyKey {
        let mut bytes = [0; 32];
        hex::decode_to_slice("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318", &mut bytes).unwrap();
        MoneyKey::from_bytes(&bytes).unwrap()
    }

    /// Both were signed by another implementation (eth-account of Python) from the same fields.
    #[test]
    fn a_call_and_a_deployment_are_signed_as_others_sign_them() {
        assert_eq!(key().address().to_string(), "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23");
        let call = Transaction {
            chain_id: 84_532,
            nonce: 7,
            to: Some("0x036CbD53842c5426634e7929541eC2318f3dCF7e".parse().unwrap()),
            gas_limit: 210_000,
            max_fee: Wei(3_000_000_000),
            max_priority_fee: Wei(1_500_000_000),
            value: Wei::ZERO,
            data: crate::call::transfer(&Address::from_bytes([0x11; 20]), orien_protocol::money::Usdc::from_micros(1_000_000)),
        };
        let signed = call.sign(&key());
        assert_eq!(signed.hash.to_string(), "0xb297762ed582ba1c2c1d4a391f19750c62434cc8d5412692755dedf7eec78007");
        let expected = concat!(
            "02f8b383014a34078459682f0084b2d05e008303345094036cbd53842c5426634e7929541ec2318f3dcf7e80b844a9059cbb",
            "0000000000000000000000001111111111111111111111111111111111111111",
            "00000000000000000000000000000000000000000000000000000000000f4240",
            "c001a04710f6292841fdb1452382629708b56a1cc7dea7e6c8a51ed139c1d4eec0b91d",
            "a039e9747af65b3e3d3be1d1f3c7b2ad6e40dbcb4c793586b89ee53a6a5ad3ccd4"
        );
        assert_eq!(hex::encode(&signed.raw), expected);
        assert_eq!(call.cost_max(), Wei(630_000_000_000_000));

        let deployment = Transaction {
            chain_id: 31_337,
            nonce: 0,
            to: None,
            gas_limit: 3_000_000,
            max_fee: Wei(1 << 70),
            max_priority_fee: Wei(1),
            value: Wei(12_345_678_901_234_567_890),
            data: vec![0x60, 0x01, 0x60, 0x02, 0x55],
        };
        let signed = deployment.sign(&key());
        assert_eq!(signed.hash.to_string(), "0x58e881e8035bdba5e884b8a050fcdcdcaeee983b3363f99f3a8aab0909ed039c");
    }

    #[test]
    fn a_deployed_address_is_that_of_sender_and_nonce() {
        let sender = "0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0".parse().unwrap();
        assert_eq!(
            crate::call::deployed_address(&sender, 0).to_string().to_ascii_lowercase(),
            "0xcd234a471b72ba2f1ccf0a70fcaba648a5eecd8d"
        );
        assert_eq!(
            crate::call::deployed_address(&sender, 1).to_string().to_ascii_lowercase(),
            "0x343c43a37d37dff08ae8c4a11544c718abb4fcf8"
        );
    }
}

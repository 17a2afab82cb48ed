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

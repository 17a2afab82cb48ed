//! What nodes answer, as far as it is used. Fields that are not used are not read, so that chains with their own additions are understood.

use alloy_primitives::{Address, B256, Bytes, U64, U128};
use orien_protocol::hash::Hash;
use orien_protocol::time::UnixSeconds;
use serde::Deserialize;

use crate::types::Block;

/// The head of a block.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Head {
    pub(crate) number: U64,
    pub(crate) hash: B256,
    pub(crate) timestamp: U64,
}

impl Head {
    pub(crate) fn block(&self) -> Block {
        Block { number: self.number.to(), hash: hash(self.hash), time: UnixSeconds(self.timestamp.to()) }
    }
}

/// One log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawLog {
    pub(crate) address: Address,
    pub(crate) topics: Vec<B256>,
    pub(crate) data: Bytes,
    pub(crate) block_number: Option<U64>,
    pub(crate) block_hash: Option<B256>,
    pub(crate) transaction_hash: Option<B256>,
    pub(crate) log_index: Option<U64>,
    #[serde(default)]
    pub(crate) removed: bool,
}

/// What became of a transaction.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawReceipt {
    pub(crate) block_number: Option<U64>,
    pub(crate) block_hash: Option<B256>,
    pub(crate) status: Option<U64>,
    pub(crate) gas_used: U64,
    pub(crate) effective_gas_price: Option<U128>,
    pub(crate) contract_address: Option<Address>,
    pub(crate) logs: Vec<RawLog>,
}

/// What gas cost in the last blocks.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FeeHistory {
    pub(crate) base_fee_per_gas: Vec<U128>,
    #[serde(default)]
    pub(crate) reward: Option<Vec<Vec<U128>>>,
}

pub(crate) const fn hash(word: B256) -> Hash {
    Hash::from_bytes(word.0)
}

pub(crate) const fn word(hash: &Hash) -> B256 {
    B256::new(*hash.as_bytes())
}

pub(crate) const fn ours(address: Address) -> orien_protocol::signing::Address {
    orien_protocol::signing::Address::from_bytes(address.0.0)
}

pub(crate) const fn theirs(address: &orien_protocol::signing::Address) -> Address {
    Address::new(*address.as_bytes())
}

//! The logs of one block out of its receipts: for a block of which a node does not give them by themselves. Anybody can have the escrow log more in one block than nodes answer at once.
//!
//! Always true: every receipt is one of the block that was there at the beginning, they are as many as its transactions and in their order, and the block is still there at the end; anything else is an
//! error and never fewer logs. What is not wanted is not kept. What was read before a failure is not asked for again.
//!
//! It does not know why the node refused.

use alloy_primitives::{Address, B256};
use futures::StreamExt;
use futures::stream::iter;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::chain::{head, hex_number};
use crate::error::ChainError;
use crate::facts::ChainLimits;
use crate::logs::{EscrowLog, Wanted, escrow_log, in_place};
use crate::rpc::node::Node;
use crate::rpc::wire::{RawLog, hash, ours};

const BLOCK: &str = "eth_getBlockByNumber";
const ALL: &str = "eth_getBlockReceipts";
const ONE: &str = "eth_getTransactionReceipt";

/// Receipts that are asked for at once. Each may have megabytes.
const AT_ONCE: usize = 4;

/// So often it is told how far a block is read.
const TELL_EVERY: usize = 1_000;

/// A block and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Listed {
    hash: B256,
    transactions: Vec<B256>,
}

/// A receipt, with its logs as they came.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slip<'a> {
    transaction_hash: B256,
    block_hash: Option<B256>,
    #[serde(borrow)]
    logs: Vec<&'a RawValue>,
}

/// Whose log it is: all that is read of those of others.
#[derive(Deserialize)]
struct Whose {
    address: Address,
}

/// A block that was not read to its end.
#[derive(Debug)]
pub(crate) struct Unfinished {
    block: B256,
    wanted: Wanted,
    /// Of how many transactions the receipts were read.
    read: usize,
    found: Vec<EscrowLog>,
}

/// What is wanted of a block.
struct Reading<'a> {
    node: &'a Node,
    wanted: &'a Wanted,
    limits: &'a ChainLimits,
    number: u64,
    block: Listed,
}

/// The wanted logs of a block by its receipts.
pub(crate) async fn logs_of_block(node: &Node, wanted: &Wanted, limits: &ChainLimits, number: u64) -> Result<Vec<EscrowLog>, ChainError> {
    let block: Option<Listed> = parsed(node, BLOCK, &node.ask_wide(BLOCK, (hex_number(number), false)).await?)?;
    let block = block.ok_or_else(|| gone(node, number))?;
    let reading = Reading { node, wanted, limits, number, block };
    let found = match reading.at_once().await {
        // It has to be left alone for a while, or none of its answers would help.
        Err(error @ (ChainError::RateLimited { .. } | ChainError::BlockTooLarge { .. })) => return Err(error),
        // Not every node knows the question, or can put so much into one answer.
        Err(error) => {
            tracing::info!(block = number, %error, "reading the receipts of a block one by one");
            reading.one_by_one().await?
        }
        Ok(found) => found,
    };
    let there = head(node.clone(), json!(hex_number(number))).await?;
    if there.hash == hash(reading.block.hash) { Ok(found) } else { Err(gone(node, number)) }
}

impl Reading<'_> {
    async fn at_once(&self) -> Result<Vec<EscrowLog>, ChainError> {
        let answer = self.node.ask_wide(ALL, (self.block.hash,)).await?;
        let receipts: Option<Vec<&RawValue>> = parsed(self.node, ALL, &answer)?;
        let receipts = receipts.ok_or_else(|| gone(self.node, self.number))?;
        if receipts.len() != self.block.transactions.len() {
            let text = format!("{} receipts for {} transactions", receipts.len(), self.block.transactions.len());
            return Err(self.node.malformed(ALL, text));
        }
        let mut found = Vec::new();
        for (receipt, transaction) in receipts.into_iter().zip(&self.block.transactions) {
            self.take(ALL, receipt, *transaction, &mut found)?;
        }
        Ok(found)
    }

    async fn one_by_one(&self) -> Result<Vec<EscrowLog>, ChainError> {
        let (what, number, limit) = ("transactions", self.block.transactions.len(), self.limits.block_transactions);
        if number > limit {
            return Err(ChainError::BlockTooLarge { block: self.number, what, found: number, limit });
        }
        let mut state = self.begin();
        let done = self.go_on(&mut state).await;
        match done {
            Ok(()) => Ok(state.found),
            Err(error) => {
                *self.node.unfinished() = Some(state);
                Err(error)
            }
        }
    }

    /// Where an earlier reading of the same block stopped, if it did.
    fn begin(&self) -> Unfinished {
        let earlier = self.node.unfinished().take();
        let same = earlier.filter(|state| state.block == self.block.hash && state.wanted == *self.wanted);
        same.unwrap_or_else(|| Unfinished { block: self.block.hash, wanted: self.wanted.clone(), read: 0, found: Vec::new() })
    }

    async fn go_on(&self, state: &mut Unfinished) -> Result<(), ChainError> {
        let left: Vec<B256> = self.block.transactions.iter().skip(state.read).copied().collect();
        let ask = |transaction| {
            let node = self.node.clone();
            async move { (transaction, node.ask_wide(ONE, (transaction,)).await) }
        };
        let mut answers = iter(left).map(ask).buffered(AT_ONCE);
        while let Some((transaction, answer)) = answers.next().await {
            let answer = answer?;
            let receipt: Option<&RawValue> = parsed(self.node, ONE, &answer)?;
            let receipt = receipt.ok_or_else(|| gone(self.node, self.number))?;
            // All of a receipt or nothing of it: whoever goes on begins with the next.
            let before = state.found.len();
            if let Err(error) = self.take(ONE, receipt, transaction, &mut state.found) {
                state.found.truncate(before);
                return Err(error);
            }
            state.read += 1;
            if state.read.is_multiple_of(TELL_EVERY) {
                tracing::info!(block = self.number, read = state.read, of = self.block.transactions.len(), "reading receipts");
            }
        }
        Ok(())
    }

    /// Keeps what is wanted of a receipt.
    fn take(&self, method: &'static str, receipt: &RawValue, transaction: B256, found: &mut Vec<EscrowLog>) -> Result<(), ChainError> {
        let slip: Slip<'_> = parsed(self.node, method, receipt)?;
        if slip.block_hash != Some(self.block.hash) {
            return Err(gone(self.node, self.number));
        }
        if slip.transaction_hash != transaction {
            return Err(self.node.malformed(method, "a receipt of another transaction"));
        }
        for text in slip.logs {
            if ours(parsed::<Whose>(self.node, method, text)?.address) != self.wanted.escrow {
                continue;
            }
            let raw: RawLog = parsed(self.node, method, text)?;
            if !self.wanted.takes(&raw) {
                continue;
            }
            let log = escrow_log(self.node, &self.wanted.escrow, &raw)?;
            in_place(self.node, &log, found.last(), self.number, self.number)?;
            found.push(log);
            if found.len() > self.limits.block_logs {
                let (what, found, limit) = ("logs of the escrow", found.len(), self.limits.block_logs);
                return Err(ChainError::BlockTooLarge { block: self.number, what, found, limit });
            }
        }
        Ok(())
    }
}

fn parsed<'a, T: Deserialize<'a>>(node: &Node, method: &'static str, text: &'a RawValue) -> Result<T, ChainError> {
    serde_json::from_str(text.get()).map_err(|error| node.malformed(method, error))
}

/// The block is not part of the node's chain any more.
fn gone(node: &Node, number: u64) -> ChainError {
    ChainError::NoState { rpc: node.name().to_owned(), block: number }
}

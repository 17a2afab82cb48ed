//! Handing transactions to nodes, and what they say of them afterwards.
//!
//! Always true: no answer is never a no. Whether a transaction did what it should is said by final logs alone; everything here is a hint on the way.

use std::time::Duration;

use alloy_primitives::{Address as AtAddress, B256, Bytes, U64, address, keccak256};
use alloy_sol_types::{Revert as Reason, SolCall, SolError, SolInterface};
use orien_protocol::signing::Address;
use serde_json::{Value, json};

use crate::abi::Escrow::EscrowErrors;
use crate::abi::NodeInterface::gasEstimateL1ComponentCall;
use crate::chain::Chain;
use crate::error::ChainError;
use crate::logs::escrow_log;
use crate::reads::is_revert;
use crate::refusal::classify;
use crate::rpc::node::{Node, cut};
use crate::rpc::wire::{FeeHistory, RawReceipt, hash, ours, theirs, word};
use crate::types::{FeeQuote, Receipt, Revert, Sent, TxHash, Wei};

/// How long the other nodes are waited for when one has taken a transaction.
const GRACE: Duration = Duration::from_secs(1);

/// Blocks whose tips are looked at.
const FEE_BLOCKS: u64 = 8;

/// A tip of so much is never too much: 3 gwei.
const TIP_ENOUGH: Wei = Wei::from_gwei(3);

/// Where nodes of Arbitrum's kind answer questions about themselves.
const NODE_INTERFACE: AtAddress = address!("00000000000000000000000000000000000000c8");

/// The share of a block's gas, in percent, that paid no more than the tip that is looked at.
const FEE_PERCENTILE: u64 = 50;

impl Chain {
    /// Hands signed bytes to every node. One that took them is enough; if none did and one did not answer, nothing is known.
    pub async fn send_raw(&self, raw: &[u8]) -> Result<Sent, ChainError> {
        let bytes = Bytes::copy_from_slice(raw);
        let taken = |sent: &Sent| matches!(sent, Sent::Accepted | Sent::AlreadyKnown);
        let told = self.nodes.tell_all(GRACE, taken, |node| send(node, bytes.clone())).await;
        let mut best: Option<Sent> = None;
        let mut unknown = None;
        for answer in told {
            match answer {
                Ok(sent) => {
                    if best.as_ref().is_none_or(|known| rank(&sent) < rank(known)) {
                        best = Some(sent);
                    }
                }
                // It asks for patience before it looks at anything.
                Err(error @ ChainError::RateLimited { .. }) => unknown = Some(unknown.unwrap_or(error)),
                Err(error) => unknown = Some(error),
            }
        }
        match (best, unknown) {
            (Some(sent @ (Sent::Accepted | Sent::AlreadyKnown)), _) => Ok(sent),
            (Some(sent), None | Some(ChainError::RateLimited { .. })) => Ok(sent),
            (_, Some(error)) => Err(error),
            (None, None) => Err(ChainError::Config("no node of the chain is known".to_owned())),
        }
    }

    /// What a node says of a transaction in a block; nothing if none that answers knows it.
    pub async fn receipt(&self, of: &TxHash) -> Result<Option<Receipt>, ChainError> {
        let of = word(of.hash());
        let escrow = self.facts().escrow;
        self.nodes.find(|node| receipt_of(node, of, escrow)).await
    }

    /// Whether a node has a transaction, in its pool or in a block. That none has it means little: public nodes of some chains hide what waits.
    pub async fn is_known(&self, transaction: &TxHash) -> Result<bool, ChainError> {
        let of = word(transaction.hash());
        let ask = |node: Node| async move { node.ask::<_, Option<Value>>("eth_getTransactionByHash", (of,)).await };
        Ok(self.nodes.find(ask).await?.is_some())
    }

    /// What gas costs now: the lowest tip and the middle base fee of what as many nodes say as must agree elsewhere. A tip is paid in full, whatever others pay, so it is bounded by the base fee too.
    pub async fn fees_now(&self) -> Result<FeeQuote, ChainError> {
        let quotes = self.nodes.enough("the price of gas", fees_of).await?;
        let mut bases: Vec<Wei> = quotes.iter().map(|quote| quote.base_fee).collect();
        bases.sort_unstable();
        let base_fee = bases.get(bases.len() / 2).copied().unwrap_or(Wei::ZERO);
        let tip = quotes.iter().map(|quote| quote.tip).min().unwrap_or(Wei::ZERO);
        Ok(FeeQuote { base_fee, tip: tip.min(base_fee.times(2).max(TIP_ENOUGH)) })
    }

    /// Gas that this chain counts for the data of a transaction, beside what carrying it out takes: what its publication on another chain costs, as Arbitrum has it. None on a chain that has no such
    /// thing, which is most of them. It goes up and down with the other chain's price: see [`crate::gas::with_data`].
    pub async fn data_gas(&self, to: Option<&Address>, data: &[u8]) -> Result<u64, ChainError> {
        let of = to.map(theirs).unwrap_or_default();
        let call = gasEstimateL1ComponentCall { to: of, contractCreation: to.is_none(), data: Bytes::copy_from_slice(data) };
        let request = json!({ "to": NODE_INTERFACE, "data": Bytes::from(call.abi_encode()) });
        self.nodes
            .any(|node| {
                let request = request.clone();
                async move {
                    match node.ask::<_, Bytes>("eth_call", (request, "latest")).await {
                        // Elsewhere nothing is there, or something else.
                        Ok(answer) => Ok(gasEstimateL1ComponentCall::abi_decode_returns(&answer).map_or(0, |told| told.gasEstimateForL1)),
                        Err(error) if is_revert(&error) => Ok(0),
                        Err(error) => Err(error),
                    }
                }
            })
            .await
    }

    /// Whether a call would be carried out now, at the newest block: what it would return, or why it would be refused. As many nodes have to say that it would be refused as must agree elsewhere; one that
    /// carries it out is enough for yes. It is no promise, and it says nothing about gas.
    pub async fn simulate(&self, from: &Address, to: &Address, data: &[u8]) -> Result<Result<Vec<u8>, Revert>, ChainError> {
        let call = json!({ "from": theirs(from), "to": theirs(to), "data": Bytes::copy_from_slice(data) });
        let answers: Vec<Result<Bytes, ChainError>> = self
            .nodes
            .enough("a trial call", |node| {
                let call = call.clone();
                async move {
                    match node.ask::<_, Bytes>("eth_call", (call, "latest")).await {
                        // A refusal is an answer.
                        Err(error) if is_revert(&error) => Ok(Err(error)),
                        answer => answer.map(Ok),
                    }
                }
            })
            .await?;
        let mut refused = None;
        for answer in answers {
            match answer {
                Ok(bytes) => return Ok(Ok(bytes.to_vec())),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(ChainError::Refused { data, message, .. }) => Ok(Err(revert(data.unwrap_or_default(), &message))),
            Some(other) => Err(other),
            None => Err(ChainError::Config("no node of the chain is known".to_owned())),
        }
    }
}

/// Lower is what counts more of several nodes' answers.
const fn rank(sent: &Sent) -> u8 {
    match sent {
        Sent::Accepted => 0,
        Sent::AlreadyKnown => 1,
        Sent::NonceTooLow => 2,
        Sent::ReplacementUnderpriced => 3,
        Sent::FeeTooLow => 4,
        Sent::InsufficientFunds => 5,
        Sent::Rejected(_) => 6,
    }
}

async fn send(node: Node, raw: Bytes) -> Result<Sent, ChainError> {
    const METHOD: &str = "eth_sendRawTransaction";
    let expected = keccak256(&raw);
    match node.tell::<_, B256>(METHOD, (raw,)).await {
        Ok(found) if found == expected => Ok(Sent::Accepted),
        Ok(found) => Err(node.malformed(METHOD, format!("the hash {found} for the transaction {expected}"))),
        Err(ChainError::Refused { message, .. }) => Ok(classify(&message)),
        Err(error) => Err(error),
    }
}

async fn receipt_of(node: Node, of: B256, escrow: Address) -> Result<Option<Receipt>, ChainError> {
    const METHOD: &str = "eth_getTransactionReceipt";
    let found: Option<RawReceipt> = node.ask(METHOD, (of,)).await?;
    // A receipt without a block is one of a block that is still being made.
    let Some((raw, number, block)) = found.and_then(|raw| Some((raw.block_number?, raw.block_hash?)).map(|(n, h)| (raw, n, h))) else {
        return Ok(None);
    };
    let logs = raw.logs.iter().filter(|log| ours(log.address) == escrow).map(|log| escrow_log(&node, &escrow, log));
    Ok(Some(Receipt {
        block: number.to(),
        block_hash: hash(block),
        success: raw.status == Some(U64::from(1)),
        gas_used: raw.gas_used.to(),
        effective_gas_price: Wei(raw.effective_gas_price.unwrap_or_default().to()),
        contract: raw.contract_address.map(ours),
        logs: logs.collect::<Result<Vec<_>, _>>()?,
    }))
}

async fn fees_of(node: Node) -> Result<FeeQuote, ChainError> {
    const METHOD: &str = "eth_feeHistory";
    let history: FeeHistory = node.ask(METHOD, (U64::from(FEE_BLOCKS), "latest", [FEE_PERCENTILE])).await?;
    // The last one is of the block that comes next.
    let Some(base_fee) = history.base_fee_per_gas.last() else {
        return Err(node.malformed(METHOD, "no base fee"));
    };
    let mut tips: Vec<u128> = history.reward.unwrap_or_default().iter().filter_map(|block| block.first()).map(|tip| tip.to()).collect();
    tips.sort_unstable();
    let tip = tips.get(tips.len() / 2).copied().unwrap_or_default();
    Ok(FeeQuote { base_fee: Wei(base_fee.to()), tip: Wei(tip) })
}

/// Why a contract refused, in its own words.
fn revert(data: Vec<u8>, message: &str) -> Revert {
    let name = EscrowErrors::abi_decode(&data)
        .ok()
        .map(|error| named(&error))
        .or_else(|| Reason::abi_decode(&data).ok().map(|reason| cut(&reason.reason)))
        .unwrap_or_else(|| if message.is_empty() { "unknown".to_owned() } else { cut(message) });
    Revert { name, data }
}

/// An error of the escrow as its source would write it.
fn named(error: &EscrowErrors) -> String {
    match error {
        EscrowErrors::ExitNotDue(e) => format!("ExitNotDue({})", e.due),
        EscrowErrors::Expired(e) => format!("Expired({})", e.deadline),
        EscrowErrors::NotEnoughFree(e) => format!("NotEnoughFree({}, {})", e.free, e.wanted),
        EscrowErrors::NotLockable(e) => format!("NotLockable({})", e.reason),
        EscrowErrors::StillLocked(e) => format!("StillLocked({})", e.until),
        EscrowErrors::TooEarly(e) => format!("TooEarly({})", e.due),
        EscrowErrors::WrongAmountReceived(e) => format!("WrongAmountReceived({}, {})", e.expected, e.received),
        other => EscrowErrors::signature_by_selector(other.selector()).unwrap_or("unknown").trim_end_matches("()").to_owned(),
    }
}

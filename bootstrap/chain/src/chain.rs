//! A chain, as several of its nodes tell it.
//!
//! Always true: what decides about money is read at a block named by its hash, and was said alike by as many nodes as must agree; a block that was given
//! out as final is never silently replaced by another.
//!
//! It decides nothing and keeps nothing but the hashes of the last final blocks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::error::ChainError;
use crate::facts::{ChainFacts, ChainLimits, Finality, RpcUrl};
use crate::rpc::agree::Nodes;
use crate::rpc::node::Node;
use crate::rpc::wire::Head;
use crate::types::Block;

/// Final blocks whose hashes are remembered: half an hour of a fast chain that is read every few seconds.
const REMEMBERED: usize = 512;

/// A node whose newest block is so much older than another's stands still: nodes of one chain are seconds apart.
const LATE_SECONDS: u64 = 120;

/// Most nodes of one chain; each answer costs all of them.
const NODES_LIMIT: usize = 8;

/// A chain; cheap to clone.
#[derive(Clone, Debug)]
pub struct Chain {
    facts: ChainFacts,
    pub(crate) limits: ChainLimits,
    pub(crate) nodes: Nodes,
    finals: Arc<Mutex<BTreeMap<u64, Block>>>,
}

impl Chain {
    /// A chain behind some nodes. Nothing is asked yet.
    pub fn new(facts: ChainFacts, rpc: &[RpcUrl], limits: ChainLimits) -> Result<Self, ChainError> {
        let mut urls: Vec<&RpcUrl> = Vec::new();
        for url in rpc {
            // A node that is named twice would agree with itself.
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        if urls.is_empty() {
            return Err(ChainError::Config(
                "no node of the chain is known; give one with --rpc, ORIEN_RPC or chain.rpc of the network file".to_owned(),
            ));
        }
        if urls.len() > NODES_LIMIT {
            return Err(ChainError::Config(format!("{} nodes of the chain were given; at most {NODES_LIMIT} are asked", urls.len())));
        }
        let nodes = urls.into_iter().map(|url| Node::new(url, &limits)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { facts, limits, nodes: Nodes::new(nodes, limits.agree), finals: Arc::default() })
    }

    /// Where the money is.
    pub const fn facts(&self) -> &ChainFacts {
        &self.facts
    }

    /// The newest block that stays, as far as enough nodes say so. It never goes back.
    pub async fn final_block(&self) -> Result<Block, ChainError> {
        let tag = self.facts.finality.tag();
        let told = self.nodes.enough("the final block", |node| head(node, json!(tag))).await?;
        let Some(number) = told.iter().map(|block| block.number).min() else {
            return Err(ChainError::Config("no node of the chain is known".to_owned()));
        };
        if let Some(newer) = self.newest_final().filter(|known| known.number > number) {
            return Ok(newer);
        }
        let block = match told.as_slice() {
            [only] => *only,
            _ => self.nodes.agreed("the final block", |node| head(node, json!(hex_number(number)))).await?,
        };
        self.remember(block)
    }

    /// The newest block, final or not, as one node says.
    pub async fn latest_block(&self) -> Result<Block, ChainError> {
        self.nodes.any(|node| head(node, json!("latest"))).await
    }

    /// The newest block of each node, by the node's name, or why that is not known. A node that stands far behind another is asked last from then on.
    pub async fn heads(&self) -> Vec<(String, Result<Block, ChainError>)> {
        let told = self.nodes.every(|node| head(node, json!("latest"))).await;
        let newest = told.iter().filter_map(|(_, block)| block.as_ref().ok()).map(|block| block.time.0).max().unwrap_or_default();
        let mut heads = Vec::new();
        for (node, block) in told {
            if block.as_ref().is_ok_and(|block| block.time.0.saturating_add(LATE_SECONDS) < newest) {
                node.is_late();
            }
            heads.push((node.name().to_owned(), block));
        }
        heads
    }

    /// The block of a height, if the chain has come so far.
    pub async fn block(&self, number: u64) -> Result<Option<Block>, ChainError> {
        let found = self.nodes.agreed("a block", |node| head(node, json!(hex_number(number)))).await;
        let block = match found {
            Ok(block) => block,
            Err(ChainError::NoState { .. }) => return Ok(None),
            Err(ChainError::TooFewAnswers { got: 0, first, .. }) if matches!(*first, ChainError::NoState { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let finals = self.finals.lock().unwrap_or_else(PoisonError::into_inner);
        match finals.get(&number) {
            Some(known) if *known != block => Err(ChainError::reorganised(known, &block)),
            _ => Ok(Some(block)),
        }
    }

    /// Whether a block that was final when it was kept is still part of the chain.
    pub async fn confirm(&self, kept: &Block) -> Result<(), ChainError> {
        match self.block(kept.number).await? {
            Some(block) if block == *kept => Ok(()),
            Some(block) => Err(ChainError::reorganised(kept, &block)),
            None => Err(ChainError::NoState { rpc: "every node".to_owned(), block: kept.number }),
        }
    }

    fn newest_final(&self) -> Option<Block> {
        let finals = self.finals.lock().unwrap_or_else(PoisonError::into_inner);
        finals.last_key_value().map(|(_, block)| *block)
    }

    /// Notes a final block, unless another of its height is known.
    fn remember(&self, block: Block) -> Result<Block, ChainError> {
        let mut finals = self.finals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = finals.get(&block.number).filter(|known| **known != block) {
            return Err(ChainError::reorganised(known, &block));
        }
        finals.insert(block.number, block);
        while finals.len() > REMEMBERED {
            finals.pop_first();
        }
        Ok(block)
    }

    /// Whether the newest block is already final here.
    pub const fn is_final_at_once(&self) -> bool {
        matches!(self.facts.finality, Finality::Latest)
    }
}

/// The head of a block that a node has.
pub(crate) async fn head(node: Node, which: Value) -> Result<Block, ChainError> {
    const METHOD: &str = "eth_getBlockByNumber";
    let asked = which.as_str().and_then(number_of);
    let head: Option<Head> = node.ask(METHOD, (which, false)).await?;
    let Some(head) = head else {
        return Err(ChainError::NoState { rpc: node.name().to_owned(), block: asked.unwrap_or_default() });
    };
    let block = head.block();
    match asked {
        Some(number) if number != block.number => Err(node.malformed(METHOD, format!("block {} when asked for {number}", block.number))),
        _ => Ok(block),
    }
}

pub(crate) fn hex_number(number: u64) -> String {
    format!("{number:#x}")
}

fn number_of(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

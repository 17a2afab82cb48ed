//! A block in which somebody has the escrow log very much: what a thief could pay for to have its followers stand still.

use orien_protocol::money::Usdc;
use serde_json::json;

use super::AnvilError;
use super::local::{LocalChain, failed};
use super::process::local_key;
use crate::call;
use crate::transaction::Transaction;
use crate::types::{At, Wei};

/// Logs of one transaction: what fits into the gas that chains of today give one.
const LOGS_EACH: usize = 4_000;
/// Gas of such a transaction.
const GAS_EACH: u64 = 16_000_000;
/// Gas of the block: what the largest of today have.
const BLOCK_GAS: u64 = 600_000_000;

impl LocalChain {
    /// Makes one block with so many logs of the escrow, of an account that has nothing there; its height.
    pub async fn crowd(&self, logs: usize) -> Result<u64, AnvilError> {
        let (chain, key) = (self.chain(), local_key("crowd"));
        self.anvil.give_gas(&key.address()).await?;
        self.anvil.ask("evm_setBlockGasLimit", json!([format!("{BLOCK_GAS:#x}")])).await?;
        let first = chain.nonce(&key.address(), At::Latest).await?;
        self.anvil.set_automine(false).await?;
        let mut sent = Vec::new();
        for (nonce, start) in (first..).zip((0..logs).step_by(LOGS_EACH)) {
            let count = u16::try_from(LOGS_EACH.min(logs - start)).unwrap_or(u16::MAX);
            let signed = Transaction {
                chain_id: self.facts().chain_id,
                nonce,
                to: None,
                gas_limit: GAS_EACH,
                max_fee: Wei::from_gwei(100),
                max_priority_fee: Wei::from_gwei(1),
                value: Wei::ZERO,
                data: code(self, count),
            }
            .sign(&key);
            chain.send_raw(&signed.raw).await?;
            sent.push(signed.hash);
        }
        self.anvil.mine(1).await?;
        self.anvil.set_automine(true).await?;
        let mut block = None;
        for hash in sent {
            let receipt = chain.receipt(&hash).await?.filter(|receipt| receipt.success);
            let found = receipt.ok_or_else(|| failed("a crowd", "a transaction was left out or reverted"))?;
            if *block.get_or_insert(found.block) != found.block {
                return Err(failed("a crowd", "it needed two blocks"));
            }
        }
        block.ok_or_else(|| failed("a crowd", "nothing was sent"))
    }
}

/// A contract that is never made: while it is, it sets its own daily cap `count` times, to one amount after the other.
fn code(local: &LocalChain, count: u16) -> Vec<u8> {
    let call = call::set_daily_cap(Usdc::ZERO);
    let (count, escrow) = (count.to_be_bytes(), local.facts().escrow);
    let parts: [&[u8]; 7] = [
        &[0x63],
        &call[..4],
        // Shifted to the front of the call, and stored; then how often.
        &[0x60, 0xe0, 0x1b, 0x5f, 0x52, 0x61],
        &count,
        // Here it begins anew: how often is the amount too.
        &[0x5b, 0x80, 0x60, 0x04, 0x52, 0x5f, 0x5f, 0x60, 0x24, 0x5f, 0x5f, 0x73],
        escrow.as_bytes(),
        // Called; one less; again unless it was the last.
        &[0x5a, 0xf1, 0x50, 0x60, 0x01, 0x90, 0x03, 0x80, 0x60, 0x0d, 0x57, 0x00],
    ];
    parts.concat()
}

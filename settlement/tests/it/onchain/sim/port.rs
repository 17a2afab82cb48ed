//! The chain in memory as the driver asks it: answers that are lost, a process that dies while it waits, receipts of blocks that never come.

use std::future::{Future, pending};
use std::sync::{Arc, Mutex, PoisonError};

use orien_chain::{
    At, Block, ChainError, EscrowAccount, EscrowChannel, EscrowFees, EscrowLog, Expected, FeeQuote, Receipt, Revert, Sent, TxHash, Wei,
};
use orien_protocol::channel::ChannelId;
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, keccak};
use orien_protocol::time::Timestamp;
use orien_settlement::onchain::ChainPort;

use super::escrow::Act;
use super::world::{Transaction, World};
use crate::onchain::decode::transaction_of;

/// The chain as the driver sees it.
#[derive(Clone, Debug)]
pub(crate) struct SimPort(pub(crate) Arc<Mutex<World>>);

impl SimPort {
    /// Answers, or loses the answer, or lets the process die while it waits.
    fn ask<T: Send>(
        &self,
        answer: impl FnOnce(&mut World) -> Result<T, ChainError> + Send,
    ) -> impl Future<Output = Result<T, ChainError>> + Send {
        let world = Arc::clone(&self.0);
        async move {
            let (answered, lost, crashes) = {
                let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
                let faults = world.faults;
                let (before, lost, after) =
                    (world.dice.chance(faults.crash), world.dice.chance(faults.lost), world.dice.chance(faults.crash));
                if before {
                    world.crashed = true;
                    (None, lost, true)
                } else {
                    let answered = answer(&mut world);
                    world.crashed = after;
                    (Some(answered), lost, after)
                }
            };
            match answered {
                Some(answered) if !crashes && !lost => answered,
                Some(_) if !crashes => {
                    Err(ChainError::Unanswered { rpc: "sim".to_owned(), method: "sim", reason: "the answer was lost".to_owned() })
                }
                _ => pending().await,
            }
        }
    }
}

impl ChainPort for SimPort {
    fn preflight(&self, _: &Expected) -> impl Future<Output = Result<(), ChainError>> + Send {
        self.ask(|_| Ok(()))
    }

    fn final_block(&self) -> impl Future<Output = Result<Block, ChainError>> + Send {
        self.ask(|world| {
            let lies = world.faults.lies;
            let lie = world.dice.chance(lies);
            world.lied |= lie;
            let index = if lie { world.blocks.len() - 1 } else { world.final_index() };
            Ok(world.blocks[index].block)
        })
    }

    fn latest_block(&self) -> impl Future<Output = Result<Block, ChainError>> + Send {
        self.ask(|world| Ok(world.blocks.last().unwrap().block))
    }

    fn standstill(&self, _: Timestamp) -> impl Future<Output = String> + Send {
        std::future::ready("the chain in memory".to_owned())
    }

    fn block(&self, number: u64) -> impl Future<Output = Result<Option<Block>, ChainError>> + Send {
        self.ask(move |world| Ok(world.block_at(number).map(|found| found.block)))
    }

    fn confirm(&self, kept: &Block) -> impl Future<Output = Result<(), ChainError>> + Send {
        let kept = *kept;
        self.ask(move |world| match world.block_at(kept.number) {
            Some(found) if found.block == kept => Ok(()),
            Some(found) => {
                Err(ChainError::Reorganised { number: kept.number, known: kept.hash.to_string(), found: found.block.hash.to_string() })
            }
            None => Err(ChainError::NoState { rpc: "sim".to_owned(), block: kept.number }),
        })
    }

    fn logs(&self, from: u64, to: u64) -> impl Future<Output = Result<Vec<EscrowLog>, ChainError>> + Send {
        self.ask(move |world| Ok((from..=to).filter_map(|number| world.block_at(number)).flat_map(|found| found.logs.clone()).collect()))
    }

    fn nonce(&self, _: &Address, at: At) -> impl Future<Output = Result<u64, ChainError>> + Send {
        self.ask(move |world| {
            let state = if at == At::Latest { world.head() } else { world.finalized() };
            Ok(state.nonces.get(&world.ground.sender).copied().unwrap_or(0))
        })
    }

    fn fees_now(&self) -> impl Future<Output = Result<FeeQuote, ChainError>> + Send {
        self.ask(|_| Ok(FeeQuote { base_fee: Wei(1_000_000_000), tip: Wei(100_000_000) }))
    }

    fn simulate(&self, _: &Address, _: &Address, _: &[u8]) -> impl Future<Output = Result<Result<Vec<u8>, Revert>, ChainError>> + Send {
        self.ask(|_| Ok(Ok(Vec::new())))
    }

    fn data_gas(&self, _: &Address, _: &[u8]) -> impl Future<Output = Result<u64, ChainError>> + Send {
        self.ask(|_| Ok(0))
    }

    fn send_raw(&self, raw: &[u8]) -> impl Future<Output = Result<Sent, ChainError>> + Send {
        let raw = raw.to_vec();
        self.ask(move |world| {
            let (hash, wire) = (keccak(&raw), transaction_of(&raw));
            if wire.nonce < world.nonce() {
                return Ok(Sent::NonceTooLow);
            }
            if world.pool.iter().any(|known| known.hash == hash) {
                return Ok(Sent::AlreadyKnown);
            }
            let rivals = world.pool.iter().filter_map(|known| match &known.act {
                Act::Ours(other) if other.nonce == wire.nonce => Some(other.max_fee),
                _ => None,
            });
            if rivals.max().is_some_and(|fee| wire.max_fee * 10 < fee * 11) {
                return Ok(Sent::ReplacementUnderpriced);
            }
            world.pool.retain(|known| !matches!(&known.act, Act::Ours(other) if other.nonce == wire.nonce));
            world.pool.push(Transaction { hash, act: Act::Ours(wire) });
            world.read_before_sending = world.accounts_read;
            Ok(Sent::Accepted)
        })
    }

    fn receipt(&self, of: &TxHash) -> impl Future<Output = Result<Option<Receipt>, ChainError>> + Send {
        let of = *of.hash();
        self.ask(move |world| {
            let receipt = |block: u64, block_hash: Hash, success: bool| Receipt {
                block,
                block_hash,
                success,
                gas_used: 1,
                effective_gas_price: Wei(1),
                contract: None,
                logs: Vec::new(),
            };
            let found = world.blocks.iter().rev().find_map(|block| {
                let (_, success) = block.done.iter().find(|(transaction, _)| transaction.hash == of)?;
                Some(receipt(block.block.number, block.block.hash, *success))
            });
            let preconfirmed = world.faults.preconfirmed;
            if found.is_none() && world.dice.chance(preconfirmed) {
                let head = world.blocks.last().unwrap().block.number;
                // Of a height that has another block, or none yet.
                let number = (head + 2).saturating_sub(world.dice.below(12));
                return Ok(Some(receipt(number, keccak(b"a block that never was"), true)));
            }
            Ok(found)
        })
    }

    fn native_balance(&self, _: &Address) -> impl Future<Output = Result<Wei, ChainError>> + Send {
        self.ask(|_| Ok(Wei(u128::MAX)))
    }

    fn accounts(&self, owners: &[Address], at: &Block) -> impl Future<Output = Result<Vec<EscrowAccount>, ChainError>> + Send {
        let (owners, at) = (owners.to_vec(), *at);
        self.ask(move |world| {
            world.accounts_read += owners.len();
            let (state, usdc) = (world.state_at(&at)?, Usdc::from_micros);
            let account = |owner: &Address| {
                let held = state.accounts.get(owner).cloned().unwrap_or_default();
                EscrowAccount { balance: usdc(held.balance), exiting: usdc(held.exiting), ..EscrowAccount::default() }
            };
            Ok(owners.iter().map(account).collect())
        })
    }

    fn channels(&self, ids: &[ChannelId], at: &Block) -> impl Future<Output = Result<Vec<EscrowChannel>, ChainError>> + Send {
        let (ids, at) = (ids.to_vec(), *at);
        self.ask(move |world| {
            let state = world.state_at(&at)?;
            let channel = |id: &ChannelId| {
                let paid = state.channels.get(id).cloned().unwrap_or_default();
                EscrowChannel { redeemed: Usdc::from_micros(paid.redeemed), closed: paid.closed, ..EscrowChannel::default() }
            };
            Ok(ids.iter().map(channel).collect())
        })
    }

    fn credits(&self, payees: &[Address], at: &Block) -> impl Future<Output = Result<Vec<Usdc>, ChainError>> + Send {
        let (payees, at) = (payees.to_vec(), *at);
        self.ask(move |world| {
            let credits = &world.state_at(&at)?.credits;
            Ok(payees.iter().map(|payee| Usdc::from_micros(credits.get(payee).copied().unwrap_or(0))).collect())
        })
    }

    fn fees(&self, at: &Block) -> impl Future<Output = Result<EscrowFees, ChainError>> + Send {
        let at = *at;
        self.ask(move |world| Ok(EscrowFees { platform: Usdc::from_micros(world.state_at(&at)?.fees), reserve: Usdc::ZERO }))
    }

    fn token_balance(&self, _: &Address, at: &Block) -> impl Future<Output = Result<Usdc, ChainError>> + Send {
        let at = *at;
        self.ask(move |world| Ok(Usdc::from_micros(world.state_at(&at)?.tokens())))
    }
}

//! Reads final blocks and has the desk fold what the escrow logged in them.

use std::collections::{BTreeMap, BTreeSet};

use orien_chain::{Block, ChainError, EscrowLog};
use orien_protocol::hash::Hash;
use orien_protocol::time::{Timestamp, UnixSeconds};

use super::{ChainPort, Counter, Follower, StepError};
use crate::books::{Cursor, FinalLog, Sight};
use crate::desk::DeskError;

/// What the operator is told under this name while the chain's nodes, or one that is asked first, give nothing new.
pub(crate) const STANDSTILL: &str = "standstill";
/// Most blocks folded at once: a stretch is one change in the store.
const STRETCH_BLOCKS: u64 = 2_000;
/// Most stretches of one step, so that a long way behind other work is not forgotten.
const STRETCHES_PER_STEP: usize = 50;

impl<P: ChainPort, D: Counter> Follower<P, D> {
    /// Folds what is final and new, and tells the desk how well the chain is seen.
    pub(super) async fn fold(&mut self, now: Timestamp) -> Result<(), StepError> {
        let mut cursor = self.desk.call(|desk| desk.standing()).await?.cursor;
        let newest = match self.find_final(cursor).await {
            Ok(newest) => newest,
            Err(error) => return Err(self.contradicted(error, now).await?),
        };
        for _ in 0..STRETCHES_PER_STEP {
            let from = cursor.map_or(self.facts.escrow_block, |cursor| cursor.number.saturating_add(1));
            if from > newest.number {
                break;
            }
            match self.fold_stretch(from, newest, now).await {
                Ok(upto) => cursor = Some(upto),
                Err(StepError::Chain(error)) => return Err(self.contradicted(error, now).await?),
                Err(StepError::Desk(DeskError::Refused(fault))) => {
                    let text = fault.text.clone();
                    self.desk.call(move |desk| desk.halt("contradiction", &text, now)).await?;
                    return Err(DeskError::Refused(fault).into());
                }
                Err(error) => return Err(error),
            }
        }
        let head = self.port.latest_block().await?;
        let Some(cursor) = cursor else { return Ok(()) };
        let folded = cursor.time.timestamp();
        // By our clock too: nodes that stand still have nothing newer than what was folded.
        let behind = head.time.timestamp().max(now).since(folded);
        let is_late = self.desk.call(move |desk| desk.see(Sight { at: now, behind })).await?;
        let text = if is_late { Some(self.port.standstill(now).await) } else { None };
        Ok(self.desk.call(move |desk| desk.notice(STANDSTILL, text, now)).await?)
    }

    /// The newest final block, on the chain that the books were folded from.
    async fn find_final(&self, cursor: Option<Cursor>) -> Result<Block, ChainError> {
        let newest = self.port.final_block().await?;
        if let Some(cursor) = cursor.filter(|cursor| newest.number >= cursor.number) {
            self.port.confirm(&cursor.into()).await?;
        }
        Ok(newest)
    }

    /// What a failed look means: a chain that takes final blocks back, or nodes that disagree about one, stop everything until somebody has looked.
    async fn contradicted(&self, error: ChainError, now: Timestamp) -> Result<StepError, StepError> {
        if matches!(error, ChainError::Reorganised { .. }) {
            let text = error.to_string();
            self.desk.call(move |desk| desk.halt("reorganised", &text, now)).await?;
        }
        Ok(error.into())
    }

    async fn fold_stretch(&self, from: u64, newest: Block, now: Timestamp) -> Result<Cursor, StepError> {
        let mut to = newest.number.min(from.saturating_add(STRETCH_BLOCKS - 1));
        let found = loop {
            match self.port.logs(from, to).await {
                // Anybody can have the escrow log a lot, and what is too much for one change may be enough for two.
                Err(ChainError::TooMany { .. }) if to > from => to = from.saturating_add(to.saturating_sub(from) / 2),
                found => break found?,
            }
        };
        let last = if to == newest.number { newest } else { self.known_block(to).await? };
        let logs = self.timed(found, &last).await?;
        let ours = self.our_transactions().await?;
        let upto = Cursor::from(last);
        self.desk.call(move |desk| desk.fold(&logs, upto, &ours, now)).await?;
        Ok(upto)
    }

    async fn known_block(&self, number: u64) -> Result<Block, ChainError> {
        let missing = || ChainError::NoState { rpc: "every node".to_owned(), block: number };
        self.port.block(number).await?.ok_or_else(missing)
    }

    /// Each log with its block's time. A log whose block is not the one at its height is of a block that was taken back.
    async fn timed(&self, logs: Vec<EscrowLog>, last: &Block) -> Result<Vec<FinalLog>, ChainError> {
        let mut times: BTreeMap<(u64, Hash), UnixSeconds> = BTreeMap::from([((last.number, last.hash), last.time)]);
        let mut timed = Vec::with_capacity(logs.len());
        for log in logs {
            let key = (log.block, log.block_hash);
            let time = match times.get(&key) {
                Some(time) => *time,
                None => {
                    let block = self.known_block(log.block).await?;
                    if block.hash != log.block_hash {
                        let (known, found) = (format!("0x{}", log.block_hash), format!("0x{}", block.hash));
                        // Asked again, it may be the right one: the nodes were between two chains.
                        return Err(ChainError::Disagree {
                            what: "the block of a final log",
                            one: "the log".to_owned(),
                            one_says: known,
                            other: "its block".to_owned(),
                            other_says: found,
                        });
                    }
                    times.insert(key, block.time);
                    block.time
                }
            };
            timed.push(FinalLog { log, time });
        }
        Ok(timed)
    }

    /// Hashes of all transactions of the flight under way: nothing else that the contract passes over is about claims of ours.
    async fn our_transactions(&self) -> Result<BTreeSet<Hash>, DeskError> {
        let flight = self.desk.call(|desk| desk.standing()).await?.flight;
        Ok(flight.iter().flat_map(|flight| &flight.attempts).map(|attempt| attempt.hash).collect())
    }
}

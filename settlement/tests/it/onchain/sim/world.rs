//! The blocks of the chain in memory, and what goes wrong with them by a seed: blocks are taken back, transactions dropped, blocks stay away.

use std::collections::BTreeSet;
use std::sync::Arc;

use orien_chain::{Block, ChainError, EscrowLog, TxHash};
use orien_protocol::hash::Hash;
use orien_protocol::signing::{Address, MoneyDomain, keccak};
use orien_protocol::time::UnixSeconds;

use super::dice::Dice;
use super::escrow::{Act, Escrow, Ground};

/// How many blocks below the newest one is final.
const FINAL_DEPTH: usize = 6;

/// A transaction as the chain knows it.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub(super) hash: Hash,
    pub(super) act: Act,
}

#[derive(Clone, Debug)]
pub(super) struct SimBlock {
    pub(super) block: Block,
    after: Arc<Escrow>,
    pub(super) logs: Vec<EscrowLog>,
    pub(super) done: Vec<(Transaction, bool)>,
}

/// How badly it behaves, in percent of the occasions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) crash: u64,
    pub(crate) reorg: u64,
    pub(crate) dropped: u64,
    pub(crate) stall: u64,
    pub(crate) preconfirmed: u64,
    /// The newest block is given out as final.
    pub(crate) lies: u64,
}

/// The chain.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) faults: Faults,
    pub(crate) crashed: bool,
    /// Hands out blocks that are not final as if they were.
    pub(crate) lied: bool,
    pub(crate) ground: Ground,
    /// Accounts that were asked about, and how many that were when a transaction was last taken.
    pub(crate) accounts_read: usize,
    pub(crate) read_before_sending: usize,
    pub(super) blocks: Vec<SimBlock>,
    pub(super) pool: Vec<Transaction>,
    /// A block that was final stays so.
    last_final: usize,
    stalled: u64,
    salt: u64,
}

impl World {
    pub(crate) fn new(seed: u64, sender: Address, domain: MoneyDomain, time: u64) -> Self {
        let block = Block { number: 0, hash: keccak(b"genesis"), time: UnixSeconds(time) };
        let genesis = SimBlock { block, after: Arc::default(), logs: Vec::new(), done: Vec::new() };
        Self {
            dice: Dice(seed),
            faults: Faults::default(),
            crashed: false,
            lied: false,
            ground: Ground { sender, domain, blocklisted: BTreeSet::new() },
            accounts_read: 0,
            read_before_sending: 0,
            blocks: vec![genesis],
            pool: Vec::new(),
            last_final: 0,
            stalled: 0,
            salt: 0,
        }
    }

    fn submit(&mut self, act: Act) {
        self.salt += 1;
        let hash = keccak(format!("tx {}", self.salt).as_bytes());
        self.pool.push(Transaction { hash, act });
    }

    pub(crate) fn deposit(&mut self, account: Address, key: Address, amount: u64) {
        self.submit(Act::Deposit(account, key, amount));
    }

    pub(crate) fn request_exit(&mut self, account: Address, amount: u64) {
        self.submit(Act::RequestExit(account, amount));
    }

    pub(crate) fn withdraw(&mut self, account: Address) {
        self.submit(Act::Withdraw(account));
    }

    /// As if the contract had a hole: tokens are gone, and no log says so.
    pub(crate) fn lose(&mut self, amount: u64) {
        let newest = self.blocks.last_mut().unwrap();
        Arc::make_mut(&mut newest.after).lost += amount;
    }

    pub(crate) fn donate(&mut self, amount: u64) {
        self.submit(Act::Donate(amount));
    }

    /// Somebody sends the claims of one of our transactions in a transaction of their own.
    pub(crate) fn rival(&mut self) {
        let ours: Vec<Vec<u8>> = self
            .pool
            .iter()
            .filter_map(|transaction| match &transaction.act {
                Act::Ours(wire) if !wire.data.is_empty() => Some(wire.data.clone()),
                _ => None,
            })
            .collect();
        if let Some(data) = ours.first() {
            self.submit(Act::Rival(data.clone()));
        }
    }

    pub(crate) fn head(&self) -> &Escrow {
        &self.blocks.last().unwrap().after
    }

    pub(super) fn final_index(&self) -> usize {
        self.last_final.max(self.blocks.len().saturating_sub(1 + FINAL_DEPTH))
    }

    pub(crate) fn finalized(&self) -> &Escrow {
        &self.blocks[self.final_index()].after
    }

    pub(crate) fn nonce(&self) -> u64 {
        self.head().nonces.get(&self.ground.sender).copied().unwrap_or(0)
    }

    /// Whether nothing waits for a block.
    pub(crate) fn is_idle(&self) -> bool {
        self.pool.is_empty()
    }

    /// Time passes: perhaps a block, perhaps one is taken back.
    pub(crate) fn tick(&mut self, time: u64) {
        // A chain that behaves again makes blocks again.
        self.stalled = if self.faults.stall == 0 { 0 } else { self.stalled };
        if self.stalled > 0 {
            self.stalled -= 1;
            return;
        }
        if self.dice.chance(self.faults.stall) {
            self.stalled = 3 + self.dice.below(40);
        }
        if self.dice.chance(self.faults.reorg) {
            self.reorganise();
        }
        if self.dice.chance(self.faults.dropped) && !self.pool.is_empty() {
            let at = usize::try_from(self.dice.below(self.pool.len() as u64)).unwrap();
            if matches!(self.pool[at].act, Act::Ours(_)) {
                self.pool.remove(at);
            }
        }
        self.mine(time);
    }

    fn reorganise(&mut self) {
        self.last_final = self.final_index();
        let depth = usize::try_from(1 + self.dice.below(FINAL_DEPTH as u64 - 1)).unwrap();
        let depth = depth.min(self.blocks.len() - 1).min(self.blocks.len() - 1 - self.final_index());
        for block in self.blocks.split_off(self.blocks.len() - depth) {
            for (transaction, _) in block.done {
                // Some find their way back, some are lost.
                let is_ours = matches!(transaction.act, Act::Ours(_));
                if !is_ours || self.dice.chance(70) {
                    self.pool.push(transaction);
                }
            }
        }
    }

    fn mine(&mut self, time: u64) {
        let mut after = Arc::clone(&self.blocks.last().unwrap().after);
        let (mut logs, mut done, mut left) = (Vec::new(), Vec::new(), Vec::new());
        let parent = self.blocks.last().unwrap().block;
        let number = parent.number + 1;
        self.salt += 1;
        let hash = keccak(format!("block {number} {} {}", self.salt, parent.hash).as_bytes());
        let now = time.max(parent.time.0);
        let mut pool = std::mem::take(&mut self.pool);
        // The best payer of a nonce comes first.
        pool.sort_by_key(|transaction| match &transaction.act {
            Act::Ours(wire) => (wire.nonce, u128::MAX - wire.max_fee),
            _ => (0, 0),
        });
        for transaction in pool {
            if self.faults.stall > 0 && self.dice.chance(20) {
                left.push(transaction);
                continue;
            }
            let mut events = Vec::new();
            let done_so = Arc::make_mut(&mut after).apply(&transaction.act, &self.ground, now, &mut |event| events.push(event));
            logs.extend(events.into_iter().map(|event| EscrowLog {
                block: number,
                block_hash: hash,
                transaction: TxHash::from_hash(transaction.hash),
                index: 0,
                event,
            }));
            match done_so {
                Some(success) => done.push((transaction, success)),
                None if matches!(&transaction.act, Act::Ours(wire) if wire.nonce > after.nonces.get(&self.ground.sender).copied().unwrap_or(0)) => {
                    left.push(transaction)
                }
                None => {}
            }
        }
        for (index, log) in (0_u64..).zip(&mut logs) {
            log.index = index;
        }
        self.pool = left;
        self.blocks.push(SimBlock { block: Block { number, hash, time: UnixSeconds(now) }, after, logs, done });
    }

    pub(super) fn block_at(&self, number: u64) -> Option<&SimBlock> {
        self.blocks.get(usize::try_from(number).ok()?)
    }

    pub(super) fn state_at(&self, at: &Block) -> Result<&Escrow, ChainError> {
        match self.block_at(at.number) {
            Some(found) if found.block == *at => Ok(&found.after),
            _ => Err(ChainError::NoState { rpc: "sim".to_owned(), block: at.number }),
        }
    }
}

//! A chain in memory that misbehaves by a seed: blocks that are taken back, transactions that are dropped, stalls, answers that are lost, receipts of blocks that never come.
//!
//! The escrow on it does with claims what the contract does (signatures aside), with code of its own, so that what the books say can be compared with it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, PoisonError};

use orien_chain::{
    At, Block, ChainError, EscrowAccount, EscrowChannel, EscrowEvent, EscrowFees, EscrowLog, Expected, FeeQuote, Receipt, Refusal, Revert,
    Sent, TxHash, Wei,
};
use orien_protocol::channel::ChannelId;
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, keccak};
use orien_protocol::time::UnixSeconds;
use orien_settlement::onchain::ChainPort;

use super::decode::{OnWire, claims_of, transaction_of};

/// How many blocks below the newest one is final.
pub(crate) const FINAL_DEPTH: usize = 6;

/// Steele, Lea and Flood's splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the escrow holds of one account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) balance: u64,
    pub(crate) exiting: u64,
    exit_at: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Paid {
    pub(crate) redeemed: u64,
    ceiling: u64,
    redeem_until: u64,
    pub(crate) closed: bool,
}

/// Everything that blocks change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Escrow {
    pub(crate) accounts: BTreeMap<Address, Held>,
    pub(crate) channels: BTreeMap<ChannelId, Paid>,
    pub(crate) delivered: BTreeMap<Address, u64>,
    pub(crate) credits: BTreeMap<Address, u64>,
    pub(crate) withdrawn: u64,
    pub(crate) deposited: u64,
    pub(crate) fees: u64,
    nonces: BTreeMap<Address, u64>,
}

/// A transaction as the chain knows it.
#[derive(Clone, Debug)]
enum Act {
    /// Ours: a signed one.
    Ours(OnWire),
    /// Somebody else redeems.
    Rival(Vec<u8>),
    Deposit(Address, Address, u64),
    RequestExit(Address, u64),
    Withdraw(Address),
}

#[derive(Clone, Debug)]
struct Transaction {
    hash: Hash,
    act: Act,
}

#[derive(Clone, Debug)]
struct SimBlock {
    block: Block,
    after: Escrow,
    logs: Vec<EscrowLog>,
    done: Vec<(Transaction, bool)>,
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
    pub(crate) sender: Address,
    pub(crate) blocklisted: BTreeSet<Address>,
    pub(crate) crashed: bool,
    /// Hands out blocks that are not final as if they were.
    pub(crate) lied: bool,
    domain: orien_protocol::signing::MoneyDomain,
    blocks: Vec<SimBlock>,
    pool: Vec<Transaction>,
    /// A block that was final stays so.
    last_final: usize,
    stalled: u64,
    salt: u64,
}

impl World {
    pub(crate) fn new(seed: u64, sender: Address, domain: orien_protocol::signing::MoneyDomain, time: u64) -> Self {
        let block = Block { number: 0, hash: keccak(b"genesis"), time: UnixSeconds(time) };
        let genesis = SimBlock { block, after: Escrow::default(), logs: Vec::new(), done: Vec::new() };
        Self {
            dice: Dice(seed),
            faults: Faults::default(),
            sender,
            blocklisted: BTreeSet::new(),
            crashed: false,
            lied: false,
            domain,
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

    fn final_index(&self) -> usize {
        self.last_final.max(self.blocks.len().saturating_sub(1 + FINAL_DEPTH))
    }

    pub(crate) fn finalized(&self) -> &Escrow {
        &self.blocks[self.final_index()].after
    }

    pub(crate) fn nonce(&self) -> u64 {
        self.head().nonces.get(&self.sender).copied().unwrap_or(0)
    }

    /// What was paid to everybody, by the blocks that stand.
    pub(crate) fn is_idle(&self) -> bool {
        self.pool.is_empty()
    }

    /// Time passes: perhaps a block, perhaps one is taken back.
    pub(crate) fn tick(&mut self, time: u64) {
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
        let mut after = self.head().clone();
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
            let done_so = self.apply(&mut after, &transaction, now, &mut |event| events.push(event));
            logs.extend(events.into_iter().map(|event| EscrowLog {
                block: number,
                block_hash: hash,
                transaction: TxHash::from_hash(transaction.hash),
                index: 0,
                event,
            }));
            match done_so {
                Some(success) => done.push((transaction, success)),
                None if matches!(&transaction.act, Act::Ours(wire) if wire.nonce > after.nonces.get(&self.sender).copied().unwrap_or(0)) => {
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

    /// None when it cannot be in a block now.
    fn apply(&self, state: &mut Escrow, transaction: &Transaction, now: u64, log: &mut dyn FnMut(EscrowEvent)) -> Option<bool> {
        match &transaction.act {
            Act::Ours(wire) => {
                let nonce = state.nonces.entry(self.sender).or_default();
                if *nonce != wire.nonce {
                    return None;
                }
                *nonce += 1;
                if !wire.data.is_empty() {
                    self.redeem(state, &wire.data, now, log);
                }
                Some(true)
            }
            Act::Rival(data) => {
                self.redeem(state, data, now, log);
                Some(true)
            }
            Act::Deposit(account, key, amount) => {
                let held = state.accounts.entry(*account).or_default();
                if held.balance == 0 {
                    log(EscrowEvent::KeyAuthorized { account: *account, key: *key });
                }
                held.balance += amount;
                state.deposited += amount;
                log(EscrowEvent::Deposited { account: *account, spending_key: *key, amount: Usdc::from_micros(*amount) });
                Some(true)
            }
            Act::RequestExit(account, amount) => {
                let held = state.accounts.entry(*account).or_default();
                (held.exiting, held.exit_at) = (*amount, now + super::EXIT_DELAY);
                log(EscrowEvent::ExitRequested { account: *account, amount: Usdc::from_micros(*amount), due: UnixSeconds(held.exit_at) });
                Some(true)
            }
            Act::Withdraw(account) => {
                let held = state.accounts.entry(*account).or_default();
                if held.exiting == 0 || now < held.exit_at {
                    return Some(false);
                }
                let amount = held.exiting.min(held.balance);
                held.balance -= amount;
                (held.exiting, held.exit_at) = (0, 0);
                state.withdrawn += amount;
                log(EscrowEvent::Withdrawn { account: *account, amount: Usdc::from_micros(amount) });
                Some(true)
            }
        }
    }

    fn redeem(&self, state: &mut Escrow, data: &[u8], now: u64, log: &mut dyn FnMut(EscrowEvent)) {
        let mut due: Vec<(Address, u64)> = Vec::new();
        for claim in claims_of(data) {
            let id = claim.channel(self.domain);
            let channel = state.channels.entry(id).or_default();
            let refusal = if channel.closed {
                Some(Refusal::ChannelClosed)
            } else if now > claim.redeem_until {
                Some(Refusal::TooLate)
            } else {
                None
            };
            if let Some(reason) = refusal {
                log(EscrowEvent::ClaimRefused { channel: id, reason });
                continue;
            }
            (channel.ceiling, channel.redeem_until) = (channel.ceiling.max(claim.ceiling), claim.redeem_until);
            let mut limit = claim.total.min(claim.ceiling);
            if let Some(close) = claim.close {
                limit = limit.min(close);
            }
            let held = state.accounts.entry(claim.account).or_default();
            let paid = limit.saturating_sub(channel.redeemed).min(held.balance);
            let closes = claim.close.is_some() && channel.redeemed + paid >= limit;
            if paid == 0 && !closes {
                continue;
            }
            held.balance -= paid;
            let before = provider_share(channel.redeemed);
            channel.redeemed += paid;
            channel.closed = closes;
            let provider = provider_share(channel.redeemed) - before;
            state.fees += paid - provider;
            due.push((claim.payout, provider));
            log(EscrowEvent::Redeemed {
                channel: id,
                account: claim.account,
                payout: claim.payout,
                paid: Usdc::from_micros(paid),
                redeemed: Usdc::from_micros(channel.redeemed),
                closed: closes,
            });
        }
        for (payee, amount) in due {
            if self.blocklisted.contains(&payee) && amount > 0 {
                *state.credits.entry(payee).or_default() += amount;
                log(EscrowEvent::Credited { payee, amount: Usdc::from_micros(amount) });
            } else {
                *state.delivered.entry(payee).or_default() += amount;
            }
        }
    }

    fn block_at(&self, number: u64) -> Option<&SimBlock> {
        self.blocks.get(usize::try_from(number).ok()?)
    }

    fn state_at(&self, at: &Block) -> Result<&Escrow, ChainError> {
        match self.block_at(at.number) {
            Some(found) if found.block == *at => Ok(&found.after),
            _ => Err(ChainError::NoState { rpc: "sim".to_owned(), block: at.number }),
        }
    }
}

/// M3, with arithmetic of its own: nine tenths and what does not divide.
fn provider_share(total: u64) -> u64 {
    total - total / 10
}

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
            Ok(state.nonces.get(&world.sender).copied().unwrap_or(0))
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
                let number = head.saturating_sub(world.dice.below(10));
                return Ok(Some(receipt(number, keccak(b"a block that never was"), true)));
            }
            Ok(found)
        })
    }

    fn native_balance(&self, _: &Address) -> impl Future<Output = Result<Wei, ChainError>> + Send {
        self.ask(|_| Ok(Wei(u128::MAX)))
    }

    fn account(&self, owner: &Address, at: &Block) -> impl Future<Output = Result<EscrowAccount, ChainError>> + Send {
        let (owner, at) = (*owner, *at);
        self.ask(move |world| {
            let held = world.state_at(&at)?.accounts.get(&owner).cloned().unwrap_or_default();
            let usdc = Usdc::from_micros;
            Ok(EscrowAccount { balance: usdc(held.balance), exiting: usdc(held.exiting), ..EscrowAccount::default() })
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

    fn credit(&self, payee: &Address, at: &Block) -> impl Future<Output = Result<Usdc, ChainError>> + Send {
        let (payee, at) = (*payee, *at);
        self.ask(move |world| Ok(Usdc::from_micros(world.state_at(&at)?.credits.get(&payee).copied().unwrap_or(0))))
    }

    fn fees(&self, at: &Block) -> impl Future<Output = Result<EscrowFees, ChainError>> + Send {
        let at = *at;
        self.ask(move |world| Ok(EscrowFees { platform: Usdc::from_micros(world.state_at(&at)?.fees), reserve: Usdc::ZERO }))
    }

    fn token_balance(&self, _: &Address, at: &Block) -> impl Future<Output = Result<Usdc, ChainError>> + Send {
        let at = *at;
        self.ask(move |world| {
            let state = world.state_at(&at)?;
            let out = state.delivered.values().sum::<u64>() + state.withdrawn;
            Ok(Usdc::from_micros(state.deposited - out))
        })
    }
}

//! Compares books and chain: every account, every channel that is not wholly settled, fees, undelivered payments, and the escrow's own tokens.
//!
//! Always true: each part is compared at the final block that the books were folded to at that moment, so that a comparison may go on while the chain does; a part is bounded, and so is what one step of
//! the driver compares: payments wait for no more than that. Any difference halts the desk, and nothing is promised before the first comparison of a process found none. More tokens than owed are no
//! difference: anybody can send some to a contract.

use orien_chain::Block;
use orien_protocol::channel::ChannelId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::Timestamp;

use super::{ChainPort, Counter, Follower, StepError};
use crate::books::Cursor;
use crate::desk::{Held, Part};

/// Entries of one part, each of which may be a question to a node.
const PART: usize = 200;
/// Parts of one step of the driver: some hundred questions, of which several are under way at once; a second or two at a distant node.
const PARTS_PER_STEP: usize = 6;
/// Most differences that are told; the first ones say what to look for.
const DIFFERENCES_MAX: usize = 20;

/// Where books and chain differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Of what.
    pub what: String,
    /// By the books, in micro-USDC.
    pub books: u128,
    /// By the chain, in micro-USDC.
    pub chain: u128,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciliation {
    /// At which block; the last one, if the chain went on meanwhile.
    pub at: Cursor,
    /// Accounts compared.
    pub accounts: usize,
    /// Channels compared.
    pub channels: usize,
    /// Empty when books and chain say the same.
    pub differences: Vec<Difference>,
}

/// A comparison under way.
#[derive(Debug)]
pub(crate) struct Comparison {
    next: Part,
    found: Option<Reconciliation>,
}

impl Comparison {
    pub(crate) const fn new() -> Self {
        Self { next: Part::FIRST, found: None }
    }

    /// What was found so far; none while nothing was compared.
    pub(crate) fn found(self) -> Option<Reconciliation> {
        self.found
    }

    fn differs(&self) -> bool {
        self.found.as_ref().is_some_and(|found| !found.differences.is_empty())
    }
}

/// How far a comparison is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more to compare.
    More,
    /// All was compared, or nothing was folded yet.
    Done,
}

impl<P: ChainPort, D: Counter> Follower<P, D> {
    /// Compares all of it now; none while nothing was folded yet.
    pub async fn reconcile(&self, now: Timestamp) -> Result<Option<Reconciliation>, StepError> {
        let mut comparison = Comparison::new();
        while self.compare_some(&mut comparison).await? == Progress::More {}
        self.conclude_comparison(comparison, now).await
    }

    /// Compares as much as a step has time for.
    pub(crate) async fn compare_some(&self, comparison: &mut Comparison) -> Result<Progress, StepError> {
        for _ in 0..PARTS_PER_STEP {
            let part = comparison.next;
            let Some((cursor, held)) = self.desk.call(move |desk| desk.held(part, PART)).await? else { return Ok(Progress::Done) };
            let found = comparison.found.get_or_insert(Reconciliation { at: cursor, accounts: 0, channels: 0, differences: Vec::new() });
            // Kept when all of the part was read: one that breaks off is read again.
            let mut next = found.clone();
            next.at = cursor;
            self.compare_part(&held, cursor, &mut next).await?;
            *found = next;
            match Part::after(&held, PART) {
                Some(part) => comparison.next = part,
                None => return Ok(Progress::Done),
            }
        }
        Ok(Progress::More)
    }

    /// Takes note of what a comparison found.
    pub(crate) async fn conclude_comparison(&self, comparison: Comparison, now: Timestamp) -> Result<Option<Reconciliation>, StepError> {
        let Some(found) = comparison.found() else { return Ok(None) };
        if let Some(first) = found.differences.first() {
            let text = format!(
                "{} is {} micro-USDC by the books and {} by the chain at block {}, and {} more differences",
                first.what,
                first.books,
                first.chain,
                found.at.number,
                found.differences.len() - 1
            );
            self.desk.call(move |desk| desk.halt("difference", &text, now)).await?;
        } else {
            self.desk.call(|desk| desk.compared()).await?;
        }
        Ok(Some(found))
    }

    /// Goes on with the comparison that is due, as far as a step has time for; whether it is over. One that found a difference is.
    pub(super) async fn go_on_comparing(&mut self, now: Timestamp) -> Result<Option<Option<Reconciliation>>, StepError> {
        let mut comparison = self.comparing.take().unwrap_or(Comparison::new());
        let progress = self.compare_some(&mut comparison).await;
        match progress {
            Ok(Progress::More) if !comparison.differs() => {
                self.comparing = Some(comparison);
                Ok(None)
            }
            Ok(_) => Ok(Some(self.conclude_comparison(comparison, now).await?)),
            Err(error) => {
                self.comparing = Some(comparison);
                Err(error)
            }
        }
    }

    async fn compare_part(&self, held: &Held, cursor: Cursor, found: &mut Reconciliation) -> Result<(), StepError> {
        let at = Block::from(cursor);
        match held {
            Held::Accounts(accounts) => {
                let owners: Vec<Address> = accounts.iter().map(|(address, ..)| *address).collect();
                for ((address, balance, exiting), account) in accounts.iter().zip(self.port.accounts(&owners, &at).await?) {
                    found.compare(|| format!("the balance of account {address}"), *balance, wide(account.balance));
                    found.compare(|| format!("what account {address} asked back"), wide(*exiting), wide(account.exiting));
                }
                found.accounts = found.accounts.saturating_add(accounts.len());
            }
            Held::Channels(channels) => {
                let ids: Vec<ChannelId> = channels.iter().map(|(id, _)| *id).collect();
                for ((id, redeemed), channel) in channels.iter().zip(self.port.channels(&ids, &at).await?) {
                    found.compare(|| format!("what is redeemed of channel {id}"), wide(*redeemed), wide(channel.redeemed));
                }
                found.channels = found.channels.saturating_add(channels.len());
            }
            Held::Credits(credits) => {
                let payees: Vec<Address> = credits.iter().map(|(payee, _)| *payee).collect();
                for ((payee, credit), there) in credits.iter().zip(self.port.credits(&payees, &at).await?) {
                    found.compare(|| format!("the undelivered payments of {payee}"), *credit, wide(there));
                }
            }
            Held::Sums { owed, fees } => {
                let there = self.port.fees(&at).await?;
                let there = wide(there.platform).saturating_add(wide(there.reserve));
                found.compare(|| "the fees in the escrow".to_owned(), *fees, there);
                let tokens = wide(self.port.token_balance(&self.facts.escrow, &at).await?);
                // Never less than it owes; what anybody sent to it is nobody's.
                found.compare(|| "the tokens of the escrow".to_owned(), *owed, tokens.min(*owed));
            }
        }
        Ok(())
    }
}

impl Reconciliation {
    fn compare(&mut self, what: impl FnOnce() -> String, books: u128, chain: u128) {
        if books != chain && self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(Difference { what: what(), books, chain });
        }
    }
}

fn wide(amount: Usdc) -> u128 {
    u128::from(amount.micros())
}

//! Compares books and chain at one final block: every account, every channel that is not wholly settled, fees, undelivered payments, and the escrow's own tokens.
//!
//! Any difference halts the desk, and nothing is promised before the first comparison of a process found none. More tokens than owed are no difference: anybody can send
//! some to a contract.

use orien_chain::Block;
use orien_protocol::channel::ChannelId;
use orien_protocol::money::Usdc;
use orien_protocol::time::Timestamp;

use super::{ChainPort, Counter, Follower, StepError};
use crate::books::Cursor;
use crate::desk::HeldAgainst;

/// Most channels asked about at once.
const CHANNELS_AT_ONCE: usize = 50;
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
    /// At which block.
    pub at: Cursor,
    /// Accounts compared.
    pub accounts: usize,
    /// Channels compared.
    pub channels: usize,
    /// Empty when books and chain say the same.
    pub differences: Vec<Difference>,
}

impl<P: ChainPort, D: Counter> Follower<P, D> {
    /// Compares now; none while nothing was folded yet.
    pub async fn reconcile(&self, now: Timestamp) -> Result<Option<Reconciliation>, StepError> {
        let held = self.desk.call(|desk| desk.held_against()).await?;
        let Some(cursor) = held.cursor else { return Ok(None) };
        let found = self.compare(&held, cursor).await?;
        // What was folded meanwhile is not what was compared.
        if self.desk.call(|desk| desk.standing()).await?.cursor != Some(cursor) {
            return Ok(None);
        }
        if let Some(first) = found.differences.first() {
            let text = format!(
                "{} is {} micro-USDC by the books and {} by the chain at block {}, and {} more differences",
                first.what,
                first.books,
                first.chain,
                cursor.number,
                found.differences.len() - 1
            );
            self.desk.call(move |desk| desk.halt("difference", &text, now)).await?;
        } else {
            self.desk.call(|desk| desk.compared()).await?;
        }
        Ok(Some(found))
    }

    async fn compare(&self, held: &HeldAgainst, cursor: Cursor) -> Result<Reconciliation, StepError> {
        let at = Block::from(cursor);
        let mut found =
            Reconciliation { at: cursor, accounts: held.accounts.len(), channels: held.channels.len(), differences: Vec::new() };
        let mut owed = 0_u128;
        for (address, balance, exiting) in &held.accounts {
            let account = self.port.account(address, &at).await?;
            owed = owed.saturating_add(wide(account.balance));
            found.compare(|| format!("the balance of account {address}"), *balance, wide(account.balance));
            found.compare(|| format!("what account {address} asked back"), wide(*exiting), wide(account.exiting));
        }
        for channels in held.channels.chunks(CHANNELS_AT_ONCE) {
            let ids: Vec<ChannelId> = channels.iter().map(|(id, _)| *id).collect();
            for ((id, redeemed), channel) in channels.iter().zip(self.port.channels(&ids, &at).await?) {
                found.compare(|| format!("what is redeemed of channel {id}"), wide(*redeemed), wide(channel.redeemed));
            }
        }
        for (payee, credit) in &held.credits {
            let credit_there = wide(self.port.credit(payee, &at).await?);
            owed = owed.saturating_add(credit_there);
            found.compare(|| format!("the undelivered payments of {payee}"), *credit, credit_there);
        }
        let fees = self.port.fees(&at).await?;
        let fees = wide(fees.platform).saturating_add(wide(fees.reserve));
        found.compare(|| "the fees in the escrow".to_owned(), held.fees, fees);
        let tokens = wide(self.port.token_balance(&self.facts.escrow, &at).await?);
        let owed = owed.saturating_add(fees);
        // Never less than it owes; what anybody sent to it is nobody's.
        found.compare(|| "the tokens of the escrow".to_owned(), owed, tokens.min(owed));
        Ok(found)
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

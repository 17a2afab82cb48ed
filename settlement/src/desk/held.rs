//! What the books hold that the chain holds too, in parts: each part is of one moment, and names the final block that it is to be compared at.

use orien_protocol::channel::ChannelId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;

use super::{Desk, DeskError};
use crate::books::Cursor;

/// Where a part begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Accounts after this one.
    Accounts(Option<Address>),
    /// Channels after this one.
    Channels(Option<ChannelId>),
    /// Payees of what was not delivered, after this one.
    Credits(Option<Address>),
    /// Everything that is one number.
    Sums,
}

/// One part of what the books hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Account, balance in micro-USDC, asked back.
    Accounts(Vec<(Address, u128, Usdc)>),
    /// Channel and redeemed total.
    Channels(Vec<(ChannelId, Usdc)>),
    /// Payee and undelivered, in micro-USDC.
    Credits(Vec<(Address, u128)>),
    /// All that the escrow owes, and of it the fees, in micro-USDC.
    Sums {
        /// Balances, undelivered payments and fees.
        owed: u128,
        /// Fees that wait for their recipients.
        fees: u128,
    },
}

impl Part {
    /// The first one.
    pub const FIRST: Self = Self::Accounts(None);

    /// The part after one that held this when at most `limit` were asked for; none after the last.
    pub fn after(held: &Held, limit: usize) -> Option<Self> {
        match held {
            Held::Accounts(some) if some.len() >= limit => Some(Self::Accounts(some.last().map(|(account, ..)| *account))),
            Held::Accounts(_) => Some(Self::Channels(None)),
            Held::Channels(some) if some.len() >= limit => Some(Self::Channels(some.last().map(|(id, _)| *id))),
            Held::Channels(_) => Some(Self::Credits(None)),
            Held::Credits(some) if some.len() >= limit => Some(Self::Credits(some.last().map(|(payee, _)| *payee))),
            Held::Credits(_) => Some(Self::Sums),
            Held::Sums { .. } => None,
        }
    }
}

impl Desk {
    /// A part of at most `limit` entries, with the block that the books are folded to; none before the first.
    pub fn held(&self, part: Part, limit: usize) -> Result<Option<(Cursor, Held)>, DeskError> {
        let state = self.enter()?;
        let books = &state.books;
        let Some(cursor) = books.cursor() else { return Ok(None) };
        let held = match part {
            Part::Accounts(after) => {
                let account = |(address, exiting): (Address, Usdc)| (address, books.escrow_balance(&address), exiting);
                Held::Accounts(books.chain_accounts_after(after.as_ref()).take(limit).map(account).collect())
            }
            Part::Channels(after) => Held::Channels(books.held_channels_after(after.as_ref()).take(limit).collect()),
            Part::Credits(after) => Held::Credits(books.credits_after(after.as_ref()).take(limit).collect()),
            Part::Sums => {
                let balances = books.chain_accounts().map(|(address, _)| books.escrow_balance(address));
                let credits = books.credits().values().copied();
                let fees = books.chain_totals().fees;
                Held::Sums { owed: balances.chain(credits).fold(fees, u128::saturating_add), fees }
            }
        };
        Ok(Some((cursor, held)))
    }
}

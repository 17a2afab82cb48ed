//! What settlement keeps of a chain: the cursor and everything folded from final logs, the claims that transactions took along, and the transactions themselves.
//!
//! It is written in the same transaction as the rest of a change.

use orien_protocol::channel::ChannelId;
use orien_protocol::frame::Claim;
use orien_protocol::hash::Hash;
use orien_protocol::id::BatchId;
use orien_protocol::signing::Address;
use redb::{ReadTransaction, WriteTransaction};

use super::{META, RestoreError, Store, StoreError, Table, each, failed, get, put};
use crate::books::{ChainChange, ChainChannel, Restore};
use crate::paying::Flight;

const ACCOUNTS: Table = Table::new("chain_accounts");
const CHANNELS: Table = Table::new("chain_channels");
const CREDITS: Table = Table::new("chain_credits");
const SENT: Table = Table::new("chain_sent_claims");
const BATCHES: Table = Table::new("chain_batches");
const FLIGHTS: Table = Table::new("chain_flights");
const RAWS: Table = Table::new("chain_raw_transactions");
pub(super) const TABLES: [Table; 7] = [ACCOUNTS, CHANNELS, CREDITS, SENT, BATCHES, FLIGHTS, RAWS];

const CURSOR: &[u8] = b"chain_cursor";
const TOTALS: &[u8] = b"chain_totals";
const HALTS: &[u8] = b"chain_halts";
const SENDER: &[u8] = b"chain_sender";

pub(super) fn put_all(write: &WriteTransaction, change: &ChainChange) -> Result<(), StoreError> {
    for (address, record) in &change.accounts {
        put(write, ACCOUNTS, address.as_bytes(), record)?;
    }
    for (channel, account, record) in &change.channels {
        put(write, CHANNELS, channel.hash().as_bytes(), &(account, record))?;
    }
    for (payee, credit) in &change.credits {
        put(write, CREDITS, payee.as_bytes(), credit)?;
    }
    for (channel, claim) in &change.sent {
        put(write, SENT, channel.hash().as_bytes(), claim)?;
    }
    for (batch, transaction) in &change.batches {
        put(write, BATCHES, batch.as_bytes(), transaction)?;
    }
    for flight in &change.flights {
        put(write, FLIGHTS, &flight.nonce.to_be_bytes(), flight)?;
    }
    for nonce in &change.landed {
        let mut raws = write.open_table(RAWS).map_err(failed)?;
        let (first, last) = (raw_key(*nonce, 0), raw_key(*nonce, u32::MAX));
        raws.retain_in::<&[u8], _>(first.as_slice()..=last.as_slice(), |_, _| false).map_err(failed)?;
    }
    for (nonce, attempt, bytes) in &change.raws {
        put(write, RAWS, &raw_key(*nonce, *attempt), bytes)?;
    }
    if let Some(cursor) = &change.cursor {
        put(write, META, CURSOR, cursor)?;
    }
    if let Some(totals) = &change.totals {
        put(write, META, TOTALS, totals)?;
    }
    if let Some(halts) = &change.halts {
        put(write, META, HALTS, halts)?;
    }
    if let Some(sender) = &change.sender {
        put(write, META, SENDER, sender)?;
    }
    Ok(())
}

pub(super) fn restore(read: &ReadTransaction, restore: &mut Restore) -> Result<(), RestoreError> {
    each(read, ACCOUNTS, |key, record| {
        restore.chain_account(address(key), record);
        Ok(())
    })?;
    each(read, CHANNELS, |key, (account, record): (Address, ChainChannel)| {
        let mut id = [0; 32];
        id.copy_from_slice(key.get(..32).unwrap_or(&[0; 32]));
        restore.chain_channel(ChannelId::from_hash(Hash::from_bytes(id)), account, record);
        Ok(())
    })?;
    let mut rest = ChainChange::default();
    each(read, CREDITS, |key, credit| {
        rest.credits.push((address(key), credit));
        Ok(())
    })?;
    let meta = read.open_table(META).map_err(failed)?;
    rest.cursor = get(&meta, "meta", CURSOR)?;
    rest.totals = get(&meta, "meta", TOTALS)?;
    rest.halts = get(&meta, "meta", HALTS)?;
    rest.sender = get(&meta, "meta", SENDER)?;
    // At most one is under way, and it is the newest.
    let flights = read.open_table(FLIGHTS).map_err(failed)?;
    if let Some(row) = redb::ReadableTable::last(&flights).map_err(failed)? {
        rest.flights.push(super::decode("chain_flights", row.1.value())?);
    }
    restore.chain(rest);
    Ok(())
}

fn address(key: &[u8]) -> Address {
    let mut address = [0; 20];
    address.copy_from_slice(key.get(..20).unwrap_or(&[0; 20]));
    Address::from_bytes(address)
}

fn raw_key(nonce: u64, attempt: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&nonce.to_be_bytes());
    key[8..].copy_from_slice(&attempt.to_be_bytes());
    key
}

impl Store {
    /// What the chain adds to a channel.
    pub(crate) fn chain_channel(&self, channel: &ChannelId) -> Result<Option<ChainChannel>, StoreError> {
        let found: Option<(Address, ChainChannel)> = self.one(CHANNELS, channel.hash().as_bytes())?;
        Ok(found.map(|(_, record)| record))
    }

    /// The claim that the newest transaction took along for a channel.
    pub(crate) fn sent_claim(&self, channel: &ChannelId) -> Result<Option<Claim>, StoreError> {
        self.one(SENT, channel.hash().as_bytes())
    }

    /// The transaction that redeemed a batch.
    pub(crate) fn batch_transaction(&self, batch: &BatchId) -> Result<Option<Hash>, StoreError> {
        self.one(BATCHES, batch.as_bytes())
    }

    /// A flight's bytes: of one attempt, or its calldata.
    pub(crate) fn raw(&self, nonce: u64, attempt: u32) -> Result<Option<Vec<u8>>, StoreError> {
        self.one(RAWS, &raw_key(nonce, attempt))
    }

    /// Flights before one, newest first.
    pub(crate) fn flights(&self, before: Option<u64>, limit: usize) -> Result<Vec<Flight>, StoreError> {
        let read = self.read()?;
        let rows = read.open_table(FLIGHTS).map_err(failed)?;
        let end = before.unwrap_or(u64::MAX).to_be_bytes();
        let mut page = Vec::new();
        for row in redb::ReadableTable::range::<&[u8]>(&rows, ..end.as_slice()).map_err(failed)?.rev().take(limit) {
            page.push(super::decode("chain_flights", row.map_err(failed)?.1.value())?);
        }
        Ok(page)
    }
}

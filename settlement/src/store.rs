//! What settlement keeps on disk, in one redb file.
//!
//! One change is one transaction, and [`Store::commit`] returns only when it is on disk. Every value is one version byte and its encoding; keys sort by time where ids
//! do. Transfers, claims and batches are only ever added.
//!
//! It does not know what the records mean, beyond handing them back.

mod chain;

use std::path::Path;

use orien_protocol::channel::ChannelId;
use orien_protocol::codec::{self, CodecError, VALUE_LIMIT_BYTES};
use orien_protocol::frame::Claim;
use orien_protocol::hash::Hash;
use orien_protocol::id::{BatchId, PayoutId};
use orien_protocol::signing::{Address, Signed};
pub(crate) use redb::StorageBackend;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::batch::{Batch, BatchEntry, BatchSummary, Payout, Settlement};
use crate::books::{BooksError, Change, Restore};
use crate::house::NetworkFacts;

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const META: Table = Table::new("meta");
const TRANSFERS: Table = Table::new("transfers");
const ACCOUNTS: Table = Table::new("accounts");
const CHANNELS: Table = Table::new("channels");
const CLAIMS: Table = Table::new("claims");
const REQUESTS: Table = Table::new("requests");
const BATCHES: Table = Table::new("batches");
const ENTRIES: Table = Table::new("entries");
const PAYOUTS: Table = Table::new("payouts");
const SETTLEMENTS: Table = Table::new("settlements");
const TABLES: [Table; 10] = [META, TRANSFERS, ACCOUNTS, CHANNELS, CLAIMS, REQUESTS, BATCHES, ENTRIES, PAYOUTS, SETTLEMENTS];

/// Key of the network's facts in `meta`.
const FACTS: &[u8] = b"facts";
/// Key of the newest batch's content id in `meta`.
const NEWEST_BATCH: &[u8] = b"newest_batch";
/// First byte of every value written today.
const VERSION: u8 = 1;
/// Page cache: settlement reads little beyond what it holds in memory.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// The store cannot be opened, read or written. After a failed write nothing more may be done with it in this process.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database failed.
    #[error("the settlement store failed: {0}")]
    Database(#[source] Box<redb::Error>),
    /// A value is not what it should be.
    #[error("the settlement store is damaged: a record in `{table}` cannot be read")]
    Damaged {
        /// In which table.
        table: String,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// A value was written by another version of the program.
    #[error("a record in `{table}` has version {found}; this program reads version {VERSION}")]
    Version {
        /// In which table.
        table: String,
        /// Its version.
        found: u8,
    },
    /// A record is too large to be kept.
    #[error("a record cannot be stored")]
    Encode(#[source] CodecError),
    /// It belongs to another network.
    #[error(
        "the settlement store belongs to network {stored} with signer {stored_signer}, not to {asked} with signer {asked_signer}: use another data directory"
    )]
    OtherNetwork {
        /// Whose it is.
        stored: String,
        /// Its signer.
        stored_signer: Address,
        /// Who asks.
        asked: String,
        /// Its signer.
        asked_signer: Address,
    },
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(Box::new(error.into()))
}

/// A batch as it is stored: its payouts are rows of their own.
pub(crate) type StoredBatch = (Signed<BatchSummary>, Vec<BatchEntry>);

/// The open file.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
}

impl Store {
    /// Opens or makes the file for one network.
    pub(crate) fn open(path: &Path, facts: &NetworkFacts) -> Result<Self, StoreError> {
        Self::with(orien_bootstrap::open_database(Database::builder().set_cache_size(CACHE_BYTES), path).map_err(failed)?, facts)
    }

    /// Opens or makes it on another storage than a file.
    pub(crate) fn over(storage: impl StorageBackend, facts: &NetworkFacts) -> Result<Self, StoreError> {
        Self::with(orien_bootstrap::open_database_over(Database::builder().set_cache_size(CACHE_BYTES), storage).map_err(failed)?, facts)
    }

    fn with(database: Database, facts: &NetworkFacts) -> Result<Self, StoreError> {
        let store = Self { database };
        let write = store.database.begin_write().map_err(failed)?;
        for table in TABLES.into_iter().chain(chain::TABLES) {
            write.open_table(table).map_err(failed)?;
        }
        let stored = get::<NetworkFacts>(&write.open_table(META).map_err(failed)?, "meta", FACTS)?;
        match stored {
            Some(stored) if stored != *facts => {
                let (stored_signer, asked_signer) = (stored.signer, facts.signer);
                return Err(StoreError::OtherNetwork {
                    stored: stored.network.to_string(),
                    stored_signer,
                    asked: facts.network.to_string(),
                    asked_signer,
                });
            }
            Some(_) => {}
            None => put(&write, META, FACTS, facts)?,
        }
        write.commit().map_err(failed)?;
        Ok(store)
    }

    /// Stores a change; it is on disk when this returns.
    pub(crate) fn commit(&self, change: &Change, newest_batch: Option<Hash>) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        for transfer in &change.transfers {
            put(&write, TRANSFERS, &transfer.id.0.to_be_bytes(), transfer)?;
        }
        for (address, record) in &change.accounts {
            put(&write, ACCOUNTS, address.as_bytes(), record)?;
        }
        for record in &change.channels {
            put(&write, CHANNELS, record.id().hash().as_bytes(), record)?;
        }
        for (channel, claim) in &change.claims {
            put(&write, CLAIMS, channel.hash().as_bytes(), claim)?;
        }
        for (key, record) in &change.requests {
            put(&write, REQUESTS, &codec::encode(key).map_err(StoreError::Encode)?, record)?;
        }
        for key in &change.forgotten {
            let key = codec::encode(key).map_err(StoreError::Encode)?;
            write.open_table(REQUESTS).map_err(failed)?.remove(key.as_slice()).map_err(failed)?;
        }
        if let Some(batch) = &change.batch {
            put_batch(&write, batch)?;
        }
        if let Some(newest) = newest_batch {
            put(&write, META, NEWEST_BATCH, &newest)?;
        }
        for payout in &change.payouts {
            put(&write, PAYOUTS, payout.id.as_bytes(), payout)?;
        }
        for settlement in &change.settlements {
            put(&write, SETTLEMENTS, &settlement_key(settlement), settlement)?;
        }
        chain::put_all(&write, &change.chain)?;
        write.commit().map_err(failed)
    }

    /// Hands everything that the books hold to `restore`.
    pub(crate) fn restore(&self, restore: &mut Restore) -> Result<(), RestoreError> {
        let read = self.read()?;
        each(&read, TRANSFERS, |_, transfer| Ok(restore.transfer(&transfer)?))?;
        each(&read, ACCOUNTS, |key, record| {
            let mut address = [0; 20];
            address.copy_from_slice(key.get(..20).unwrap_or(&[0; 20]));
            restore.account(Address::from_bytes(address), record);
            Ok(())
        })?;
        chain::restore(&read, restore)?;
        each(&read, CHANNELS, |_, record| Ok(restore.channel(&record)?))?;
        each(&read, REQUESTS, |key, record| {
            let key =
                codec::decode(key, VALUE_LIMIT_BYTES).map_err(|source| StoreError::Damaged { table: "requests".to_owned(), source })?;
            restore.request(key, record);
            Ok(())
        })?;
        each(&read, PAYOUTS, |_, payout: Payout| {
            restore.payout(&payout);
            Ok(())
        })?;
        if let Some(newest) = get::<Hash>(&read.open_table(META).map_err(failed)?, "meta", NEWEST_BATCH)? {
            restore.newest_batch(newest);
        }
        Ok(())
    }

    fn read(&self) -> Result<ReadTransaction, StoreError> {
        self.database.begin_read().map_err(failed)
    }

    fn one<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        get(&self.read()?.open_table(table).map_err(failed)?, redb::TableHandle::name(&table), key)
    }

    /// A channel's record.
    pub(crate) fn channel(&self, channel: &ChannelId) -> Result<Option<crate::books::ChannelRecord>, StoreError> {
        self.one(CHANNELS, channel.hash().as_bytes())
    }

    /// The newest claim of a channel, and its encoded size in bytes.
    pub(crate) fn claim(&self, channel: &ChannelId) -> Result<Option<(Claim, usize)>, StoreError> {
        let read = self.read()?;
        let table = read.open_table(CLAIMS).map_err(failed)?;
        let Some(value) = table.get(channel.hash().as_bytes().as_slice()).map_err(failed)? else { return Ok(None) };
        Ok(Some((decode("claims", value.value())?, value.value().len())))
    }

    /// A batch with everything in it.
    pub(crate) fn batch(&self, id: &BatchId) -> Result<Option<StoredBatch>, StoreError> {
        let read = self.read()?;
        let Some(summary) = get(&read.open_table(BATCHES).map_err(failed)?, "batches", id.as_bytes())? else { return Ok(None) };
        let table = read.open_table(ENTRIES).map_err(failed)?;
        let (first, last) = (entry_key(id, 0), entry_key(id, u32::MAX));
        let mut entries = Vec::new();
        for row in table.range(first.as_slice()..=last.as_slice()).map_err(failed)? {
            entries.push(decode("entries", row.map_err(failed)?.1.value())?);
        }
        Ok(Some((summary, entries)))
    }

    /// Batches after one, oldest first.
    pub(crate) fn batches(&self, after: Option<&BatchId>, limit: usize) -> Result<Vec<Signed<BatchSummary>>, StoreError> {
        self.page(BATCHES, after.map(BatchId::as_bytes).map(<[u8; 16]>::as_slice), limit)
    }

    /// Payouts after one, oldest first.
    pub(crate) fn payouts(&self, after: Option<&PayoutId>, limit: usize) -> Result<Vec<Payout>, StoreError> {
        self.page(PAYOUTS, after.map(PayoutId::as_bytes).map(<[u8; 16]>::as_slice), limit)
    }

    /// A payout.
    pub(crate) fn payout(&self, id: &PayoutId) -> Result<Option<Payout>, StoreError> {
        self.one(PAYOUTS, id.as_bytes())
    }

    /// Settled sessions after a key from [`settlement_key`], oldest session first.
    pub(crate) fn settlements(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Settlement>, StoreError> {
        self.page(SETTLEMENTS, after, limit)
    }

    fn page<T: DeserializeOwned>(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<T>, StoreError> {
        let read = self.read()?;
        let rows = read.open_table(table).map_err(failed)?;
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut page = Vec::new();
        for row in rows.range::<&[u8]>((from, std::ops::Bound::Unbounded)).map_err(failed)?.take(limit) {
            page.push(decode(redb::TableHandle::name(&table), row.map_err(failed)?.1.value())?);
        }
        Ok(page)
    }
}

/// Books cannot be built out of the store.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It contradicts itself.
    #[error(transparent)]
    Books(#[from] BooksError),
}

/// Sorts by session, then channel: two agents may use the same session id.
pub(crate) fn settlement_key(settlement: &Settlement) -> [u8; 48] {
    let mut key = [0; 48];
    key[..16].copy_from_slice(settlement.session.as_bytes());
    key[16..].copy_from_slice(settlement.channel.hash().as_bytes());
    key
}

fn entry_key(batch: &BatchId, index: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(batch.as_bytes());
    key[16..].copy_from_slice(&index.to_be_bytes());
    key
}

fn put_batch(write: &WriteTransaction, batch: &Batch) -> Result<(), StoreError> {
    let id = batch.summary.unverified().id;
    put(write, BATCHES, id.as_bytes(), &batch.summary)?;
    for (index, entry) in (0_u32..).zip(&batch.entries) {
        put(write, ENTRIES, &entry_key(&id, index), entry)?;
    }
    Ok(())
}

fn put(write: &WriteTransaction, table: Table, key: &[u8], value: &impl Serialize) -> Result<(), StoreError> {
    let mut bytes = vec![VERSION];
    bytes.extend(codec::encode(value).map_err(StoreError::Encode)?);
    write.open_table(table).map_err(failed)?.insert(key, bytes.as_slice()).map_err(failed)?;
    Ok(())
}

fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    name: &str,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    let Some(value) = table.get(key).map_err(failed)? else { return Ok(None) };
    decode(name, value.value()).map(Some)
}

fn each<T: DeserializeOwned>(
    read: &ReadTransaction,
    table: Table,
    mut take: impl FnMut(&[u8], T) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let name = redb::TableHandle::name(&table).to_owned();
    let rows = read.open_table(table).map_err(failed)?;
    for row in rows.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        take(key.value(), decode(&name, value.value())?)?;
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(table: &str, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&VERSION, value)) => {
            codec::decode(value, VALUE_LIMIT_BYTES).map_err(|source| StoreError::Damaged { table: table.to_owned(), source })
        }
        found => Err(StoreError::Version { table: table.to_owned(), found: found.map_or(0, |(version, _)| *version) }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use orien_protocol::money::Usdc;
    use orien_protocol::signing::{MoneyDomain, MoneyKey, PeerKey};
    use orien_protocol::time::{Millis, Timestamp};
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::books::Grant;
    use crate::desk::{Desk, DeskError};
    use crate::house::House;
    use crate::rail::LedgerRail;

    /// A disk that can be made to fail.
    #[derive(Debug)]
    struct Disk {
        memory: InMemoryBackend,
        broken: Arc<AtomicBool>,
    }

    impl Disk {
        fn works(&self) -> Result<(), std::io::Error> {
            if self.broken.load(Ordering::Relaxed) { Err(std::io::Error::other("the disk is broken")) } else { Ok(()) }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> Result<u64, std::io::Error> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
            self.memory.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
            self.works()?;
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> Result<(), std::io::Error> {
            self.works()?;
            self.memory.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            self.works()?;
            self.memory.write(offset, data)
        }
    }

    fn house() -> House {
        let signer = Arc::new(MoneyKey::from_bytes(&[7; 32]).unwrap());
        let domain = MoneyDomain::ledger("test-net", &signer.address());
        House::new("test-net".parse().unwrap(), domain, signer, Arc::new(PeerKey::from_seed(&[7; 32])), Millis(0), Millis(0))
    }

    #[test]
    fn a_failed_write_is_not_answered_and_shuts_the_desk_for_good() {
        let (house, broken) = (house(), Arc::new(AtomicBool::new(false)));
        let disk = Disk { memory: InMemoryBackend::new(), broken: Arc::clone(&broken) };
        let desk = Desk::over(disk, Arc::new(house), Arc::new(LedgerRail)).unwrap();
        let (account, now) = (Address::from_bytes([1; 20]), Timestamp(1));
        let grant = |key: &str| desk.grant(key, &Grant::of(account, Usdc::from_micros(5)), now);
        assert_eq!(grant("one").unwrap().funded, Usdc::from_micros(5));
        broken.store(true, Ordering::Relaxed);
        assert!(matches!(grant("two"), Err(DeskError::Shut(_))));
        assert!(desk.failed().is_cancelled());
        broken.store(false, Ordering::Relaxed);
        assert!(matches!(grant("two"), Err(DeskError::Shut(_))));
        assert!(matches!(desk.funds(&account), Err(DeskError::Shut(_))));
    }

    #[test]
    fn a_value_of_another_version_or_with_wrong_bytes_is_refused_not_guessed() {
        assert!(matches!(decode::<u64>("t", &[2, 0, 0, 0, 0, 0, 0, 0, 0]), Err(StoreError::Version { found: 2, .. })));
        assert!(matches!(decode::<u64>("t", &[]), Err(StoreError::Version { found: 0, .. })));
        assert!(matches!(decode::<u64>("t", &[1, 0, 0]), Err(StoreError::Damaged { .. })));
        assert_eq!(decode::<u64>("t", &[1, 5, 0, 0, 0, 0, 0, 0, 0]).unwrap(), 5);
    }
}

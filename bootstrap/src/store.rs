//! The catalogue on disk, and the version of our own offer.
//!
//! Always true: a record carries its layout version in its first byte; what comes back has been verified anew, because a file is no proof. The catalogue
//! is a copy of what the network says, so a record that cannot be read is dropped; the database itself being unusable is an error.

#[cfg(any(test, feature = "faulty-store"))]
pub(crate) mod faulty;
pub(crate) mod making;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use orien_protocol::codec;
use orien_protocol::network::NetworkId;
use orien_protocol::offer::{OFFER_LIMIT_BYTES, Offer};
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Signed, Verified};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use thiserror::Error;

const OFFERS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("offers");

const OWN: TableDefinition<'_, &str, u64> = TableDefinition::new("own");

/// Key in [`OWN`]: the last version that our own offer was or was about to be published under.
const OWN_VERSION: &str = "version";

/// Layout of the records in [`OFFERS`].
const RECORD_VERSION: u8 = 1;

/// Page cache of the database; the catalogue is in memory anyway.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The store of the catalogue cannot be used. What it was about to keep is not kept; the process should stop.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database or the disk refused.
    #[error("the catalogue store {}: {source}", path.display())]
    Failed {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: Box<redb::Error>,
    },
    /// A write did not come to its end.
    #[error("a write to the catalogue store was interrupted: {0}")]
    Interrupted(String),
}

impl StoreError {
    fn failed(path: &Path) -> impl Fn(redb::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Failed { path: path.clone(), source: Box::new(source) }
    }

    pub(crate) fn interrupted(reason: &dyn std::fmt::Display) -> Self {
        Self::Interrupted(reason.to_string())
    }
}

/// A change of one provider's record.
#[derive(Debug)]
pub(crate) enum Change {
    /// This is its offer now.
    Put(Arc<Verified<Offer>>),
    /// It has none any more.
    Remove(PeerId),
}

/// What was on disk at the start.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) offers: Vec<Arc<Verified<Offer>>>,
    pub(crate) own_version: u64,
}

/// The database.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    path: PathBuf,
}

impl Store {
    /// Opens or makes the database.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        // A damaged file is then an error at the start and not a panic later.
        builder.set_check_integrity_on_open(true);
        let database = making::open_database(&builder, path).map_err(|error| StoreError::failed(path)(error.into()))?;
        let store = Self { database, path: path.to_owned() };
        store.attempt(|database| {
            let write = database.begin_write()?;
            write.open_table(OFFERS)?;
            write.open_table(OWN)?;
            Ok(write.commit()?)
        })?;
        Ok(store)
    }

    /// Reads and verifies everything; what is unreadable or forged is removed.
    pub(crate) fn load(&self, network: &NetworkId) -> Result<Loaded, StoreError> {
        let (offers, bad, own_version) = self.attempt(|database| {
            let read = database.begin_read()?;
            let (mut offers, mut bad) = (Vec::new(), Vec::new());
            for row in read.open_table(OFFERS)?.iter()? {
                let (id, record) = row?;
                let provider = PeerId::from_bytes(*id.value());
                match decode(record.value(), &provider, network) {
                    Some(offer) => offers.push(Arc::new(offer)),
                    None => bad.push(Change::Remove(provider)),
                }
            }
            let own_version = read.open_table(OWN)?.get(OWN_VERSION)?.map_or(0, |version| version.value());
            Ok((offers, bad, own_version))
        })?;
        if !bad.is_empty() {
            tracing::warn!(dropped = bad.len(), path = %self.path.display(), "records of the catalogue could not be used");
            self.apply(&bad)?;
        }
        Ok(Loaded { offers, own_version })
    }

    /// Carries out all changes, or none; they are on disk when this returns.
    pub(crate) fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.attempt(|database| {
            let write = database.begin_write()?;
            {
                let mut table = write.open_table(OFFERS)?;
                for change in changes {
                    match change {
                        Change::Put(offer) => match encode(offer) {
                            Some(record) => drop(table.insert(offer.provider.as_bytes(), record.as_slice())?),
                            None => tracing::warn!(provider = %offer.provider, "an offer cannot be encoded and is not kept"),
                        },
                        Change::Remove(provider) => drop(table.remove(provider.as_bytes())?),
                    }
                }
            }
            Ok(write.commit()?)
        })
    }

    /// Keeps the version of our own offer; it is on disk when this returns.
    pub(crate) fn set_own_version(&self, version: u64) -> Result<(), StoreError> {
        self.attempt(|database| {
            let write = database.begin_write()?;
            write.open_table(OWN)?.insert(OWN_VERSION, version)?;
            Ok(write.commit()?)
        })
    }

    fn attempt<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        work(&self.database).map_err(StoreError::failed(&self.path))
    }
}

fn encode(offer: &Verified<Offer>) -> Option<Vec<u8>> {
    let body = codec::encode(offer.signed()).ok()?;
    let mut record = Vec::with_capacity(body.len().saturating_add(1));
    record.push(RECORD_VERSION);
    record.extend_from_slice(&body);
    Some(record)
}

fn decode(record: &[u8], provider: &PeerId, network: &NetworkId) -> Option<Verified<Offer>> {
    let (&version, body) = record.split_first()?;
    if version != RECORD_VERSION {
        return None;
    }
    let signed: Signed<Offer> = codec::decode(body, OFFER_LIMIT_BYTES).ok()?;
    let offer = signed.verify(network, provider).ok()?;
    (offer.provider == *provider).then_some(offer)
}

#[cfg(test)]
mod tests {
    use orien_protocol::signing::PeerKey;
    use orien_protocol::time::Timestamp;

    use super::*;
    use crate::sample::{network, offer};

    fn signed(seed: u8) -> Arc<Verified<Offer>> {
        let key = PeerKey::from_seed(&[seed; 32]);
        Arc::new(Verified::sign(offer(key.id(), 1, Timestamp(1), Timestamp(2)), network().id(), &key))
    }

    #[test]
    fn offers_and_own_version_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue.redb");
        let store = Store::open(&path).unwrap();
        store.apply(&[Change::Put(signed(1)), Change::Put(signed(2)), Change::Remove(signed(2).provider)]).unwrap();
        store.set_own_version(77).unwrap();
        drop(store);
        let loaded = Store::open(&path).unwrap().load(network().id()).unwrap();
        assert_eq!(loaded.offers, [signed(1)]);
        assert_eq!(loaded.own_version, 77);
    }

    #[test]
    fn unreadable_forged_and_foreign_records_are_dropped_for_good() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("catalogue.redb")).unwrap();
        store.apply(&[Change::Put(signed(1))]).unwrap();
        let good = encode(&signed(2)).unwrap();
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        let mut newer = good.clone();
        newer[0] = 9;
        let write = store.database.begin_write().unwrap();
        {
            let mut table = write.open_table(OFFERS).unwrap();
            for (id, record) in [(3, vec![]), (4, forged), (5, newer), (6, good), (7, vec![1, 255, 255])] {
                table.insert(&[id; 32], record.as_slice()).unwrap();
            }
        }
        write.commit().unwrap();
        assert_eq!(store.load(network().id()).unwrap().offers, [signed(1)]);
        let read = store.database.begin_read().unwrap();
        assert_eq!(read.open_table(OFFERS).unwrap().iter().unwrap().count(), 1);
        let other = "other-net".parse().unwrap();
        assert!(store.load(&other).unwrap().offers.is_empty());
    }

    #[test]
    fn a_damaged_database_is_an_error_or_lost_records_but_never_a_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue.redb");
        let store = Store::open(&path).unwrap();
        store.apply(&(1..=50).map(|seed| Change::Put(signed(seed))).collect::<Vec<_>>()).unwrap();
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        for place in (0..whole.len()).step_by(whole.len() / 97) {
            let mut damaged = whole.clone();
            let end = damaged.len().min(place + 512);
            damaged[place..end].fill(0xa5);
            std::fs::write(&path, damaged).unwrap();
            if let Ok(store) = Store::open(&path) {
                let _ = store.load(network().id());
            }
        }
    }

    #[test]
    fn a_file_that_is_no_database_is_a_clear_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue.redb");
        std::fs::write(&path, "not a database at all, but long enough to be looked at").unwrap();
        assert!(Store::open(&path).unwrap_err().to_string().contains("catalogue.redb"));
    }
}

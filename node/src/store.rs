//! What a provider keeps: every session's records in the order they happened, and what settlement said of each.
//!
//! Always true: an append is one durable transaction, and whoever awaits it is told only after the commit. Balances are not stored; they are folded from the
//! records, see [`Summary`]. A record of an unknown version is an error and nothing is skipped.
//!
//! It does not know what a record means for the session; it never checks a signature.

mod outbox;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use orien_bootstrap::brief;
use orien_protocol::codec::{self, CodecError, VALUE_LIMIT_BYTES};
use orien_protocol::frame::ChannelState;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::receipt::Receipt;
use orien_protocol::session::provider::ProviderRecord;
use orien_protocol::signing::{Address, Signed};
use orien_protocol::time::{Timestamp, UnixSeconds};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use summary::Summary;

/// Session and position to version and record. Positions grow from 0 without gaps.
const RECORDS: TableDefinition<'_, (&[u8; 16], u64), &[u8]> = TableDefinition::new("records");
/// Session to version and [`Handed`].
const HANDED: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("handed_in");
/// Session that will never be opened to the second until which a close of it means something.
const GIVEN_UP: TableDefinition<'_, &[u8; 16], u64> = TableDefinition::new("given_up");
/// Account to what it had redeemed, in micro-USDC, in sessions that are not kept any more.
const HISTORY: TableDefinition<'_, &[u8; 20], u64> = TableDefinition::new("history");
/// Name to number.
const STATS: TableDefinition<'_, &str, u64> = TableDefinition::new("stats");

const SESSIONS_TOTAL: &str = "sessions_total";
const SESSIONS_COMPLETED: &str = "sessions_completed";
const FIRST_START_MS: &str = "first_start_ms";
const RAN_MS: &str = "ran_ms";

/// The layout of every stored value.
const VERSION: u8 = 1;

/// Why something was not written or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("the store {path} cannot be opened: {reason}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// The database failed. What was asked did not happen, or it is not known whether it did: the process has to end.
    #[error("the store failed: {0}")]
    Database(#[source] Box<redb::Error>),
    /// A stored value is not what it should be.
    #[error("the store holds a value that cannot be read: {0}")]
    Value(#[from] CodecError),
    /// A stored value is of a later version of this program.
    #[error("the store holds a value of version {0}; this program knows version {VERSION}")]
    Version(u8),
    /// The thread that was to do it is gone.
    #[error("the store was stopped in mid-work")]
    Interrupted,
}

macro_rules! from_database {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}

from_database!(redb::DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// What settlement said of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Handed {
    /// The channel, when it was last heard of.
    pub state: ChannelState,
    /// Whether settlement has taken the claim with the close.
    pub close_taken: bool,
}

/// The provider's own past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Past {
    /// Sessions that ever opened.
    pub sessions_total: u64,
    /// Of these, ended without a fault of ours.
    pub sessions_completed: u64,
    /// When the provider first started.
    pub first_start: Timestamp,
    /// Milliseconds that it ran since then.
    pub ran_ms: u64,
}

/// One page of receipts.
#[derive(Debug, Default)]
pub struct ReceiptPage {
    /// In order of number.
    pub receipts: Vec<Signed<Receipt>>,
    /// Where the next page begins; none after the last.
    pub next: Option<u64>,
}

/// Receipts of one page: below a megabyte in memory.
const PAGE_RECEIPTS: usize = 256;

/// The store of one provider. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    database: Arc<Database>,
}

impl Store {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let refused = |error: &dyn std::fmt::Display| StoreError::Open { path: path.to_owned(), reason: error.to_string() };
        Self::with(orien_bootstrap::open_database(&Database::builder(), path).map_err(|error| refused(&error))?)
    }

    /// Opens or makes it on another storage than a file.
    pub fn over(storage: impl StorageBackend) -> Result<Self, StoreError> {
        Self::with(orien_bootstrap::open_database_over(&Database::builder(), storage)?)
    }

    fn with(database: Database) -> Result<Self, StoreError> {
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(HANDED)?;
        transaction.open_table(GIVEN_UP)?;
        transaction.open_table(HISTORY)?;
        transaction.open_table(STATS)?;
        transaction.open_table(outbox::OUTBOX)?;
        transaction.commit()?;
        Ok(Self { database: Arc::new(database) })
    }

    /// Writes records behind those that a session has, all or none. They are on disk when this returns. A session that is given up has no records, only a row of its own: that
    /// is all that anybody can ask about it.
    pub async fn append(&self, session: SessionId, records: Vec<ProviderRecord>) -> Result<(), StoreError> {
        self.write(move |transaction| append(transaction, session, &records)).await
    }

    /// Lets `fold` read a session's records in order. They are read one by one as it asks for them.
    pub async fn read<T, F>(&self, session: SessionId, fold: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Iterator<Item = ProviderRecord>) -> T + Send + 'static,
    {
        self.view(move |transaction| {
            let mut failed = None;
            let table = transaction.open_table(RECORDS)?;
            let range = table.range((session.as_bytes(), 0)..=(session.as_bytes(), u64::MAX))?;
            let folded = fold(&mut range.map_while(|row| row_value(row).map_err(|error| failed = Some(error)).ok()));
            failed.map_or(Ok(folded), Err)
        })
        .await
    }

    /// Whether a session id was used: it has records, or was given up.
    pub async fn is_used(&self, session: SessionId) -> Result<bool, StoreError> {
        self.view(move |transaction| {
            let given_up = transaction.open_table(GIVEN_UP)?.get(session.as_bytes())?.is_some();
            let records = transaction.open_table(RECORDS)?;
            let first = records.range((session.as_bytes(), 0)..=(session.as_bytes(), u64::MAX))?.next().transpose()?;
            Ok(given_up || first.is_some())
        })
        .await
    }

    /// Whether a session was given up, and how many are.
    pub async fn given_up(&self, session: SessionId) -> Result<(bool, u64), StoreError> {
        self.view(move |transaction| {
            let table = transaction.open_table(GIVEN_UP)?;
            Ok((table.get(session.as_bytes())?.is_some(), table.len()?))
        })
        .await
    }

    /// Forgets sessions that were given up and whose closes mean nothing since before `end`.
    pub async fn forget_given_up(&self, end: UnixSeconds) -> Result<(), StoreError> {
        self.write(move |transaction| Ok(transaction.open_table(GIVEN_UP)?.retain(|_, redeem_until| redeem_until >= end.0)?)).await
    }

    /// What a session's records add up to; none when there are none.
    pub async fn summary(&self, session: SessionId) -> Result<Option<Summary>, StoreError> {
        self.read(session, |records| Summary::fold(records)).await
    }

    /// Receipts with a higher number than `after`, found from position `from` on.
    pub async fn receipts_after(&self, session: SessionId, after: u64, from: u64) -> Result<ReceiptPage, StoreError> {
        self.view(move |transaction| {
            let table = transaction.open_table(RECORDS)?;
            let mut page = ReceiptPage::default();
            for row in table.range((session.as_bytes(), from)..=(session.as_bytes(), u64::MAX))? {
                let (key, value) = row?;
                if page.receipts.len() >= PAGE_RECEIPTS {
                    page.next = Some(key.value().1);
                    break;
                }
                if let ProviderRecord::Receipt(receipt) = decode(value.value())?
                    && receipt.unverified().number > after
                {
                    page.receipts.push(receipt);
                }
            }
            Ok(page)
        })
        .await
    }

    /// Every session that has records.
    pub async fn sessions(&self) -> Result<Vec<SessionId>, StoreError> {
        self.view(|transaction| {
            let table = transaction.open_table(RECORDS)?;
            let (mut sessions, mut from) = (Vec::new(), [0; 16]);
            loop {
                let Some(row) = table.range((&from, 0)..)?.next() else { return Ok(sessions) };
                let session = *row?.0.value().0;
                sessions.push(SessionId::from_bytes(session));
                match u128::from_be_bytes(session).checked_add(1) {
                    Some(next) => from = next.to_be_bytes(),
                    None => return Ok(sessions),
                }
            }
        })
        .await
    }

    /// What settlement said of a session; nothing yet is all zero.
    pub async fn handed(&self, session: SessionId) -> Result<Handed, StoreError> {
        self.view(move |transaction| {
            let table = transaction.open_table(HANDED)?;
            let value = table.get(session.as_bytes())?;
            value.map_or(Ok(Handed::default()), |value| decode(value.value()))
        })
        .await
    }

    /// Notes what settlement, or the chain, said of a session. What was redeemed never falls.
    pub async fn note_handed(&self, session: SessionId, handed: Handed) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(HANDED)?;
            let before: Handed = match table.get(session.as_bytes())? {
                Some(value) => decode(value.value())?,
                None => Handed::default(),
            };
            let redeemed = before.state.redeemed.max(handed.state.redeemed);
            let closed = before.state.closed || handed.state.closed;
            let state = ChannelState { redeemed, closed, ..handed.state };
            let merged = Handed { state, close_taken: before.close_taken || handed.close_taken };
            table.insert(session.as_bytes(), encode(&merged)?.as_slice())?;
            Ok(())
        })
        .await
    }

    /// Forgets a session; what its account had redeemed in it stays as history.
    pub async fn forget(&self, session: SessionId, account: Address) -> Result<(), StoreError> {
        self.write(move |transaction| {
            transaction.open_table(RECORDS)?.retain_in((session.as_bytes(), 0)..=(session.as_bytes(), u64::MAX), |_, _| false)?;
            let mut handed = transaction.open_table(HANDED)?;
            let redeemed = match handed.remove(session.as_bytes())? {
                Some(value) => decode::<Handed>(value.value())?.state.redeemed,
                None => Usdc::ZERO,
            };
            if redeemed > Usdc::ZERO {
                let mut history = transaction.open_table(HISTORY)?;
                let before = history.get(account.as_bytes())?.map_or(0, |value| value.value());
                history.insert(account.as_bytes(), before.saturating_add(redeemed.micros()))?;
            }
            Ok(())
        })
        .await
    }

    /// What each account had redeemed in sessions that are forgotten.
    pub async fn history(&self) -> Result<Vec<(Address, Usdc)>, StoreError> {
        self.view(|transaction| {
            let table = transaction.open_table(HISTORY)?;
            let rows = table.iter()?.map(|row| {
                let (key, value) = row?;
                Ok((Address::from_bytes(*key.value()), Usdc::from_micros(value.value())))
            });
            rows.collect()
        })
        .await
    }

    /// Notes that the provider ran for so long since the last note, and when it first did.
    pub async fn note_running(&self, now: Timestamp, ran_ms: u64) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(STATS)?;
            if table.get(FIRST_START_MS)?.is_none() {
                table.insert(FIRST_START_MS, now.0)?;
            }
            add(&mut table, RAN_MS, ran_ms)
        })
        .await
    }

    /// The provider's own past.
    pub async fn past(&self) -> Result<Past, StoreError> {
        self.view(|transaction| {
            let table = transaction.open_table(STATS)?;
            let number = |name: &str| Ok::<_, StoreError>(table.get(name)?.map_or(0, |value| value.value()));
            Ok(Past {
                sessions_total: number(SESSIONS_TOTAL)?,
                sessions_completed: number(SESSIONS_COMPLETED)?,
                first_start: Timestamp(number(FIRST_START_MS)?),
                ran_ms: number(RAN_MS)?,
            })
        })
        .await
    }

    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    {
        let database = Arc::clone(&self.database);
        let done = brief(move || {
            let transaction = database.begin_write()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        });
        done.await.map_err(|_| StoreError::Interrupted)?
    }

    async fn view<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    {
        let database = Arc::clone(&self.database);
        let done = brief(move || work(&database.begin_read()?));
        done.await.map_err(|_| StoreError::Interrupted)?
    }
}

fn append(transaction: &WriteTransaction, session: SessionId, records: &[ProviderRecord]) -> Result<(), StoreError> {
    let mut table = transaction.open_table(RECORDS)?;
    let all = (session.as_bytes(), 0)..=(session.as_bytes(), u64::MAX);
    let last = table.range(all.clone())?.next_back().transpose()?.map(|(key, _)| key.value().1);
    let mut next = last.map_or(0, |last| last.saturating_add(1));
    let mut stats = transaction.open_table(STATS)?;
    for record in records {
        match record {
            ProviderRecord::GivenUp { redeem_until } => {
                transaction.open_table(GIVEN_UP)?.insert(session.as_bytes(), redeem_until.0)?;
                continue;
            }
            // The first voucher answers receipt 1, and nothing else does.
            ProviderRecord::Voucher(voucher) if voucher.unverified().receipt_number == 1 => add(&mut stats, SESSIONS_TOTAL, 1)?,
            ProviderRecord::Closed { reason, .. } if summary::is_without_fault(*reason) => {
                let before: Result<Vec<_>, _> = table.range(all.clone())?.map(row_value).collect();
                let summary = Summary::fold(&mut before?.into_iter());
                if summary.is_some_and(|summary| summary.has_opened() && summary.closed.is_none()) {
                    add(&mut stats, SESSIONS_COMPLETED, 1)?;
                }
            }
            _ => {}
        }
        table.insert((session.as_bytes(), next), encode(record)?.as_slice())?;
        next = next.saturating_add(1);
    }
    Ok(())
}

fn add(table: &mut redb::Table<'_, &'static str, u64>, name: &'static str, more: u64) -> Result<(), StoreError> {
    let before = table.get(name)?.map_or(0, |value| value.value());
    table.insert(name, before.saturating_add(more))?;
    Ok(())
}

type Row<'a> = Result<(redb::AccessGuard<'a, (&'static [u8; 16], u64)>, redb::AccessGuard<'a, &'static [u8]>), redb::StorageError>;

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    bytes.extend(codec::encode(value)?);
    Ok(bytes)
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => Ok(codec::decode(body, VALUE_LIMIT_BYTES)?),
        Some((&other, _)) => Err(StoreError::Version(other)),
        None => Err(StoreError::Version(0)),
    }
}

fn row_value(row: Row<'_>) -> Result<ProviderRecord, StoreError> {
    decode(row?.1.value())
}

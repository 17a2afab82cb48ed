//! The gateway's memory on disk: records of session machines, and the rows of [`crate::rows`].
//!
//! Always true: [`Store::write`] returns when everything it was given is durable, all of it or nothing; writes that come at the same time share one commit. After one failed commit every
//! later write fails too, because what is on disk is then unknown: the process has to stop.
//!
//! It does not know what a record means.

mod writer;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use orien_bootstrap::brief;
use orien_protocol::codec::{self, CodecError, VALUE_LIMIT_BYTES};
use orien_protocol::id::{ExecutionId, RequestId, SessionId};
use orien_protocol::money::Usdc;
use orien_protocol::session::agent::AgentRecord;
use orien_protocol::time::UnixSeconds;
pub(crate) use redb::StorageBackend;
use redb::{Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::experience::Measures;
use crate::plan::{Handover, Plan, Stage};
use crate::rows::{ExecutionRow, KeyRow, OutputTail, SessionFacts, SessionRow};
use writer::Writer;

type Id = [u8; 16];

const RECORDS: TableDefinition<'_, (&Id, u64), &[u8]> = TableDefinition::new("records");
const SESSIONS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("sessions");
const EXECUTIONS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("executions");
const SESSION_EXECUTIONS: TableDefinition<'_, (&Id, &Id), ()> = TableDefinition::new("session_executions");
const OUTPUTS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("outputs");
const KEYS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("idempotency");
const RESERVATIONS: TableDefinition<'_, (&Id, u64), &Id> = TableDefinition::new("reservations");
/// Sessions that are over and may still have something reserved.
const RELEASES: TableDefinition<'_, &Id, ()> = TableDefinition::new("releases");

/// What sessions that are over show about their providers.
const MEASURES: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("measures");

/// What is wanted of a session, and what was decided about it.
const PLANS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("plans");
/// Sessions that go on elsewhere.
const HANDOVERS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("handovers");

/// Which token opened a session; the owner's are not in it.
const OPENERS: TableDefinition<'_, &Id, &str> = TableDefinition::new("openers");

/// First byte of every stored value: the layout of what follows.
const VERSION: u8 = 1;
/// Why something could not be read or written. After a failed write the process has to stop.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("cannot open the store {path}: {reason}")]
    Open {
        /// Which file.
        path: String,
        /// What the database says.
        reason: String,
    },
    /// A commit failed, now or earlier.
    #[error("the store cannot be written: {0}")]
    Write(String),
    /// A read failed.
    #[error("the store cannot be read: {0}")]
    Read(String),
    /// A value on disk is not what it should be, or one to be written is too large.
    #[error("a stored {table} entry is unusable: {reason}")]
    Value {
        /// In which table.
        table: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// One change. A list of them is written as a whole.
#[derive(Debug)]
pub(crate) struct Put(Change);

#[derive(Debug)]
enum Change {
    Record { session: Id, seq: u64, value: Vec<u8> },
    Session { session: Id, value: Vec<u8> },
    Execution { execution: Id, session: Id, value: Vec<u8> },
    Output { execution: Id, value: Vec<u8> },
    Key { key: Vec<u8>, value: Vec<u8> },
    ForgetKey { key: Vec<u8> },
    ForgetKeysBefore { now: UnixSeconds },
    Reservation { session: Id, ceiling: u64, request: Id },
    Release { session: Id, is_owed: bool },
    Measures { session: Id, value: Vec<u8> },
    Plan { session: Id, value: Vec<u8> },
    Opener { session: Id, token: String },
    Handover { session: Id, value: Vec<u8> },
}

impl Put {
    /// The next record of a session.
    pub(crate) fn record(session: &SessionId, seq: u64, record: &AgentRecord) -> Result<Self, StoreError> {
        Ok(Self(Change::Record { session: *session.as_bytes(), seq, value: pack("record", record)? }))
    }

    /// What a session is about.
    pub(crate) fn session(session: &SessionId, facts: &SessionFacts) -> Result<Self, StoreError> {
        Ok(Self(Change::Session { session: *session.as_bytes(), value: pack("session", facts)? }))
    }

    /// What a session that is over shows about its provider.
    pub(crate) fn measures(session: &SessionId, measures: &Measures) -> Result<Self, StoreError> {
        Ok(Self(Change::Measures { session: *session.as_bytes(), value: pack("measures", measures)? }))
    }

    /// What is wanted of a session, and what was decided about it.
    pub(crate) fn plan(session: &SessionId, plan: &Plan) -> Result<Self, StoreError> {
        Ok(Self(Change::Plan { session: *session.as_bytes(), value: pack("plan", plan)? }))
    }

    /// That a session goes on elsewhere, and how far that is.
    pub(crate) fn handover(session: &SessionId, handover: &Handover) -> Result<Self, StoreError> {
        Ok(Self(Change::Handover { session: *session.as_bytes(), value: pack("handover", handover)? }))
    }

    /// Which token opens a session.
    pub(crate) fn opener(session: &SessionId, token: &str) -> Self {
        Self(Change::Opener { session: *session.as_bytes(), token: token.to_owned() })
    }

    /// A run.
    pub(crate) fn execution(execution: &ExecutionId, row: &ExecutionRow) -> Result<Self, StoreError> {
        let value = pack("execution", row)?;
        Ok(Self(Change::Execution { execution: *execution.as_bytes(), session: *row.session.as_bytes(), value }))
    }

    /// The end of a run's output.
    pub(crate) fn output(execution: &ExecutionId, tail: &OutputTail) -> Result<Self, StoreError> {
        Ok(Self(Change::Output { execution: *execution.as_bytes(), value: pack("output", tail)? }))
    }

    /// A request and its answer.
    pub(crate) fn key(key: &[u8], row: &KeyRow) -> Result<Self, StoreError> {
        Ok(Self(Change::Key { key: key.to_vec(), value: pack("idempotency", row)? }))
    }

    /// A request that did nothing and may be made again.
    pub(crate) fn forget_key(key: &[u8]) -> Self {
        Self(Change::ForgetKey { key: key.to_vec() })
    }

    /// Requests whose time is over.
    pub(crate) const fn forget_keys_before(now: UnixSeconds) -> Self {
        Self(Change::ForgetKeysBefore { now })
    }

    /// Under which id settlement is asked for a ceiling.
    pub(crate) const fn reservation(session: &SessionId, ceiling: Usdc, request: &RequestId) -> Self {
        Self(Change::Reservation { session: *session.as_bytes(), ceiling: ceiling.micros(), request: *request.as_bytes() })
    }

    /// Whether what a session that is over has reserved is still to be given back.
    pub(crate) const fn release(session: &SessionId, is_owed: bool) -> Self {
        Self(Change::Release { session: *session.as_bytes(), is_owed })
    }
}

/// A handle on the store; the last one to go waits for the writer.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Arc<Database>,
    writer: Writer,
}

impl Store {
    /// Opens the store, or makes it. `broken` is cancelled when it cannot be written any more.
    pub(crate) fn open(path: &Path, broken: CancellationToken) -> Result<Self, StoreError> {
        Self::with(&path.display(), orien_bootstrap::open_database(&Database::builder(), path), broken)
    }

    /// The same on another storage than a file.
    pub(crate) fn over(storage: impl StorageBackend, broken: CancellationToken) -> Result<Self, StoreError> {
        Self::with(&"that is no file", orien_bootstrap::open_database_over(&Database::builder(), storage), broken)
    }

    fn with(path: &dyn Display, database: Result<Database, DatabaseError>, broken: CancellationToken) -> Result<Self, StoreError> {
        let refused = |reason: String| StoreError::Open { path: path.to_string(), reason };
        let database = Arc::new(database.map_err(|error| refused(error.to_string()))?);
        make_tables(&database).map_err(|error| refused(error.to_string()))?;
        let writer = Writer::start(Arc::clone(&database), broken).map_err(|error| refused(error.to_string()))?;
        Ok(Self(Arc::new(Inner { database, writer })))
    }

    /// Why nothing can be written any more, if that is so.
    pub(crate) fn failure(&self) -> Option<StoreError> {
        self.0.writer.failure()
    }

    /// Makes changes durable, all or none.
    pub(crate) async fn write(&self, puts: Vec<Put>) -> Result<(), StoreError> {
        self.0.writer.write(puts).await
    }

    /// Every session before one, newest first, that `take` wants; stops at `limit`.
    pub(crate) async fn sessions(
        &self,
        before: Option<SessionId>,
        limit: usize,
        take: impl Fn(&SessionId, &SessionRow) -> bool + Send + 'static,
    ) -> Result<Vec<(SessionId, SessionRow)>, StoreError> {
        self.read(move |read| {
            let mut found = Vec::new();
            let tables = SessionTables::open(read)?;
            let range = match &before {
                Some(before) => tables.sessions.range::<&Id>(..before.as_bytes())?,
                None => tables.sessions.iter()?,
            };
            for entry in range.rev() {
                let (key, value) = entry?;
                let (session, row) = (SessionId::from_bytes(*key.value()), tables.row(key.value(), value.value())?);
                if found.len() < limit && take(&session, &row) {
                    found.push((session, row));
                }
                if found.len() >= limit {
                    break;
                }
            }
            Ok(found)
        })
        .await
    }

    /// Folds every session and what it shows about its provider, the oldest first.
    pub(crate) async fn fold_sessions<T: Send + 'static>(
        &self,
        from: T,
        fold: impl Fn(&mut T, SessionId, SessionRow, Measures) + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read(move |read| {
            let (tables, measures, mut folded) = (SessionTables::open(read)?, read.open_table(MEASURES)?, from);
            for entry in tables.sessions.iter()? {
                let (key, value) = entry?;
                let shown = get(&measures, "measures", key.value())?.unwrap_or_default();
                fold(&mut folded, SessionId::from_bytes(*key.value()), tables.row(key.value(), value.value())?, shown);
            }
            Ok(folded)
        })
        .await
    }

    /// One session.
    pub(crate) async fn session(&self, session: SessionId) -> Result<Option<SessionRow>, StoreError> {
        self.read(move |read| {
            let tables = SessionTables::open(read)?;
            let value = tables.sessions.get(session.as_bytes())?;
            value.map(|value| tables.row(session.as_bytes(), value.value())).transpose()
        })
        .await
    }

    /// Sessions whose successor is still being opened.
    pub(crate) async fn pending_handovers(&self) -> Result<Vec<SessionId>, StoreError> {
        self.read(|read| {
            let mut pending = Vec::new();
            for entry in read.open_table(HANDOVERS)?.iter()? {
                let (key, value) = entry?;
                if unpack::<Handover>("handover", value.value())?.stage == Stage::Pending {
                    pending.push(SessionId::from_bytes(*key.value()));
                }
            }
            Ok(pending)
        })
        .await
    }

    /// The token that opened a session; none if the owner did, or there is no such session.
    pub(crate) async fn opener(&self, session: SessionId) -> Result<Option<String>, StoreError> {
        self.read(move |read| Ok(read.open_table(OPENERS)?.get(session.as_bytes())?.map(|token| token.value().to_owned()))).await
    }

    /// The sessions that a token opened.
    pub(crate) async fn opened_by(&self, token: String) -> Result<Vec<(SessionId, SessionFacts)>, StoreError> {
        self.read(move |read| {
            let (sessions, mut found) = (read.open_table(SESSIONS)?, Vec::new());
            for entry in read.open_table(OPENERS)?.iter()? {
                let (key, opener) = entry?;
                if opener.value() == token
                    && let Some(facts) = get(&sessions, "session", key.value())?
                {
                    found.push((SessionId::from_bytes(*key.value()), facts));
                }
            }
            Ok(found)
        })
        .await
    }

    /// The records of a session, in order.
    pub(crate) async fn records(&self, session: SessionId) -> Result<Vec<AgentRecord>, StoreError> {
        self.read(move |read| {
            let id = session.as_bytes();
            let mut records = Vec::new();
            for entry in read.open_table(RECORDS)?.range((id, 0)..=(id, u64::MAX))? {
                records.push(unpack("record", entry?.1.value())?);
            }
            Ok(records)
        })
        .await
    }

    /// One run.
    pub(crate) async fn execution(&self, execution: ExecutionId) -> Result<Option<ExecutionRow>, StoreError> {
        self.read(move |read| get(&read.open_table(EXECUTIONS)?, "execution", execution.as_bytes())).await
    }

    /// The newest runs of a session before one, newest first, and how many there are in all.
    pub(crate) async fn executions_of(
        &self,
        session: SessionId,
        before: Option<ExecutionId>,
        limit: usize,
    ) -> Result<(Vec<(ExecutionId, ExecutionRow)>, usize), StoreError> {
        self.read(move |read| {
            let rows = read.open_table(EXECUTIONS)?;
            let (mut found, mut all) = (Vec::new(), 0_usize);
            for entry in read.open_table(SESSION_EXECUTIONS)?.range(runs_of(session.as_bytes()))?.rev() {
                all = all.saturating_add(1);
                let (key, _) = entry?;
                let execution = key.value().1;
                if found.len() < limit
                    && before.is_none_or(|before| execution < before.as_bytes())
                    && let Some(row) = get(&rows, "execution", execution)?
                {
                    found.push((ExecutionId::from_bytes(*execution), row));
                }
            }
            Ok((found, all))
        })
        .await
    }

    /// The runs of a session that were not over when their row was written.
    pub(crate) async fn unfinished_of(&self, session: SessionId) -> Result<BTreeMap<ExecutionId, ExecutionRow>, StoreError> {
        self.runs_that(session, |row| !row.is_over()).await
    }

    /// The runs of a session that were given up before they had a final receipt.
    pub(crate) async fn abandoned_of(&self, session: SessionId) -> Result<BTreeMap<ExecutionId, ExecutionRow>, StoreError> {
        self.runs_that(session, ExecutionRow::is_abandoned).await
    }

    async fn runs_that(
        &self,
        session: SessionId,
        take: fn(&ExecutionRow) -> bool,
    ) -> Result<BTreeMap<ExecutionId, ExecutionRow>, StoreError> {
        self.read(move |read| {
            let rows = read.open_table(EXECUTIONS)?;
            let mut found = BTreeMap::new();
            for entry in read.open_table(SESSION_EXECUTIONS)?.range(runs_of(session.as_bytes()))? {
                let (key, _) = entry?;
                let execution = key.value().1;
                if let Some(row) = get::<ExecutionRow>(&rows, "execution", execution)?.filter(take) {
                    found.insert(ExecutionId::from_bytes(*execution), row);
                }
            }
            Ok(found)
        })
        .await
    }

    /// The end of a run's output.
    pub(crate) async fn output(&self, execution: ExecutionId) -> Result<Option<OutputTail>, StoreError> {
        self.read(move |read| get(&read.open_table(OUTPUTS)?, "output", execution.as_bytes())).await
    }

    /// Those of these runs whose output is not kept here.
    pub(crate) async fn without_output(&self, executions: Vec<ExecutionId>) -> Result<Vec<ExecutionId>, StoreError> {
        self.read(move |read| {
            let table = read.open_table(OUTPUTS)?;
            let mut without = Vec::new();
            for execution in executions {
                if table.get(execution.as_bytes())?.is_none() {
                    without.push(execution);
                }
            }
            Ok(without)
        })
        .await
    }

    /// A request that was made under this key.
    pub(crate) async fn key(&self, key: Vec<u8>) -> Result<Option<KeyRow>, StoreError> {
        self.read(move |read| {
            let table = read.open_table(KEYS)?;
            let value = table.get(key.as_slice())?;
            value.map(|value| unpack("idempotency", value.value())).transpose()
        })
        .await
    }

    /// Under which id settlement was asked for a ceiling.
    pub(crate) async fn reservation(&self, session: SessionId, ceiling: Usdc) -> Result<Option<RequestId>, StoreError> {
        self.read(move |read| {
            let table = read.open_table(RESERVATIONS)?;
            let value = table.get((session.as_bytes(), ceiling.micros()))?;
            Ok(value.map(|value| RequestId::from_bytes(*value.value())))
        })
        .await
    }

    /// Sessions that are over, whose reservation is still to be given back.
    pub(crate) async fn releases(&self) -> Result<Vec<SessionId>, StoreError> {
        self.read(|read| {
            let table = read.open_table(RELEASES)?;
            let sessions = table.iter()?.map(|entry| Ok(SessionId::from_bytes(*entry?.0.value())));
            sessions.collect()
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&ReadTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.0.database);
        let done = brief(move || job(&database.begin_read().map_err(|error| Failure::Database(error.into()))?));
        match done.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Database(error))) => Err(StoreError::Read(error.to_string())),
            Ok(Err(Failure::Value(error))) => Err(error),
            Err(error) => Err(StoreError::Read(error.to_string())),
        }
    }
}

type Values = ReadOnlyTable<&'static Id, &'static [u8]>;

/// Where everything about sessions is.
struct SessionTables {
    sessions: Values,
    plans: Values,
    handovers: Values,
}

impl SessionTables {
    fn open(read: &ReadTransaction) -> Result<Self, Failure> {
        Ok(Self { sessions: read.open_table(SESSIONS)?, plans: read.open_table(PLANS)?, handovers: read.open_table(HANDOVERS)? })
    }

    fn row(&self, id: &Id, facts: &[u8]) -> Result<SessionRow, Failure> {
        // A session of an earlier version has no plan, and wants nothing special.
        let plan = get(&self.plans, "plan", id)?.unwrap_or_default();
        Ok(SessionRow { facts: unpack("session", facts)?, plan, handover: get(&self.handovers, "handover", id)? })
    }
}

/// The keys of all runs of a session.
fn runs_of(session: &Id) -> RangeInclusive<(&Id, &Id)> {
    (session, &[0; 16])..=(session, &[255; 16])
}

/// Why a read failed: the database, or a value in it.
enum Failure {
    Database(redb::Error),
    Value(StoreError),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static Id, &'static [u8]>,
    name: &'static str,
    id: &Id,
) -> Result<Option<T>, Failure> {
    let value = table.get(id)?;
    value.map(|value| unpack(name, value.value())).transpose()
}

fn pack<T: Serialize>(table: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    bytes.extend(codec::encode(value).map_err(|error| unusable(table, &error))?);
    Ok(bytes)
}

fn unpack<T: DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, Failure> {
    let value = match bytes.split_first() {
        Some((&VERSION, rest)) => codec::decode(rest, VALUE_LIMIT_BYTES).map_err(|error| unusable(table, &error)),
        Some((version, _)) => Err(StoreError::Value { table, reason: format!("its layout {version} is not known to this program") }),
        None => Err(StoreError::Value { table, reason: "it is empty".to_owned() }),
    };
    value.map_err(Failure::Value)
}

fn unusable(table: &'static str, error: &CodecError) -> StoreError {
    StoreError::Value { table, reason: error.to_string() }
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(RECORDS)?;
    write.open_table(SESSIONS)?;
    write.open_table(EXECUTIONS)?;
    write.open_table(SESSION_EXECUTIONS)?;
    write.open_table(OUTPUTS)?;
    write.open_table(KEYS)?;
    write.open_table(RESERVATIONS)?;
    write.open_table(RELEASES)?;
    write.open_table(MEASURES)?;
    write.open_table(PLANS)?;
    write.open_table(OPENERS)?;
    write.open_table(HANDOVERS)?;
    Ok(write.commit()?)
}

/// The writer: takes what waits, commits it together, says so to each.
fn apply(write: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Record { session, seq, value } => {
            write.open_table(RECORDS)?.insert((session, *seq), value.as_slice())?;
        }
        Change::Session { session, value } => {
            write.open_table(SESSIONS)?.insert(session, value.as_slice())?;
        }
        Change::Measures { session, value } => {
            write.open_table(MEASURES)?.insert(session, value.as_slice())?;
        }
        Change::Opener { session, token } => {
            write.open_table(OPENERS)?.insert(session, token.as_str())?;
        }
        Change::Plan { session, value } => {
            write.open_table(PLANS)?.insert(session, value.as_slice())?;
        }
        Change::Handover { session, value } => {
            write.open_table(HANDOVERS)?.insert(session, value.as_slice())?;
        }
        Change::Execution { execution, session, value } => {
            write.open_table(EXECUTIONS)?.insert(execution, value.as_slice())?;
            write.open_table(SESSION_EXECUTIONS)?.insert((session, execution), ())?;
        }
        Change::Output { execution, value } => {
            write.open_table(OUTPUTS)?.insert(execution, value.as_slice())?;
        }
        Change::Key { key, value } => {
            write.open_table(KEYS)?.insert(key.as_slice(), value.as_slice())?;
        }
        Change::ForgetKey { key } => {
            write.open_table(KEYS)?.remove(key.as_slice())?;
        }
        Change::ForgetKeysBefore { now } => {
            // One that cannot be read any more is of no use either.
            let is_current = |value: &[u8]| unpack::<KeyRow>("idempotency", value).is_ok_and(|row| row.until > *now);
            write.open_table(KEYS)?.retain(|_, value| is_current(value))?;
        }
        Change::Reservation { session, ceiling, request } => {
            write.open_table(RESERVATIONS)?.insert((session, *ceiling), request)?;
        }
        Change::Release { session, is_owed: true } => {
            write.open_table(RELEASES)?.insert(session, ())?;
        }
        Change::Release { session, is_owed: false } => {
            write.open_table(RELEASES)?.remove(session)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod crashes;

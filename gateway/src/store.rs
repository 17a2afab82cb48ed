//! The gateway's memory on disk: records of session machines, and the rows of [`crate::rows`].
//!
//! Always true: [`Store::write`] returns when everything it was given is durable, all of it or nothing; writes that come at the same time share one commit. After one failed commit every
//! later write fails too, because what is on disk is then unknown: the process has to stop.
//!
//! It does not know what a record means.

mod put;
mod tables;
mod writer;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use orien_bootstrap::brief;
use orien_protocol::id::{ExecutionId, RequestId, SessionId};
use orien_protocol::money::Usdc;
use orien_protocol::session::agent::AgentRecord;
pub(crate) use redb::StorageBackend;
use redb::{Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::experience::Measures;
use crate::plan::{Handover, Stage};
use crate::rows::{ExecutionRow, KeyRow, OutputTail, SessionFacts, SessionRow};
pub(crate) use put::Put;
use tables::{
    EXECUTIONS, Failure, HANDOVERS, Id, KEYS, MEASURES, OPENERS, OUTPUTS, PLANS, RECORDS, RELEASES, RESERVATIONS, SESSION_EXECUTIONS,
    SESSIONS, get, make_tables, unpack,
};
use writer::Writer;

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

#[cfg(test)]
mod tests;

#[cfg(test)]
mod crashes;

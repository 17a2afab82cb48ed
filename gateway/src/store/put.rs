//! What can be written.

use orien_protocol::id::{ExecutionId, RequestId, SessionId};
use orien_protocol::money::Usdc;
use orien_protocol::session::agent::AgentRecord;
use orien_protocol::time::UnixSeconds;
use redb::WriteTransaction;

use super::StoreError;
use super::tables::{
    EXECUTIONS, HANDOVERS, Id, KEYS, MEASURES, OPENERS, OUTPUTS, PLANS, RECORDS, RELEASES, RESERVATIONS, SESSION_EXECUTIONS, SESSIONS,
    pack, unpack,
};
use crate::experience::Measures;
use crate::plan::{Handover, Plan};
use crate::rows::{ExecutionRow, KeyRow, OutputTail, SessionFacts};

/// One change. A list of them is written as a whole.
#[derive(Debug)]
pub(crate) struct Put(pub(super) Change);

#[derive(Debug)]
pub(super) enum Change {
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

/// Makes a change within a commit.
pub(super) fn apply(write: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
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

//! The tables, and how a value lies in them.
//!
//! Always true: every value begins with the number of its layout, and one that this program does not know is an error and never a guess.

use orien_protocol::codec::{self, CodecError, VALUE_LIMIT_BYTES};
use redb::{Database, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

pub(super) type Id = [u8; 16];

pub(super) const RECORDS: TableDefinition<'_, (&Id, u64), &[u8]> = TableDefinition::new("records");
pub(super) const SESSIONS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("sessions");
pub(super) const EXECUTIONS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("executions");
pub(super) const SESSION_EXECUTIONS: TableDefinition<'_, (&Id, &Id), ()> = TableDefinition::new("session_executions");
pub(super) const OUTPUTS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("outputs");
pub(super) const KEYS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("idempotency");
pub(super) const RESERVATIONS: TableDefinition<'_, (&Id, u64), &Id> = TableDefinition::new("reservations");
/// Sessions that are over and may still have something reserved.
pub(super) const RELEASES: TableDefinition<'_, &Id, ()> = TableDefinition::new("releases");

/// What sessions that are over show about their providers.
pub(super) const MEASURES: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("measures");

/// What is wanted of a session, and what was decided about it.
pub(super) const PLANS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("plans");
/// Sessions that go on elsewhere.
pub(super) const HANDOVERS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("handovers");

/// Which token opened a session; the owner's are not in it.
pub(super) const OPENERS: TableDefinition<'_, &Id, &str> = TableDefinition::new("openers");

/// First byte of every stored value: the layout of what follows.
pub(super) const VERSION: u8 = 1;

pub(super) fn make_tables(database: &Database) -> Result<(), redb::Error> {
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

/// Why a read failed: the database, or a value in it.
pub(super) enum Failure {
    Database(redb::Error),
    Value(StoreError),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

pub(super) fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static Id, &'static [u8]>,
    name: &'static str,
    id: &Id,
) -> Result<Option<T>, Failure> {
    let value = table.get(id)?;
    value.map(|value| unpack(name, value.value())).transpose()
}

pub(super) fn pack<T: Serialize>(table: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    bytes.extend(codec::encode(value).map_err(|error| unusable(table, &error))?);
    Ok(bytes)
}

pub(super) fn unpack<T: DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, Failure> {
    let value = match bytes.split_first() {
        Some((&VERSION, rest)) => codec::decode(rest, VALUE_LIMIT_BYTES).map_err(|error| unusable(table, &error)),
        Some((version, _)) => Err(StoreError::Value { table, reason: format!("its layout {version} is not known to this program") }),
        None => Err(StoreError::Value { table, reason: "it is empty".to_owned() }),
    };
    value.map_err(Failure::Value)
}

pub(super) fn unusable(table: &'static str, error: &CodecError) -> StoreError {
    StoreError::Value { table, reason: error.to_string() }
}

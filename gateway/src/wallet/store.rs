//! What the chain said of our channels, in a file of its own: all of it can be read again from the chain, and none of it decides about money that is promised.
//!
//! Always true: a change is one durable transaction.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use orien_chain::TxHash;
use orien_protocol::channel::{Channel, ChannelId};
use orien_protocol::codec::{self, VALUE_LIMIT_BYTES};
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::time::UnixSeconds;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

type Id = [u8; 16];

/// Session to version and [`ChannelRow`].
const CHANNELS: TableDefinition<'_, &Id, &[u8]> = TableDefinition::new("channels");
/// Sessions whose channels can still change.
const LIVE: TableDefinition<'_, &Id, ()> = TableDefinition::new("live");
/// Channel to session.
const SESSIONS: TableDefinition<'_, &[u8; 32], &Id> = TableDefinition::new("sessions");
/// Name to number.
const MARKS: TableDefinition<'_, &str, u64> = TableDefinition::new("marks");
/// The last block whose logs were read.
const READ_TO: &str = "read_to";

/// First byte of every stored value.
const VERSION: u8 = 1;

/// The last redemption of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Redemption {
    /// The time of its block.
    pub(crate) at: UnixSeconds,
    /// The transaction.
    pub(crate) transaction: TxHash,
}

/// What is known of the channel of a session, of a final block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChannelRow {
    pub(crate) channel: Channel,
    pub(crate) redeem_until: UnixSeconds,
    pub(crate) redeemed: Usdc,
    pub(crate) locked: Usdc,
    pub(crate) closed: bool,
    pub(crate) last: Option<Redemption>,
}

/// The store; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct WalletStore {
    database: Arc<Database>,
}

impl WalletStore {
    /// Opens or makes the file.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let refused = |reason: String| StoreError::Open { path: path.display().to_string(), reason };
        let database = orien_bootstrap::open_database(&Database::builder(), path).map_err(|error| refused(error.to_string()))?;
        let make = || -> Result<(), redb::Error> {
            let write = database.begin_write()?;
            write.open_table(CHANNELS)?;
            write.open_table(LIVE)?;
            write.open_table(SESSIONS)?;
            write.open_table(MARKS)?;
            Ok(write.commit()?)
        };
        make().map_err(|error| refused(error.to_string()))?;
        Ok(Self { database: Arc::new(database) })
    }

    /// A session's channel from now on; one that is known stays as it is.
    pub(crate) async fn add(&self, session: SessionId, row: ChannelRow) -> Result<(), StoreError> {
        let value = pack(&row)?;
        self.work(move |database| {
            let write = database.begin_write()?;
            {
                let mut channels = write.open_table(CHANNELS)?;
                if channels.get(session.as_bytes())?.is_none() {
                    channels.insert(session.as_bytes(), value.as_slice())?;
                    write.open_table(LIVE)?.insert(session.as_bytes(), ())?;
                    write.open_table(SESSIONS)?.insert(row.channel.id().hash().as_bytes(), session.as_bytes())?;
                }
            }
            Ok(write.commit()?)
        })
        .await
    }

    /// Channels that can still change.
    pub(crate) async fn live(&self) -> Result<Vec<(SessionId, ChannelRow)>, StoreError> {
        let found = self.work(|database| {
            let read = database.begin_read()?;
            let (channels, mut found) = (read.open_table(CHANNELS)?, Vec::new());
            for entry in read.open_table(LIVE)?.iter()? {
                let session = *entry?.0.value();
                if let Some(value) = channels.get(&session)? {
                    found.push((SessionId::from_bytes(session), value.value().to_vec()));
                }
            }
            Ok(found)
        });
        found.await?.into_iter().map(|(session, value)| Ok((session, unpack(&value)?))).collect()
    }

    /// What is known of the channels of these sessions.
    pub(crate) async fn find(&self, sessions: Vec<SessionId>) -> Result<BTreeMap<SessionId, ChannelRow>, StoreError> {
        let found = self.work(move |database| {
            let read = database.begin_read()?;
            let (channels, mut found) = (read.open_table(CHANNELS)?, Vec::new());
            for session in sessions {
                if let Some(value) = channels.get(session.as_bytes())? {
                    found.push((session, value.value().to_vec()));
                }
            }
            Ok(found)
        });
        found.await?.into_iter().map(|(session, value)| Ok((session, unpack(&value)?))).collect()
    }

    /// The session of a channel.
    pub(crate) async fn session_of(&self, channel: ChannelId) -> Result<Option<SessionId>, StoreError> {
        self.work(move |database| {
            let session = database.begin_read()?.open_table(SESSIONS)?.get(channel.hash().as_bytes())?.map(|id| *id.value());
            Ok(session.map(SessionId::from_bytes))
        })
        .await
    }

    /// The last block whose logs were read; none before the first time.
    pub(crate) async fn read_to(&self) -> Result<Option<u64>, StoreError> {
        self.work(|database| Ok(database.begin_read()?.open_table(MARKS)?.get(READ_TO)?.map(|block| block.value()))).await
    }

    /// Keeps what was seen: each channel, whether it can still change, and the last block whose logs are in it.
    pub(crate) async fn keep(&self, seen: Vec<(SessionId, ChannelRow, bool)>, read_to: Option<u64>) -> Result<(), StoreError> {
        let seen: Vec<(SessionId, Vec<u8>, bool)> =
            seen.into_iter().map(|(session, row, live)| Ok((session, pack(&row)?, live))).collect::<Result<_, StoreError>>()?;
        self.work(move |database| {
            let write = database.begin_write()?;
            {
                let (mut channels, mut live) = (write.open_table(CHANNELS)?, write.open_table(LIVE)?);
                for (session, value, is_live) in seen {
                    channels.insert(session.as_bytes(), value.as_slice())?;
                    if !is_live {
                        live.remove(session.as_bytes())?;
                    }
                }
                if let Some(block) = read_to {
                    write.open_table(MARKS)?.insert(READ_TO, block)?;
                }
            }
            Ok(write.commit()?)
        })
        .await
    }

    async fn work<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    {
        let database = Arc::clone(&self.database);
        let done = tokio::task::spawn_blocking(move || job(&database)).await;
        done.map_err(|error| StoreError::Write(error.to_string()))?.map_err(|error| StoreError::Write(error.to_string()))
    }
}

fn unusable(reason: impl std::fmt::Display) -> StoreError {
    StoreError::Value { table: "channel", reason: reason.to_string() }
}

fn pack(row: &ChannelRow) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    bytes.extend(codec::encode(row).map_err(unusable)?);
    Ok(bytes)
}

fn unpack(bytes: &[u8]) -> Result<ChannelRow, StoreError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => codec::decode(rest, VALUE_LIMIT_BYTES).map_err(unusable),
        Some((version, _)) => Err(unusable(format_args!("its layout {version} is not known to this program"))),
        None => Err(unusable("it is empty")),
    }
}

//! The one transaction that is on its way to the chain.

use redb::TableDefinition;

use super::{Store, StoreError, decode, encode};
use crate::chain::Outgoing;

/// The transaction that is on its way, under one name; nothing while there is none. All its forms together are below half a megabyte.
pub(super) const OUTBOX: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("outbox");
const ONLY: &str = "outgoing";

impl Store {
    /// The transaction that is on its way.
    pub(crate) async fn outgoing(&self) -> Result<Option<Outgoing>, StoreError> {
        self.view(|transaction| {
            let table = transaction.open_table(OUTBOX)?;
            let value = table.get(ONLY)?;
            value.map(|value| decode(value.value())).transpose()
        })
        .await
    }

    /// Keeps the transaction that is on its way as it stands now, or that there is none any more. It is on disk when this returns.
    pub(crate) async fn set_outgoing(&self, outgoing: Option<Outgoing>) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(OUTBOX)?;
            match outgoing {
                Some(outgoing) => table.insert(ONLY, encode(&outgoing)?.as_slice())?,
                None => table.remove(ONLY)?,
            };
            Ok(())
        })
        .await
    }
}

//! Opens a database, or makes it, so that a process killed while it made one finds nothing in its way when it starts again.
//!
//! Always true: only a file that cannot ever have held anything is made anew. redb writes the first bytes of its header last, when everything else of an empty database is
//! synced; what has a part of them at most, and nothing behind the header, was never finished. Anything else is left as it is, and refused.

use std::fs::OpenOptions;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

/// What every finished redb database begins with.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// redb's header has a page of its own; an empty database has nothing behind it.
const HEADER_BYTES: u64 = 4096;
/// Read at once.
const CHUNK_BYTES: u64 = 64 * 1024;

/// Opens or makes the database in a file.
pub fn open_database(builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    open_database_over(builder, FileBackend::new(file)?)
}

/// Opens or makes it on any storage.
pub fn open_database_over(builder: &Builder, storage: impl StorageBackend) -> Result<Database, DatabaseError> {
    if is_unfinished(&storage)? {
        tracing::warn!("a database whose making was cut off is made anew; it never held anything");
        storage.set_len(0)?;
    }
    builder.create_with_backend(storage)
}

fn is_unfinished(storage: &impl StorageBackend) -> Result<bool, std::io::Error> {
    let length = storage.len()?;
    let mut first = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(MAGIC.len())];
    storage.read(0, &mut first)?;
    let is_begun = first.iter().zip(MAGIC).all(|(found, written)| *found == 0 || *found == written);
    if length == 0 || first == MAGIC || !is_begun {
        return Ok(false);
    }
    let mut from = HEADER_BYTES.min(length);
    while from < length {
        let to = from.saturating_add(CHUNK_BYTES).min(length);
        let mut chunk = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
        storage.read(from, &mut chunk)?;
        if chunk.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        from = to;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use redb::{ReadableDatabase, TableDefinition};

    use super::*;
    use crate::store::faulty::FaultyDisk;

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("t");

    fn commit(database: &Database) -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        write.open_table(TABLE)?.insert(1, 2)?;
        Ok(write.commit()?)
    }

    fn held(database: &Database) -> Option<u64> {
        let read = database.begin_read().unwrap();
        read.open_table(TABLE).ok().and_then(|table| table.get(1).unwrap().map(|value| value.value()))
    }

    #[test]
    fn a_database_opens_wherever_its_making_was_cut_off_and_keeps_what_was_committed() {
        let disk = FaultyDisk::default();
        let database = open_database_over(&Builder::new(), disk.clone()).unwrap();
        commit(&database).unwrap();
        let (mut anew, operations) = (0, disk.operations());
        for (operation, seed) in (0..operations).flat_map(|operation| (0..40).map(move |seed| (operation, seed))) {
            let disk = FaultyDisk::default();
            disk.cut_at(operation, seed);
            let made = open_database_over(&Builder::new(), disk.clone());
            assert!(made.map_err(redb::Error::from).and_then(|database| commit(&database)).is_err());
            let disk = FaultyDisk::holding(disk.left(seed));
            anew += u32::from(is_unfinished(&disk).unwrap());
            let database = open_database_over(&Builder::new(), disk).unwrap_or_else(|error| panic!("{operation} {seed}: {error}"));
            assert!([None, Some(2)].contains(&held(&database)));
        }
        assert!(anew > 0, "none was cut off before it was made");
        let left = disk.left(0);
        assert_eq!(held(&open_database_over(&Builder::new(), FaultyDisk::holding(left)).unwrap()), Some(2));
    }

    #[test]
    fn what_may_have_held_something_is_refused_and_left_as_it_is() {
        let disk = FaultyDisk::default();
        commit(&open_database_over(&Builder::new(), disk.clone()).unwrap()).unwrap();
        let mut damaged = disk.left(0);
        damaged[..512].fill(0);
        let text = b"redb notes".to_vec();
        for image in [damaged, text] {
            let disk = FaultyDisk::holding(image.clone());
            assert!(open_database_over(&Builder::new(), disk.clone()).is_err());
            assert_eq!(disk.left(0), image);
        }
    }

    #[test]
    fn a_file_is_opened_as_it_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        std::fs::write(&path, [0; 8192]).unwrap();
        commit(&open_database(&Builder::new(), &path).unwrap()).unwrap();
        assert_eq!(held(&open_database(&Builder::new(), &path).unwrap()), Some(2));
    }
}
